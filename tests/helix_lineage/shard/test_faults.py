"""Every write, sync, open, rename fails once: what was acknowledged is durable, what was not is refused."""

from __future__ import annotations

import errno
import random
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from helix_lineage.audit import audit
from helix_lineage.errors import ShardError
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.shard import ShardWriter
from helix_lineage.shard.reader import Log
from helix_lineage.tlog import disk as files
from helix_lineage.tlog.disk import FolderLock
from helix_lineage.tlog.layout import ShardFolder
from tests.helix_lineage.disk import Disk, FailingDisk
from tests.helix_lineage.support import NOW_NS, header, request
from tests.helix_lineage.survival import complaints, promised, serve

ROOT = Path(__file__).parents[3]
COUNTS = (2, 1, 3)
KINDS = {"open", "write", "sync", "rename", "mkdir", "unlink", "truncate"}


def _dead(patch: pytest.MonkeyPatch, root: Path) -> None:
    """A log whose process died with a torn group, for the next one to recover."""
    root.with_name("first").mkdir()
    disk = Disk(root.with_name("first"))
    serve(patch, disk, [request(count=2), request(count=2)])
    last = max(at for at, op in enumerate(disk.ops) if op.kind == "ack" and op.acknowledged)
    torn = next(at for at in range(last, 0, -1) if disk.ops[at].kind == "write" and disk.ops[at].offset) + 1
    disk.crash(torn, "prefix", random.Random(1), root)


def _with_fault(
    patch: pytest.MonkeyPatch, folder: Path, at: int, number: int, modes: tuple[str, ...], *, times: int
) -> tuple[list[str], list[str]]:
    """One process whose call `at` fails, then a power cut: what failed, and what does not hold then."""
    disk = FailingDisk(folder / "disk", at, number, times)
    serve(patch, disk, [request(seed=seed, count=count) for seed, count in enumerate(COUNTS)])
    found = []
    for mode in modes:
        disk.crash(len(disk.ops), mode, random.Random(at), folder / mode)
        promises = promised(disk.acknowledged(len(disk.ops)))
        found += [f"{disk.failed} {at} {number} {mode}: {item}" for item in complaints(folder / mode / "log", promises)]
        shutil.rmtree(folder / mode)
    shutil.rmtree(folder / "disk")
    return disk.failed, found


def _counted_through(
    patch: pytest.MonkeyPatch, folder: Path, number: int, modes: tuple[str, ...], times: int = 1
) -> list[str]:
    """The n-th call fails, for every n until there is no n-th call: what does not hold."""
    _dead(patch, folder / "start")
    failed: list[str] = []
    found: list[str] = []
    for at in range(10_000):
        shutil.copytree(folder / "start", folder / "disk")
        names, wrong = _with_fault(patch, folder, at, number, modes, times=times)
        if not names:
            break
        failed, found = failed + names, found + wrong
    assert set(failed) >= KINDS, Counter(failed)
    return found


@pytest.mark.parametrize(
    ("number", "modes"), [(errno.EIO, ("none", "all")), (errno.ENOSPC, ("none",)), (errno.EINTR, ("all",))]
)
def test_every_call_fails_once_and_nothing_is_both_lost_and_acknowledged(
    patch: pytest.MonkeyPatch, ram: Path, number: int, modes: tuple[str, ...]
) -> None:
    """A start that recovers a dead shard, appends over three segments with tiles after each, and a close.

    Then the power fails too and takes what it may (`none` of the unsynced stays), or it does not (`all` stays).
    """
    found = _counted_through(patch, ram, number, modes)
    assert not found, (len(found), found[:10])


@pytest.mark.long
def test_two_calls_in_a_row_fail_and_nothing_is_both_lost_and_acknowledged(
    patch: pytest.MonkeyPatch, ram: Path
) -> None:
    """The clean-up after a fault fails as well: a file may be left over, which audit names, but nothing is lost."""
    found = _counted_through(patch, ram, errno.EIO, ("none", "all"), times=2)
    losses = (": lost:", ": changed:", "left alone", "no process")
    lost = [item for item in found if any(what in item for what in losses)]
    assert not lost, (len(lost), lost[:10])


def test_a_fault_that_is_swallowed_is_caught(patch: pytest.MonkeyPatch, ram: Path) -> None:
    """The planted fault: a writer that takes a failed sync for a good one."""

    def careless(self: files.AppendFile) -> None:
        with suppress(OSError):
            files.os.fdatasync(self._fd)

    patch.setattr(files.AppendFile, "sync", careless)
    found: list[str] = []
    for at in range(30, 80):
        (ram / "disk").mkdir()
        found += _with_fault(patch, ram, at, errno.EIO, ("none",), times=1)[1]
    assert any("lost" in item for item in found)


def test_a_process_goes_on_after_a_full_disk(patch: pytest.MonkeyPatch, ram: Path) -> None:
    """A write that fails refuses its own answer and no other; only a sync that fails ends the shard."""
    refused: Counter[str] = Counter()
    for at in range(10_000):
        (ram / "disk").mkdir()
        disk = FailingDisk(ram / "disk", at, errno.ENOSPC)
        serve(patch, disk, [request(), request(), request()])
        if not disk.failed:
            break
        answers = sum(bool(promises) for promises in disk.acknowledged(len(disk.ops)))
        if answers and disk.failed == ["write"]:
            refused[f"{answers} of 3"] += 1
        shutil.rmtree(ram / "disk")
    # The write of a payload or of a group; a tile's write refuses nobody.
    assert refused["2 of 3"] >= 4
    assert refused["3 of 3"] >= 4
    assert "1 of 3" not in refused


_HOLDER = """
import sys
from pathlib import Path
from helix_lineage.shard import ShardWriter
from tests.helix_lineage.support import header, request
with ShardWriter.create(Path(sys.argv[1]), header()) as writer:
    print(writer.append(request())[0], flush=True)
    sys.stdin.read()
    print(writer.append(request())[0], flush=True)
"""


def test_two_processes_cannot_own_one_shard(tmp_path: Path) -> None:
    """While its process lives, nobody recovers, cuts or marks a shard; once it is gone, one does."""
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline().strip()
    folder = ShardFolder(tmp_path / first.partition(".")[0])
    with pytest.raises(BlockingIOError):
        FolderLock(folder.lock)
    before = folder.journal.read_bytes()
    with ShardWriter.create(tmp_path, header(), now=lambda: NOW_NS) as other:
        assert other.recovered == ()
        assert (folder.journal.read_bytes(), folder.recovered.exists()) == (before, False)
    second, _ = process.communicate("")
    assert second.strip() == first.replace(".1", ".2")
    FolderLock(folder.lock).release()
    assert audit(Log(tmp_path), ReleaseSources()).findings == []


def test_many_processes_that_start_at_once_each_get_their_own_shard(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    names = [name for process in started for name in process.communicate()[0].split()]
    assert [process.returncode for process in started] == [0] * 4
    assert len({name.partition(".")[0] for name in names}) == 4
    assert audit(Log(tmp_path), ReleaseSources()).findings == []


def test_a_shard_that_could_not_be_opened_is_let_go(patch: pytest.MonkeyPatch, ram: Path) -> None:
    """Whatever call of the start fails: no lock is left behind, and no thread."""
    for at in range(10_000):
        (ram / "disk").mkdir()
        disk = FailingDisk(ram / "disk", at, errno.ENOSPC)
        patch.setattr(files, "os", disk)
        try:
            writer = ShardWriter.create(ram / "disk" / "log", header(), now=lambda: NOW_NS)
        except ShardError:
            patch.setattr(files, "os", Disk(ram / "disk"))
            for lock in (ram / "disk").rglob("lock"):
                FolderLock(lock).release()
            shutil.rmtree(ram / "disk")
            continue
        with suppress(ShardError):
            writer.close()
        if disk.failed:  # the file system had no room for the zeros ahead, which is no reason not to open
            shutil.rmtree(ram / "disk")
            continue
        assert at > 20
        return
