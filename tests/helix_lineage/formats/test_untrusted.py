from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from helix_lineage.errors import LineageError, printable
from helix_lineage.formats.untrusted import (
    MAX_DEPTH,
    RefusedFile,
    check_folder,
    file_digest,
    is_planted,
    parse_json,
    read,
)


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"", b"x", bytes(range(256)) * 5000):
        path.write_bytes(data)
        assert read(path, limit=len(data)) == data
    link = tmp_path / "link"
    link.symlink_to("file")
    assert read(link, limit=10**7, follow=True) == data


def test_what_has_no_size_is_read_to_its_end_and_no_further() -> None:
    assert read(Path("/proc/self/status"), limit=10**6).startswith(b"Name:")
    with pytest.raises(RefusedFile, match="grows beyond 10 bytes"):
        read(Path("/proc/self/status"), limit=10)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pipe", "it is a pipe, not a regular file"),
        ("folder", "it is a folder, not a regular file"),
        ("link", "it is a link"),
        ("loop", "it is a link"),
        ("device", "it is a link"),
        ("socket", "it is a socket"),
        ("large", "it has 11 bytes, more than 10"),
    ],
)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str, message: str) -> None:
    path, links = tmp_path / "x", {"link": "y", "loop": "x", "device": "/dev/zero"}
    (tmp_path / "y").write_bytes(b"y")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        path.write_bytes(bytes(11))
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.symlink_to(links[kind])
    with pytest.raises(RefusedFile, match=message) as caught:
        read(path, limit=10)
    assert is_planted(caught.value)
    assert caught.value.filename == str(path)
    if kind != "large":
        with pytest.raises(RefusedFile, match=message):
            file_digest(path)


def test_a_link_to_a_device_is_refused_where_links_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.symlink_to("/dev/zero")
    with pytest.raises(RefusedFile, match="it is a device, not a regular file"):
        read(path, limit=10, follow=True)


def test_holes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.write_bytes(b"written")
    os.truncate(path, 2**40)
    with pytest.raises(RefusedFile, match="were never written from"):
        read(path, limit=2**41)
    os.truncate(path, 2**20)
    assert len(read(path, limit=2**41)) == 2**20


def test_what_fails_for_another_reason_is_not_called_planted(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read(tmp_path / "absent", limit=1)
    assert not is_planted(caught.value)
    assert not is_planted(OSError(errno.EIO, "the disk"))


def test_a_folder_is_a_folder(tmp_path: Path) -> None:
    check_folder(tmp_path)
    check_folder(tmp_path / "absent")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(RefusedFile, match="it is a link, not a folder"):
        check_folder(tmp_path / "link")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RefusedFile, match="it is a file, not a folder"):
        check_folder(tmp_path / "file")


def _nested(depth: int, inner: str = "1") -> bytes:
    return ('{"a":[' * (depth // 2) + inner + "]}" * (depth // 2)).encode()


def test_json_of_a_bounded_depth() -> None:
    assert parse_json(b'{"a": [1, -2.5, "x", null, true]}') == {"a": [1, -2.5, "x", None, True]}
    parse_json(_nested(MAX_DEPTH))
    for data in (_nested(MAX_DEPTH, "[]"), b"[" * 200_000, b"[" * 200_000 + b"]" * 200_000):
        with pytest.raises(ValueError, match=f"more than {MAX_DEPTH} deep"):
            parse_json(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1, "a": 1}', "a key twice"),
        (b"[NaN]", "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b"1" * 21, "has 21 digits"),
        (b"[" + b"9" * 10_000 + b"]", "has 10000 digits"),
        (b"\xff", "decode"),
        (b"", "Expecting value"),
    ],
)
def test_json_that_readers_may_take_for_different_things_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(data)


def test_errors_can_be_printed_whatever_a_file_is_called() -> None:
    error = LineageError("it says \ud800\nand more", where=os.fsdecode(b"log/\xff\x1b[2J\n"))
    assert str(error) == "it says \\ud800\nand more (log/\\udcff\\x1b[2J\\n)"
    str(error).encode()
    assert printable("naïve — “fine”") == "naïve — “fine”"
