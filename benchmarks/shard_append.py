"""How many predictions a second does a shard acknowledge after the disk has them, for 64 writers at once?

The peer is SQLite in WAL mode with synchronous=FULL on the same disk, which keeps the same values
but compresses, salts, hashes and signs nothing. It gets what suits it best: a transaction a row
from 64 connections or from one, whichever is faster; and batched, one thread that commits
whatever has come meanwhile, as our committer does.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from benchmarks import logs
from benchmarks.measure import Row, faster_row
from benchmarks.setting import Setting
from helix_lineage.shard import Prediction

WRITERS = 64
QUESTIONS = (
    "64 writers, a row a transaction",
    "64 writers, batched",
    "64 writers, promise",
    "64 writers that are threads, batched",
)
PROMISED = 20_000.0
PEER = "SQLite WAL FULL"
_TABLE = (
    "CREATE TABLE prediction (sequence INTEGER PRIMARY KEY, request BLOB, item INTEGER, items INTEGER,"
    " given BLOB, answer BLOB, seed INTEGER, lane TEXT, started INTEGER, finished INTEGER)"
)
_INSERT = (
    "INSERT INTO prediction (request, item, items, given, answer, seed, lane, started, finished)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
Work = list[list[Prediction]]


def rows(setting: Setting, quick: bool) -> Iterator[Row]:
    """Against a row a transaction, against batches, against the promise, and with threads instead of coroutines."""
    each, repeats = (20, 1) if quick else (800, 7)
    few = max(each // 16, 2)
    runs: dict[str, Callable[[Path, Work], float]] = {
        "ours": _ours, "batched": _sqlite_batched, "rows": _sqlite_rows, "one": _sqlite_rows_of_one_connection,
        "ours, threads": _ours_threads, "batched, threads": _sqlite_batched_threads,
    }  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in runs}
    syncs = []
    for repeat in range(repeats):
        syncs.append(logs.sync_microseconds(setting.folder))
        for name, run in runs.items():
            count = few if name in ("rows", "one") else each
            work = [list(logs.predictions(count)) for _ in range(WRITERS)]
            folder = setting.folder / f"{name}-{repeat}"
            folder.mkdir()
            found[name].append(WRITERS * count / run(folder, work))
    rate = {name: statistics.median(values) for name, values in found.items()}
    method = f"coroutines, acknowledged after fdatasync (median {statistics.median(syncs):.0f} µs here); medians"
    plain = max(rate["rows"], rate["one"])
    unit = "appends/s"
    yield faster_row(QUESTIONS[0], (rate["ours"], plain), unit, PEER,
                     at_least=4.0, method=method, repeats=repeats)  # fmt: skip
    yield faster_row(QUESTIONS[1], (rate["ours"], rate["batched"]), unit, PEER,
                     at_least=1.0, method=method + _WHY, repeats=repeats)  # fmt: skip
    yield faster_row(QUESTIONS[2], (rate["ours"], PROMISED), unit, "promised at least",
                     at_least=1.0, method=method, repeats=repeats)  # fmt: skip
    yield faster_row(QUESTIONS[3], (rate["ours, threads"], rate["batched, threads"]), unit, PEER,
                     at_least=None, method=method.replace("coroutines", "threads"), repeats=repeats)  # fmt: skip


_WHY = (
    ". SQLite binds raw values; ours makes, for each, four SHA-256, two salts, two zstd frames, a CBOR entry, a leaf"
    " and its share of the tree, two checksums, and a signature and two syncs a group"
)


def _timed(main: Coroutine[Any, Any, None]) -> float:
    started = time.perf_counter()
    asyncio.run(main)
    return time.perf_counter() - started


def _ours(folder: Path, work: Work) -> float:
    with logs.open_shard(folder) as writer:

        async def one(items: list[Prediction]) -> None:
            for item in items:
                await writer.append_soon([item])

        async def every() -> None:
            await asyncio.gather(*map(one, work))

        return _timed(every())


def _ours_threads(folder: Path, work: Work) -> float:
    with logs.open_shard(folder) as writer:
        return _threads(work, lambda item: writer.append([item]))


def _threads(work: Work, append: Callable[[Prediction], object]) -> float:
    def one(items: list[Prediction]) -> None:
        for item in items:
            append(item)

    threads = [threading.Thread(target=one, args=(items,)) for items in work]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def _connect(folder: Path) -> sqlite3.Connection:
    found = sqlite3.connect(folder / "peer.db", timeout=120, isolation_level=None, check_same_thread=False)
    found.execute("PRAGMA journal_mode=WAL")
    found.execute("PRAGMA synchronous=FULL")
    return found


def _values(item: Prediction) -> tuple[Any, ...]:
    return (item.request_id, item.index, item.count, item.input, item.output, item.seed, item.lane,
            item.started_ns, item.finished_ns)  # fmt: skip


def _sqlite_rows(folder: Path, work: Work) -> float:
    """Each writer has a connection of its own."""
    _connect(folder).execute(_TABLE)
    own = threading.local()

    def append(item: Prediction) -> None:
        if not hasattr(own, "connection"):
            own.connection = _connect(folder)
        own.connection.execute(_INSERT, _values(item))

    return _threads(work, append)


def _sqlite_rows_of_one_connection(folder: Path, work: Work) -> float:
    connection, lock = _connect(folder), threading.Lock()
    connection.execute(_TABLE)

    def append(item: Prediction) -> None:
        with lock:
            connection.execute(_INSERT, _values(item))

    return _threads(work, append)


class _Batches:
    """A thread that commits in one transaction whatever has come while it committed the last one."""

    def __init__(self, folder: Path, report: Callable[[list[Any]], None]) -> None:
        self._connection = _connect(folder)
        self._connection.execute(_TABLE)
        self._report = report
        self._queue: list[tuple[tuple[Any, ...], Any]] = []
        self._lock, self._wake = threading.Lock(), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def add(self, item: Prediction, waiter: object) -> None:
        with self._lock:
            self._queue.append((_values(item), waiter))
            first = len(self._queue) == 1
        if first:
            self._wake.release()

    def close(self) -> None:
        self._wake.release()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while True:
            self._wake.acquire()
            with self._lock:
                group, self._queue = self._queue, []
            if not group:
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(_INSERT, [values for values, _ in group])
            self._connection.execute("COMMIT")
            self._report([waiter for _, waiter in group])


def _sqlite_batched(folder: Path, work: Work) -> float:
    async def every() -> None:
        loop = asyncio.get_running_loop()

        def settle(waiters: list[asyncio.Future[None]]) -> None:
            for waiter in waiters:
                waiter.set_result(None)

        batches = _Batches(folder, lambda waiters: void(loop.call_soon_threadsafe(settle, waiters)))

        async def one(items: list[Prediction]) -> None:
            for item in items:
                waiter: asyncio.Future[None] = loop.create_future()
                batches.add(item, waiter)
                await waiter

        await asyncio.gather(*map(one, work))
        batches.close()

    return _timed(every())


def void(_: object) -> None:
    """Forget a result."""


def _sqlite_batched_threads(folder: Path, work: Work) -> float:
    def report(waiters: list[Any]) -> None:
        for waiter in waiters:
            waiter.release()

    batches = _Batches(folder, report)

    def append(item: Prediction) -> None:
        waiter = threading.Lock()
        waiter.acquire()
        batches.add(item, waiter)
        waiter.acquire()

    try:
        return _threads(work, append)
    finally:
        batches.close()


def profile(setting: Setting) -> list[str]:
    """Where the time goes."""
    return logs.profile(setting.folder / "profile")
