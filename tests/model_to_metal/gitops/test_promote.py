from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from helix_lineage.attestations.promotion import verify_promotion
from helix_lineage.attestations.release import verify_release
from helix_lineage.attestations.trust import Trust
from helix_lineage.paths import State
from model_to_metal.errors import GitopsError, KeysError, PromotionRefused
from model_to_metal.gitops import layout, overlay, tree_rules
from model_to_metal.gitops.manifests import ManifestFault
from model_to_metal.gitops.policy import Denial, Denied
from model_to_metal.gitops.promote import PromotionContext, PromotionResult, carried, promote
from model_to_metal.gitops.render import Renderer, check_model
from model_to_metal.registry import artifacts
from model_to_metal.supply_chain import keys
from model_to_metal.supply_chain.cosign import CosignSigner
from tests.model_to_metal import promotion_world
from tests.model_to_metal.project import git
from tests.model_to_metal.promotion_world import MODEL, World

STAGING = "gitops/argocd/environments/staging/tiny"


@pytest.fixture
def world(promotable: World, tmp_path: Path) -> World:
    return promotion_world.copy(promotable, tmp_path)


def to_staging(world: World, name: str = "a", context: PromotionContext | None = None) -> PromotionResult:
    return promote(context or world.context(), world.bundles[name], MODEL, "staging")


def never(_payload: bytes) -> bytes:
    raise AssertionError("nothing is signed again")


def test_one_commit_on_a_branch_changes_the_models_folder_only(world: World, checkout_state: State) -> None:
    (world.root / "gitops/argocd/base/network.yaml").write_text("what the user works on")
    (world.root / "new.txt").write_text("not tracked")
    before = world.tree()
    renderer = Renderer.ready(checkout_state)
    seen: list[ManifestFault] = []

    def check(files: dict[str, bytes], environment: str, model: str) -> list[ManifestFault]:
        seen.extend(check_model(renderer, files, environment, model))
        return seen

    done = to_staging(world, context=world.context(check=check))
    assert seen == []
    assert world.tree() == before
    release = overlay.claimed_release(world.bundles["a"])
    assert done.branch == f"promote/staging/tiny/{release.digest[7:19]}"
    assert git(world.root, "rev-list", f"main..{done.branch}").split() == [done.commit]
    assert git(world.root, "diff", "--name-only", "main", str(done.branch)).split() == [
        f"{STAGING}/{name}" for name in ("kustomization.yaml", "promotion.sigstore.json", "release.sigstore.json")
    ]
    kustomization = git(world.root, "show", f"{done.branch}:{STAGING}/kustomization.yaml")
    assert f"digest: {release.parameters['image']}" in kustomization
    files = world.context().folder("staging", MODEL, done.commit)
    trust, now = Trust.load(world.state.trust), datetime.now(UTC)
    verified = verify_release(files["release.sigstore.json"], trust, image=None, at=now)
    found = verify_promotion(files["promotion.sigstore.json"], trust, verified, environment="staging", at=now)
    assert (found.promotion, found.generation, found.promotion.parents) == (
        done.promotion, 1, {"release": release.digest},
    )  # fmt: skip


def test_a_models_folder_holds_what_promote_writes_and_nothing_else(world: World) -> None:
    done = to_staging(world)
    files = dict(world.context().repository.files(done.commit, layout.ROOT))
    assert tree_rules.check(files) == []

    def rules(**changes: bytes | None) -> list[str]:
        """Rules that break when files of the model's folder are changed, added or (None) removed."""
        named = {f"{STAGING}/{name.replace('__', '.')}": data for name, data in changes.items()}
        spoilt = {path: data for path, data in {**files, **named}.items() if data is not None}
        return [fault.rule for fault in tree_rules.check_model(spoilt, "staging", MODEL)]

    assert rules() == []
    for name in ("kustomization__yaml", "release__sigstore__json", "promotion__sigstore__json"):
        assert rules(**{name: None}) == ["known-files"]
        assert rules(**{name: b""}) == ["written-by-promote"]
    assert rules(extra__yaml=b"") == ["known-files"]
    text = files[f"{STAGING}/kustomization.yaml"]
    assert rules(kustomization__yaml=text + b"\n") == ["written-by-promote"]
    assert rules(kustomization__yaml=text.replace(b"../_common", b"../../production/_common")) == ["written-by-promote"]
    # Another model's or environment's promotion, and one of another release.
    own = {path: data for path, data in files.items() if path.startswith(STAGING)}
    moved = {path.replace("/staging/", "/production/"): data for path, data in own.items()}
    assert len(tree_rules.check_model({**files, **moved}, "production", MODEL)) == 1
    assert rules(release__sigstore__json=world.bundles["b"]) == ["written-by-promote"]


def test_again_it_changes_nothing(world: World) -> None:
    first = to_staging(world)
    assert first.changed
    again = to_staging(world, context=world.context(sign=never))
    assert again == replace(first, changed=False)
    world.write("README.md", "main goes on, elsewhere")
    assert to_staging(world, context=world.context(sign=never)) == again
    git(world.root, "merge", "--quiet", "--no-edit", str(first.branch))
    merged = to_staging(world, context=world.context(sign=never))
    assert (merged.branch, merged.changed, merged.promotion) == (None, False, first.promotion)


def test_the_same_promotion_gives_the_same_bytes_whatever_the_users_settings(world: World, tmp_path: Path) -> None:
    first = to_staging(world)
    elsewhere = promotion_world.copy(world, tmp_path / "elsewhere")
    for name, value in {
        "user.name": "Somebody", "core.autocrlf": "true", "commit.gpgSign": "true", "i18n.commitEncoding": "latin1",
    }.items():  # fmt: skip
        git(elsewhere.root, "config", name, value)
    made = git(elsewhere.root, "show", "-s", "--format=%an <%ae> %at %ct", first.commit)
    released = overlay.claimed_release(world.bundles["a"]).parameters["commit"]
    time = git(world.root, "show", "-s", "--format=%ct", str(released))
    assert made == f"Helix <helix@helix.example> {time} {time}"
    # What the workflow does with a pull request: no key, the branch as it is, made again from main.
    assert to_staging(elsewhere, context=elsewhere.context(sign=never, writes=False)).commit == first.commit


@pytest.mark.parametrize("planted", ["kustomization.yaml", "release.sigstore.json", "promotion.sigstore.json", "more"])
def test_an_edited_proposal_is_found(world: World, planted: str) -> None:
    first = to_staging(world)
    git(world.root, "switch", "--quiet", str(first.branch))
    path = world.root / STAGING / planted
    path.write_text((path.read_text() if path.exists() else "") + "\n")
    git(world.root, "add", "--all")
    git(world.root, "commit", "--quiet", "--amend", "--no-edit")
    git(world.root, "switch", "--quiet", "main")
    with pytest.raises(PromotionRefused, match="made again the commit is"):
        to_staging(world, context=world.context(writes=False))
    mended = to_staging(world)
    assert mended.changed
    # A trailing newline leaves a bundle's meaning, and its signature: it is taken as it is.
    assert mended.commit == first.commit or planted == "promotion.sigstore.json"


def test_a_branch_that_somebody_has_checked_out_is_left_alone(world: World) -> None:
    first = to_staging(world)
    git(world.root, "switch", "--quiet", str(first.branch))
    git(world.root, "commit", "--quiet", "--amend", "--message", "mine now")
    with pytest.raises(GitopsError, match="checked out"):
        to_staging(world)
    git(world.root, "switch", "--quiet", "main")
    assert to_staging(world).changed


def test_a_branch_in_the_way_is_named(world: World) -> None:
    git(world.root, "branch", "promote")
    with pytest.raises(GitopsError, match=r"the branch cannot be moved: .*'refs/heads/promote' exists"):
        to_staging(world)


def test_a_date_may_be_given(world: World) -> None:
    done = to_staging(world, context=world.context(epoch=datetime(2026, 1, 2, tzinfo=UTC)))
    assert git(world.root, "show", "-s", "--format=%ct", done.commit) == "1767312000"


def test_generations_count_and_name_what_they_replace(world: World) -> None:
    first = to_staging(world)
    world.merge(first)
    second = to_staging(world, "b")
    assert second.promotion.parameters["generation"] == 2
    assert second.promotion.parents["previous"] == first.promotion.digest
    world.merge(second)
    third = to_staging(world, "a")
    assert third.promotion.parameters["generation"] == 3
    # A branch of the same name, from an older state of main, is made again.
    assert third.branch == first.branch
    assert git(world.root, "rev-parse", f"{third.branch}^") == git(world.root, "rev-parse", "main")


def test_production_wants_the_same_release_in_staging_first_and_no_laptop(world: World) -> None:
    def to_production(name: str = "a") -> PromotionResult:
        return promote(world.context(), world.bundles[name], MODEL, "production")

    with pytest.raises(PromotionRefused, match="does not take releases of the builder 'laptop', only of: github"):
        to_production()
    world.allow("production", "laptop")
    with pytest.raises(PromotionRefused, match="must run in staging first; nothing does"):
        to_production()
    world.merge(to_staging(world, "b"))
    with pytest.raises(PromotionRefused, match="must run in staging first, which runs sha256:"):
        to_production()
    done = to_production("b")
    assert set(world.context().repository.changed(done.commit)) == {
        f"gitops/argocd/environments/production/tiny/{name}"
        for name in (layout.KUSTOMIZATION, layout.PROMOTION, layout.RELEASE)
    }
    world.write(f"{STAGING}/promotion.sigstore.json", world.bundles["b"].decode())
    with pytest.raises(PromotionRefused, match="the promotion to staging does not verify"):
        to_production("b")


def test_an_environment_takes_only_the_builders_that_it_names(world: World) -> None:
    world.allow("staging")
    with pytest.raises(PromotionRefused, match="only of: nobody"):
        to_staging(world)


def test_a_release_that_does_not_verify_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(PromotionRefused, match="the release does not verify"):
        promote(world.context(), b"{}", MODEL, "staging")
    with pytest.raises(PromotionRefused, match="the release is of 'tiny', not of 'huge'"):
        promote(world.context(), world.bundles["a"], "huge", "staging")
    late = world.context(at=datetime(2040, 1, 1, tzinfo=UTC))
    with pytest.raises(PromotionRefused, match="that holds at 2040"):
        promote(late, world.bundles["a"], MODEL, "staging")
    assert git(world.root, "branch", "--list", "promote/*") == ""


def test_an_image_that_does_not_verify_in_the_registry_is_refused(world: World, tmp_path: Path) -> None:
    copy = State(tmp_path / "state")
    shutil.copytree(world.state.registry, copy.registry)
    (copy.registry / ".server.json").unlink()
    copy.tools.symlink_to(world.state.tools)
    image = str(overlay.claimed_release(world.bundles["a"]).parameters["image"])
    manifest = json.loads(world.client.manifest("helix/tiny", image) or b"")
    blob = copy.registry / "helix/tiny/blobs/sha256" / manifest["layers"][0]["digest"][7:]
    blob.write_bytes(b"other bytes")
    with artifacts.serving(copy, port=0) as address, type(world.client)(address) as client:
        with pytest.raises(PromotionRefused, match="the image does not verify: image: "):
            to_staging(world, context=world.context(client=client))
        assert git(world.root, "branch", "--list", "promote/*") == ""


def test_what_the_deny_list_holds_is_refused_by_release_and_by_image(world: World) -> None:
    bad = overlay.claimed_release(world.bundles["b"])
    image = str(bad.parameters["image"])
    listed = Denied().add(Denial(MODEL, bad.digest, image, "production", "p99 doubled"))
    world.write(layout.DENIED, listed.to_bytes().decode())
    with pytest.raises(PromotionRefused, match=r"this release is denied: it was rolled back in production \(p99"):
        to_staging(world, "b")
    with pytest.raises(PromotionRefused, match="the image of this release is denied"):
        to_staging(world, "b2")
    assert to_staging(world, "a").changed


@pytest.mark.parametrize("planted", ["", "[]", '{"version": 2, "denied": []}', '{"version": 1, "denied": [{}]}'])
def test_a_deny_list_that_cannot_be_read_denies_all(world: World, planted: str) -> None:
    world.write(layout.DENIED, planted)
    with pytest.raises(GitopsError):
        to_staging(world)
    (world.root / layout.DENIED).unlink()
    git(world.root, "commit", "--quiet", "--all", "--message", "gone")
    with pytest.raises(GitopsError, match="no deny-list"):
        to_staging(world)


def test_unknown_environments_and_names_that_leave_the_folder(world: World) -> None:
    with pytest.raises(GitopsError, match="no environment is called 'prod'; there are: production, staging"):
        promote(world.context(), world.bundles["a"], MODEL, "prod")
    for name in ("../x", "", "A", "x/y", "-x", "_common", "x" * 41):
        with pytest.raises(GitopsError, match="not a name"):
            promote(world.context(), world.bundles["a"], MODEL, name)


def test_what_breaks_a_rule_is_not_proposed(world: World) -> None:
    fault = ManifestFault("StatefulSet/tiny-server", "no-token", "planted", "mend it")
    with pytest.raises(PromotionRefused, match="1 faults: no-token"):
        to_staging(world, context=world.context(check=lambda *_: [fault]))
    assert git(world.root, "branch", "--list", "promote/*") == ""


def test_a_promoter_who_is_not_trusted_proposes_nothing(world: World) -> None:
    releaser = world.context(sign=CosignSigner(world.state.tools / "cosign", keys.signer(world.state)).statement)
    with pytest.raises(GitopsError, match="the signed promotion does not verify"):
        to_staging(world, context=releaser)
    assert git(world.root, "branch", "--list", "promote/*") == ""


def test_a_release_of_a_commit_that_this_clone_lacks(world: World) -> None:
    git(world.root, "checkout", "--quiet", "--orphan", "other")
    git(world.root, "commit", "--quiet", "--message", "another history")
    git(world.root, "branch", "--quiet", "--force", "main", "other")
    git(world.root, "reflog", "expire", "--expire=now", "--all")
    git(world.root, "gc", "--quiet", "--prune=now")
    with pytest.raises(PromotionRefused, match="which this clone does not have") as caught:
        to_staging(world)
    assert caught.value.fix
    assert caught.value.fix.startswith("git fetch --all")


def test_the_release_that_an_image_carries(world: World) -> None:
    image = str(overlay.claimed_release(world.bundles["a"]).parameters["image"])
    assert carried(world.context(), MODEL, image) == world.bundles["a"]
    two = str(overlay.claimed_release(world.bundles["b"]).parameters["image"])
    with pytest.raises(PromotionRefused, match="carries 2 releases"):
        carried(world.context(), MODEL, two)
    with pytest.raises(PromotionRefused, match="no release that verifies"):
        carried(world.context(), MODEL, "sha256:" + "0" * 64)


def test_a_key_elsewhere_signs_when_the_trust_root_names_it(world: World) -> None:
    cosign, root, now = world.state.tools / "cosign", Trust.load(world.state.trust), datetime.now(UTC)
    reference = str(world.state.keys / "promoter.key")
    found = keys.elsewhere(reference, cosign, root, role=keys.PROMOTER, now=now)
    assert found == keys.signer(world.state, role=keys.PROMOTER)
    with pytest.raises(KeysError, match="does not name this promoter's key"):
        keys.elsewhere(str(world.state.keys / "releaser.key"), cosign, root, role=keys.PROMOTER, now=now)
    with pytest.raises(KeysError, match="cosign cannot read the promoter's key"):
        keys.elsewhere("awskms:///nothing", cosign, root, role=keys.PROMOTER, now=now)
