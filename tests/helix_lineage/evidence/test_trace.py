from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helix_lineage.errors import PredictionNotFound, ShardError
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.evidence.trace import trace
from helix_lineage.formats.canonical import dumps
from helix_lineage.records.chain import from_json
from helix_lineage.records.store import RecordStore
from helix_lineage.shard import ShardWriter
from helix_lineage.shard.payload_reader import erase
from helix_lineage.tlog import checkpoint, merkle
from helix_lineage.tlog.layout import ShardFolder
from tests.helix_lineage.page.worlds import promoted
from tests.helix_lineage.support import Signer, World, digest, header, make_chain, request


def test_a_trace_names_everything_that_made_a_prediction(world: World) -> None:
    names = world.shard([request(seed=2**63, count=2)])
    value = trace(world.log, names[1], world.sources).to_json()
    assert value["id"] == names[1]
    assert value["code_commit"] == "c" * 40
    (image,) = value["artifacts"]["image"]["files"]
    assert (image["digest"], value["artifacts"]["image"]["record"]) == (
        digest("image"), world.chain.parts["image"].digest
    )  # fmt: skip
    assert value["artifacts"]["data"] == {
        "record": world.chain.parts["data"].digest,
        "files": [{"name": "weights.pt", "digest": digest("pt"), "size": 3}],
    }
    assert value["warnings"] == []
    assert value["seed"] == str(2**63)
    assert value["environments"] == dict.fromkeys(
        ["image", "engine", "exported", "weights", "regression"], digest("environment")
    )
    assert value["image"] == {"claimed": digest("image"), "released": digest("image"), "filesystem": digest("files")}
    assert value["batch"] is None
    assert value["release"]["signed_by"] == world.signer.entry()["key_id"]
    assert value["release"]["problem"] is None
    assert value["prediction"]["payload"] == {"input": "kept", "output": "kept"}
    assert (value["prediction"]["index"], value["prediction"]["count"]) == (1, 2)
    assert value["shard"]["machine_class"] == "x86-64-v4"
    assert {key: from_json(record).digest for key, record in value["records"].items()} == {
        key: key for key in world.chain.records
    }
    dumps(value)  # canonical JSON can hold it
    assert trace(world.log, names[1], world.sources).payload_problems == []


def test_a_release_of_the_first_version_is_traced_as_before(tmp_path: Path, signer: Signer) -> None:
    """Without an engine: its image holds the exported model."""
    world = World(tmp_path, make_chain(first=True), signer)
    (name,) = world.shard([request()])
    found = trace(world.log, name, world.sources)
    assert found.problem is None
    assert found.record("engine") is None
    assert found.record("exported") == world.chain.parts["exported"]
    assert set(found.to_json()["environments"]) == {"image", "exported", "weights", "regression"}  # type: ignore[arg-type]


def test_a_stranger_can_check_the_inclusion_from_the_json_alone(world: World) -> None:
    names = world.shard([request(count=300)])
    value = json.loads(json.dumps(trace(world.log, names[260], world.sources).to_json()))
    said = value["inclusion"]
    key = bytes.fromhex(value["shard"]["public_key"])
    origin = checkpoint.SHARD_ORIGIN + value["id"].partition(".")[0]
    signed = checkpoint.verify(said["checkpoint"].encode(), origin, key)
    proof = [bytes.fromhex(node) for node in said["proof"]]
    assert merkle.verify_inclusion(said["sequence"], signed.size, bytes.fromhex(said["leaf"]), proof, signed.root)
    assert said["sequence"] == 261


def test_a_release_that_does_not_verify_is_shown_with_what_is_wrong(world: World) -> None:
    (name,) = world.shard([request()])
    found = trace(world.log, name, ReleaseSources(trust=Signer().trust()))
    assert found.found is None
    assert found.problem is not None
    assert "no signature is by a key of role 'releaser'" in found.problem


def test_stored_records_show_the_chain_without_a_signature(world: World) -> None:
    (name,) = world.shard([request()])
    store = RecordStore(world.root / "store")
    for record in (*world.chain.records.values(), world.chain.release):
        store.put_record(record)
    found = trace(world.log, name, ReleaseSources(store=store))
    assert found.problem == "no trust root was given"
    assert found.to_json()["code_commit"] == "c" * 40
    assert found.to_json()["release"]["signed_by"] is None


def test_a_shard_without_a_release_is_traced_as_far_as_it_goes(world: World) -> None:
    with ShardWriter.create(world.log_dir, header(), now=lambda: 1) as writer:
        (name,) = writer.append(request())
    value = trace(world.log, name, world.sources).to_json()
    assert value["release"]["digest"] is None
    assert value["release"]["problem"] is not None
    assert value["code_commit"] is None
    assert value["seed"] == "7"


def test_erased_and_wrong_payloads_are_said(world: World) -> None:
    names = world.shard([request(), request()])
    shard = world.log.shard(names[0].partition(".")[0])
    erase(shard.folder, 1)
    assert trace(world.log, names[0], world.sources).payload == {"input": "kept", "output": "erased"}
    shard.folder.segment(0).unlink()
    assert "no payload is kept" in trace(world.log, names[1], world.sources).payload["output"]


def test_what_is_no_prediction_is_not_traced(world: World) -> None:
    (name,) = world.shard([request()])
    for other in (f"{name.partition('.')[0]}.0", f"{name.partition('.')[0]}.77", f"{'0' * 32}.1"):
        with pytest.raises(PredictionNotFound):
            trace(world.log, other, world.sources)


def test_a_bundle_elsewhere_stands_in_where_the_shard_has_no_copy(world: World) -> None:
    (name,) = world.shard([request()])
    world.log.find(name)[0].folder.release.unlink()
    kept = world.root / "kept.json"
    kept.write_bytes(world.bundle)
    found = trace(world.log, name, replace(world.sources, bundles=(kept,)))
    assert found.problem is None


def test_a_release_is_verified_once_and_again_when_its_bytes_change(world: World) -> None:
    (name,) = world.shard([request()])
    sources = world.sources
    log = world.log
    assert trace(log, name, sources).problem is None
    assert trace(log, name, sources).found is not None
    assert len(sources._verified) == 1
    shard = log.find(name)[0]
    shard.folder.release.write_bytes(world.bundle.replace(b'"sig": "', b'"sig": "AAAA', 1))
    assert trace(log, name, sources).problem is not None


def test_a_payload_that_was_cut_and_written_again_is_found_where_it_lies_now(world: World) -> None:
    """A log that is kept open remembers where records lie; a recovery may cut some off."""
    first, second = world.shard([request(), request(count=2)])[:2]
    log = world.log
    shard, sequence = log.find(second)
    assert shard.payload(sequence).output is not None
    path = shard.folder.segment(0)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ShardError):
        log.find(second)[0].payload(3)
    path.write_bytes(whole)
    assert log.find(first)[0].payload(1).output is not None
    assert log.find(second)[0].payload(3).output is not None


def test_a_promoted_server_s_trace_names_the_promotion(tmp_path: Path) -> None:
    world = promoted(tmp_path)
    said = trace(world.log, world.id, ReleaseSources(trust=world.trust)).to_json()["promotion"]
    assert isinstance(said, dict)
    assert (said["digest"], said["generation"], said["problem"]) == (world.promotion, 1, None)
    assert said["record"] is not None


def test_a_promotion_that_does_not_hold_is_said(tmp_path: Path) -> None:
    world = promoted(tmp_path)
    ShardFolder(world.folder).promotion.write_bytes(b"{}")
    found = trace(world.log, world.id, ReleaseSources(trust=world.trust))
    assert found.promotion is None
    assert found.promotion_problem
    said = found.to_json()["promotion"]
    assert isinstance(said, dict)
    assert (said["environment"], said["record"], said["signed_by"]) == (None, None, None)
