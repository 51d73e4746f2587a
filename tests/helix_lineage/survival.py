"""After whatever happened to a log: is everything that was acknowledged there, and does it hold?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from helix_lineage.audit import audit
from helix_lineage.errors import ShardError
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.shard import Prediction, ShardWriter, payload, writer
from helix_lineage.shard.reader import Log, Shard
from helix_lineage.tlog import disk as files, journal
from tests.helix_lineage.disk import Disk
from tests.helix_lineage.support import NOW_NS, header, request

Promises = Mapping[str, Prediction]
"""Prediction id → what was acknowledged under it."""


class _Volatile:
    """The real `os`, but a sync costs nothing: what is looked at afterwards need not outlive the test."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, fd: int) -> None:
        pass

    fdatasync = fsync


def eager(patch: pytest.MonkeyPatch) -> None:
    """Make a writer take a new segment every few items, and, while it serves, publish after every group."""
    patch.setattr(writer, "PUBLISH_SECONDS", 9.0)
    patch.setattr(payload, "SEGMENT_BYTES", 900)
    patch.setattr(payload, "AHEAD", 400)
    patch.setattr(journal, "AHEAD", 1000)
    patch.setattr(files, "os", _Volatile())


def serve(patch: pytest.MonkeyPatch, disk: Disk, requests: Sequence[Sequence[Prediction]]) -> None:
    """A process that serves on this disk until it closes or its disk fails; each answer that it gave is on record."""
    with patch.context() as serving:
        serving.setattr(files, "os", disk)
        serving.setattr(writer, "PUBLISH_SECONDS", 0.0)
        _serve(disk, requests)


def _serve(disk: Disk, requests: Sequence[Sequence[Prediction]]) -> None:
    try:
        shard = ShardWriter.create(disk.root / "log", header(), now=lambda: NOW_NS)
    except ShardError:
        return
    for items in requests:
        with suppress(ShardError):
            disk.acknowledge(dict(zip(shard.append(items), items, strict=True)))
    with suppress(ShardError):
        shard.close()


def promised(acknowledged: Sequence[Promises]) -> dict[str, Prediction]:
    """All promises together."""
    return {name: item for answer in acknowledged for name, item in answer.items()}


def complaints(log_dir: Path, promises: Promises) -> list[str]:
    """A new process starts on what is left: everything that does not hold then. Empty is well."""
    try:
        with ShardWriter.create(log_dir, header(), now=lambda: NOW_NS) as after:
            after.append(request())
            found = [f"left alone: {item.problem}" for item in after.recovered if item.entry is None]
    except ShardError as error:
        return [f"no process can start here: {error}"]
    log = Log(log_dir)
    found += [f"{item.rule}: {item.message}" for item in audit(log, ReleaseSources()).findings]
    shards: dict[str, Shard] = {}
    for name, item in promises.items():
        try:
            shard, sequence = name.partition(".")[0], int(name.partition(".")[2])
            shards[shard] = shards.get(shard) or log.shard(shard)
            entry, kept = shards[shard].prediction(sequence), shards[shard].payload(sequence)
            holds = shards[shard].inclusion(sequence).holds
        except Exception as error:  # whatever it is, it is a loss
            found.append(f"lost: {name}: {error!r}")
            continue
        same = (entry.request_id, entry.index, kept.input, kept.output) == (
            item.request_id, item.index, item.input, item.output,
        )  # fmt: skip
        if not (same and holds):
            found.append(f"changed: {name}")
    return found
