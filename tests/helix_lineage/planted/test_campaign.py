"""Thousands of files of every kind are planted in a log, a store, releases, a directory and an image; all are read.

Nobody who reads them may end with a traceback, or not at all; what is not a file must be found; and no shard is blamed
for another's damage. Processes of their own plant and read (`__main__.py`), and are killed when they say nothing.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.campaign import CASES, LONG, Broken

ROOT = Path(__file__).resolve().parents[3]
PROCESSES = 2
PATIENCE_S = 60.0
"""A case takes hundredths of a second. One that takes longer than this, on however busy a machine, hangs."""
KINDS = {"bytes", "words", "sealed", "json", "type", "size", "stranger", "absent"}


@contextmanager
def _process(folder: Path, first: int, count: int, sabotage: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.helix_lineage.planted", str(folder), str(first), str(count), sabotage]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _pass_on(lines: Iterable[str], to: queue.SimpleQueue[str]) -> None:
    for line in lines:
        to.put(line)
    to.put("")


def _run(folder: Path, first: int, count: int, *, sabotage: str = "", patience: float = PATIENCE_S) -> Counter[str]:
    """Cases `[first, first + count)` in one process; how many there were of each kind. Raises Broken."""
    seen: Counter[str] = Counter()
    with _process(folder, first, count, sabotage) as process:
        assert process.stdout is not None
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_pass_on, args=(process.stdout, lines), daemon=True).start()
        start = 60.0
        """More patience for the first, who waits for the process to start, too."""
        for number in range(first, first + count):
            try:
                line = lines.get(timeout=patience + start)
            except queue.Empty:
                raise Broken(f"case {number} hangs") from None
            if not line:
                raise Broken(f"case {number} ended the process with status {process.wait()}")
            said = json.loads(line)
            if said["fault"] is not None:
                raise Broken(f"case {number}, {said['what']}: {said['fault']}")
            start = 0.0
            seen[said["what"].split(": ")[1]] += 1
    return seen


def _campaign(folder: Path, count: int) -> Counter[str]:
    """That many cases, shared by a few processes."""
    share = -(-count // PROCESSES)
    firsts = range(0, share * PROCESSES, share)
    with ThreadPoolExecutor(PROCESSES) as pool:
        seen = sum(pool.map(lambda first: _run(folder, first, share), firsts), Counter[str]())
    print(f"planted files: {seen.total()} cases, {dict(sorted(seen.items()))}", file=sys.stderr, flush=True)
    if seen.total() < count:
        raise Broken(f"planted files: {seen.total()} cases instead of {count}")
    return seen


def test_nothing_that_is_planted_crashes_or_hangs_who_reads_it(ram: Path) -> None:
    seen = _campaign(ram, CASES["planted files"])
    assert seen.keys() == KINDS
    assert min(seen.values()) > 100


@pytest.mark.long
def test_ten_times_as_many(ram: Path) -> None:
    _campaign(ram, CASES["planted files"] * LONG)


@pytest.mark.parametrize(
    ("sabotage", "message", "patience"),
    [
        ("waiting", "hangs", 5),
        ("nesting", "RecursionError", PATIENCE_S),
        ("digits", "invalid literal for int", PATIENCE_S),
    ],
)
def test_a_fault_that_is_put_back_fails_the_same_campaign(
    ram: Path, sabotage: str, message: str, patience: float
) -> None:
    with pytest.raises(Broken, match=message):
        _run(ram, 0, CASES["planted files"], sabotage=sabotage, patience=patience)
