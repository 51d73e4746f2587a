"""The real bubblewrap: what a stage can see and do."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from model_to_metal.errors import SandboxError
from model_to_metal.host.sandbox import USER, Sandbox, command, run

PYTHON = "/usr/bin/python3"


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
    (tmp_path / "input" / "file").write_text("given")
    return Sandbox(
        read_only={"/input": tmp_path / "input"},
        writable={"/output": tmp_path / "output"},
        env={"HELIX": "here", "PATH": "/usr/bin:/bin"},
    )


def python(box: Sandbox, source: str) -> tuple[int, str]:
    done = run(box, [PYTHON, "-I", "-c", source])
    return done.returncode, (done.stdout + done.stderr).decode()


def test_reads_inputs_and_writes_outputs(box: Sandbox, tmp_path: Path) -> None:
    status, said = python(box, "open('/output/made', 'w').write(open('/input/file').read())")
    assert (status, said) == (0, "")
    assert (tmp_path / "output" / "made").read_text() == "given"


def test_inputs_are_read_only(box: Sandbox, tmp_path: Path) -> None:
    status, said = python(box, "open('/input/file', 'w')")
    assert status == 1
    assert "Read-only" in said
    assert (tmp_path / "input" / "file").read_text() == "given"


def test_there_is_no_network_not_even_the_hosts_loopback(box: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=server.accept, daemon=True).start()
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        status, said = python(box, f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)")
    assert status == 1
    assert "refused" in said or "unreachable" in said


def test_nothing_else_of_the_machine_is_there(box: Sandbox) -> None:
    status, said = python(box, "import os; print(*sorted(os.listdir('/')))")
    assert status == 0
    visible = set(said.split())
    assert {"input", "output", "tmp", "usr", "proc", "dev"} <= visible
    assert not {"home", "root", "var", "work", "srv", "opt", "run"} & visible


def test_the_environment_is_what_was_given(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the host")
    _, said = python(box, "import os; print(sorted(os.environ))")
    assert "SECRET" not in said
    assert "HELIX" in said


def test_runs_as_a_numbered_user_without_capabilities(box: Sandbox) -> None:
    source = "import os; print(os.getuid(), [l for l in open('/proc/self/status') if l.startswith('CapEff')])"
    _, said = python(box, source)
    assert said.startswith(f"{USER} ")
    assert "0000000000000000" in said


def test_sees_no_process_of_the_host(box: Sandbox) -> None:
    _, said = python(box, "import os; print(len([p for p in os.listdir('/proc') if p.isdigit()]))")
    assert int(said) <= 2


def test_an_exit_status_is_an_answer(box: Sandbox) -> None:
    assert python(box, "raise SystemExit(3)")[0] == 3


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SandboxError) as caught:
        run(Sandbox(read_only={"/input": tmp_path / "absent"}), ["/usr/bin/true"])
    assert caught.value.where == str(tmp_path / "absent")


def test_a_missing_bubblewrap_is_said(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SandboxError, match="not installed") as caught:
        run(box, ["/usr/bin/true"])
    assert caught.value.fix == "helix doctor"


def test_an_inner_folder_is_mounted_over_the_outer_one(tmp_path: Path) -> None:
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
    (tmp_path / "outer" / "inside").mkdir()
    (tmp_path / "inner" / "found").write_text("")
    box = Sandbox(read_only={"/a/inside": tmp_path / "inner", "/a": tmp_path / "outer"})
    assert python(box, "open('/a/inside/found')")[0] == 0


def test_the_command_is_bubblewraps_and_ends_with_what_runs() -> None:
    words = command(Sandbox(), ["/usr/bin/true", "--flag"])
    assert Path(words[0]).name == "bwrap"
    assert words[-3:] == ["--", "/usr/bin/true", "--flag"]
    assert "--unshare-all" in words
