from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from typer.testing import CliRunner

from helix_lineage.cli.main import app
from helix_lineage.errors import PredictionNotFound, TrustError
from helix_lineage.evidence.receipt import PredictionReceipt, make
from helix_lineage.formats.canonical import dumps
from helix_lineage.shard.payload_reader import erase
from tests.helix_lineage.support import Signer, World, make_chain, request


@pytest.fixture
def names(world: World) -> list[str]:
    return world.shard([request(count=3), request(seed=8)])


def test_a_receipt_proves_its_prediction_and_opens_its_commitments(world: World, names: list[str]) -> None:
    data = make(world.log, names[1]).to_bytes()
    receipt = PredictionReceipt.parse(data)
    proven = receipt.verify(names[1])
    shard, sequence = world.log.find(names[1])
    assert proven.entry == shard.prediction(sequence)
    assert proven.header.release == world.chain.release.digest
    kept = shard.payload(sequence)
    assert kept.input is not None
    assert kept.output is not None
    receipt.check_input(kept.input, proven)
    receipt.check_output(kept.output, proven)
    bundle = (world.root / "release.sigstore.json").read_bytes()
    receipt.check_release(bundle)
    assert receipt.to_bytes() == data
    for wrong in (kept.output, b""):
        with pytest.raises(TrustError, match="does not commit"):
            receipt.check_input(wrong, proven)
    with pytest.raises(TrustError, match="does not commit"):
        receipt.check_output(kept.input, proven)
    with pytest.raises(TrustError, match="bundle"):
        receipt.check_release(bundle + b" ")


FAULTS: dict[
    str, tuple[Callable[[PredictionReceipt, PredictionReceipt, PredictionReceipt], PredictionReceipt], str]
] = {
    "another prediction": (lambda _, other, __: other, "another prediction"),
    "another entry": (lambda mine, other, _: replace(mine, entry=other.entry), "proof"),
    "another proof": (lambda mine, other, _: replace(mine, proof=other.proof), "proof"),
    "a shorter proof": (lambda mine, *_: replace(mine, proof=mine.proof[:-1]), "proof"),
    "a changed proof": (lambda mine, *_: replace(mine, proof=(bytes(32), *mine.proof[1:])), "proof"),
    "another shard's header": (lambda mine, _, foreign: replace(mine, header=foreign.header), "header"),
    "another shard's checkpoint": (lambda mine, _, foreign: replace(mine, note=foreign.note), "checkpoint"),
    "another shard under my id": (lambda mine, _, foreign: replace(foreign, id=mine.id), "header"),
    "a changed signature": (
        lambda mine, *_: replace(mine, note=mine.note.replace(b"=\n", b"A=\n")),
        "base64|signature",
    ),
    "no release": (lambda mine, *_: replace(mine, release_bundle=None), "release"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_part_that_is_changed_or_swapped_is_refused(
    world: World, names: list[str], tmp_path: Path, fault: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    elsewhere = World(tmp_path / "elsewhere", world.chain, world.signer)
    foreign = make(elsewhere.log, elsewhere.shard([request(count=3)])[1])
    mine, other = make(world.log, names[1]), make(world.log, names[3])
    change, says = FAULTS[fault]
    with pytest.raises(TrustError, match=says):
        change(mine, other, foreign).verify(names[1])
    assert mine.verify(names[1])
    assert foreign.verify(foreign.id)


def test_an_entry_that_is_no_prediction_has_no_receipt(world: World, names: list[str]) -> None:
    shard = names[0].partition(".")[0]
    for sequence in (0, 5, 99):
        with pytest.raises(PredictionNotFound):
            make(world.log, f"{shard}.{sequence}")


def test_erasing_the_salts_closes_the_receipt(world: World, names: list[str]) -> None:
    shard, sequence = world.log.find(names[0])
    kept = shard.payload(sequence)
    erase(shard.folder, sequence, link=True)
    receipt = PredictionReceipt.parse(make(world.log, names[0]).to_bytes())
    proven = receipt.verify(names[0])
    assert kept.input is not None
    with pytest.raises(TrustError, match="erased"):
        receipt.check_input(kept.input, proven)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"version":2}', b"\xff"])
def test_what_is_no_receipt_is_refused(data: bytes) -> None:
    with pytest.raises(TrustError, match="not a receipt"):
        PredictionReceipt.parse(data)


@given(st.data())
def test_any_changed_field_of_the_json_is_refused_or_means_nothing(data: st.DataObject) -> None:
    value = json.loads(SAMPLE[0])
    field = data.draw(st.sampled_from(sorted(value)))
    value[field] = data.draw(st.none() | st.integers(-99, 99) | st.text() | st.lists(st.text()) | st.just("00" * 32))
    if dumps(value) == SAMPLE[0] or field in ("salts", "release_bundle"):
        return
    with pytest.raises(TrustError):
        PredictionReceipt.parse(dumps(value)).verify(SAMPLE[1])


SAMPLE: list[Any] = []


@pytest.fixture(autouse=True, scope="module")
def _sample(tmp_path_factory: pytest.TempPathFactory) -> None:
    world = World(tmp_path_factory.mktemp("sample"), make_chain(), Signer())
    (name,) = world.shard([request()])
    SAMPLE[:] = [make(world.log, name).to_bytes(), name]


def test_the_command_checks_a_receipt(world: World, names: list[str], tmp_path: Path) -> None:
    receipt, bundle, output = tmp_path / "receipt.json", tmp_path / "release.json", tmp_path / "output"
    receipt.write_bytes(make(world.log, names[0]).to_bytes())
    bundle.write_bytes((world.root / "release.sigstore.json").read_bytes())
    shard, sequence = world.log.find(names[0])
    output.write_bytes(shard.payload(sequence).output or b"")
    files = ["--release", str(bundle), "--output", str(output)]
    assert CliRunner().invoke(app, ["verify-receipt", names[0], str(receipt), *files]).exit_code == 0
    refused = CliRunner().invoke(app, ["verify-receipt", names[1], str(receipt), "--json"])
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["holds"] is False
    output.write_bytes(b"another")
    assert CliRunner().invoke(app, ["verify-receipt", names[0], str(receipt), *files]).exit_code == 1
