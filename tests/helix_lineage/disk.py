"""A simulated disk below `helix_lineage.tlog.disk`: it records, forgets, tears, reorders and fails.

Put in the place of that module's `os`, it lets every call through to a real folder and notes what it
did to which file or folder. `crash` then lays down what a power cut at any of these points may have
left, by the rules of POSIX and nothing kinder: bytes are safe once their file was synced, names once
their folder was; of the rest, anything may be there or not, in any order, torn.
"""

from __future__ import annotations

import os
import random
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

SECTOR = 64
"""Bytes that survive together; smaller than a real sector, so that the small groups of tests tear too."""
MODES = ("all", "none", "prefix", "subset", "zeros", "stale")
"""What became of unsynced writes. `zeros`, `stale`: files have their size, but blocks were never written."""


@dataclass(slots=True)
class Node:
    """A file or a folder, whatever its name."""

    names: dict[str, int] | None = None
    """Of a folder: name → node, as the running system sees it."""
    base_names: dict[str, int] = field(default_factory=dict)
    """Names that were there at the start."""
    base_data: bytes = b""


@dataclass(frozen=True, slots=True)
class Op:
    """One change, or a sync, or an acknowledgement."""

    kind: str
    """`names`, `write`, `size`, `sync`, `lost` (a failed sync), `ack`."""
    node: int = 0
    names: tuple[tuple[str, int | None], ...] = ()
    offset: int = 0
    """Of a write; the new size for `size`."""
    data: bytes = b""
    acknowledged: Any = None


class Disk:
    """A folder whose every change is recorded. Everything that lies in it at first is durable."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ops: list[Op] = []
        self.nodes: list[Node] = []
        self._files: dict[int, int] = {}
        self._lock = threading.RLock()
        self._load(root)

    def _load(self, path: Path) -> int:
        at = len(self.nodes)
        if path.is_dir():
            self.nodes.append(node := Node(names={}))
            node.base_names = {item.name: self._load(item) for item in sorted(path.iterdir())}
            node.names = dict(node.base_names)
        else:
            self.nodes.append(Node(base_data=path.read_bytes()))
        return at

    def acknowledge(self, what: object) -> None:
        """Somebody was told that this is safe."""
        with self._lock:
            self.ops.append(Op("ack", acknowledged=what))

    def acknowledged(self, cut: int) -> list[Any]:
        """What was acknowledged before `cut`."""
        return [op.acknowledged for op in self.ops[:cut] if op.kind == "ack"]

    # What `helix_lineage.tlog.disk` calls; the rest is the real `os`.

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        with self._lock:
            known = self._find(path)
            fd = os.open(path, flags, mode)
            if known is None and flags & os.O_CREAT:
                known = self._make(path, Node())
            elif known is not None and flags & os.O_TRUNC:
                self.ops.append(Op("size", known, offset=0))
            if known is not None:
                self._files[fd] = known
            return fd

    def close(self, fd: int) -> None:
        with self._lock:
            self._files.pop(fd, None)
            os.close(fd)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        with self._lock:
            written = os.pwrite(fd, data, offset)
            self.ops.append(Op("write", self._files[fd], offset=offset, data=bytes(data[:written])))
            return written

    def ftruncate(self, fd: int, size: int) -> None:
        with self._lock:
            os.ftruncate(fd, size)
            self.ops.append(Op("size", self._files[fd], offset=size))

    def fsync(self, fd: int) -> None:
        with self._lock:
            if fd in self._files:
                self.ops.append(Op("sync", self._files[fd]))

    fdatasync = fsync

    def mkdir(self, path: Path) -> None:
        with self._lock:
            os.mkdir(path)
            self._make(path, Node(names={}))

    def unlink(self, path: Path) -> None:
        with self._lock:
            os.unlink(path)
            self._forget(path)

    def rmdir(self, path: Path) -> None:
        with self._lock:
            os.rmdir(path)
            self._forget(path)

    def rename(self, path: Path, to: Path) -> None:
        with self._lock:
            node = self._find(path)
            assert node is not None
            assert path.parent == to.parent, "the model knows renames within a folder only"
            os.replace(path, to)
            self._name(path.parent, ((path.name, None), (to.name, node)))

    replace = rename

    # The running system's view.

    def _find(self, path: Path) -> int | None:
        at = 0
        for name in path.relative_to(self.root).parts:
            names = self.nodes[at].names
            if names is None or name not in names:
                return None
            at = names[name]
        return at

    def _name(self, folder: Path, changes: tuple[tuple[str, int | None], ...]) -> None:
        at = self._find(folder)
        assert at is not None
        names = self.nodes[at].names
        assert names is not None
        _rename(names, changes)
        self.ops.append(Op("names", at, names=changes))

    def _make(self, path: Path, node: Node) -> int:
        self.nodes.append(node)
        self._name(path.parent, ((path.name, len(self.nodes) - 1),))
        return len(self.nodes) - 1

    def _forget(self, path: Path) -> None:
        self._name(path.parent, ((path.name, None),))

    # A power cut.

    def crash(self, cut: int, mode: str, rng: random.Random, to: Path) -> None:
        """Lay down under `to` what may be left when the power fails after `cut` operations."""
        pending = _unsynced(self.ops[:cut])
        kept: list[Op] = []
        lost: list[Op] = []
        until = rng.choice(sorted(pending)) if pending and mode == "prefix" else -1
        for at, op in enumerate(self.ops[:cut]):
            if at not in pending:
                kept.append(op)
                continue
            survived = _survived(op, mode, rng, before=at - until)
            kept += survived
            lost += [] if survived == [op] else [op]
        names = {at: dict(node.base_names) for at, node in enumerate(self.nodes) if node.names is not None}
        data = {at: bytearray(node.base_data) for at, node in enumerate(self.nodes) if node.names is None}
        for op in kept:
            if op.kind == "names":
                _rename(names[op.node], op.names)
            elif op.kind == "write":
                _put(data[op.node], op.offset, op.data)
            elif op.kind == "size":
                content = data[op.node]
                content[:] = content[: op.offset].ljust(op.offset, b"\0")
        if mode in ("zeros", "stale"):
            for op in lost:
                if op.kind == "write" and (gap := op.offset + len(op.data) - len(data[op.node])) > 0:
                    data[op.node] += bytes(gap) if mode == "zeros" else rng.randbytes(gap)
        _lay(0, to, names, data)


class FailingDisk(Disk):
    """A disk on which the call number `at` fails; `times` of them in a row, if that is asked for."""

    def __init__(self, root: Path, at: int, number: int, times: int = 1) -> None:
        super().__init__(root)
        self.left, self.number, self.times = at, number, times
        self.failed: list[str] = []
        """The calls that failed."""

    def _fails(self, name: str) -> bool:
        with self._lock:
            self.left -= 1
            fails = -self.times <= self.left < 0
            if fails:
                self.failed.append(name)
            return fails

    def _error(self) -> OSError:
        return OSError(self.number, os.strerror(self.number))

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        if self._fails("open"):
            raise self._error()
        return super().open(path, flags, mode)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        if self._fails("write"):
            super().pwrite(fd, data[: len(data) // 2], offset)  # the worse half: something of it landed
            raise self._error()
        return super().pwrite(fd, data, offset)

    def ftruncate(self, fd: int, size: int) -> None:
        if self._fails("truncate"):
            raise self._error()
        super().ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        if self._fails("sync"):
            # Linux marks the pages clean: a later sync succeeds, and what this one had is gone.
            with self._lock:
                self.ops.append(Op("lost", self._files.get(fd, 0)))
            raise self._error()
        super().fsync(fd)

    fdatasync = fsync

    def mkdir(self, path: Path) -> None:
        if self._fails("mkdir"):
            raise self._error()
        super().mkdir(path)

    def unlink(self, path: Path) -> None:
        if self._fails("unlink"):
            raise self._error()
        super().unlink(path)

    def rmdir(self, path: Path) -> None:
        if self._fails("rmdir"):
            raise self._error()
        super().rmdir(path)

    def rename(self, path: Path, to: Path) -> None:
        if self._fails("rename"):
            raise self._error()
        super().rename(path, to)

    replace = rename


def _unsynced(ops: list[Op]) -> set[int]:
    """The places of the operations that no sync covers."""
    pending: dict[int, list[int]] = {}
    gone: set[int] = set()
    for at, op in enumerate(ops):
        if op.kind in ("names", "write", "size"):
            pending.setdefault(op.node, []).append(at)
        elif op.kind == "sync":
            pending.pop(op.node, None)
        elif op.kind == "lost":
            gone.update(pending.pop(op.node, []))
    return gone.union(*pending.values())


def _survived(op: Op, mode: str, rng: random.Random, *, before: int) -> list[Op]:
    """What is left of an unsynced operation; `before` is its distance from the last one of a prefix."""
    if mode == "all" or (mode == "prefix" and before < 0):
        return [op]
    if mode == "prefix" and before == 0 and op.kind == "write":
        return [replace(op, data=op.data[: rng.randrange(len(op.data) + 1)])]
    if mode in ("none", "prefix") or (op.kind != "write" and rng.random() < 0.5):
        return []
    if op.kind != "write":
        return [op]
    share = rng.random()
    parts = range(0, len(op.data), SECTOR)
    here = [start for start in parts if rng.random() < share]
    if len(here) == len(parts):
        return [op]
    return [replace(op, offset=op.offset + start, data=op.data[start : start + SECTOR]) for start in here]


def _rename(names: dict[str, int], changes: tuple[tuple[str, int | None], ...]) -> None:
    for name, node in changes:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content += bytes(offset - len(content))
    content[offset : offset + len(data)] = data


def _lay(at: int, to: Path, names: dict[int, dict[str, int]], data: dict[int, bytearray]) -> None:
    if at in data:
        to.write_bytes(data[at])
        return
    to.mkdir()
    for name, child in names[at].items():
        _lay(child, to / name, names, data)
