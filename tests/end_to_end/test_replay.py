"""200 predictions by concurrent clients, replayed to the same bytes with their stored outputs deleted first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.formats.typed import Tensor, decode, encode
from helix_lineage.shard.reader import Log
from helixserve.runners.machine import V3
from proteinmpnn_model import data
from tests.clients import ENDPOINTS, Address
from tests.end_to_end.conftest import Serving

CLIENTS = 8
STRUCTURES = ("pdb1ubi.pdb", "1A8O.pdb", "pdb1ejg.pdb", "2BEG.pdb", "1pwc.pdb", "2n0n_M1.pdb")
LARGE = 150
"""Residues above which a structure gets one item only."""
WANTED = 200


def structures(state_downloads: Path, folder: Path) -> dict[str, str]:
    """Real backbones, out of the locked archives."""
    data.extract("structures", state_downloads / "upstream", folder)
    return {name: (folder / name).read_text() for name in STRUCTURES}


def requests(texts: dict[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """Requests of both tasks for all backbones that make 200 items or a few more."""
    made: list[tuple[str, dict[str, Any]]] = []
    items = number = 0
    while items < WANTED:
        name = STRUCTURES[number % len(STRUCTURES)]
        text = texts[name]
        large = text.count(" CA ") > LARGE
        if number % 4 == 3:
            made.append(("score", {"structure": text, "seed": number}))
            items += 1
        else:
            count = 1 if large else 10
            made.append(("design", {"structure": text, "num_sequences": count, "seed": number, "temperature": 0.2}))
            items += count
        number += 1
    return made


@pytest.fixture(scope="module")
def predictions(serving: Serving, address: Address, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The ids of what eight clients got at the same time, through all endpoints."""
    texts = structures(serving.released.state.downloads, tmp_path_factory.mktemp("structures"))
    wanted = requests(texts)
    endpoints = list(ENDPOINTS.values())
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = pool.map(
            lambda job: endpoints[job[0] % len(endpoints)](address, job[1][0], job[1][1]), list(enumerate(wanted))
        )
        return [prediction for answer in answers for prediction, _ in answer]


def replay(serving: Serving, ids: Sequence[str], *more: str) -> list[dict[str, Any]]:
    done = serving.lineage("replay", *ids, *more, "--json", check=False)
    assert done.returncode in (0, 1), done.stderr
    return list(json.loads(done.stdout))


def test_two_hundred_predictions_replay_to_the_same_bytes(serving: Serving, predictions: list[str]) -> None:
    assert len(predictions) >= WANTED
    assert len(set(predictions)) == len(predictions)
    serving.lineage("erase", *predictions)
    shard, sequence = Log(serving.log).find(predictions[0])
    assert shard.payload(sequence).output is None
    verdicts = replay(serving, predictions)
    assert [verdict["id"] for verdict in verdicts if not verdict["same"]] == []
    assert len(verdicts) == len(predictions)


def test_an_image_that_is_not_here_is_pulled_from_the_checkouts_registry(
    serving: Serving, predictions: list[str], tmp_path: Path
) -> None:
    (verdict,) = replay(serving, predictions[-1:], "--images", str(tmp_path / "images"))
    assert verdict["same"]
    assert [path.name for path in (tmp_path / "images").iterdir()] == [serving.released.image.removeprefix("sha256:")]


def test_another_seed_is_named(serving: Serving, predictions: list[str]) -> None:
    (verdict,) = replay(serving, predictions[:1], "--seed", "123456")
    assert not verdict["same"]
    assert "seed" in {difference["factor"] for difference in verdict["differences"]}


def test_other_data_is_named(serving: Serving, predictions: list[str], tmp_path: Path) -> None:
    shard, sequence = Log(serving.log).find(predictions[0])
    given = shard.payload(sequence).input
    assert given is not None
    moved = tmp_path / "input"
    moved.write_bytes(encode([_moved(tensor) for tensor in decode(given)]))
    (verdict,) = replay(serving, predictions[:1], "--input", str(moved))
    assert not verdict["same"]
    assert "input" in {difference["factor"] for difference in verdict["differences"]}


def _moved(tensor: Tensor) -> Tensor:
    """The structure with one atom moved."""
    if tensor.name != "structure" or not isinstance(tensor.data, tuple):
        return tensor
    lines = tensor.data[0].decode().split("\n")
    at = next(index for index, line in enumerate(lines) if line.startswith("ATOM") and line[12:16].strip() == "CA")
    lines[at] = f"{lines[at][:30]}{float(lines[at][30:38]) + 1:8.3f}{lines[at][38:]}"
    return Tensor(tensor.name, "BYTES", (1,), ("\n".join(lines).encode(),))


@pytest.mark.long
@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-x86_64 is absent; run: make setup-tests")
def test_on_another_processor_the_replay_gives_the_same_bytes(
    serving: Serving, address: Address, tmp_path: Path
) -> None:
    """A native release has one class on all of them; test_same_bits.py shows one that has not."""
    text = structures(serving.released.state.downloads, tmp_path)["pdb1ejg.pdb"]
    endpoint = next(iter(ENDPOINTS.values()))
    ((name, _),) = endpoint(address, "score", {"structure": text, "seed": 1})
    done = serving.lineage("replay", name, "--cpu", "Haswell", "--json", check=False)
    (verdict,) = json.loads(done.stdout)
    assert (verdict["recorded_class"], verdict["machine_class"]) == (V3, V3)
    assert (verdict["outcome"], done.returncode) == ("same-bytes", 0)


def test_a_flipped_bit_of_the_weights_is_named(serving: Serving, predictions: list[str], tmp_path: Path) -> None:
    digest = serving.released.image.removeprefix("sha256:")
    replay(serving, predictions[:1])  # unpacks the image, if nothing has yet
    images = tmp_path / "images"
    shutil.copytree(serving.released.state.images / digest, images / digest, symlinks=True)
    weights = max((images / digest / "rootfs/opt/helix/artifacts").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(data)
    weights.chmod(0o444)
    (verdict,) = replay(serving, predictions[:1], "--images", str(images))
    assert not verdict["same"]
    assert "weights" in {difference["factor"] for difference in verdict["differences"]}
