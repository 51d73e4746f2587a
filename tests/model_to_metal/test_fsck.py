"""Tessera's fsck, a stock tlog-tiles client from another house, reads our shards."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from helix_lineage.paths import State
from helix_lineage.shard import ShardWriter
from helix_lineage.shard.reader import Log, Shard
from helix_lineage.tlog import checkpoint
from helix_lineage.tlog.layout import ShardFolder
from model_to_metal.errors import PipelineError
from model_to_metal.host import tools
from tests.helix_lineage.support import NOW_NS, header, request

_WRONG = re.compile("fsck failed|FetchError|Invalid|CalculateError|\\bE\\d{4}")


@pytest.fixture(scope="session")
def fsck(checkout_state: State) -> Path:
    try:
        return tools.ensure("fsck", checkout_state)
    except PipelineError as error:
        if "checksum" in str(error):
            raise
        pytest.skip(f"Tessera's fsck cannot be obtained here: {error}; run: helix tools build fsck")


def _verifier_key(shard: Shard) -> str:
    """The shard's key as Go's note package writes it: name, key id, algorithm and key."""
    key = b"\x01" + shard.header.public_key
    key_id = hashlib.sha256(shard.origin.encode() + b"\n" + key).hexdigest()[:8]
    return f"{shard.origin}+{key_id}+{base64.b64encode(key).decode()}"


def _complaint(fsck: Path, shard: Shard, tmp_path: Path) -> str:
    """What fsck says against the shard; nothing when it holds."""
    name = tmp_path / "key"
    name.write_text(_verifier_key(shard))
    command = [fsck, f"--storage_url=file://{shard.folder.root}", f"--public_key={name}", "--ui=false", "-v=1"]
    # A failure is logged, and no exit status: what it can't fetch, it asks for again, for ever.
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if _WRONG.search(line):
                process.kill()
                return line
    assert process.returncode == 0
    return ""


def _shard(log_dir: Path, count: int) -> Shard:
    with ShardWriter.create(log_dir, header(), now=lambda: NOW_NS) as writer:
        for start in range(0, count, 100):
            writer.append(request(count=min(100, count - start)))
    return Log(log_dir).shard(writer.shard_id)


@pytest.mark.parametrize("count", [1, 254, 255, 700])
def test_fsck_reads_a_shard(fsck: Path, tmp_path: Path, count: int) -> None:
    shard = _shard(tmp_path / "log", count)
    assert checkpoint.parse(shard.published[0]).size == count + 2
    assert _complaint(fsck, shard, tmp_path) == ""


@pytest.mark.parametrize("part", ["checkpoint", "entries", "hashes", "missing"])
def test_fsck_finds_what_we_find(fsck: Path, tmp_path: Path, part: str) -> None:
    """The planted faults: one changed byte in a signed note, an entry bundle, a hash tile; a tile that is gone."""
    shard = _shard(tmp_path / "log", 300)
    folder = ShardFolder(shard.folder.root)
    path = {
        "checkpoint": folder.checkpoint,
        "entries": folder.bundle(0),
        "hashes": folder.hash_tile(0, 0),
        "missing": folder.hash_tile(0, 0),
    }[part]
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.unlink()
    if part != "missing":
        path.write_bytes(data)
    assert _complaint(fsck, shard, tmp_path)
