"""Starts other programs: the one module that does. Argument lists only, never a shell line."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from helix_lineage.errors import ReplayError

USER = 65532
"""The numbered user that stages, images and environments run as."""
_TAIL = 2000  # characters of a program's complaint that an error carries
_SAID = re.compile(r'msg="((?:[^"\\]|\\.)*)"')
_AROUND = re.compile(r"^(main\.go:\d+: )?(error during command execution: |Error: )")


def require(program: str, fix: str) -> None:
    """Raise ReplayError, with the command that mends it, when a program is not there."""
    if shutil.which(program) is None:
        raise ReplayError(f"{program} is not installed", where="PATH", fix=fix)


def run(
    argv: Sequence[str | Path],
    *,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> bytes:
    """Run a program to its end; gives its standard output. Raises ReplayError with the end of its complaint."""
    words = [str(part) for part in argv]
    name = Path(words[0]).name
    try:
        done = subprocess.run(words, input=stdin, env=env, capture_output=True, timeout=timeout_s, check=False)
    except OSError as error:
        raise ReplayError(f"cannot start {name}: {error.strerror}", where=words[0]) from error
    except subprocess.TimeoutExpired as error:
        raise ReplayError(f"{name} took longer than {timeout_s:g} s", where=words[0]) from error
    if done.returncode:
        complaint = done.stderr.decode("utf-8", "replace").strip()[-_TAIL:]
        raise ReplayError(f"{name} failed with status {done.returncode}: {complaint}", where=words[0])
    return done.stdout


def last_words(complaint: str) -> str:
    r"""The last line of a program's complaint, without what skopeo and cosign put around it.

    >>> last_words('a warning\ntime="2026-01-31T00:00:00Z" level=fatal msg="Get \\"http://x/\\": refused"\n')
    'Get "http://x/": refused'
    >>> last_words("Error: no such key\nerror during command execution: no such key")
    'no such key'
    """
    line = (complaint.strip().splitlines() or ["it gave no reason"])[-1]
    said = _SAID.search(line)
    return said[1].replace('\\"', '"') if said else _AROUND.sub("", line)
