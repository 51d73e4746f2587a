"""Each fault that a verifier must find, planted for real: other keys, lost referrers, other images, other verdicts."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner

from helix_lineage.attestations.dsse import BUNDLE_TYPE
from helix_lineage.attestations.trust import Trust
from helix_lineage.formats.canonical import dumps
from helix_lineage.paths import State
from model_to_metal.cli import verify as command
from model_to_metal.errors import RegistryError
from model_to_metal.host.process import run
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client, Image
from model_to_metal.supply_chain import attest, keys, provenance
from model_to_metal.supply_chain.verify import NAMES, VerificationReport, verify_image
from tests.model_to_metal.conftest import Chain

Push = Callable[[str], Image]
ChainOf = Callable[..., Any]


def check(state: State, client: Client, image: Image, *, at: datetime | None = None) -> VerificationReport:
    return verify_image(client, image, Trust.load(state.trust), state.tools / "cosign", at=at or datetime.now(UTC))


def failures(report: VerificationReport) -> dict[str, str]:
    return {item.name: item.detail for item in report.checks if not item.passed}


def sign(state: State, image: Image, made: Any) -> None:
    with Client(image.registry) as client:
        attest.attest_image(state, client, image, made.release, records=made.records, evidence=made.evidence)


def plant(state: State, image: Image, kind: str, predicate: object, *, about: str | None = None) -> None:
    """Sign any statement with the releaser's key and attach it, past every gate of ours."""
    said = provenance.statement(kind, predicate, name=image.repository, image=about or image.digest)
    folder = state.root / "planted"
    folder.mkdir(exist_ok=True)
    (folder / "statement.json").write_bytes(dumps(said))
    signer = keys.signer(state)
    cosign = state.tools / "cosign"
    run([cosign, "signing-config", "create", "--out", folder / "config.json"])
    run([cosign, "trusted-root", "create", "--out", folder / "root.json"])
    options = ["--key", signer.reference, "--signing-config", folder / "config.json"]
    options += ["--trusted-root", folder / "root.json", "--statement", folder / "statement.json"]
    run([cosign, "attest-blob", *options, "--bundle", folder / "bundle.json"], env=signer.environment())
    with Client(image.registry) as client:
        artifacts.attach_blob(client, image, BUNDLE_TYPE, (folder / "bundle.json").read_bytes(), {})


def detach(state: State, image: Image, kind: str) -> None:
    """Remove the attestations of one kind from the registry's files, as an attacker with its disk would."""
    with Client(image.registry) as client:
        rows = client.referrers(image.repository, image.digest, BUNDLE_TYPE)
    blobs = state.registry / image.repository / "blobs" / "sha256"
    for row in rows:
        if row["annotations"]["dev.sigstore.bundle.predicateType"] == kind:
            (blobs / row["digest"].removeprefix("sha256:")).unlink()


def test_an_attested_image_verifies(signing: State, client: Client, image: Image, signed: Chain) -> None:
    report = check(signing, client, image)
    assert failures(report) == {}
    assert [item.name for item in report.checks] == [
        "image",
        "signature",
        "provenance",
        "test result",
        "release",
        "chain",
        "verdicts",
        "dependencies",
    ]
    assert (report.to_json()["mode"], report.to_json()["promotion"]) == ("local", None)


def test_the_wrong_key_is_named(signing: State, client: Client, image: Image, signed: Chain) -> None:
    shutil.rmtree(signing.keys)
    keys.make(signing)
    found = failures(check(signing, client, image))
    assert set(found) == set(NAMES.values())
    assert all("not signed by a key that the trust root names" in detail for detail in found.values())


def test_a_key_that_is_out_of_date_is_named(signing: State, client: Client, image: Image, signed: Chain) -> None:
    found = failures(check(signing, client, image, at=datetime.now(UTC) + timedelta(days=400)))
    assert "no key of role 'releaser' that holds at" in found["signature"]


@pytest.mark.parametrize("kind", list(NAMES))
def test_a_missing_attestation_is_named(signing: State, client: Client, image: Image, signed: Chain, kind: str) -> None:
    detach(signing, image, kind)
    found = failures(check(signing, client, image))
    assert set(found) == {NAMES[kind]}
    assert f"the image has no {NAMES[kind]}" in found[NAMES[kind]]


def test_an_unsigned_image_fails_by_name(signing: State, client: Client, push: Push) -> None:
    found = failures(check(signing, client, push("one")))
    assert set(found) == set(NAMES.values())


def test_another_digest_is_not_the_one_that_was_signed(
    signing: State, client: Client, push: Push, chain_of: ChainOf
) -> None:
    image, other = push("one"), push("two")
    sign(signing, image, chain_of(image.digest))
    # All that was said about the first image, hung onto the second one.
    for _, bundle in list(artifacts.attached(client, image, BUNDLE_TYPE)):
        artifacts.attach_blob(client, other, BUNDLE_TYPE, bundle, {})
    found = failures(check(signing, client, other))
    assert set(found) == set(NAMES.values())
    assert all(detail.endswith(f"is about another digest: {image.digest}") for detail in found.values())


def test_a_digest_that_is_not_in_the_registry_is_named(signing: State, client: Client, push: Push) -> None:
    image = dataclasses.replace(push("one"), digest="sha256:" + "0" * 64)
    assert "holds no image of this digest" in failures(check(signing, client, image))["image"]


@pytest.mark.parametrize("gate", ["guard", "regression"])
def test_a_failed_verdict_is_named_even_when_it_was_signed(
    signing: State, client: Client, image: Image, chain_of: ChainOf, gate: str
) -> None:
    made = chain_of(image.digest, **{f"{gate}_passes": False})
    with Client(image.registry) as other:
        artifacts.attach_records(other, image, made.records, made.evidence)
    attest._ImageSigner(client, image, keys.signer(signing), Trust.load(signing.trust), signing.tools / "cosign").sign()
    for kind, predicate in provenance.predicates(made.release, made.records, made.evidence).items():
        plant(signing, image, kind, predicate)
    found = failures(check(signing, client, image))
    assert set(found) == {"chain", "verdicts"}
    assert f"{gate}.parameters.passed is not true" in found["chain"]
    assert found["verdicts"].startswith(f"the test result is FAILED: {gate}")


def test_a_test_result_that_the_verdicts_do_not_say_is_refused(
    signing: State, client: Client, image: Image, signed: Chain
) -> None:
    detach(signing, image, provenance.TEST_RESULT)
    plant(
        signing, image, provenance.TEST_RESULT, {"result": "PASSED", "configuration": [], "passedTests": ["trust me"]}
    )
    assert failures(check(signing, client, image)) == {
        "verdicts": "the test result is not what the verdicts of the release say"
    }


def test_a_provenance_that_hides_a_dependency_is_refused(
    signing: State, client: Client, image: Image, signed: Chain
) -> None:
    detach(signing, image, provenance.PROVENANCE)
    planted = provenance.provenance(signed.release, signed.records, signed.evidence)
    found = planted["buildDefinition"]["resolvedDependencies"]
    planted["buildDefinition"]["resolvedDependencies"] = [item for item in found if "numpy" not in item["name"]]
    plant(signing, image, provenance.PROVENANCE, planted)
    detail = failures(check(signing, client, image))["dependencies"]
    assert "dependencies differ" in detail
    assert "numpy-2.0.0-py3-none-any.whl" in detail


def test_records_without_their_locks_cannot_be_checked(
    signing: State, client: Client, image: Image, signed: Chain
) -> None:
    (row,) = client.referrers(image.repository, image.digest, artifacts.RECORD_SET_TYPE)
    (signing.registry / image.repository / "blobs/sha256" / row["digest"].removeprefix("sha256:")).unlink()
    assert "the evidence lacks" in failures(check(signing, client, image))["dependencies"]


def test_an_attestation_does_not_count_as_the_signature(
    signing: State, client: Client, image: Image, signed: Chain
) -> None:
    detach(signing, image, provenance.SIGNATURE)
    # cosign takes any statement by the key for a signature of the image; we do not.
    run(
        [
            signing.tools / "cosign",
            "verify",
            "--key",
            signing.keys / "releaser.pub",
            "--insecure-ignore-tlog",
            str(image),
        ]
    )
    assert set(failures(check(signing, client, image))) == {"signature"}


@pytest.mark.parametrize("part", ["config", "layer"])
def test_a_changed_or_lost_blob_is_named(
    signing: State, client: Client, image: Image, signed: Chain, part: str
) -> None:
    manifest = json.loads(client.manifest(image.repository, image.digest) or b"")
    digest = (manifest["config"] if part == "config" else manifest["layers"][0])["digest"]
    blob = signing.registry / image.repository / "blobs/sha256" / digest.removeprefix("sha256:")
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert f"does not match its digest and size ({digest})" in failures(check(signing, client, image))["image"]
    blob.unlink()
    assert f"absent from the registry ({digest})" in failures(check(signing, client, image))["image"]


def test_any_byte_of_the_image_in_the_registry_counts(
    signing: State, client: Client, image: Image, signed: Chain
) -> None:
    """Manifest, configuration and layer, a byte in seven; with the command's own function, on the registry's files."""
    manifest = json.loads(client.manifest(image.repository, image.digest) or b"")
    for digest in (image.digest, manifest["config"]["digest"], manifest["layers"][0]["digest"]):
        blob = signing.registry / image.repository / "blobs/sha256" / digest.removeprefix("sha256:")
        whole = blob.read_bytes()
        for at in range(0, len(whole), 7):
            blob.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            found = failures(check(signing, client, image))
            assert set(found) == {"image"}
            assert digest in found["image"]
        blob.write_bytes(whole)
    assert failures(check(signing, client, image)) == {}


def test_a_list_of_referrers_that_makes_no_sense_is_an_error_of_ours(client: Client, image: Image) -> None:
    """The registry answers with a blob of somebody's where a list should be."""
    for junk in (b"[]", b"\xff", b'{"manifests": [1]}', b'{"manifests": {"a": 1}}'):
        answer = httpx.Response(200, content=junk, request=httpx.Request("GET", "http://registry"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client, "_send", lambda *_, answer=answer: answer)
            with pytest.raises(RegistryError, match="list of referrers cannot be read"):
                client.referrers(image.repository, image.digest)


def test_strangers_may_attach_junk_without_effect(signing: State, client: Client, image: Image, signed: Chain) -> None:
    for junk in (b"", b"{}", b"\xff", b'{"mediaType": 1}'):
        artifacts.attach_blob(client, image, BUNDLE_TYPE, junk, {})
        artifacts.attach_blob(client, image, artifacts.RECORD_SET_TYPE, junk, {})
    assert check(signing, client, image).passed


def test_a_second_release_of_the_image_does_not_shadow_the_first(
    signing: State, client: Client, image: Image, signed: Chain
) -> None:
    parameters = {**signed.release.parameters, "commit": "d" * 40}
    release = dataclasses.replace(signed.release, parameters=parameters)
    plant(
        signing,
        image,
        provenance.RELEASE,
        provenance.predicates(release, signed.records, signed.evidence)[provenance.RELEASE],
    )
    report = check(signing, client, image)
    assert report.passed
    assert report.release is not None
    assert report.release.release == signed.release


def test_the_command_needs_no_network_but_the_registry(
    signing: State, client: Client, image: Image, signed: Chain
) -> None:
    script = (
        "import typer; from model_to_metal.cli import verify\napp = typer.Typer(); app.add_typer(verify.app); app()"
    )
    # bubblewrap gives the process a network of its own with nothing but a loopback: it starts its own registry there.
    sandbox = ["bwrap", "--dev-bind", "/", "/", "--unshare-net", "--die-with-parent"]
    arguments = [sys.executable, "-c", script, "verify", f"{image.repository}@{image.digest}", "--json"]
    copy = State(signing.root.parent / "copy")
    shutil.copytree(signing.root, copy.root, symlinks=True)
    (copy.registry / ".server.json").unlink()
    environment = {**os.environ, "HELIX_STATE": str(copy.root)}
    done = subprocess.run([*sandbox, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"]


def test_the_command_says_mode_local_and_fails_with_status_1(
    signing: State, client: Client, image: Image, chain_of: ChainOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer()
    app.add_typer(command.app)
    monkeypatch.setenv("HELIX_STATE", str(signing.root))
    refused = CliRunner().invoke(app, ["verify", str(image)])
    assert (refused.exit_code, "NOT VERIFIED" in refused.output) == (1, True)
    sign(signing, image, chain_of(image.digest))
    trust = signing.root / "copied-trust.json"
    trust.write_bytes(signing.trust.read_bytes())
    accepted = CliRunner().invoke(app, ["verify", str(image), "--trust", str(trust)])
    assert accepted.exit_code == 0, accepted.output
    assert "mode local" in accepted.output
