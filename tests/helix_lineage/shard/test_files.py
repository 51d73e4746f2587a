from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from helix_lineage.shard import files
from helix_lineage.shard.files import AppendFile
from tests.helix_lineage.disk import FailingDisk


def test_zeros_are_laid_ahead_now_and_then_and_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "file"
    file = AppendFile(path, ahead=100)
    seen = []
    for _ in range(30):
        file.write(b"ten bytes.")
        seen.append(path.stat().st_size)
        assert path.read_bytes() == (b"ten bytes." * 30)[: file.size].ljust(seen[-1], b"\0")
    assert len(set(seen)) == 3, "most writes change no size"
    file.trim()
    assert path.read_bytes() == b"ten bytes." * 30
    file.write(b"!")
    assert (file.size, path.stat().st_size) == (301, 301), "and none are laid again"
    file.cut(300)
    assert path.read_bytes() == b"ten bytes." * 30
    file.close()


def test_without_room_for_zeros_what_is_written_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    disk = FailingDisk(tmp_path / "disk", 2, errno.ENOSPC)  # the first call opens, the second writes
    monkeypatch.setattr(files, "os", disk)
    file = AppendFile(tmp_path / "disk" / "file", ahead=100)
    file.write(b"one")
    assert disk.failed == ["write"]
    assert (tmp_path / "disk" / "file").read_bytes() == b"one", "what was laid of them is given back"
    file.write(b"two")
    assert len(disk.ops) == len([op for op in disk.ops if op.kind != "write"]) + 3, "they are not tried each time"
    file.trim()
    assert (tmp_path / "disk" / "file").read_bytes() == b"onetwo"
    file.close()


def test_a_failed_trim_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile(tmp_path / "file", ahead=100)
    file.write(b"one")

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="gone"):
            file.trim()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    file.trim()
    assert len(synced) == 1
    file.trim()
    assert len(synced) == 1
