"""What a stage's process may do in a pod: the kernel itself says no here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from model_to_metal.pipeline.argo import confine

SYSTEM = [path for path in ("/usr", "/lib", "/lib64", "/proc", sys.base_prefix, sys.prefix) if Path(path).exists()]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    shown, own = tmp_path / "shown", tmp_path / "own"
    shown.mkdir()
    own.mkdir()
    (shown / "file").write_text("input")
    (tmp_path / "secret").write_text("key")
    return shown, own


def run(code: str, folders: tuple[Path, Path]) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-c", code]
    command = confine.command(argv, read=[*SYSTEM, str(folders[0])], write=[str(folders[1])])
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_a_stage_reads_its_inputs_and_writes_its_output(folders: tuple[Path, Path]) -> None:
    shown, own = folders
    code = f"import pathlib as p; p.Path('{own}/a').write_text(p.Path('{shown}/file').read_text())"
    done = run(f"{code}; import os; os.rename('{own}/a', '{own}/b'); os.truncate('{own}/b', 2)", folders)
    assert done.returncode == 0, done.stderr
    assert (own / "b").read_text() == "in"


@pytest.mark.parametrize(
    "code",
    [
        "open('{top}/secret')",
        "open('{top}/new', 'w')",
        "open('{shown}/file', 'w')",
        "open('{shown}/new', 'w')",
        "import os; os.listdir('{top}')",
        "import os; os.truncate('{shown}/file', 0)",
        "import socket; socket.socket(socket.AF_INET)",
        "import socket; socket.socket(socket.AF_INET6)",
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "import socket; socket.create_connection(('127.0.0.1', {port}), 1)",
        "import os; os.kill({pid}, 0)",
        "import ctypes; l = ctypes.CDLL(None); assert l.ptrace(16, {pid}, 0, 0) == 0",
        "import ctypes; l = ctypes.CDLL(None, use_errno=True); assert l.syscall(425, 1, 0) >= 0",  # io_uring
        "import subprocess as s; s.run(['/usr/bin/env', 'cat', '{top}/secret'], check=True)",
    ],
)
def test_and_nothing_else(code: str, folders: tuple[Path, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        values = {"top": folders[0].parent, "shown": folders[0], "pid": os.getpid(), "port": server.getsockname()[1]}
        wanted = code.format(**values)
        assert run(wanted, folders).returncode != 0
    assert (folders[0] / "file").read_text() == "input"


def test_each_of_these_is_possible_without_confinement(folders: tuple[Path, Path]) -> None:
    """The planted fault: were the confinement empty, the checks above would fail."""
    shown = folders[0]
    for code in (
        f"open('{shown.parent}/secret')",
        "import socket; socket.socket()",
        f"import os; os.kill({os.getpid()}, 0)",
    ):
        assert subprocess.run([sys.executable, "-I", "-c", code], check=False).returncode == 0


def test_local_sockets_and_threads_work(folders: tuple[Path, Path]) -> None:
    code = "import socket, threading; socket.socketpair(); t = threading.Thread(target=print); t.start(); t.join()"
    done = run(code, folders)
    assert done.returncode == 0, done.stderr


def test_a_path_that_cannot_be_granted_ends_it_before_the_command_runs(folders: tuple[Path, Path]) -> None:
    command = confine.command([sys.executable, "-c", "print('ran')"], read=[*SYSTEM, "/absent"], write=[])
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (confine.UNAVAILABLE, "")
    assert "absent" in done.stderr
