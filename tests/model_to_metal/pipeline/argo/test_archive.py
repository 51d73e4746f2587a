from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from helix_lineage.formats.canonical import digest_bytes
from model_to_metal.errors import ImageError
from model_to_metal.pipeline.argo import archive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "a/b").mkdir(parents=True)
    (made / "a/b/program").write_text("#!")
    (made / "a/b/program").chmod(0o755)
    (made / "a/link").symlink_to("b/program")
    (made / "z").write_text("text")
    return made


def test_an_archive_gives_back_what_was_put_in(folder: Path, tmp_path: Path) -> None:
    packed = archive.write(dict(archive.members(folder)), tmp_path / "made")
    archive.extract(tmp_path / "made", tmp_path / "out")
    out = tmp_path / "out"
    assert (out / "a/link").readlink() == Path("b/program")
    assert (out / "z").read_text() == "text"
    assert (out / "a/b/program").stat().st_mode & 0o777 == 0o755
    assert (out / "z").stat().st_mtime == 1
    data = (tmp_path / "made").read_bytes()
    assert (packed.digest, packed.size) == (digest_bytes(data), len(data))
    assert packed.diff_id == digest_bytes(gzip.decompress(data))


def test_neither_times_nor_owners_nor_the_order_of_files_are_in_it(folder: Path, tmp_path: Path) -> None:
    first = archive.write(dict(archive.members(folder)), tmp_path / "first")
    os.utime(folder / "z", (5, 5))
    (folder / "z").chmod(0o600)
    again = dict(reversed(list(archive.members(folder))))
    assert archive.write(again, tmp_path / "second") == first
    assert archive.data(again) == archive.data(dict(archive.members(folder)))


def test_a_changed_byte_or_mode_is_in_it(folder: Path) -> None:
    found = [archive.data(dict(archive.members(folder)))]
    (folder / "z").write_text("texT")
    found.append(archive.data(dict(archive.members(folder))))
    (folder / "z").chmod(0o755)
    found.append(archive.data(dict(archive.members(folder))))
    assert len(set(found)) == len(found)


def test_an_archive_that_leaves_its_folder_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(archive.data({"../outside": b"x"}))
    with pytest.raises(ImageError):
        archive.extract(tmp_path / "bad", tmp_path / "out")
    assert not (tmp_path / "outside").exists()
