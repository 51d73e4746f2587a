"""The `helix` command as a user starts it: a process, its output and its exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helix_lineage.errors import StoreError
from model_to_metal.cli import main
from model_to_metal.errors import DirtyTree, GateRefused, PipelineError
from tests.model_to_metal.project import ROOT, make_project

Helix = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("project") / "checkout").root


@pytest.fixture
def helix(project: Path, tmp_path: Path) -> Helix:
    def run(*arguments: str, cwd: Path = project) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}/lineage/src:{ROOT}/platform/src",
            "HELIX_STATE": str(tmp_path / "state"),
        }
        argv = [sys.executable, "-m", "model_to_metal.cli.main", *arguments]
        return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)

    return run


def test_help_names_every_command(helix: Helix) -> None:
    said = helix("--help").stdout
    for name in (
        "doctor", "lock", "fetch", "check", "export", "regress", "build", "attest", "run", "serve", "demo", "verify",
        "promote", "rollback", "gitops", "keys", "registry", "env", "tools", "lineage", "rebuild", "store",
    ):  # fmt: skip
        assert f" {name} " in said, name


def test_a_release_without_a_key_is_refused_first(helix: Helix, tmp_path: Path) -> None:
    done = helix("run", "release", "toy")
    assert done.returncode == 2
    assert "there is no releaser's key" in done.stderr
    assert "fix:   helix keys init" in done.stderr
    assert not (tmp_path / "state" / "store").exists()


def test_each_command_is_one_file() -> None:
    folder = ROOT / "platform/src/model_to_metal/cli"
    files = {path.stem for path in folder.glob("[!_]*.py")} - {"main"}
    assert files == {module.__name__.rpartition(".")[2] for module in main.COMMANDS} | {"cluster"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "boy"), "no model is called 'boy'; there are: toy"),
        (("run", "deploy", "toy"), "no workflow is called 'deploy'; there is: release"),
        (("serve", "toy"), "toy has no release on this machine"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_no_traceback(
    helix: Helix, arguments: tuple[str, ...], said: str
) -> None:
    done = helix(*arguments)
    assert done.returncode == main.CANNOT
    assert said in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_with_json_an_error_is_json(helix: Helix) -> None:
    done = helix("check", "boy", "--json")
    assert done.returncode == main.CANNOT
    assert set(json.loads(done.stdout)["error"]) == {"what", "where", "fix"}


def test_wrong_usage_is_told_apart_by_its_help(helix: Helix) -> None:
    done = helix("check")
    assert done.returncode == main.CANNOT
    assert "Usage" in done.stderr


def test_outside_a_checkout_that_is_said(helix: Helix, tmp_path: Path) -> None:
    done = helix("check", "toy", cwd=tmp_path)
    assert done.returncode == main.CANNOT
    assert "not inside a Helix checkout" in done.stderr


def test_a_planted_pickle_is_refused_with_file_line_and_fix(helix: Helix, tmp_path: Path) -> None:
    folder = make_project(tmp_path / "spoilt").root
    path = folder / "models/toy/src/toy_model/export.py"
    path.write_text("import pickle\n" + path.read_text())
    done = helix("check", "toy", cwd=folder)
    assert done.returncode == main.NO
    assert "no-pickle  src/toy_model/export.py:1  imports pickle" in done.stdout
    assert "helix check toy" in done.stderr
    as_json = json.loads(helix("check", "toy", "--json", cwd=folder).stdout)
    assert as_json["passed"] is False
    assert as_json["record"]["parameters"]["findings"][0]["line"] == 1


def test_a_dirty_tree_is_refused_for_a_release(helix: Helix, tmp_path: Path) -> None:
    folder = make_project(tmp_path / "spoilt").root
    (folder / "notes.txt").write_text("not committed")
    done = helix("run", "release", "toy", cwd=folder)
    assert done.returncode == main.NO
    assert "notes.txt" in done.stderr
    assert "git commit" in done.stderr


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (GateRefused("no", digest="sha256:" + "1" * 64), main.NO),
        (DirtyTree("no"), main.NO),
        (PipelineError("what", where="there", fix="do this"), main.CANNOT),
        (StoreError("what"), main.CANNOT),
        (ZeroDivisionError("a bug"), main.CANNOT),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_error_ends_in_an_exit_status(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "keep", lambda _: "a file")

    def fail() -> None:
        raise error

    monkeypatch.setattr(main, "app", fail)
    monkeypatch.setattr(sys, "argv", ["helix"])
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == status
    assert "Traceback" not in capsys.readouterr().err


def test_the_traceback_of_our_own_fault_is_kept_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "app", lambda: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["helix"])
    with pytest.raises(SystemExit):
        main.main()
    said = capsys.readouterr().err
    path = Path(next(line.split()[1] for line in said.splitlines() if "where:" in line))
    assert "ZeroDivisionError" in path.read_text()
    path.unlink()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_told_to_end_leaves_no_scratch_folder(tmp_path: Path, number: signal.Signals) -> None:
    code = """
import signal, sys, tempfile, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as in a terminal, whatever the tests were started by
from model_to_metal.cli import main
def app():
    with tempfile.TemporaryDirectory(prefix="helix-data-"):
        print("there", flush=True)
        time.sleep(600)
main.app = app
main.main()
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(number)
        assert process.wait() == 128 + number
    assert list(tmp_path.iterdir()) == []
