"""How long does an audit of a million entries take: everything in the log derived again?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from benchmarks import logs
from benchmarks.measure import Row, promise_row
from benchmarks.setting import Setting
from helix_lineage.audit import audit
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.shard.reader import Log

QUESTIONS = ("audit of a million entries",)
ENTRIES = 1_000_000
PROMISED_S = 10.0


def rows(setting: Setting, quick: bool) -> Iterator[Row]:
    """Seconds for the whole shard, payloads included."""
    folder = setting.folder / "log"
    shard, size = logs.fill(folder, 2_048 if quick else ENTRIES)
    taken, told = [], list[str]()
    for _ in range(1 if quick else 3):
        told.clear()
        started = time.perf_counter()
        report = audit(Log(folder), ReleaseSources(), progress=told.append)
        taken.append(time.perf_counter() - started)
        if not report.passed or report.entries != size:
            raise RuntimeError(f"the audit of {shard} found {report.findings[:3]} in {report.entries} entries")
    size_mb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    method = (
        f"{size} entries: frames, leaves, {size // logs.GROUP} signed checkpoints, tiles, every input"
        f" and output against its commitment ({size_mb:.0f} MB, requests of {logs.ITEMS} items);"
        f" progress told {len(told)} times; median"
    )
    promised = PROMISED_S * size / ENTRIES if quick else PROMISED_S
    yield promise_row(QUESTIONS[0], statistics.median(taken), promised, "s", method=method, repeats=len(taken))


def profile(setting: Setting) -> list[str]:
    """Seconds of each part, as the audit tells of them."""
    folder = setting.folder / "log"  # filled by `rows`
    told = list[tuple[float, str]]()
    audit(
        Log(folder), ReleaseSources(), progress=lambda text: told.append((time.perf_counter(), text.partition(": ")[2]))
    )
    ends = [*(at for at, _ in told[1:]), time.perf_counter()]
    return [f"{end - at:8.2f} s  {text or 'journal'}" for (at, text), end in zip(told, ends, strict=True)]
