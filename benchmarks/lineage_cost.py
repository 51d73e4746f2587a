"""What does recording cost: processor time a prediction, and throughput against a server that does not record?

Both servers are the released image under runc; the second has a recorder that records nothing
(`unrecorded.py`, which exists for this only). They run side by side and are asked in turn.
"""

from __future__ import annotations

import asyncio
import math
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

import grpc.aio

from benchmarks import logs
from benchmarks.endpoints import CALL, grpc_message
from benchmarks.measure import Row, promise_row
from benchmarks.served import STRUCTURE, serving, unrecorded
from benchmarks.setting import Setting
from helix_lineage.formats.typed import Tensor, encode
from helix_lineage.paths import State
from helix_lineage.shard import Prediction

AT_ONCE = 8
QUESTIONS = (
    "processor time a prediction, requests of 1",
    "processor time a prediction, requests of 8",
    "throughput lost at concurrency 8, upper bound",
)
PROMISED_MICROSECONDS = 200.0
PROMISED_PERCENT = 2.0
SHORT_PAIR_DESIGNS = 16
"""Of each server: less than a second, so that a machine which is slow for a while is slow for both."""
FEWEST_PAIRS, MOST_PAIRS = 50, 600
WANTED_PERCENT = 0.9
"""Pairs go on until the mean is known this well, either way: what is looked at is the interval's width, never its place
(Chow and Robbins, On the Asymptotic Theory of Fixed-Width Sequential Confidence Intervals, 1965)."""
_Z_95 = 1.96


def rows(setting: Setting, quick: bool) -> Iterator[Row]:
    """Processor time of requests of one and of eight designs; then the loss of throughput."""
    sync, sync_cpu = logs.sync_microseconds(setting.folder), logs.sync_cpu_microseconds(setting.folder)
    for items in (1, logs.ITEMS):
        found = asyncio.run(_processor_microseconds(setting, items, 8 if quick else 400))
        method = (
            f"appends of whole requests of {items} (1UBI, {STRUCTURE.stat().st_size} bytes of structure),"
            f" {AT_ONCE} at once: all processor time of the process, the kernel's share of the syncs included"
            f" (an fdatasync takes {sync:.0f} µs here, {sync_cpu:.0f} of them of the processor); promised are"
            f" {PROMISED_MICROSECONDS:.0f} µs and the processor time of one fdatasync"
        )
        yield promise_row(
            f"processor time a prediction, requests of {items}", statistics.median(found),
            round(PROMISED_MICROSECONDS + sync_cpu, 1), "µs", method=method, repeats=len(found),
        )  # fmt: skip
    yield from _throughput(quick)


def _throughput(quick: bool) -> Iterator[Row]:
    """The upper bound of what recording takes from the throughput."""
    state, fewest, most = State.find(), *((2, 2) if quick else (FEWEST_PAIRS, MOST_PAIRS))
    with unrecorded(state) as off, serving(state) as on:
        rates = asyncio.run(_pairs((on.grpc, off.grpc), fewest, most))
    recorded, plain = (statistics.median(column) for column in zip(*rates, strict=True))
    ratios = _logs(rates)
    mean, half = statistics.mean(ratios), _half_width(ratios)
    loss, low, high = (_lost(value) for value in (mean, mean + half, mean - half))
    method = (
        f"designs of 1UBI by gRPC, {AT_ONCE} at once, {len(rates)} alternating pairs of {SHORT_PAIR_DESIGNS} designs of"
        f" each, until the mean was known to {WANTED_PERCENT} % or {most} were made: loss {loss:.2f} %, 95 % interval"
        f" {low:.2f} to {high:.2f} %, median {_lost(statistics.median(ratios)):.2f} %;"
        f" recorded {recorded:.1f}/s, not recorded {plain:.1f}/s"
    )
    yield promise_row(
        "throughput lost at concurrency 8, upper bound", max(high, 0.001), PROMISED_PERCENT, "%",
        method=method, repeats=len(rates),
    )  # fmt: skip


def _logs(rates: Sequence[tuple[float, float]]) -> list[float]:
    """Logarithms of the ratios: the mean of the ratios themselves would flatter us, the more the noise."""
    return [math.log(recorded / plain) for recorded, plain in rates]


def _lost(logarithm: float) -> float:
    """Percent of the throughput."""
    return (1 - math.exp(logarithm)) * 100


def _half_width(ratios: Sequence[float]) -> float:
    """Of the 95 % interval of their mean."""
    return _Z_95 * statistics.stdev(ratios) / math.sqrt(len(ratios))


async def _processor_microseconds(setting: Setting, items: int, requests: int) -> list[float]:
    """Microseconds a prediction, for each of a few runs."""
    found = []
    with logs.open_shard(setting.folder / f"cost-{items}") as writer:
        for _ in range(5):
            work = [_request(number, items) for number in range(requests)]
            started = time.process_time()

            async def one(share: list[list[Prediction]]) -> None:
                for request in share:
                    await writer.append_soon(request)

            await asyncio.gather(*(one(work[at::AT_ONCE]) for at in range(AT_ONCE)))
            found.append((time.process_time() - started) * 1e6 / (requests * items))
    return found[1:]


def _request(number: int, items: int) -> list[Prediction]:
    """A request for designs of 1UBI, and answers such as ProteinMPNN gives."""
    given = encode(
        [
            Tensor("num_sequences", "INT64", (1,), items.to_bytes(8, "little")),
            Tensor("seed", "UINT64", (1,), number.to_bytes(8, "little")),
            Tensor("structure", "BYTES", (1,), (STRUCTURE.read_bytes(),)),
            Tensor("task", "BYTES", (1,), (b"design",)),
        ]
    )
    name, now = os.urandom(16), time.time_ns()
    return [Prediction(name, at, items, given, _answer(), number, "strict", now, now + 9) for at in range(items)]


def _answer() -> bytes:
    letters = bytes(logs.LETTERS[byte % 20] for byte in os.urandom(76))
    return encode(
        [
            Tensor("log_probability", "FP32", (76,), os.urandom(4 * 76)),
            Tensor("score", "FP32", (1,), os.urandom(4)),
            Tensor("sequence", "BYTES", (1,), (letters,)),
        ]
    )


async def _pairs(addresses: tuple[str, str], fewest: int, most: int) -> list[tuple[float, float]]:
    """Requests a second of both servers, pair by pair; the order within a pair alternates."""
    found: list[tuple[float, float]] = []
    async with grpc.aio.insecure_channel(addresses[0]) as one, grpc.aio.insecure_channel(addresses[1]) as other:
        calls = {address: channel.unary_unary(CALL) for address, channel in zip(addresses, (one, other), strict=True)}
        for call in calls.values():
            await _rate(call)  # the first ones do not count
        while len(found) < fewest or (len(found) < most and _half_width(_logs(found)) > WANTED_PERCENT / 100):
            order = addresses[::-1] if len(found) % 2 else addresses
            rates = {address: await _rate(calls[address]) for address in order}
            found.append((rates[addresses[0]], rates[addresses[1]]))
    return found


async def _rate(call: Callable[..., Awaitable[bytes]]) -> float:
    """Requests a second, of so many that end together."""
    message, started = grpc_message(), time.perf_counter()

    async def ask() -> None:
        for _ in range(SHORT_PAIR_DESIGNS // AT_ONCE):
            await call(message, timeout=60)

    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return SHORT_PAIR_DESIGNS / (time.perf_counter() - started)


def profile(setting: Setting) -> list[str]:
    """Where the time goes."""
    return logs.profile(setting.folder / "profile")
