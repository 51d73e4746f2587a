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
from collections.abc import Iterator

import grpc.aio

from benchmarks import logs
from benchmarks.doors import CALL, grpc_message
from benchmarks.measure import Row, promise_row
from benchmarks.served import STRUCTURE, serving, unrecorded
from benchmarks.setting import Setting
from helix_lineage.paths import State
from helix_lineage.shard import Prediction
from helix_lineage.typed import Tensor, encode

AT_ONCE = 8
QUESTIONS = (
    "processor time a prediction, requests of 1",
    "processor time a prediction, requests of 8",
    "throughput lost at concurrency 8, upper bound",
)
PROMISED_MICROSECONDS = 200.0
PROMISED_PERCENT = 2.0
_T_95 = {9: 2.262, 11: 2.201, 15: 2.131, 19: 2.093}
"""Student's t for a two-sided interval of 95 %, by degrees of freedom."""


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
    state, pairs, seconds = State.find(), 2 if quick else 20, 0.5 if quick else 2.0
    with unrecorded(state) as off, serving(state) as on:
        rates = [asyncio.run(_pair((on.grpc, off.grpc), seconds, flip=bool(at % 2))) for at in range(pairs + 1)][1:]
    recorded, plain = (statistics.median(column) for column in zip(*rates, strict=True))
    losses = [(1 - row[0] / row[1]) * 100 for row in rates]
    mean = statistics.mean(losses)
    spread = statistics.stdev(losses) / math.sqrt(pairs) * _T_95.get(pairs - 1, 12.7)
    method = (
        f"designs of 1UBI by gRPC, {AT_ONCE} at once, {pairs} alternating pairs of {seconds:g} s: loss {mean:.2f} %,"
        f" 95 % interval {mean - spread:.2f} to {mean + spread:.2f} %; recorded"
        f" {recorded:.1f}/s, not recorded {plain:.1f}/s"
    )
    yield promise_row(
        "throughput lost at concurrency 8, upper bound", max(mean + spread, 0.001), PROMISED_PERCENT, "%",
        method=method, repeats=pairs,
    )  # fmt: skip


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


async def _pair(addresses: tuple[str, str], seconds: float, *, flip: bool) -> tuple[float, float]:
    """Requests a second of both servers; `flip` asks the second one first."""
    found = {address: await _rate(address, seconds) for address in (addresses[::-1] if flip else addresses)}
    return found[addresses[0]], found[addresses[1]]


async def _rate(address: str, seconds: float) -> float:
    message = grpc_message()
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(CALL)
        await call(message, timeout=60)
        started, done = time.perf_counter(), 0

        async def ask() -> None:
            nonlocal done
            while time.perf_counter() - started < seconds:
                await call(message, timeout=60)
                done += 1

        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
        return done / (time.perf_counter() - started)


def profile(setting: Setting) -> list[str]:
    """Where the time goes."""
    return logs.profile(setting.folder / "profile")
