"""How long does it take to trace one prediction, with its inclusion proof, in a shard of a million?"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks import logs
from benchmarks.measure import Row, aim_row, quantile_row
from benchmarks.setting import Setting
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.evidence.trace import trace
from helix_lineage.shard.reader import Log

ENTRIES = 1_000_000
PROMISED_MS = 5.0
COLD_AIM_MS = 1000.0
QUESTIONS = ("point trace, p50", "point trace, p99", "point trace, cold command")
METHOD = "random predictions of a closed shard; entry, header, signed checkpoint, proof, payload against commitments"


def rows(setting: Setting, quick: bool) -> Iterator[Row]:
    """In a process that runs already, and as a command of its own."""
    shard, size = logs.fill(setting.folder / "log", 2_048 if quick else ENTRIES)
    log, sources, choose = Log(setting.folder / "log"), ReleaseSources(), random.Random(0)  # noqa: S311 - not a secret
    first = _ask(log, sources, f"{shard}.1")
    taken = [_ask(log, sources, f"{shard}.{choose.randrange(1, size - 1)}") for _ in range(50 if quick else 5000)]
    # A segment is read once, when the first of its records is asked for.
    steady = taken[len(taken) // 10 :]
    warm = len(taken) - len(steady)
    method = f"{METHOD}; {size} entries; same process, after {warm} traces (the first took {first:.0f} ms)"
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        yield quantile_row(f"point trace, {label}", steady, share, PROMISED_MS, "ms", method=method)
    cold = [_command(setting, f"{shard}.{choose.randrange(1, size - 1)}") for _ in range(1 if quick else 7)]
    method = "python -m helix_lineage trace ID --json, a new process each time: imports, and reads one payload segment"
    yield aim_row(
        "point trace, cold command", statistics.median(cold), COLD_AIM_MS, "ms", method=method, repeats=len(cold)
    )


def _ask(log: Log, sources: ReleaseSources, prediction: str) -> float:
    """Milliseconds of one trace."""
    started = time.perf_counter()
    found = trace(log, prediction, sources)
    taken = (time.perf_counter() - started) * 1e3
    if not found.inclusion.holds or set(found.payload.values()) != {"kept"}:
        raise RuntimeError(f"{prediction} does not hold: {found.payload}")
    return taken


def _command(setting: Setting, prediction: str) -> float:
    command = [sys.executable, "-m", "helix_lineage", "trace", prediction, "--json"]
    started = time.perf_counter()
    subprocess.run([*command, "--log", str(setting.folder / "log")], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - started) * 1e3
