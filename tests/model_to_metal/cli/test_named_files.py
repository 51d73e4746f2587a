"""What a user names on a command line of `helix` is read without waiting, without end, and without a traceback."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.core import TyperCommand

from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError
from helix_lineage.paths import State
from helix_lineage.records.store import RecordStore
from model_to_metal.cli import main
from model_to_metal.supply_chain import keys
from tests.helix_lineage.planted.named import NO_FILES, NO_FOLDERS, STRANGE, bounded_memory, paths_of
from tests.helix_lineage.support import Signer, make_chain
from tests.model_to_metal.cli.test_command_lines import ALL
from tests.model_to_metal.project import make_project

pytestmark = pytest.mark.timeout(120)
DIGEST = "sha256:" + "1" * 64
Line = Callable[[Path, Path], list[str]]

TRUSTING: dict[str, list[str]] = {
    "helix promote": ["promote", "toy", "--to", "staging"],
    "helix rollback": ["rollback", "toy", "--in", "staging"],
    "helix rebuild": ["rebuild", "HEAD"],
    "helix verify": ["verify", f"helix/toy@{DIGEST}"],
}
FILES: dict[tuple[str, str], Line] = {
    **{
        (words, "trust"): lambda _, path, line=line: [*line, "--trust", str(path)]  # type: ignore[misc]
        for words, line in TRUSTING.items()
    },
    ("helix promote", "release"): lambda _, path: ["promote", "toy", "--to", "staging", "--release", str(path)],
    ("helix rebuild", "release"): lambda root, path: [
        "rebuild", "HEAD", "--release", str(path), "--trust", str(root / "trust.json"),
    ],
    ("helix cluster up", "existing"): lambda _, path: ["cluster", "up", "--kubeconfig", str(path)],
    ("helix lineage revoke", "keep"): lambda _, path: [
        "lineage", "revoke", "image", DIGEST, "--reason", "x", "--keep", str(path),
    ],
}  # fmt: skip
"""Each parameter that takes a file → a command line that reads it."""
FOLDERS: dict[tuple[str, str], Line] = {
    ("helix attest", "layout"): lambda _, path: ["attest", make_chain().release.digest, "--layout", str(path)],
}
WRITTEN = {("helix lineage revoke", "keep")}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("project") / "checkout").root
    (root / "trust.json").write_bytes(Signer().trust_json())
    store = RecordStore(root / ".helix/store")
    for record in make_chain().records.values():
        store.put_record(record)
    return root


@pytest.fixture
def told(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Line, Path], None]:
    monkeypatch.chdir(project)
    monkeypatch.setenv("HELIX_STATE", str(project / ".helix"))

    def check(line: Line, path: Path) -> None:
        words = line(project, path)
        for asked in (words, [*words, "--json"]):
            monkeypatch.setattr(sys, "argv", ["helix", *asked])
            with bounded_memory(), pytest.raises(SystemExit) as caught:
                main.main()
            said = capsys.readouterr()
            assert caught.value.code == main.CANNOT, said
            assert path.name in said.out + said.err
            assert "fault in helix" not in said.out + said.err
            assert "[Errno" not in said.out + said.err
            if asked is not words:
                assert json.loads(said.out)["error"]["what"]

    return check


def test_every_parameter_that_takes_a_path_is_tried() -> None:
    def own(words: str, command: TyperCommand) -> bool:
        return words.startswith("helix ") and (command.callback or main).__module__.startswith("model_to_metal")

    declared = {
        (words, name)
        for words, command in ALL.items()
        if command.callback is not None and own(words, command)
        for name in paths_of(command.callback)
    }
    assert declared == set(FILES) | set(FOLDERS)


@pytest.mark.parametrize(
    ("command", "name", "kind"),
    [
        (*pair, kind)
        for pair in FILES
        for kind in [*NO_FILES, *STRANGE]
        if (pair not in WRITTEN or kind in ("a pipe", "a folder", "a device"))
        and not (pair == ("helix promote", "release") and kind in STRANGE)
        and not (pair == ("helix cluster up", "existing") and kind in STRANGE)
    ],
)
def test_what_is_no_such_file_is_refused_with_a_sentence(
    command: str, name: str, kind: str, tmp_path: Path, told: Callable[[Line, Path], None]
) -> None:
    path = tmp_path / "planted"
    (NO_FILES | STRANGE)[kind](path)
    told(FILES[command, name], path)


@pytest.mark.parametrize("kind", [*NO_FOLDERS, *STRANGE])
@pytest.mark.parametrize(("command", "name"), FOLDERS)
def test_what_is_no_folder_is_refused_with_a_sentence(
    command: str, name: str, kind: str, tmp_path: Path, told: Callable[[Line, Path], None]
) -> None:
    path = tmp_path / "planted"
    (NO_FOLDERS | STRANGE)[kind](path)
    told(FOLDERS[command, name], path)


@pytest.mark.parametrize("kind", NO_FILES)
def test_a_key_that_is_named_as_a_file_is_one(kind: str, tmp_path: Path) -> None:
    """cosign would wait for a pipe, and read a device without end."""
    path = tmp_path / "planted"
    NO_FILES[kind](path)
    root = Trust.parse(Signer().trust_json())
    with pytest.raises(LineageError, match="cannot read the promoter's key"):
        keys.elsewhere(str(path), tmp_path / "no cosign", root, role=keys.PROMOTER, now=datetime.now(UTC))


@pytest.mark.parametrize("name", ["releaser.pub", "cache.key", "registrants"])
def test_keys_of_this_machine_are_small(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path)
    state.keys.mkdir()
    for path in ("releaser.key", "releaser.pub", "cache.key", "directory.token"):
        (state.keys / path).write_text("0" * 64)
        (state.keys / path).chmod(0o600)
    state.trust.write_bytes(Signer().trust_json())
    (state.keys / name).unlink(missing_ok=True)
    NO_FILES["five sparse gigabytes"](state.keys / name)
    (state.keys / name).chmod(0o600)
    asked = {"releaser.pub": keys.signer, "cache.key": keys.cache_signer, "registrants": keys.registrant}[name]
    with bounded_memory(), pytest.raises(LineageError, match="it has 5000000000 bytes"):
        asked(state)  # type: ignore[operator]
