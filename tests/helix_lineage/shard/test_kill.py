"""`kill -9` of a process that writes a log under load: what it answered is there, and holds."""

from __future__ import annotations

import hashlib
import random
import signal
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
LINES = 100
"""Of what a process answered; after at most so many it is killed."""

_LOADED = """
import hashlib, os, sys, threading
from pathlib import Path
from helix_lineage.shard import ShardWriter, payload, writer
from tests.helix_lineage.support import header, request
payload.SEGMENT_BYTES, writer.PUBLISH_SECONDS = 20_000, 0.01
shard = ShardWriter.create(Path(sys.argv[1]), header())
def client(who):
    at = 0
    while True:
        at += 1
        items = request(seed=at, count=1 + at % 4, request_id=os.urandom(16), output=f"{who}.{at}.")
        names = shard.append(items)
        told = "".join(f"{name} {hashlib.sha256(item.output).hexdigest()}\\n" for name, item in zip(names, items))
        os.write(1, told.encode())  # one write: whole lines, whoever else writes
threads = [threading.Thread(target=client, args=(who,)) for who in range(4)]
for thread in threads:
    thread.start()
"""


def _live_and_die(log_dir: Path, rng: random.Random) -> dict[str, str]:
    """One process, killed at a random moment of its life: prediction id → digest of the output that it answered."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LOADED, str(log_dir)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = ""
    if rng.random() < 0.2:
        time.sleep(rng.uniform(0.1, 0.5))  # perhaps while it starts and recovers the one before it
    else:
        for _ in range(rng.randint(1, LINES)):
            told += process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    told += process.stdout.read()
    process.wait()
    whole = [line.split() for line in told.splitlines(keepends=True) if line.endswith("\n")]
    return dict(whole)


def _survives(log_dir: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    promised: dict[str, str] = {}
    for _ in range(kills):
        promised |= _live_and_die(log_dir, rng)
    with ShardWriter.create(log_dir, header(), now=lambda: NOW_NS) as last:
        last.append(request())
        assert [item.problem for item in last.recovered] == [None] * len(last.recovered)
    assert len(promised) > 10 * kills
    log = Log(log_dir)
    shards = {name: log.shard(name) for name in log.shard_ids()}
    for name, digest in promised.items():
        shard = shards[name.partition(".")[0]]
        sequence = int(name.partition(".")[2])
        output = shard.payload(sequence).output
        assert output is not None
        assert hashlib.sha256(output).hexdigest() == digest
        assert shard.prediction(sequence).index >= 0
    for shard in shards.values():
        mine = [int(name.partition(".")[2]) for name in promised if name.startswith(shard.id)]
        assert all(shard.inclusion(sequence).holds for sequence in mine[-5:])
    # The rest of the inclusions, and everything else that a log says of itself.
    report = audit(log, ReleaseSources())
    assert report.findings == []
    assert report.predictions >= len(promised)


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """15 kills; every process recovers the shard of the one before it."""
    _survives(tmp_path / "log", 15, seed=1)


@pytest.mark.long
def test_three_hundred_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """300 random kills under the load of four threads: 0 lost, 0 unverifiable, 0 false success."""
    for seed in range(6):
        _survives(tmp_path / f"log{seed}", 50, seed)
