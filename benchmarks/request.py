"""What does a whole request take more than the kernel alone: parsing, checks, doors, lineage on the disk, the client?

The server is the released image under runc. The kernel alone is the decoder of the same model
object on the same artifacts, in this process, from a backbone's arrays.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import httpx

from benchmarks.doors import asking
from benchmarks.measure import Row, promise_row, quantile
from benchmarks.served import STRUCTURE, Released, serving
from benchmarks.setting import Setting, design
from helix_lineage.paths import State
from proteinmpnn_model.featurize import featurize
from proteinmpnn_model.structure import read_structure, sniff_format

DOORS = ("BentoML JSON", "Open Inference JSON", "Open Inference binary", "Open Inference gRPC")
QUESTIONS = tuple(f"{door}, added {label}" for door in DOORS for label in ("p50", "p99"))
PROMISED_MS = {"p50": (0.5, 3.0), "p99": (0.99, 10.0)}


def rows(setting: Setting, quick: bool) -> Iterator[Row]:  # noqa: ARG001 - every benchmark is asked alike
    """Milliseconds added at each door, median and 99th percentile."""
    state = State.find()
    model = Released(state).model()
    text = STRUCTURE.read_text(encoding="ascii")
    backbone = featurize(read_structure(text, sniff_format(text), residue_limit=2000))
    with serving(state) as server, asking(server) as doors:
        found = _alternate({"kernel": design(model.decoder, backbone, 1), **doors}, 5 if quick else 300)
    bare = found.pop("kernel")
    for door, taken in found.items():
        for label, (share, promised) in PROMISED_MS.items():
            whole, kernel = quantile(taken, share), quantile(bare, share)
            method = (
                f"one design of 1UBI (76 residues), lineage on; {label} of the request {whole:.2f} ms less {label} of"
                f" the bare kernel {kernel:.2f} ms (runner {model.contract.runner}), alternating"
            )
            # Where the kernel was disturbed more than the request, nothing that was added can be seen.
            added = max(whole - kernel, 0.1)
            yield promise_row(f"{door}, added {label}", added, promised, "ms", method=method, repeats=len(taken))


def profile(_: Setting) -> list[str]:
    """Where the time of a request goes, by the server's own metrics: mean milliseconds a request at each door."""
    name = re.compile(r'helix_(?:phase|request)_seconds_(sum|count){(?:door|phase)="([^"]*)"[^}]*} ([0-9.]+)')
    with serving(State.find()) as server, asking(server) as doors:
        for _ in range(100):
            for run in doors.values():
                run()
        text = httpx.get(f"{server.http}/metrics").text
        syncs = re.findall(r"^helix_fsync_seconds_(sum|count) ([0-9.]+)", text, re.MULTILINE)
    found: dict[str, dict[str, float]] = {}
    for kind, phase, value in [*name.findall(text), *((kind, "each fdatasync", value) for kind, value in syncs)]:
        found.setdefault(phase, {})[kind] = float(value)
    return [f"{1e3 * row['sum'] / row['count']:8.2f} ms  {phase}" for phase, row in sorted(found.items())]


def _alternate(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds on the clock, in turn, after three of each that do not count."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 3):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if repeat >= 3:
                found[name].append((time.perf_counter() - started) * 1e3)
    return found
