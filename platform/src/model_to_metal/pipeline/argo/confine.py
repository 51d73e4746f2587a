"""Takes from a process what a stage has no use for: the network, other processes, most files.

    python confine.py SPEC COMMAND…

SPEC is JSON: `{"read": [PATH…], "write": [PATH…]}`. The command then opens no socket but a local
one, traces and signals no process that it did not start, and reaches nothing outside those paths.
The kernel holds it to that (seccomp and Landlock), without any privilege: so it works inside a
restricted pod. Whatever cannot be set up ends with status 69, and the command never runs.
Standard library only; `command` gives the argument list.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from collections.abc import Iterable, Sequence

UNAVAILABLE = 69
"""Exit status where the kernel offers no such thing (EX_UNAVAILABLE)."""

_SET_DUMPABLE, _SET_SECCOMP, _SET_NO_NEW_PRIVS = 4, 22, 38
_SECCOMP_FILTER = 2
_X86_64, _X32 = 0xC000003E, 0x40000000
_SOCKET, _LOCAL = 41, 1
# ptrace, process_vm_readv, process_vm_writev, io_uring_setup (it opens sockets past the filter), pidfd_getfd
_NEVER = (101, 310, 311, 425, 438)
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _EACCES = 1, 13

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_OLDEST, _SIGNALS = 3, 6  # versions of Landlock: truncation is held; signals are
_READ, _READ_FILE = 0b1101, 0b101  # execute, read files, list folders
_BITS = {3: 15, 4: 15}  # rights over files that a version knows; 16 from version 5 on


class Unavailable(OSError):
    """The kernel offers no such confinement."""


def command(argv: Sequence[str], *, read: Iterable[str], write: Iterable[str]) -> list[str]:
    """The argument list that runs `argv` confined."""
    spec = json.dumps({"read": sorted(read), "write": sorted(write)})
    return [sys.executable, "-I", "-B", __file__, spec, *argv]


def hide() -> None:
    """Keep this process's memory and environment from others of the same user. Raises Unavailable."""
    if _libc().prctl(_SET_DUMPABLE, 0, 0, 0, 0):
        raise Unavailable("the kernel cannot hide a process's memory")


def apply(read: Iterable[str], write: Iterable[str]) -> None:
    """Confine this process, for good, and whatever it starts. Raises Unavailable."""
    libc = _libc()
    if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise Unavailable("the kernel cannot forbid gaining rights")
    _landlock(libc, read, write)
    _seccomp(libc)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _landlock(libc: ctypes.CDLL, read: Iterable[str], write: Iterable[str]) -> None:
    version = libc.syscall(_CREATE, None, 0, 1)
    if version < _OLDEST:
        raise Unavailable(f"Landlock is at version {version}, and {_OLDEST} is needed")
    every = (1 << _BITS.get(version, 16)) - 1
    scopes = 0b11 if version >= _SIGNALS else 0  # abstract local sockets, signals
    attributes = struct.pack("<QQQ", every, 0, scopes)[: 24 if scopes else 8]
    rules = libc.syscall(_CREATE, attributes, len(attributes), 0)
    if rules < 0:
        raise Unavailable(f"Landlock refuses: {os.strerror(ctypes.get_errno())}")
    for paths, rights in ((read, _READ), (write, every)):
        for path in paths:
            _allow(libc, rules, path, rights)
    if libc.syscall(_RESTRICT, rules, 0):
        raise Unavailable(f"Landlock refuses: {os.strerror(ctypes.get_errno())}")
    os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    at = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        # A file has no entries: rights over those are refused for it. Writing one means truncating it, too.
        allowed = rights if os.path.isdir(path) else rights & (_READ_FILE | 0b10 | 1 << 14)  # noqa: PTH112
        if libc.syscall(_ADD, rules, 1, struct.pack("<Qi", allowed, at), 0):
            raise Unavailable(f"Landlock refuses {path}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(at)


def _seccomp(libc: ctypes.CDLL) -> None:
    if os.uname().machine != "x86_64":
        raise Unavailable(f"there is no filter for {os.uname().machine}")
    program = _program()
    code = b"".join(struct.pack("<HBBI", *row) for row in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    pointer = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(buffer)))
    if libc.prctl(_SET_SECCOMP, _SECCOMP_FILTER, pointer, 0, 0):
        raise Unavailable(f"seccomp refuses: {os.strerror(ctypes.get_errno())}")


def _program() -> list[tuple[int, int, int, int]]:
    """The filter, as (operation, jump if true, jump if false, constant) rows of classic BPF."""
    load, equal, above, give = 0x20, 0x15, 0x35, 0x06
    rows = [
        (load, 0, 0, 4), (equal, 1, 0, _X86_64), (give, 0, 0, _KILL),
        # System calls of another numbering would pass the checks below.
        (load, 0, 0, 0), (above, 0, 1, _X32), (give, 0, 0, _KILL),
    ]  # fmt: skip
    for number in _NEVER:
        rows += [(equal, 0, 1, number), (give, 0, 0, _REFUSE | _EPERM)]
    rows += [(equal, 0, 3, _SOCKET), (load, 0, 0, 16), (equal, 1, 0, _LOCAL), (give, 0, 0, _REFUSE | _EACCES)]
    return [*rows, (give, 0, 0, _ALLOW)]


def main(argv: Sequence[str]) -> int:
    """Confine, then become the command."""
    spec = json.loads(argv[0])
    try:
        apply(spec["read"], spec["write"])
        os.execvpe(argv[1], list(argv[1:]), dict(os.environ))  # noqa: S606  what it is for
    except OSError as error:
        print(f"confine: {error}", file=sys.stderr)  # noqa: T201  the command's own output
        return UNAVAILABLE


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
