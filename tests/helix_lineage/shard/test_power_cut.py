"""The power fails, at any moment, on a disk that keeps no more than POSIX makes it keep."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.helix_lineage.disk import MODES, Disk
from tests.helix_lineage.support import request
from tests.helix_lineage.survival import complaints, promised, serve

NARROW = [1, 2, 1, 3, 1, 1, 2]
"""Items of each request: many groups, three segments, a tile and a checkpoint after each."""
WIDE = [1, 250, 7, 3]
"""Across the edge of a tile."""

PARTS = 4
"""Of the cuts, for processes that share them."""


def _recorded(patch: pytest.MonkeyPatch, root: Path, counts: list[int]) -> Disk:
    root.mkdir(exist_ok=True)
    disk = Disk(root)
    serve(patch, disk, [request(seed=at, count=count) for at, count in enumerate(counts)])
    assert promised(disk.acknowledged(len(disk.ops)))
    return disk


def _cut(disk: Disk, cut: int, seed: int, to: Path) -> list[str]:
    """Cut once, recover, and list what does not hold."""
    rng = random.Random(seed)
    mode = MODES[seed % len(MODES)]
    disk.crash(cut, mode, rng, to)
    found = complaints(to / "log", promised(disk.acknowledged(cut)))
    shutil.rmtree(to)
    return [f"cut {cut} ({mode}, {seed}): {item}" for item in found]


def _cut_twice(patch: pytest.MonkeyPatch, disk: Disk, cut: int, seed: int, to: Path) -> list[str]:
    """Cut, and cut the process that recovers too."""
    rng = random.Random(seed)
    disk.crash(cut, rng.choice(MODES), rng, to)
    again = Disk(to)
    serve(patch, again, [request(), request(count=2)])
    second = rng.randrange(len(again.ops))
    again.crash(second, rng.choice(MODES), rng, to.with_name("again"))
    promises = promised(disk.acknowledged(cut)) | promised(again.acknowledged(second))
    found = complaints(to.with_name("again") / "log", promises)
    shutil.rmtree(to)
    shutil.rmtree(to.with_name("again"))
    return [f"cut {cut}, then {second} ({seed}): {item}" for item in found]


def _cuts(patch: pytest.MonkeyPatch, root: Path, counts: list[int], once: range | int, twice: range | int) -> list[str]:
    """So many power cuts, over every moment of a recorded process alike; of a range, those with these numbers."""
    disk = _recorded(patch, root / "disk", counts)
    once, twice = (range(number) if isinstance(number, int) else number for number in (once, twice))
    moments = len(disk.ops) + 1
    found = [item for seed in once for item in _cut(disk, seed % moments, seed, root / "cut")]
    return found + [item for seed in twice for item in _cut_twice(patch, disk, seed % moments, seed, root / "cut")]


def _told(found: list[str]) -> str:
    return f"{len(found)} complaints, of kinds {Counter(item.split(':')[1] for item in found)}: {found[:10]}"


@pytest.mark.spread
@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_acknowledged_is_lost_when_the_power_fails(patch: pytest.MonkeyPatch, ram: Path, part: int) -> None:
    """1,000 cuts: of a process that serves, of one that recovers, and across the edge of a tile."""
    found = _cuts(patch, ram, NARROW, once=range(part, 750, PARTS), twice=range(part, 200, PARTS))
    shutil.rmtree(ram / "disk")
    found += _cuts(patch, ram, WIDE, once=range(part, 40, PARTS), twice=range(part, 10, PARTS))
    assert not found, _told(found)


@pytest.mark.long
def test_nothing_acknowledged_is_lost_in_ten_thousand_power_cuts(patch: pytest.MonkeyPatch, ram: Path) -> None:
    """The same 10,000 times, over workloads of different shapes: 0 lost, 0 unverifiable, 0 false success."""
    rng = random.Random(0)
    found: list[str] = []
    for _ in range(10):
        counts = [rng.choice((1, 1, 2, 3, 9)) for _ in range(rng.randrange(5, 15))]
        found += _cuts(patch, ram, counts, once=750, twice=200)
        shutil.rmtree(ram / "disk")
        found += _cuts(patch, ram, [*counts[:3], rng.randrange(240, 600), 2], once=40, twice=10)
        shutil.rmtree(ram / "disk")
    assert not found, _told(found)


@pytest.mark.parametrize("forgotten", ["fdatasync", "fsync"])
def test_a_writer_that_forgets_to_sync_is_caught(
    patch: pytest.MonkeyPatch, ram: Path, forgotten: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: the same check on a writer that skips one kind of sync."""
    monkeypatch.setattr(Disk, forgotten, lambda _disk, _fd: None)
    found = _cuts(patch, ram, NARROW, once=150, twice=0)
    assert any("lost" in item for item in found)


def test_only_one_module_changes_the_disk(patch: pytest.MonkeyPatch, ram: Path) -> None:
    """What the simulated disk recorded is all there is: a disk where everything survives looks like the real one."""
    disk = _recorded(patch, ram / "disk", NARROW)
    disk.crash(len(disk.ops), "all", random.Random(0), ram / "copy")
    assert _tree(ram / "copy") == _tree(ram / "disk")


def _tree(root: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}
