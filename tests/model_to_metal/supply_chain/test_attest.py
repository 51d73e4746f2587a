from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.attestations.dsse import BUNDLE_TYPE, parse_bundle
from helix_lineage.attestations.release import verify_release
from helix_lineage.attestations.trust import Trust
from helix_lineage.formats.canonical import digest_bytes
from helix_lineage.paths import State
from helix_lineage.records.store import RecordStore
from model_to_metal.errors import AttestError, KeysError, ToolError
from model_to_metal.host.process import run
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client, Image
from model_to_metal.supply_chain import provenance
from model_to_metal.supply_chain.attest import attest_image, chain, gather
from tests.model_to_metal.conftest import Chain

Push = Callable[[str], Image]
ChainOf = Callable[..., Any]


def attest(state: State, client: Client, image: Image, made: Any) -> Any:
    return attest_image(state, client, image, made.release, records=made.records, evidence=made.evidence)


def test_servers_get_a_release_that_verifies(signing: State, client: Client, image: Image, made: Chain) -> None:
    done = attest(signing, client, image, made)
    assert done.folder == signing.releases / "tiny"
    bundle = (done.folder / "release.sigstore.json").read_bytes()
    found = verify_release(bundle, Trust.load(signing.trust), image=image.digest, at=datetime.now(UTC))
    assert found.release == made.release
    assert set(found.records) == {record.digest for record in made.records}
    assert found.statement_subject.name == "helix/tiny"


def test_everything_said_is_a_referrer_of_the_image(
    signing: State, client: Client, image: Image, signed: Chain
) -> None:
    rows = client.referrers(image.repository, image.digest, BUNDLE_TYPE)
    kinds = [row["annotations"]["dev.sigstore.bundle.predicateType"] for row in rows]
    assert sorted(kinds) == sorted(
        [provenance.SIGNATURE, provenance.PROVENANCE, provenance.TEST_RESULT, provenance.RELEASE]
    )
    assert len(client.referrers(image.repository, image.digest, artifacts.RECORD_SET_TYPE)) == 1
    for record in (*signed.records, signed.release):
        assert artifacts.fetch_record(client, record.digest) == record


def test_attesting_again_signs_nothing_and_changes_nothing(
    signing: State, client: Client, image: Image, made: Chain
) -> None:
    first = attest(signing, client, image, made)
    assert len(first.signed) == 4
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    referrers = client.referrers(image.repository, image.digest)
    second = attest(signing, client, image, made)
    assert second.signed == ()
    assert {path.name: path.read_bytes() for path in second.folder.iterdir()} == before
    assert client.referrers(image.repository, image.digest) == referrers


def test_a_second_commit_of_the_same_image_is_a_second_release(
    signing: State, client: Client, image: Image, signed: Chain
) -> None:
    parameters = {**signed.release.parameters, "commit": "d" * 40}
    other = dataclasses.replace(signed, release=dataclasses.replace(signed.release, parameters=parameters))
    done = attest(signing, client, image, other)
    # The verdicts are the same, and so is the signature on the image.
    assert sorted(done.signed) == sorted([provenance.PROVENANCE, provenance.RELEASE])
    payload = json.loads(parse_bundle((done.folder / "release.sigstore.json").read_bytes()).payload)
    assert payload["predicate"]["release"]["parameters"]["commit"] == "d" * 40


@pytest.mark.parametrize("gate", ["guard", "regression"])
def test_a_refusal_is_not_signed(signing: State, client: Client, image: Image, chain_of: ChainOf, gate: str) -> None:
    with pytest.raises(AttestError, match=f"{gate}.parameters.passed is not true"):
        attest(signing, client, image, chain_of(image.digest, **{f"{gate}_passes": False}))
    assert client.referrers(image.repository, image.digest) == []


def test_a_chain_with_a_gap_is_not_signed(signing: State, client: Client, image: Image, made: Chain) -> None:
    with pytest.raises(AttestError, match=r"the chain is incomplete: release.parents.guard is missing"):
        attest(signing, client, image, dataclasses.replace(made, records=made.records[1:]))


def test_a_release_of_another_image_is_not_signed(
    signing: State, client: Client, push: Push, chain_of: ChainOf
) -> None:
    with pytest.raises(AttestError, match="not this image"):
        attest(signing, client, push("one"), chain_of(push("two").digest))


def test_another_builders_release_is_not_signed(signing: State, client: Client, image: Image, made: Chain) -> None:
    parameters = {**made.release.parameters, "builder": "factory"}
    other = dataclasses.replace(made, release=dataclasses.replace(made.release, parameters=parameters))
    with pytest.raises(AttestError, match="factory"):
        attest(signing, client, image, other)


def test_without_a_key_nothing_is_pushed(state: State, client: Client, image: Image, chain_of: ChainOf) -> None:
    with pytest.raises(KeysError, match="no releaser's key"):
        attest(state, client, image, chain_of(image.digest))
    assert client.referrers(image.repository, image.digest) == []


@pytest.mark.parametrize("kind", [provenance.PROVENANCE, provenance.TEST_RESULT, provenance.RELEASE])
def test_a_stock_cosign_verifies_what_was_attached(
    signing: State, client: Client, image: Image, signed: Chain, *, push: Push, kind: str
) -> None:
    command = ["verify-attestation", "--key", signing.keys / "releaser.pub", "--insecure-ignore-tlog", "--type", kind]
    answer = json.loads(run([signing.tools / "cosign", *command, str(image)]))
    assert answer["payloadType"] == "application/vnd.in-toto+json"
    other = push("two")
    with pytest.raises(ToolError, match=r"no signatures found|no matching attestations"):
        run([signing.tools / "cosign", *command, str(other)])


def test_evidence_comes_from_store_and_checkout(tmp_path: Path, chain_of: ChainOf) -> None:
    made = chain_of("sha256:" + "a" * 64)
    store, checkout = RecordStore(tmp_path / "store"), tmp_path / "checkout"
    guard = made.records[0]
    for path, digest in guard.parameters["locks"].items():
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_bytes(made.evidence[digest])
    for data in made.evidence.values():
        if digest_bytes(data) not in guard.parameters["locks"].values():
            store.put_bytes(data)
    assert gather(made.records, store, checkout) == made.evidence
    (checkout / "platform/nix/debs.lock").write_text("changed since\n")
    with pytest.raises(AttestError, match="not the one that the records name"):
        gather(made.records, store, checkout)
    store.put_bytes(made.evidence[guard.parameters["locks"]["platform/nix/debs.lock"]])
    assert gather(made.records, store, checkout) == made.evidence


def test_a_list_of_sources_that_the_store_lost_is_named(tmp_path: Path, chain_of: ChainOf) -> None:
    with pytest.raises(AttestError, match=r"the store lacks the source of helix.guard-verdict"):
        gather(chain_of("sha256:" + "a" * 64).records, RecordStore(tmp_path), tmp_path)


def test_the_chain_is_read_from_the_store(tmp_path: Path, chain_of: ChainOf) -> None:
    made, store = chain_of("sha256:" + "a" * 64), RecordStore(tmp_path)
    for record in made.records:
        store.put_record(record)
    assert {record.digest for record in chain(made.release, store)} == {record.digest for record in made.records}
