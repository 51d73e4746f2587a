"""The directory of this machine: the real process over `.helix/directory`, for as long as servers run here.

The first that needs it starts it and stops it; others use that one meanwhile. A server whose
directory is gone goes on, and tells the next one what was missed.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import TrustError
from helix_lineage.paths import State
from helix_lineage.tlog.disk import is_locked
from helix_lineage.tlog.layout import ShardFolder
from model_to_metal.errors import RuntimeStartError
from model_to_metal.supply_chain import keys

STOP_S = 15.0
"""How long it may take to answer what it accepted."""


@contextmanager
def running(state: State, folder: Path | None = None) -> Iterator[str]:
    """A directory that answers; gives its base URL. Raises RuntimeStartError.

    Args:
        folder: its log; the checkout's when missing.
    """
    _check_key(state)
    folder = folder or state.directory
    address = folder.with_suffix(".url")
    if is_locked(ShardFolder(folder).lock):
        yield _address(address)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "helix_lineage", "directory", "serve", str(folder), "--json"]
    options = ["--key", str(state.keys / f"{keys.DIRECTORY}.key"), "--trust", str(state.trust), "--port", "0"]
    options += ["--registrants", str(keys.registrant(state)[1])]
    # If this process is killed the directory is told to stop: nothing is left behind.
    leash = ["setpriv", "--pdeathsig", "TERM"]
    child = subprocess.Popen(
        [*leash, *command, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        url = _listening(child)
        address.write_text(url)
        yield url
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_S)
        child.kill()
        child.communicate()


def _listening(child: subprocess.Popen[str]) -> str:
    """The URL that it prints when it listens; its complaint otherwise."""
    line = child.stdout.readline() if child.stdout else ""
    try:
        said = json.loads(line)
        return str(said["url"])
    except (ValueError, KeyError, TypeError):
        child.wait()
        complaint = (child.stderr.read() if child.stderr else "") or line
        raise RuntimeStartError(f"the directory does not start: {complaint.strip()[-1000:]}") from None


def _address(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise RuntimeStartError("a directory runs, but nobody knows where", where=str(path)) from error


def _check_key(state: State) -> None:
    """The trust root names a directory that holds now; an older checkout has none yet."""
    try:
        Trust.load(state.trust).key_for(keys.DIRECTORY, datetime.now(UTC))
    except TrustError as error:
        raise RuntimeStartError(error.what, where=str(state.trust), fix="helix keys init") from error
