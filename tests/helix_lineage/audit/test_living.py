"""An audit of a log whose processes start, write, recover one another, close and die meanwhile accuses nobody."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helix_lineage.audit import audit
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.shard import ShardWriter
from helix_lineage.shard.reader import Log
from tests.helix_lineage.support import NOW_NS, header, request

ROOT = Path(__file__).parents[3]
PROCESSES, GENERATIONS = 3, 3
SEEN = 2
"""Audits at least while a process lives."""
UNFINISHED = ("journal-torn", "payload-torn")
"""What a killed process left is told, until another start recovers it: that accuses nobody."""

_LIVING = """
import os, sys, threading
from pathlib import Path
from helix_lineage.shard import ShardWriter, payload, writer
from tests.helix_lineage.support import header, request
payload.SEGMENT_BYTES, payload.AHEAD, writer.PUBLISH_SECONDS = 5_000, 2_000, 0.005
stop = threading.Event()
def client():
    at = 0
    while not stop.wait(0.002):
        at += 1
        shard.append(request(seed=at, count=1 + at % 4, request_id=os.urandom(16)))
print("imported", flush=True)
sys.stdin.readline()
with ShardWriter.create(Path(sys.argv[1]), header()) as shard:
    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
"""


class Living:
    """A process that writes until it is told to end, or is killed."""

    def __init__(self, log_dir: Path, rng: random.Random) -> None:
        command = [sys.executable, "-c", _LIVING, str(log_dir)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        self.audits = 0
        """Made while it lived."""
        self._until = 0.0
        self._lifetime = rng.uniform(0.1, 1.0)
        self._killed = rng.random() < 0.5

    def start(self) -> None:
        """Begin a shard, once everything is imported: so that some begin at about the same time."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "imported\n"
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self._until = time.monotonic() + self._lifetime

    @property
    def over(self) -> bool:
        """Whether it lived its time, and long enough to be seen."""
        return self.audits >= SEEN and self._until < time.monotonic()

    def end(self) -> None:
        """By a signal, or in order."""
        if self._killed:
            self.process.kill()
        self.process.communicate()
        assert self.process.returncode == (-9 if self._killed else 0)


def _audits(log_dir: Path, rng: random.Random) -> tuple[int, int]:
    """Audits of one log while its processes live and follow one another: how many, and recoveries that they saw."""
    waiting = [Living(log_dir, rng) for _ in range(PROCESSES * GENERATIONS)]
    living: list[Living] = []
    made = 0
    try:
        while waiting or living:
            while waiting and len(living) < PROCESSES:
                living.append(waiting.pop())
                living[-1].start()
            found = audit(Log(log_dir), ReleaseSources()).findings
            assert [str(item) for item in found if item.rule not in UNFINISHED] == []
            made += 1
            for process in living:
                process.audits += 1
            for process in [item for item in living if item.over]:
                living.remove(process)
                process.end()
    finally:
        for process in [*waiting, *living]:
            process.process.kill()
            process.process.communicate()
    return made, len(list(log_dir.glob("*/recovered")))


def _accuses_nobody(folder: Path, rounds: int, seed: int) -> None:
    rng, made, recovered = random.Random(seed), 0, 0
    for number in range(rounds):
        log_dir = folder / str(number)
        log_dir.mkdir()
        audits, recoveries = _audits(log_dir, rng)
        made, recovered = made + audits, recovered + recoveries
        with ShardWriter.create(log_dir, header(), now=lambda: NOW_NS) as last:
            last.append(request())
        assert audit(Log(log_dir), ReleaseSources()).findings == []
    assert made > 3 * rounds
    assert recovered >= rounds, "processes recovered one another while audits were made"


def test_an_audit_of_a_living_log_accuses_nobody(tmp_path: Path) -> None:
    """Two logs, of nine processes each, three at a time."""
    _accuses_nobody(tmp_path, 2, seed=1)


@pytest.mark.long
def test_many_audits_of_living_logs_accuse_nobody(tmp_path: Path) -> None:
    """Fifty logs."""
    _accuses_nobody(tmp_path, 50, seed=2)
