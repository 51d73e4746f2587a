"""What the benchmarks of the log share: predictions, a large shard, and how long this disk takes to sync."""

from __future__ import annotations

import cProfile
import io
import os
import pstats
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from helix_lineage.formats.typed import Tensor, encode
from helix_lineage.shard import Prediction, ShardHeader, ShardWriter

ITEMS = 8
"""Designs of a request."""
GROUP = 64
"""Predictions of a group."""
LETTERS = b"ACDEFGHIKLMNPQRSTVWY"

_HEADER = ShardHeader(
    release=None, image=None, machine_class="x86-64-v4", libraries={"numpy": "2.3.1"}, model="proteinmpnn"
)


def open_shard(folder: Path) -> ShardWriter:
    """A new shard below `folder`."""
    return ShardWriter.create(folder, _HEADER)


def predictions(count: int, items: int = 1) -> Iterator[Prediction]:
    """Predictions as a server hands them over, each with an answer of its own; about 0.5 kB of typed values each."""
    started = time.time_ns()
    for number in range(count):
        index = number % items
        if index == 0:
            request, noise = os.urandom(16), os.urandom(64)
            given = _input(number, noise)
        yield Prediction(request, index, items, given, _output(number, noise), number, "strict", started, started + 9)


def fill(folder: Path, count: int) -> tuple[str, int]:
    """A closed shard of about `count` predictions, in requests of 8 and groups of 64; gives its id and its entries."""
    with open_shard(folder) as writer:
        for _ in range(count // GROUP):
            writer.append(list(predictions(GROUP, ITEMS)))
        return writer.shard_id, count // GROUP * GROUP + 2


def sync_microseconds(folder: Path, tries: int = 200) -> float:
    """Median time of an fdatasync after 4 kB were appended."""
    return statistics.median(_syncs(folder, time.perf_counter, tries)) * 1e6


def sync_cpu_microseconds(folder: Path, tries: int = 200) -> float:
    """Median processor time of an fdatasync after 4 kB were appended, which the kernel takes in the caller's name."""
    return statistics.median(_syncs(folder, time.thread_time, tries)) * 1e6


def _syncs(folder: Path, clock: Callable[[], float], tries: int) -> list[float]:
    """Seconds of each of a few syncs."""
    path, taken = folder / "sync", list[float]()
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        for number in range(tries):
            os.pwrite(fd, bytes(4096), number * 4096)
            started = clock()
            os.fdatasync(fd)
            taken.append(clock() - started)
    finally:
        os.close(fd)
        path.unlink()
    return taken


def profile(folder: Path) -> list[str]:
    """Where the time of an append goes, by function, without its syncs and without threads."""
    with open_shard(folder) as writer:
        groups = [list(predictions(GROUP)) for _ in range(100)]
        measured = cProfile.Profile()
        measured.enable()
        for group in groups:
            prepared = [writer._prepare([item], None) for item in group]
            writer._payload.write([(1 + at, item) for at, one in enumerate(prepared) for item in one.items or ()])
            writer._frontier.copy().extend([leaf for one in prepared for leaf in one.leaves])
        measured.disable()
        text = io.StringIO()
        pstats.Stats(measured, stream=text).strip_dirs().sort_stats("tottime").print_stats(20)
    return [line.rstrip() for line in text.getvalue().splitlines() if line.strip()]


def _input(number: int, noise: bytes) -> bytes:
    return encode(
        [
            Tensor("seed", "UINT64", (1,), number.to_bytes(8, "little")),
            Tensor("sequence", "BYTES", (1,), (bytes(LETTERS[byte % 20] for byte in noise),)),
            Tensor("structure", "BYTES", (1,), (b"%064d" % number,)),
            Tensor("task", "BYTES", (1,), (b"design",)),
        ]
    )


def _output(number: int, noise: bytes) -> bytes:
    sequence = bytes(LETTERS[(byte + number) % 20] for byte in noise)
    return encode(
        [
            Tensor("score", "FP32", (1,), number.to_bytes(4, "little")),
            Tensor("sequence", "BYTES", (1,), (sequence,)),
        ]
    )
