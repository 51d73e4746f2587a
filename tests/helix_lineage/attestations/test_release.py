from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.attestations.release import VerifiedRelease, claimed_release, complete_chain, verify_release
from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError, RecordError, TrustError
from helix_lineage.records.chain import ExportedModel, FirstRelease
from tests.helix_lineage.support import NOW, Chain, Signer, digest, make_chain

FIXTURES = Path(__file__).parents[1] / "fixtures"


def _verify(chain: Chain, signer: Signer, *, image: str | None = None, **changes: Any) -> VerifiedRelease:
    return verify_release(signer.bundle(chain.statement(**changes)), signer.trust(), image=image, at=NOW)


def test_a_whole_signed_release_verifies(chain: Chain, signer: Signer) -> None:
    verified = _verify(chain, signer, image=digest("image"))
    assert verified.release == chain.release
    assert set(verified.records) == set(chain.records)
    assert verified.statement_subject.name == "127.0.0.1:5070/helix/m"
    assert verified.key_id == signer.entry()["key_id"]
    assert verified.builder == "laptop"
    assert verified.parent("image", "model", "exported", "weights", "data") == chain.parts["data"]


def test_another_image_than_the_release_names(chain: Chain, signer: Signer) -> None:
    with pytest.raises(TrustError, match=r"running image .* is sha256:.*the release's image is"):
        _verify(chain, signer, image=digest("another"))


def test_a_subject_that_is_not_the_image(chain: Chain, signer: Signer) -> None:
    subject = {"name": "x", "digest": {"sha256": "0" * 64}}
    with pytest.raises(TrustError, match="the statement's subject is sha256:000"):
        _verify(chain, signer, subject=[subject])
    with pytest.raises(TrustError, match="2 subjects"):
        _verify(chain, signer, subject=[*chain.statement()["subject"], subject])


def test_a_wrong_key_and_a_key_whose_time_is_over(chain: Chain, signer: Signer) -> None:
    bundle = signer.bundle(chain.statement())
    with pytest.raises(TrustError, match="no signature is by a key of role 'releaser'"):
        verify_release(bundle, Signer().trust(), image=None, at=NOW)
    with pytest.raises(TrustError, match="that holds at 2031"):
        verify_release(bundle, signer.trust(), image=None, at=datetime(2031, 1, 1, tzinfo=UTC))
    promoter = Signer(key=signer.key, role="promoter")
    with pytest.raises(TrustError, match="no key of role 'releaser'"):
        verify_release(bundle, promoter.trust(), image=None, at=NOW)


def test_another_builder_than_the_key_names(chain: Chain, signer: Signer) -> None:
    ci = Signer(key=signer.key, builder="ci")
    with pytest.raises(TrustError, match=r"parameters\.builder is laptop, but the key's builder is ci"):
        verify_release(signer.bundle(chain.statement()), ci.trust(), image=None, at=NOW)


@pytest.mark.parametrize("role", ["image", "guard", "data", "weights", "exported", "engine", "regression"])
def test_a_missing_record_is_named(chain: Chain, signer: Signer, role: str) -> None:
    statement = chain.statement()
    del statement["predicate"]["records"][chain.parts[role].digest]
    with pytest.raises(RecordError, match=r"the chain is incomplete: release(\.\w+)*\.parents\.\w+ is missing"):
        verify_release(signer.bundle(statement), signer.trust(), image=None, at=NOW)


@pytest.mark.parametrize("verdict", ["guard", "regression"])
def test_a_refusal_is_no_release(signer: Signer, verdict: str) -> None:
    with pytest.raises(RecordError, match=rf"{verdict}\.parameters\.passed is not true"):
        _verify(make_chain(guard=verdict != "guard", regression=verdict != "regression"), signer)


def test_a_verdict_must_be_true_and_not_merely_something() -> None:
    chain = make_chain(guard="yes")
    with pytest.raises(RecordError, match=r"guard\.parameters\.passed"):
        complete_chain(chain.release, chain.records)


def test_a_record_under_another_digest(chain: Chain, signer: Signer) -> None:
    statement = chain.statement()
    records = statement["predicate"]["records"]
    records[chain.parts["data"].digest] = records[chain.parts["weights"].digest]
    with pytest.raises(RecordError, match="hashes to"):
        verify_release(signer.bundle(statement), signer.trust(), image=None, at=NOW)


def test_a_record_of_the_right_type_under_another_digest(chain: Chain) -> None:
    """A caller that did not hash the records itself is caught too."""
    guard = chain.parts["guard"]
    with pytest.raises(RecordError, match=r"release\.parents\.guard does not match its digest"):
        complete_chain(chain.release, {**chain.records, guard.digest: replace(guard, seed=1)})


def test_a_parent_of_the_wrong_type(chain: Chain) -> None:
    parents = {**chain.release.parents, "guard": chain.parts["data"].digest}
    release = replace(chain.release, parents=parents)
    with pytest.raises(
        RecordError, match=r"release\.parents\.guard is a helix\.data-commit, not a helix\.guard-verdict"
    ):
        complete_chain(release, chain.records)


def test_records_that_do_not_meet(chain: Chain) -> None:
    other = replace(chain.parts["exported"], target="other")
    assert isinstance(other, ExportedModel)
    release = replace(chain.release, parents={**chain.release.parents, "exported": other.digest})
    with pytest.raises(RecordError, match=r"engine\.exported is sha256:.*, but exported is"):
        complete_chain(release, {**chain.records, other.digest: other})


@pytest.mark.parametrize(("role", "path"), [("image", "model"), ("regression", "candidate")])
@pytest.mark.parametrize("first", [True, False])
def test_what_is_served_and_judged_is_the_releases_own(role: str, path: str, first: bool) -> None:
    """The engine since there is one, the exported model before: a chain of one version is none of the other."""
    chain = make_chain(first=first)
    complete_chain(chain.release, chain.records)
    other = make_chain().parts["engine"] if first else chain.parts["exported"]
    record = replace(chain.parts[role], parents={**chain.parts[role].parents, path: other.digest})
    release = replace(chain.release, parents={**chain.release.parents, role: record.digest})
    records = {**chain.records, record.digest: record, other.digest: other}
    wanted = "exported" if first else "engine"
    with pytest.raises(RecordError, match=rf"{role}\.{path} is sha256:.*, but {wanted} is"):
        complete_chain(release, records)


def test_a_release_of_the_second_version_without_an_engine_is_none(chain: Chain, signer: Signer) -> None:
    value = make_chain(first=True).statement()
    value["predicate"]["release"]["version"] = 2
    with pytest.raises(RecordError, match=r"parents missing \['engine'\]"):
        verify_release(signer.bundle(value), signer.trust(), image=None, at=NOW)


def test_records_of_two_models(chain: Chain) -> None:
    release = replace(chain.release, parameters={**chain.release.parameters, "model": "other"})
    with pytest.raises(RecordError, match=r"different models: \['m', 'other'\]"):
        complete_chain(release, chain.records)


def test_a_model_that_is_no_text_is_an_error_of_ours() -> None:
    for model in ({"name": "m"}, ["m"], 1):
        chain = make_chain(model=model)  # type: ignore[arg-type]
        with pytest.raises(RecordError, match="different models"):
            complete_chain(chain.release, chain.records)


def test_a_guard_that_looked_at_another_export_is_refused(chain: Chain) -> None:
    guard = replace(chain.parts["guard"], parents={"exported": digest("another export")})
    release = replace(chain.release, parents={**chain.release.parents, "guard": guard.digest})
    with pytest.raises(RecordError, match=r"guard\.exported is sha256:.*, but exported is"):
        complete_chain(release, {**chain.records, guard.digest: guard})


def test_a_guard_that_ran_another_engine_is_refused(chain: Chain) -> None:
    for engine in (chain.parts["engine"].digest, digest("another engine")):
        guard = replace(chain.parts["guard"], parents={"engine": engine})
        release = replace(chain.release, parents={**chain.release.parents, "guard": guard.digest})
        records = {**chain.records, guard.digest: guard}
        if engine == chain.parts["engine"].digest:
            complete_chain(release, records)
        else:
            with pytest.raises(RecordError, match=r"guard\.engine is sha256:.*, but engine is"):
                complete_chain(release, records)


def test_a_release_of_another_image_than_was_built(chain: Chain) -> None:
    release = replace(chain.release, parameters={**chain.release.parameters, "image": digest("other")})
    with pytest.raises(RecordError, match=r"release\.parameters\.image is"):
        complete_chain(release, chain.records)


def test_an_incumbent_of_another_release_need_not_be_there(chain: Chain) -> None:
    regression = chain.parts["regression"]
    chain.parts["regression"] = replace(regression, parents={**regression.parents, "incumbent": digest("earlier")})
    release = chain.parts["release"]
    parents = {**release.parents, "regression": chain.parts["regression"].digest}
    chain.parts["release"] = replace(release, parents=parents)
    complete_chain(chain.release, chain.records)


@pytest.mark.parametrize(
    "predicate",
    [{}, {"release": 1, "records": {}}, {"release": {}, "records": []}, {"release": {}, "records": {}, "x": 1}],
)
def test_a_malformed_predicate_is_refused(chain: Chain, signer: Signer, predicate: dict[str, Any]) -> None:
    with pytest.raises(LineageError, match="predicate"):
        _verify(chain, signer, predicate=predicate)


def test_a_release_that_is_no_release(chain: Chain, signer: Signer) -> None:
    predicate = {**chain.statement()["predicate"], "release": chain.parts["data"].to_json()}
    with pytest.raises(RecordError, match=r"predicate\.release is a helix\.data-commit"):
        _verify(chain, signer, predicate=predicate)


def test_what_a_bundle_claims_is_read_without_believing_it(chain: Chain) -> None:
    stranger = Signer()
    assert claimed_release(stranger.bundle(chain.statement())) == chain.release
    other = {"predicate": {"release": chain.parts["image"].to_json()}}
    for said in ([], {}, {"predicate": 1}, {"predicate": {}}, {"predicate": {"release": 1}}, other):
        with pytest.raises(LineageError, match=r"statement|predicate"):
            claimed_release(stranger.bundle(said))  # type: ignore[arg-type]


def test_a_bundle_that_cosign_made() -> None:
    """Made by `fixtures/make_cosign.sh` with cosign v3.1.3, offline; the key is thrown away. Version 1 of a release."""
    bundle = (FIXTURES / "cosign.sigstore.json").read_bytes()
    trust = Trust.load(FIXTURES / "cosign.trust.json")
    verified = verify_release(bundle, trust, image=digest("image"), at=NOW)
    assert isinstance(verified.release, FirstRelease)
    assert verified.release == make_chain(first=True).release
