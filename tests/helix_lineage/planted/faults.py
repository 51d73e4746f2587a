"""What somebody plants in a file's place: other bytes, other types, other sizes; and strangers beside it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import shutil
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from helix_lineage.shard import payload
from helix_lineage.tlog import journal

EDGES = (0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**63 + 5, 2**64 - 1)
_WORDS = (
    b"[" * 200_000, b'{"a":' * 5000, b"NaN", b"1e999", b"9" * 5000, b'{"a":1,"a":2}', b'"\\ud800"', b"\xff\xfe", b"",
    b"null", b"[]", b"{}", b"\0" * 4096, "\u00b2".encode(), b"\n\n", b"\x81" * 100_000, b"\x9b" + b"\xff" * 8,
    b"\x5b\x00\x00\x0f" + b"\xff" * 5, b"\xbb\x00\x00\x00\xff\xff\xff\xff\xff", b"\xc4\x82\x1a\x7f\xff\xff\xff\x01",
    b"\xd8\x1c\x82\xd8\x1d\x00\x00",
)  # fmt: skip
_NAMES = (
    b"\xff\xfe", b"\x1b[2J", b"a\nb", "\u00b2".encode(), b"-1", b"00", b"000001.seg", "\u00b2.seg".encode(), b"x001",
    b"checkpoint.tmp", b"9" * 100, b"journal.torn", b"000.p", b".new-x", b"f" * 32,
)  # fmt: skip


def plant(path: Path, rng: random.Random) -> str:
    """Put something in the place of a file or a folder, or beside it; says what."""
    if path.is_dir():
        name = rng.choice(("stranger", "stranger", "type", "absent"))
    else:
        name = rng.choice(("bytes", "bytes", "words", "words", "sealed", "sealed", "json", "type", "size", "stranger"))
    return f"{name}: {_PLANTS[name](path, rng)}"


def _bytes(path: Path, rng: random.Random) -> str:
    """Somewhere in the file, something else."""
    data = path.read_bytes()
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    number = rng.choice(EDGES)
    changed = rng.choice(
        [
            data[:a],
            data[b:],
            data[:a] + data[b:],
            data[:b] + data[a:],
            data[:a] + rng.randbytes(rng.randrange(1, 20)) + data[a:],
            data[:a] + struct.pack("<Q", number) + data[a + 8 :],
            data[:a] + struct.pack(">Q", number) + data[a + 8 :],
            data[:a] + bytes([rng.randrange(256)]) + data[a + 1 :],
            bytes(len(data)),
        ]
    )
    path.unlink()
    path.write_bytes(changed)
    return f"{len(data)} → {len(changed)} bytes, from {a}"


def _words(path: Path, rng: random.Random) -> str:
    """A value that a parser may choke on, alone or in the file."""
    data, word = path.read_bytes(), rng.choice(_WORDS)
    a = rng.randrange(len(data) + 1)
    path.unlink()
    path.write_bytes(rng.choice([word, word, data + word, data[:a] + word + data[a:]]))
    return repr(word[:12])


def _sealed(path: Path, rng: random.Random) -> str:
    """Another field in a frame or a payload record, under a right checksum; of other files, other bytes."""
    data = path.read_bytes()
    starts, head = [], 0
    if data.startswith(journal.MAGIC):
        head, at = 5, len(journal.MAGIC)
        while at + 9 <= len(data) and data[at : at + 5] != bytes(5):
            starts.append((at, at + 5 + int.from_bytes(data[at : at + 4], "little")))
            at = starts[-1][1] + 4
    elif data.startswith(payload.MAGIC):
        head, starts = 62, [(start, end - 4) for _, _, start, end in payload.spans(data, 44, len(data))]
    if not starts:
        return _bytes(path, rng)
    start, end = rng.choice(starts)
    body = bytearray(data[start:end])
    offset = rng.choice((4, 5, 8, 16, 18, rng.randrange(4, len(body)), rng.randrange(4, min(head, len(body)))))
    width, number = rng.choice((1, 4, 8)), rng.choice((*EDGES, rng.getrandbits(64)))
    body[offset : offset + width] = (number % 256**width).to_bytes(width, "little")
    if rng.random() < 0.3:
        body += rng.choice(_WORDS)
        body[:4] = (len(body) - head).to_bytes(4, "little")
    path.unlink()
    path.write_bytes(data[:start] + body + struct.pack("<I", zlib.crc32(body)) + data[end + 4 :])
    return f"field at {offset} of the record at {start}: {number:#x}"


def _json(path: Path, rng: random.Random) -> str:
    """Another value at some place of a JSON file, or of the statement in it."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        return _bytes(path, rng)
    holder, key = value, None
    if isinstance(value, dict) and "dsseEnvelope" in value and rng.random() < 0.6:
        holder, key = value["dsseEnvelope"], "payload"
        value_in = json.loads(base64.b64decode(holder[key]))
        _change(value_in, rng)
        holder[key] = base64.b64encode(_dumped(value_in, rng)).decode()
        data = json.dumps(value).encode()
    else:
        _change(value, rng)
        data = _dumped(value, rng)
    path.unlink()
    path.write_bytes(data)
    return "another value"


def _change(value: object, rng: random.Random) -> None:
    while isinstance(value, dict | list) and value:
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if not isinstance(value[key], dict | list) or rng.random() < 0.25:
            other = [None, True, 1, -1, 2**70, 1e300, "", "x" * 9, "\ud800", [], {}, [[]], {"a": 1}, "PLANTED", 10**19]
            value[key] = rng.choice(other)
            return
        value = value[key]


def _dumped(value: object, rng: random.Random) -> bytes:
    return json.dumps(value).encode().replace(b'"PLANTED"', rng.choice(_WORDS))


def _type(path: Path, rng: random.Random) -> str:
    """Something that is not a file, or no folder."""
    links = {"loop": path.name, "dangling": "nowhere", "device": "/dev/zero", "terminal": "/dev/tty", "itself": "."}
    name = rng.choice(("pipe", "socket", "folder", "file", "absent", *links))
    _remove(path)
    if name == "pipe":
        os.mkfifo(path)
    elif name == "socket":
        _bind(path)
    elif name == "folder":
        (path / "in" / "it").mkdir(parents=True)
    elif name == "file":
        path.write_bytes(b"x")
    elif name != "absent":
        path.symlink_to(links[name])
    return name


def _bind(path: Path) -> None:
    """A socket; its name is too long for one but from the folder itself."""
    here = os.open(".", os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        try:
            os.chdir(path.parent)
            server.bind(path.name)
        finally:
            os.fchdir(here)
            os.close(here)


def _size(path: Path, rng: random.Random) -> str:
    """Far too large, and hardly a block of it written; or nothing at all."""
    size = rng.choice((0, 2**20, 2**30, 2**33, 2**40))
    data = path.read_bytes() if rng.random() < 0.7 else b""
    path.unlink()
    path.write_bytes(data)
    with contextlib.suppress(OSError):
        os.truncate(path, size)
    return f"{size} bytes"


def _stranger(path: Path, rng: random.Random) -> str:
    """Something beside a file, or in a folder."""
    name = rng.choice(_NAMES)
    place = Path(os.fsdecode(os.path.join(os.fsencode(path if path.is_dir() else path.parent), name)))  # noqa: PTH118
    if os.path.lexists(place):
        return "nothing"
    if rng.random() < 0.5:
        place.write_bytes(rng.choice(_WORDS))
        return repr(name)
    return f"{name!r}, {_type(place, rng)}"


def _absent(path: Path, rng: random.Random) -> str:
    _remove(path)
    return "removed"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


_PLANTS: dict[str, Callable[[Path, random.Random], str]] = {
    "bytes": _bytes, "words": _words, "sealed": _sealed, "json": _json, "type": _type, "size": _size,
    "stranger": _stranger, "absent": _absent,
}  # fmt: skip
