"""What a user names on a command line is read without waiting, without end, and without a traceback."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from helix_lineage.cli import main, options
from helix_lineage.directory.service import load_key
from helix_lineage.errors import LineageError, TrustError
from helix_lineage.evidence.receipt import make
from helix_lineage.evidence.releases import read_bundle
from helix_lineage.formats.named import read_named, write_named
from helix_lineage.tlog.layout import ShardFolder
from tests.helix_lineage.page.worlds import Promoted, promoted
from tests.helix_lineage.planted.named import NO_FILES, NO_FOLDERS, STRANGE, bounded_memory, paths_of

pytestmark = pytest.mark.timeout(120)
Words = list[str | Path]
Line = Callable[[Promoted, Path], Words]
Told = Callable[[Line, Path, int], None]


def _where(given: Promoted) -> Words:
    return ["--log", given.log.root, "--trust", given.root / "trust.json"]


def _release(given: Promoted) -> Path:
    return ShardFolder(given.folder).release


FILES: dict[tuple[str, str], Line] = {
    ("trace", "trust"): lambda given, path: ["trace", given.id, "--log", given.log.root, "--trust", path],
    ("trace", "release"): lambda given, path: ["trace", given.id, *_where(given), "--release", path],
    ("trace", "html"): lambda given, path: ["trace", given.id, *_where(given), "--html", path],
    ("replay", "given"): lambda given, path: ["replay", given.id, *_where(given), "--input", path],
    ("replay", "trust"): lambda given, path: ["replay", given.id, "--log", given.log.root, "--trust", path],
    ("replay", "release"): lambda given, path: ["replay", given.id, *_where(given), "--release", path],
    ("audit", "trust"): lambda given, path: ["audit", "--log", given.log.root, "--trust", path],
    ("audit", "release"): lambda given, path: ["audit", *_where(given), "--release", path],
    ("audit", "checkpoint"): lambda given, path: ["audit", *_where(given), "--checkpoint", path],
    ("verify-release", "bundle"): lambda given, path: ["verify-release", path, *_where(given)[2:]],
    ("verify-release", "trust"): lambda given, path: ["verify-release", _release(given), "--trust", path],
    ("verify-receipt", "receipt"): lambda given, path: ["verify-receipt", given.id, path],
    ("verify-receipt", "output"): lambda given, path: [
        "verify-receipt", given.id, given.root / "receipt.json", "--output", path,
    ],
    ("verify-receipt", "release"): lambda given, path: [
        "verify-receipt", given.id, given.root / "receipt.json", "--release", path,
    ],
    ("witness", "kept"): lambda given, path: ["witness", given.office.folder, "--keep", path, *_where(given)[2:]],
    ("witness", "trust"): lambda given, path: [
        "witness", given.office.folder, "--keep", given.root / "kept", "--trust", path,
    ],
    ("directory serve", "key"): lambda given, path: _serve(given, path, given.office.root / "registrants"),
    ("directory serve", "registrants"): lambda given, path: _serve(given, given.office.root / "directory.key", path),
    ("directory serve", "trust"): lambda given, path: [
        *_serve(given, given.office.root / "directory.key", given.office.root / "registrants")[:-1], path,
    ],
    ("directory status", "trust"): lambda given, path: ["directory", "status", given.office.folder, "--trust", path],
    ("directory submit", "bundle"): lambda given, path: [
        "directory", "submit", path, "http://127.0.0.1:9", *_where(given)[2:],
    ],
    ("directory submit", "trust"): lambda given, path: [
        "directory", "submit", _release(given), "http://127.0.0.1:9", "--trust", path,
    ],
}  # fmt: skip
"""Each parameter that takes a file → a command line that reads it."""
FOLDERS: dict[tuple[str, str], Line] = {
    ("list", "log"): lambda _, path: ["list", "--log", path],
    ("trace", "log"): lambda given, path: ["trace", given.id, "--log", path],
    ("trace", "store"): lambda given, path: ["trace", given.id, *_where(given)[:2], "--store", path],
    ("replay", "log"): lambda given, path: ["replay", given.id, "--log", path],
    ("replay", "store"): lambda given, path: ["replay", given.id, *_where(given)[:2], "--store", path],
    ("replay", "images"): lambda given, path: ["replay", given.id, *_where(given), "--images", path],
    ("audit", "log"): lambda _, path: ["audit", "--log", path],
    ("audit", "store"): lambda given, path: ["audit", *_where(given)[:2], "--store", path],
    ("audit", "directory"): lambda given, path: ["audit", *_where(given), "--directory", path],
    ("erase", "log"): lambda given, path: ["erase", given.id, "--log", path],
    ("directory serve", "folder"): lambda given, path: [
        *_serve(given, given.office.root / "directory.key", given.office.root / "registrants")[:2], path,
        *_serve(given, given.office.root / "directory.key", given.office.root / "registrants")[3:],
    ],
    ("directory status", "place"): lambda given, path: ["directory", "status", path, *_where(given)[2:]],
    ("witness", "place"): lambda given, path: ["witness", path, "--keep", given.root / "kept", *_where(given)[2:]],
}  # fmt: skip
ANSWERED = {
    ("verify-release", "bundle"),
    ("audit", "checkpoint"),
    *(("verify-receipt", name) for name in ("receipt", "output", "release")),
}
"""What these read is what they judge: bytes that are no receipt, release or checkpoint are a no."""
MAY_BE = {
    *((("trace", "html"), kind) for kind in (*STRANGE, "five sparse gigabytes", "a link in a circle")),
    (("directory serve", "registrants"), "an empty file"),
}
"""What is written over, and what says that nobody may register."""


def _serve(given: Promoted, key: Path, registrants: Path) -> Words:
    return [
        "directory", "serve", given.root / "served", "--port", "0", "--key", key, "--registrants", registrants,
        "--trust", given.root / "trust.json",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Promoted:
    found = promoted(tmp_path_factory.mktemp("named") / "given")
    (found.root / "trust.json").write_bytes(found.office.trust_json())
    (found.root / "receipt.json").write_bytes(make(found.log, found.id).to_bytes())
    found.office.write_keys()
    (found.office.root / "registrants").touch()
    return found


@pytest.fixture
def given(made: Promoted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Promoted]:
    """Outside any checkout."""
    monkeypatch.delenv("HELIX_STATE", raising=False)
    monkeypatch.chdir(tmp_path)
    with bounded_memory():
        yield made


def answered(words: Words, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit status of the command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["helix-lineage", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def commands() -> Iterator[tuple[str, TyperCommand]]:
    def walk(words: str, command: object) -> Iterator[tuple[str, TyperCommand]]:
        if isinstance(command, TyperGroup):
            for name, below in command.commands.items():
                yield from walk(f"{words} {name}".strip(), below)
        elif isinstance(command, TyperCommand):
            yield words, command

    return walk("", typer.main.get_command(main.app))


def test_every_parameter_that_takes_a_path_is_tried() -> None:
    declared = {
        (words, name) for words, command in commands() if command.callback for name in paths_of(command.callback)
    }
    assert len(declared) > 25
    assert declared <= set(FILES) | set(FOLDERS)


@pytest.fixture
def told(given: Promoted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    def check(line: Line, path: Path, status: int) -> None:
        words = line(given, path)
        for asked in (words, [*words, "--json"]):
            found = answered(asked, monkeypatch)
            said = capsys.readouterr()
            assert found == status, said
            assert "fault in helix-lineage" not in said.out + said.err
            assert "Traceback" not in said.out + said.err
            assert "[Errno" not in said.out + said.err
            assert said.out.strip() or said.err.strip()
            if asked is not words:
                json.loads(said.out)

    return check


def _cases(
    pairs: Iterable[tuple[str, str]], kinds: Iterable[str], spared: Container[object]
) -> list[tuple[str, str, str]]:
    return [(*pair, kind) for pair in pairs for kind in kinds if (pair, kind) not in spared]


@pytest.mark.parametrize(("command", "name", "kind"), _cases(FILES, NO_FILES, MAY_BE))
def test_what_is_no_file_of_a_size_that_may_be_is_refused_with_a_sentence(
    command: str, name: str, kind: str, tmp_path: Path, told: Told
) -> None:
    path = tmp_path / "planted"
    NO_FILES[kind](path)
    told(FILES[command, name], path, options.FAILED)


@pytest.mark.parametrize(("command", "name", "kind"), _cases(FILES, STRANGE, MAY_BE))
def test_bytes_of_another_kind_are_refused_with_a_sentence(
    command: str, name: str, kind: str, tmp_path: Path, told: Told
) -> None:
    path = tmp_path / "planted"
    STRANGE[kind](path)
    told(FILES[command, name], path, options.FOUND if (command, name) in ANSWERED else options.FAILED)


@pytest.mark.parametrize(("command", "name", "kind"), _cases(FOLDERS, NO_FOLDERS | STRANGE, ()))
def test_what_is_no_folder_is_refused_with_a_sentence(
    command: str, name: str, kind: str, tmp_path: Path, told: Told
) -> None:
    path = tmp_path / "planted"
    (NO_FOLDERS | STRANGE)[kind](path)
    told(FOLDERS[command, name], path, options.FAILED)


def test_standard_input_is_a_file_of_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    given(b"x" * 10)
    assert read_named(Path("-"), "the receipt", limit=10) == b"x" * 10
    given(b"x" * 11)
    with pytest.raises(LineageError, match="cannot read the receipt: it has more than 10 bytes"):
        read_named(Path("-"), "the receipt", limit=10)


def test_a_name_that_no_file_can_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(LineageError, match="cannot read the receipt: embedded null byte"):
        read_named(tmp_path / "a\0b", "the receipt")


def test_what_is_written_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, link = tmp_path / "page", tmp_path / "link"
    write_named(path, b"old", "the page")
    link.symlink_to(path)
    write_named(link, b"new", "the page")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    with pytest.raises(LineageError, match=r"cannot write the page: there is no folder .*/absent that can be written"):
        write_named(tmp_path / "absent/page", b"", "the page")

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LineageError, match="cannot write the page: No space left on device"):
        write_named(path, b"newer", "the page")
    assert path.read_bytes() == b"new"
    assert sorted(tmp_path.iterdir()) == [link, path]


def test_the_directorys_key_says_what_lies_there() -> None:
    """A device can be read by others: that is not what is wrong with it, and chmod must not be the advice."""
    with pytest.raises(LineageError, match="it is a device, not a regular file"):
        load_key(Path("/dev/zero"))


def test_a_bundle_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    NO_FILES["a pipe"](path)
    with pytest.raises(TrustError, match="cannot read the bundle: it is a pipe, not a regular file"):
        read_bundle(path)
    path.unlink()
    path.write_bytes(b"{}")
    assert read_bundle(path) == b"{}"
