from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.audit import audit
from helix_lineage.errors import ShardError
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.shard import ShardWriter, entries, payload
from helix_lineage.shard.entries import commitment
from helix_lineage.shard.payload_writer import PreparedOutput
from helix_lineage.shard.reader import Log
from tests.helix_lineage.support import NOW_NS, World, header, request
from tests.together import at_once
from tests.waiting import LONGEST_S, until, until_async

Open = Callable[..., ShardWriter]
ROOT = Path(__file__).parents[3]


def test_what_append_returned_for_can_be_read_at_once(open_shard: Open, tmp_path: Path) -> None:
    writer = open_shard()
    items = request(count=3)
    names = writer.append(items)
    assert names == [f"{writer.shard_id}.{at}" for at in (1, 2, 3)]
    shard = Log(tmp_path / "log").shard(writer.shard_id)
    for name, item in zip(names, items, strict=True):
        sequence = int(name.partition(".")[2])
        entry, kept = shard.prediction(sequence), shard.payload(sequence)
        assert (entry.request_id, entry.index, entry.count, entry.seed) == (item.request_id, item.index, 3, 7)
        assert (kept.input, kept.output) == (item.input, item.output)
        assert kept.input_salt is not None
        assert kept.output_salt is not None
        assert commitment(kept.input_salt, item.input) == entry.input_commitment
        assert commitment(kept.output_salt, item.output) == entry.output_commitment
        assert shard.inclusion(sequence).holds
    assert shard.live


def test_many_threads_write_together_and_nothing_is_lost(world: World) -> None:
    requests = [request(seed=at, count=1 + at % 3) for at in range(120)]
    given: dict[str, bytes] = {}

    def client(mine: list[int]) -> None:
        for at in mine:
            names = writer.append(requests[at])
            given.update(zip(names, (item.output for item in requests[at]), strict=True))

    with world.open() as writer:
        at_once(*(partial(client, list(range(who, 120, 8))) for who in range(8)))
    assert len(given) == sum(len(items) for items in requests)
    shard = world.log.shard(writer.shard_id)
    assert {name: shard.payload(int(name.partition(".")[2])).output for name in given} == given
    assert isinstance(entries.decode(shard.entry(shard.size - 1)), entries.Close)
    assert audit(world.log, world.sources).passed


def test_items_of_a_request_stand_together_in_order(open_shard: Open) -> None:
    writer = open_shard()
    names: list[list[str]] = []
    at_once(*[lambda: names.append(writer.append(request(count=5)))] * 6)
    for mine in names:
        sequences = [int(name.partition(".")[2]) for name in mine]
        assert sequences == list(range(sequences[0], sequences[0] + 5))


def test_an_input_is_stored_once_a_request_and_salted_by_request(open_shard: Open, tmp_path: Path) -> None:
    writer = open_shard()
    items = request(count=40)
    for item in items:  # streamed one by one
        writer.append([item])
    other = request(count=1)  # the same typed input in another request
    writer.append(other)
    shard = Log(tmp_path / "log").shard(writer.shard_id)
    commitments = [shard.prediction(at).input_commitment for at in range(1, 42)]
    assert len(set(commitments[:40])) == 1
    assert commitments[40] != commitments[0]
    places = {(place.record.kind, place.offset) for place in shard.payloads.scan(0, preallocated=True)}
    assert sum(kind == payload.INPUT for kind, _ in places) == 2
    assert sum(kind == payload.OUTPUT for kind, _ in places) == 41


def test_every_group_has_its_own_signed_checkpoint_in_the_journal(open_shard: Open, tmp_path: Path) -> None:
    writer = open_shard()
    for _ in range(3):
        writer.append(request(count=2))
    journal = Log(tmp_path / "log").shard(writer.shard_id).journal
    assert [covered.size for covered in journal.checkpoints] == [1, 3, 5, 7]


def test_tiles_catch_up_without_further_appends(open_shard: Open, tmp_path: Path) -> None:
    writer = open_shard()
    writer.append(request(count=300))
    until(lambda: Log(tmp_path / "log").shard(writer.shard_id).published[1].size >= 301, "301 published entries")
    shard = Log(tmp_path / "log").shard(writer.shard_id)
    assert all(shard.inclusion(at).holds for at in (0, 1, 255, 256, 300))


def test_payload_goes_on_in_a_new_segment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "SEGMENT_BYTES", 2000)
    names = world.shard([request(seed=at, count=2) for at in range(30)])
    shard = world.log.shard(names[0].partition(".")[0])
    assert len(shard.payloads.segments()) > 3
    assert all(shard.payload(at).output is not None for at in range(1, 61))
    assert audit(world.log, world.sources).passed


def test_an_empty_request_writes_nothing(open_shard: Open, tmp_path: Path) -> None:
    writer = open_shard()
    assert writer.append([]) == []
    assert Log(tmp_path / "log").shard(writer.shard_id).size == 1


def test_a_malformed_item_is_refused_and_others_are_not(open_shard: Open) -> None:
    writer = open_shard()
    good = request()
    for bad in (replace(good[0], request_id=b"short"), replace(good[0], index=1), replace(good[0], lane="slow")):
        with pytest.raises(ShardError):
            writer.append([good[0], bad])
    assert writer.append(good) == [f"{writer.shard_id}.1"]


def test_a_closed_shard_takes_nothing_and_closes_twice(open_shard: Open) -> None:
    writer = open_shard()
    writer.close()
    writer.close()
    with pytest.raises(ShardError, match="closed"):
        writer.append(request())


def test_waiting_items_are_written_before_the_close_entry(world: World) -> None:
    writer = world.open()
    names: list[str] = []
    threads = [threading.Thread(target=lambda: names.extend(_append_or_nothing(writer))) for _ in range(10)]
    for thread in threads:
        thread.start()
    writer.close()
    for thread in threads:
        thread.join()
    shard = world.log.shard(writer.shard_id)
    assert len(list(shard.predictions())) == len(names)
    assert audit(world.log, world.sources).passed


def _append_or_nothing(writer: ShardWriter) -> list[str]:
    try:
        return writer.append(request())
    except ShardError:
        return []


def test_a_header_too_large_for_an_entry_is_refused(open_shard: Open) -> None:
    with pytest.raises(ShardError, match="header has"):
        open_shard(libraries={"x": "v" * 70_000})


def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file is in the way")
    with pytest.raises(ShardError, match="cannot open a shard"):
        ShardWriter.create(tmp_path / "log", header(), now=lambda: NOW_NS)


def test_coroutines_write_together_and_nothing_is_lost(world: World) -> None:
    requests = [request(seed=at, count=1 + at % 3) for at in range(60)]

    async def everyone(writer: ShardWriter) -> list[list[str]]:
        assert await writer.append_soon([]) == []
        return await asyncio.gather(*(writer.append_soon(items) for items in requests))

    with world.open() as writer:
        names = asyncio.run(everyone(writer))
    for items, given in zip(requests, names, strict=True):
        for item, name in zip(items, given, strict=True):
            shard, sequence = world.log.find(name)
            assert shard.payload(sequence).output == item.output
    assert audit(world.log, world.sources).findings == []


def test_a_coroutine_that_gives_up_is_recorded_all_the_same(world: World) -> None:
    async def give_up(writer: ShardWriter) -> None:
        waiting = asyncio.create_task(writer.append_soon(request()))
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        await writer.append_soon(request())

    with world.open() as writer:
        asyncio.run(give_up(writer))
    report = audit(world.log, world.sources)
    assert (report.findings, report.predictions) == ([], 2)


def test_a_coroutine_is_told_of_a_failed_sync(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(fd: int) -> None:
        raise OSError(5, "Input/output error")

    writer = world.open()
    writer.append(request())
    monkeypatch.setattr(os, "fdatasync", failing)
    for expected in ("Input/output error", "takes no"):
        with pytest.raises(ShardError, match=expected):
            asyncio.run(writer.append_soon(request()))
    monkeypatch.undo()
    with pytest.raises(ShardError, match="without a close entry"):
        writer.close()


def test_an_event_loop_that_is_gone_does_not_stop_the_committer(world: World) -> None:
    async def leave(writer: ShardWriter) -> None:
        writer._enqueue(writer._prepare(request(), asyncio.get_running_loop().create_future()))

    with world.open() as writer:
        with writer._wake:  # the committer comes to it when the loop is closed
            asyncio.run(leave(writer))
        assert len(writer.append(request())) == 1


@pytest.mark.parametrize("thread", [True, False])
def test_an_event_loop_that_ends_before_it_calls_the_committer_leaves_that_to_others(
    world: World, thread: bool
) -> None:
    loop = asyncio.new_event_loop()
    with world.open() as writer:
        asyncio._set_running_loop(loop)
        abandoned = writer.append_soon(request())
        abandoned.send(None)
        asyncio._set_running_loop(None)
        loop.close()
        assert writer.entries == 1
        ids = (
            writer.append(request())
            if thread
            else asyncio.run(asyncio.wait_for(writer.append_soon(request()), LONGEST_S))
        )
        assert ids == [f"{writer.shard_id}.2"]
        with suppress(StopIteration, asyncio.CancelledError):
            abandoned.throw(asyncio.CancelledError)


def test_a_loop_calls_a_committer_that_sleeps_each_time(world: World) -> None:
    async def now_and_then(writer: ShardWriter) -> None:
        for _ in range(3):
            await asyncio.wait_for(writer.append_soon(request()), LONGEST_S)
            # Until everything is published it wakes by itself.
            await until_async(lambda: writer._tiles.published == writer._tiles.size, "every tile published")
            await until_async(lambda: writer._wake._waiters, "a committer that sleeps")  # type: ignore[attr-defined]

    with world.open() as writer:
        asyncio.run(now_and_then(writer))
        assert writer.entries == 4


def test_coroutines_that_append_in_one_turn_share_a_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def together(writer: ShardWriter) -> list[list[str]]:
        return await asyncio.gather(*(writer.append_soon(request()) for _ in range(20)))

    with world.open() as writer:
        syncs: list[float] = []
        writer.on_sync = syncs.append
        prepare = writer._payload.prepare

        def slowly(*args: Any, **kwargs: Any) -> PreparedOutput:
            time.sleep(0.002)  # a committer that was called too early takes what is there
            return prepare(*args, **kwargs)

        monkeypatch.setattr(writer._payload, "prepare", slowly)
        asyncio.run(together(writer))
        assert len(syncs) == 2


def test_small_and_large_values_stand_in_the_payload_as_they_are(world: World) -> None:
    large = [replace(request()[0], input=os.urandom(9000), output=os.urandom(5000))]
    mixed = [replace(request()[0], input=b"", output=os.urandom(5000))]
    with world.open() as writer:
        names = writer.append(large) + writer.append(mixed) + writer.append(request())
    for name, item in zip(names, [*large, *mixed], strict=False):
        shard, sequence = world.log.find(name)
        kept = shard.payload(sequence)
        assert (kept.input, kept.output) == (item.input, item.output)
    assert audit(world.log, world.sources).findings == []


def test_a_failed_write_is_cut_off_and_the_next_one_is_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full for a moment: half of a write lands, then no more."""
    pwrite = os.pwrite
    with world.open() as writer:
        before = writer.append(request())
        for full_after in (1, 2):  # the payload's write, then the journal's

            def failing(fd: int, data: bytes, at: int, calls: list[int] = [full_after]) -> int:  # noqa: B006
                calls[0] -= 1
                if calls[0] > 0:
                    return pwrite(fd, data, at)
                if calls[0] == 0:
                    return pwrite(fd, data[: len(data) // 2], at)
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(os, "pwrite", failing)
            with pytest.raises(ShardError, match="No space left"):
                writer.append(request())
            monkeypatch.setattr(os, "pwrite", pwrite)
            after = writer.append(request())
            assert int(after[0].partition(".")[2]) == int(before[0].partition(".")[2]) + 1
            before = after
    report = audit(world.log, world.sources)
    assert report.findings == []
    assert report.predictions == 3


def test_after_a_failed_sync_nothing_more_is_promised(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = world.open()
    kept = writer.append(request())

    def failing(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(ShardError, match="Input/output error"):
        writer.append(request())
    monkeypatch.undo()
    with pytest.raises(ShardError, match="takes no"):
        writer.append(request())
    with pytest.raises(ShardError, match="without a close entry"):
        writer.close()
    shard, sequence = world.log.find(kept[0])
    assert shard.inclusion(sequence).holds
    with world.open() as after:
        assert [recovery.shard for recovery in after.recovered] == [writer.shard_id]
    assert audit(world.log, world.sources).findings == []


_LIMITED = """
import resource, signal, sys
from pathlib import Path
from helix_lineage.errors import ShardError
from tests.helix_lineage.support import World, make_chain, Signer, request
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from helix_lineage.shard import ShardWriter
from tests.helix_lineage.support import header
writer = ShardWriter.create(Path(sys.argv[1]), header())
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
refused = 0
for at in range(400):
    try:
        for name in writer.append(request(seed=at)):
            print(name, flush=True)
    except ShardError:
        refused += 1
print("refused", refused, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(writer.append(request())[0], flush=True)
writer.close()
"""


def test_a_real_limit_of_the_kernel_refuses_and_loses_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path / "log")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = done.stdout.split("\n")
    names = [line for line in lines if "." in line]
    assert "refused 0" not in done.stdout
    assert len(names) > 5
    log = Log(tmp_path / "log")
    assert [f"{shard}.{at}" for shard in log.shard_ids() for at, _ in log.shard(shard).predictions()] == names
    assert audit(log, ReleaseSources()).findings == []
