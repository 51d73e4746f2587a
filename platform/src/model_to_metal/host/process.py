"""Starts the tools that signing, registry and set-up are made of.

Takes an argument list, never a shell line; gives what the tool wrote, or an error with the
end of what it complained about.

>>> run(["echo", "hello"])
b'hello\\n'
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from helix_lineage.process import last_words
from model_to_metal.errors import PipelineError, ToolError, ToolMissing

_TAIL = 4000  # characters of a tool's complaint that an error carries


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    stdin: bytes = b"",
    timeout_s: float | None = None,
) -> bytes:
    """Run a tool to its end and return its standard output.

    `env` is laid over this process's environment; None removes a variable.
    Raises ToolMissing when the tool is absent, ToolError when it fails or takes longer than
    `timeout_s` seconds.
    """
    done = attempt(argv, cwd=cwd, env=env, stdin=stdin, timeout_s=timeout_s)
    if done.returncode:
        raise _failed(done.args, done.returncode, done.stderr.decode("utf-8", "replace"))
    return done.stdout


def attempt(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    stdin: bytes = b"",
    timeout_s: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """As `run`, for a tool whose exit status is an answer: gives it, with all that the tool wrote."""
    command = [str(part) for part in argv]
    try:
        return subprocess.run(
            command, cwd=cwd, env=environment(env), input=stdin, capture_output=True, timeout=timeout_s, check=False
        )
    except OSError as error:
        raise _missing(command, error) from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{_name(command)} took longer than {timeout_s} s", where=" ".join(command)) from error


def watch(
    argv: Sequence[str | Path],
    report: Callable[[str], None],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
) -> None:
    """Run a tool to its end, giving `report` each line that it writes as it comes.

    `env` and errors as for `run`.
    """
    command = [str(part) for part in argv]
    lines: list[str] = []
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise _missing(command, error) from error
    with process:
        try:
            for line in process.stdout or ():
                lines.append(line)
                report(line.rstrip("\n"))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise _failed(command, process.returncode, "".join(lines))


def reason(error: PipelineError) -> str:
    """Why a tool failed, in one line of its own, for an error that says what that means."""
    return error.what if error.raw is None else last_words(error.raw)


def environment(extra: Mapping[str, str | None] | None) -> dict[str, str]:
    """This process's environment with `extra` laid over it; None removes a variable."""
    return {name: value for name, value in {**os.environ, **(extra or {})}.items() if value is not None}


def _name(command: Sequence[str]) -> str:
    return Path(command[0]).name


def _missing(command: Sequence[str], error: OSError) -> ToolMissing:
    return ToolMissing(f"cannot start {_name(command)}: {error.strerror}", where=command[0], fix="helix doctor")


def _failed(command: Sequence[str], status: int, complaint: str) -> ToolError:
    complaint = complaint.strip()[-_TAIL:]
    return ToolError(
        f"{_name(command)} failed with status {status}: {complaint}", where=" ".join(command), raw=complaint
    )
