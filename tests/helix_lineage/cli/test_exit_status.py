"""docs/exit-status.md, cell by cell: what yes, no and could-not-tell are for each command of `helix lineage`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from helix_lineage.cli import main
from helix_lineage.errors import ReplayError
from helix_lineage.evidence.receipt import make
from helix_lineage.replay import executor
from helix_lineage.replay.images import UnpackedImage
from helix_lineage.shard.payload_reader import erase
from helix_lineage.tlog.layout import ShardFolder
from tests.commands import exit_status
from tests.helix_lineage.directory.support import submit
from tests.helix_lineage.page.worlds import Promoted, edit_entry, promoted
from tests.helix_lineage.support import Signer, World, request

ROOT = Path(__file__).resolve().parents[3]
Words = list[str | Path]
Scenario = Callable[[Promoted, pytest.MonkeyPatch], Words]


def table() -> set[str]:
    """The commands of `helix lineage` in the table."""
    return set(re.findall(r"^\| `helix lineage ([a-z -]+)` \|", (ROOT / "docs/exit-status.md").read_text(), re.M))


def _where(given: Promoted) -> Words:
    return ["--log", given.log.root, "--trust", given.root / "trust.json"]


def _strange_trust(given: Promoted) -> Words:
    path = given.root / "stranger.json"
    path.write_bytes(Signer().trust_json())
    return ["--log", given.log.root, "--trust", path]


def _damage(given: Promoted) -> None:
    for path in (given.folder / "tile/entries").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\xff\xff\xff")


def _released(given: Promoted) -> Path:
    return ShardFolder(given.folder).release


def _receipt(given: Promoted) -> Path:
    path = given.root / "receipt.json"
    path.write_bytes(make(given.log, given.id).to_bytes())
    return path


def _replaying(
    answer: Callable[[bytes], bytes], machine: str = "x86-64-v4", error: ReplayError | None = None
) -> Scenario:
    """A replay whose image gives `answer(stored output)`, on that class of machine; or raises."""

    def prepare(given: Promoted, monkeypatch: pytest.MonkeyPatch) -> Words:
        shard, sequence = given.log.find(given.id)
        stored = shard.payload(sequence).output
        assert stored is not None

        def run(*_: object) -> tuple[str, list[bytes]]:
            if error is not None:
                raise error
            return machine, [answer(stored)]

        monkeypatch.setattr(executor, "obtain", lambda *_: UnpackedImage(given.root, {}))
        monkeypatch.setattr(executor, "check_files", lambda *_: [])
        monkeypatch.setattr(executor, "run_in_image", run)
        return ["replay", given.id, *_where(given), "--images", given.root / "images"]

    return prepare


def _revoked(given: Promoted, _: pytest.MonkeyPatch) -> Words:
    with closing(given.office.open()) as directory:
        submit(directory, given.office.revoked("release", given.office.chain.release.digest))
    return ["trace", given.id, *_where(given), "--directory", given.office.folder]


def _after(spoil: Callable[[Promoted], object], *words: str) -> Scenario:
    def prepare(given: Promoted, _: pytest.MonkeyPatch) -> Words:
        spoil(given)
        return [*(given.id if word == "ID" else word for word in words), *_where(given)]

    return prepare


def _empty(given: Promoted) -> Path:
    path = given.root / "empty"
    path.mkdir()
    return path


def _other(data: bytes) -> bytes:
    return data.replace(b"MK1", b"MK9")


def _witness(place: str, *, earlier: bool = False) -> Scenario:
    def prepare(given: Promoted, _: pytest.MonkeyPatch) -> Words:
        kept, trust = given.root / "kept", given.root / "trust.json"
        if earlier:  # a later state than the directory has now
            note = (given.office.folder / "checkpoint").read_bytes()
            with closing(given.office.open()) as directory:
                submit(directory, given.office.revoked("release", given.office.chain.release.digest))
            kept.write_bytes((given.office.folder / "checkpoint").read_bytes())
            (given.office.folder / "checkpoint").write_bytes(note)
        folder = given.root / place if place else given.office.folder
        return ["witness", folder, "--keep", kept, "--trust", trust]

    return prepare


def _status(given: Promoted, *, spoil: bool = False) -> Words:
    if spoil:
        for path in (given.office.folder / "tile/entries").rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[:-1] + b"\0")
    return ["directory", "status", given.office.folder, "--trust", given.root / "trust.json"]


CELLS: dict[str, tuple[list[Scenario], list[Scenario], list[Scenario]]] = {
    "list": (
        [lambda given, _: ["list", "--log", given.log.root]],
        [lambda given, _: (_damage(given), ["list", "--log", given.log.root])[1]],
        [lambda given, _: ["list", "--log", given.root / "absent"]],
    ),
    "trace": (
        [_after(lambda _: None, "trace", "ID")],
        [_after(edit_entry, "trace", "ID"), lambda given, _: ["trace", given.id, *_strange_trust(given)], _revoked],
        [
            _after(lambda _: None, "trace", "0" * 32 + ".1"),
            _after(lambda _: None, "trace", "nonsense"),
            lambda given, _: ["trace", given.id, "--log", given.log.root],
        ],
    ),
    "replay": (
        [_replaying(lambda stored: stored)],
        [_replaying(_other)],
        [
            _replaying(_other, machine="x86-64-v3"),
            _replaying(lambda stored: stored, error=ReplayError("qemu-x86_64 is not installed")),
            _after(lambda _: None, "replay", "0" * 32 + ".1"),
        ],
    ),
    "audit": (
        [
            lambda given, _: ["audit", *_where(given), "--directory", given.office.folder],
            _after(lambda _: None, "audit"),
        ],
        [_after(edit_entry, "audit"), lambda given, _: ["audit", *_strange_trust(given)]],
        [
            lambda given, _: ["audit", "--log", given.root / "absent"],
            lambda given, _: ["audit", *_where(given), "--directory", given.root / "absent"],
        ],
    ),
    "verify-release": (
        [lambda given, _: ["verify-release", _released(given), "--trust", given.root / "trust.json"]],
        [lambda given, _: ["verify-release", _released(given), *_strange_trust(given)[2:]]],
        [
            lambda given, _: ["verify-release", given.root / "absent", "--trust", given.root / "trust.json"],
            lambda given, _: ["verify-release", _released(given)],
        ],
    ),
    "verify-receipt": (
        [lambda given, _: ["verify-receipt", given.id, _receipt(given)]],
        [lambda given, _: ["verify-receipt", given.id.replace(".", ".1"), _receipt(given)]],
        [lambda given, _: ["verify-receipt", given.id, given.root / "absent"]],
    ),
    "witness": ([_witness("")], [_witness("", earlier=True)], [_witness("absent")]),
    "directory status": (
        [lambda given, _: _status(given)],
        [lambda given, _: _status(given, spoil=True)],
        [lambda given, _: ["directory", "status", given.root / "absent", "--trust", given.root / "trust.json"]],
    ),
}


def test_every_row_of_the_table_is_tried() -> None:
    assert table() == set(CELLS)
    assert all(scenarios for cells in CELLS.values() for scenarios in cells)


def answered(words: Words) -> int:
    return exit_status(main.main, "helix-lineage", *words)


@pytest.mark.parametrize("command", CELLS)
@pytest.mark.parametrize("status", [0, 1, 2])
def test_each_cell(
    command: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HELIX_STATE", raising=False)
    monkeypatch.chdir(tmp_path)
    for at, scenario in enumerate(CELLS[command][status]):
        given = promoted(tmp_path / str(at))
        (given.root / "trust.json").write_bytes(given.office.trust_json())
        words = scenario(given, monkeypatch)
        assert answered(words) == status, capsys.readouterr()
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert said.out if status < 2 else said.out + said.err
        assert answered([*words, "--json"]) == status
        json.loads(capsys.readouterr().out)


def test_replay_of_all_goes_on_after_a_shard_or_an_image_that_cannot_be_read(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planted: one shard without its journal, one with another entry, one whose prediction was erased, one whole."""
    (lost,), (edited,), (erased,), whole = (world.shard([request(count=count)]) for count in (1, 1, 1, 2))
    folders = {name: world.log.find(name)[0].folder for name in (lost, edited, erased)}
    folders[lost].journal.unlink()
    for path in (folders[edited].root / "tile/0").rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(len(path.read_bytes())))
    erase(folders[erased], 1, link=True)
    stored = {name: world.log.find(name)[0].payload(int(name.partition(".")[2])).output for name in whole}
    monkeypatch.setattr(executor, "obtain", lambda *_: UnpackedImage(world.root, {}))
    monkeypatch.setattr(executor, "check_files", lambda *_: [])
    monkeypatch.setattr(executor, "run_in_image", lambda *_: ("x86-64-v4", list(stored.values())))
    (world.root / "trust.json").write_bytes(world.signer.trust_json())
    words: Words = ["replay", "--all", "--log", world.log_dir, "--trust", world.root / "trust.json"]
    words += ["--images", world.root / "images"]
    assert answered([*words, "--json"]) == 2
    found = {item["id"]: item for item in json.loads(capsys.readouterr().out)}
    assert set(found) == {folders[lost].id, edited, erased, *whole}
    assert [found[name]["outcome"] for name in whole] == ["same-bytes"] * 2, found
    for name, reason in (
        (folders[lost].id, "the shard cannot be read: "),
        (edited, "the entry is not the one under the signed checkpoint"),
        (erased, "the input was erased"),
    ):
        (why,) = found[name]["differences"]
        assert (found[name]["outcome"], why["factor"]) == ("not-replayed", "error")
        assert reason in why["detail"]
    assert answered(words) == 2
    assert "2 of 5 predictions replayed to the same bytes" in capsys.readouterr().out

    def away(*_: object) -> UnpackedImage:
        raise ReplayError("planted")

    monkeypatch.setattr(executor, "obtain", away)
    assert answered([*words, "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)) == 5


def test_a_fault_of_ours_does_not_read_as_no(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python itself ends with 1 after an exception that nobody caught."""

    def fail() -> None:
        raise RecursionError("planted")

    monkeypatch.setattr(main, "app", fail)
    assert answered([]) == 2
    assert "a fault in helix-lineage itself: RecursionError: planted" in capsys.readouterr().err
    assert answered(["--json"]) == 2
    assert "planted" in json.loads(capsys.readouterr().out)["error"]
