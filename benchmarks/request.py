"""What does a whole request take more than its computing: parsing, checks, endpoints, lineage on the disk, the client?

The server is the released image under runc. The client's time of each request is paired with the
time that this very request computed, which the server's log tells: a machine that is slow for a
moment is slow for both. The kernel alone, called in this process, says how much of the computing
it is.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.endpoints import asking
from benchmarks.measure import Row, quantile_row
from benchmarks.served import STRUCTURE, Released, serving
from benchmarks.setting import Setting, design
from helix_lineage.paths import State
from proteinmpnn_model.featurize import featurize
from proteinmpnn_model.structures.structure import read_structure, sniff_format

ENDPOINTS = {
    "BentoML JSON": "json",
    "Open Inference JSON": "oip-http",
    "Open Inference binary": "oip-http",
    "Open Inference gRPC": "grpc",
}
"""Endpoint → what the server's log calls it."""
QUESTIONS = tuple(f"{endpoint}, added {label}" for endpoint in ENDPOINTS for label in ("p50", "p99"))
PROMISED_MS = {"p50": (0.5, 3.0), "p99": (0.99, 10.0)}
WARM_UP = 3
"""Requests to each endpoint that do not count."""
LOG_TIMEOUT_S = 30.0


def rows(setting: Setting, quick: bool) -> Iterator[Row]:  # noqa: ARG001 - every benchmark is asked alike
    """Milliseconds added at each endpoint, median and 99th percentile, each with its interval."""
    state = State.find()
    model = Released(state).model()
    text = STRUCTURE.read_text(encoding="ascii")
    backbone = featurize(read_structure(text, sniff_format(text), residue_limit=2000))
    with serving(state) as server, asking(server) as endpoints:
        kernel = _in_turn({"kernel": design(model.decoder, backbone, 1)}, 5 if quick else 100)
        asked = _in_turn(endpoints, WARM_UP + (10 if quick else 1000))
        calls = _calls(server.errors, len(asked))
    bare = statistics.median(taken for _, taken in kernel)
    for endpoint, (added, computed) in paired(asked, calls, skip=WARM_UP).items():
        method = (
            f"one design of 1UBI (76 residues), lineage on, endpoints in turn; of each request the client's time less"
            f" the time that it computed (median {statistics.median(computed):.2f} ms, of which the kernel takes"
            f" {bare:.2f} ms alone, runner {model.contract.runner})"
        )
        for label, (share, promised) in PROMISED_MS.items():
            yield quantile_row(f"{endpoint}, added {label}", added, share, promised, "ms", method=method)


def paired(
    asked: Sequence[tuple[str, float]], calls: Sequence[Mapping[str, Any]], *, skip: int
) -> dict[str, tuple[list[float], list[float]]]:
    """Endpoint → what was added to each request, and what it computed, in milliseconds, less the first `skip`.

    Args:
        asked: endpoint and client's milliseconds of each request, one after another.
        calls: what the server's log says of each, in the same order. Raises RuntimeError when it is of others.
    """
    told = [call["endpoint"] for call in calls]
    if told != [ENDPOINTS[endpoint] for endpoint, _ in asked] or any(call["status"] != "OK" for call in calls):
        raise RuntimeError(f"the server's log is not that of the requests: {len(told)} calls, {sorted(set(told))}")
    found: dict[str, tuple[list[float], list[float]]] = {}
    for (endpoint, taken), call in zip(asked, calls, strict=True):
        added, computed = found.setdefault(endpoint, ([], []))
        added.append(taken - call["compute_milliseconds"])
        computed.append(call["compute_milliseconds"])
    return {endpoint: (added[skip:], computed[skip:]) for endpoint, (added, computed) in found.items()}


def profile(_: Setting) -> list[str]:
    """Where the time of a request goes, by the server's own metrics: mean milliseconds a request at each endpoint."""
    name = re.compile(r'helix_(?:phase|request)_seconds_(sum|count){(?:endpoint|phase)="([^"]*)"[^}]*} ([0-9.]+)')
    with serving(State.find()) as server, asking(server) as endpoints:
        for _ in range(100):
            for run in endpoints.values():
                run()
        text = httpx.get(f"{server.http}/metrics").text
        syncs = re.findall(r"^helix_fsync_seconds_(sum|count) ([0-9.]+)", text, re.MULTILINE)
    found: dict[str, dict[str, float]] = {}
    for kind, phase, value in [*name.findall(text), *((kind, "each fdatasync", value) for kind, value in syncs)]:
        found.setdefault(phase, {})[kind] = float(value)
    return [f"{1e3 * row['sum'] / row['count']:8.2f} ms  {phase}" for phase, row in sorted(found.items())]


def _in_turn(runs: Mapping[str, Callable[[], object]], repeats: int) -> list[tuple[str, float]]:
    """Name and milliseconds on the clock of every run, one after another."""
    found = []
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            found.append((name, (time.perf_counter() - started) * 1e3))
    return found


def _calls(log: Path, count: int) -> list[dict[str, Any]]:
    """What the server's log says of its calls, once it is complete: a line is written after its answer."""
    deadline = time.monotonic() + LOG_TIMEOUT_S
    while True:
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if '"helixserve.calls"' in line]
        if len(lines) >= count or time.monotonic() > deadline:
            return [json.loads(line) for line in lines]
        time.sleep(0.05)
