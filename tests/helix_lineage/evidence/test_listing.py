"""Which predictions there are: order, filters, what is damaged, and memory that does not grow with the log."""

from __future__ import annotations

import io
import itertools
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from helix_lineage.errors import LineageError
from helix_lineage.evidence.listing import ListedPrediction, PredictionFilter, newest
from helix_lineage.shard import Prediction, ShardWriter
from helix_lineage.shard.reader import Log
from helix_lineage.tlog import journal
from helix_lineage.tlog.layout import ShardFolder
from tests.helix_lineage.support import NOW_NS, header, typed_input, typed_output

_S = 10**9


def served(log: Path, times: Sequence[int], *, model: str = "m", close: bool = True, size: int = 1) -> list[str]:
    """A shard with requests that finished then (seconds), and the ids of their items."""
    writer = ShardWriter.create(log, header(model=model), now=lambda: NOW_NS)
    names = []
    for at in times:
        ends, given, answer = NOW_NS + at * _S, typed_input(at), typed_output("MK")
        names += writer.append([
            Prediction(at.to_bytes(16, "big"), item, size, given, answer, at, "strict", ends, ends)
            for item in range(size)
        ])  # fmt: skip
    if close:
        writer.close()
    else:
        _open.append(writer)
    return names


_open: list[ShardWriter] = []


@pytest.fixture(autouse=True)
def closing() -> object:
    yield
    while _open:
        _open.pop().close()


def listed(log: Path, wanted: PredictionFilter = PredictionFilter()) -> list[ListedPrediction]:  # noqa: B008  frozen
    return list(newest(Log(log), wanted, lambda name, error: pytest.fail(f"{name}: {error}")))


def test_newest_first_over_shards_that_overlap_or_not(tmp_path: Path) -> None:
    served(tmp_path, range(0, 10, 2))
    served(tmp_path, range(1, 10, 2))
    served(tmp_path, range(20, 23))
    served(tmp_path, range(5, 25, 5), close=False)
    times = [item.entry.finished_ns for item in listed(tmp_path)]
    assert len(times) == 17
    assert times == sorted(times, reverse=True)


def test_more_than_one_bundle_and_what_is_not_published_yet(tmp_path: Path) -> None:
    names = served(tmp_path, range(700), close=False)
    assert [item.id for item in listed(tmp_path)] == names[::-1]
    (shard,) = Log(tmp_path).shard_ids()
    opened = Log(tmp_path).shard(shard)
    with opened.folder.journal.open("rb") as file:
        assert journal.tail(file, 3) == opened.journal.entries[3 : opened.size]


def test_a_clock_that_goes_back_hides_nothing(tmp_path: Path) -> None:
    names = served(tmp_path, [50, 10, 60, 5])
    other = served(tmp_path, [30])
    found = [item.id for item in listed(tmp_path)]
    assert [name for name in found if name not in other] == names[::-1]
    assert sorted(found) == sorted(names + other)


def test_what_is_asked_for(tmp_path: Path) -> None:
    served(tmp_path, range(5), model="one", size=2)
    served(tmp_path, range(100, 105), model="other")
    assert {item.header.model for item in listed(tmp_path, PredictionFilter(model="one"))} == {"one"}
    assert len(listed(tmp_path, PredictionFilter(request="0" * 31 + "3"))) == 2
    assert len(listed(tmp_path, PredictionFilter(request="0" * 24))) == 15
    assert [item.entry.seed for item in listed(tmp_path, PredictionFilter(since_ns=NOW_NS + 103 * _S))] == [104, 103]


def test_a_damaged_shard_hides_no_other(tmp_path: Path) -> None:
    bad, good = served(tmp_path, range(600))[0].partition(".")[0], served(tmp_path, [1])
    ShardFolder(tmp_path / bad).bundle(0).write_bytes(b"\xff" * 7)
    damaged: list[str] = []

    def note(name: str, _error: LineageError) -> None:
        damaged.append(name)

    found = [item.id for item in newest(Log(tmp_path), PredictionFilter(), note)]
    assert damaged == [bad]
    assert set(good) < set(found)


def test_a_torn_journal_is_read_up_to_what_is_covered() -> None:
    frames = [journal.frame(journal.ENTRY, b"%d" % at) for at in range(4)]
    covered = journal.MAGIC + frames[0] + frames[1] + journal.frame(journal.CHECKPOINT, b"note")
    for rest in (b"", frames[2], frames[2][:-1], b"\0" * 100, b"\xff" * 100):
        assert journal.tail(io.BytesIO(covered + rest), 1) == [b"1"]
    flipped = covered.replace(frames[1], frames[1][:-1] + b"\0")
    assert journal.tail(io.BytesIO(flipped), 0) == []
    assert journal.tail(io.BytesIO(b"something else"), 0) == []


def peak(log: Path, *, keep: bool = False) -> int:
    tracemalloc.start()
    try:
        found = newest(Log(log), PredictionFilter(), lambda _name, _error: None)
        kept = list(found) if keep else sum(1 for _ in found)
        assert kept
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """The planted fault beside it: who keeps what is listed needs ten times as much."""
    clock = itertools.count()
    for folder, shards in (("small", 1), ("large", 12)):
        for _ in range(shards):
            served(tmp_path / folder, [next(clock)], size=512)
    small, large = peak(tmp_path / "small"), peak(tmp_path / "large")
    assert large < 2 * small, (small, large)
    assert peak(tmp_path / "large", keep=True) > 4 * small
