"""Faults of ours, put back for a while: each must make the campaign fail."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from helix_lineage.attestations import dsse
from helix_lineage.formats import canonical, untrusted
from helix_lineage.tlog import tile_files

WHERE = {"waiting": "log", "nesting": "releases", "digits": "log"}
"""Where each soon shows."""


def apply(name: str) -> None:
    """Put that fault back; nothing when it has no name."""
    if name:
        {"waiting": _waiting, "nesting": _nesting, "digits": _digits}[name]()


def _waiting() -> None:
    """A pipe is read as a file is."""
    careful = untrusted.read

    def read(path: Path, *, limit: int, follow: bool = False) -> bytes:
        if path.exists() and stat.S_ISFIFO(path.stat().st_mode):
            return path.read_bytes()
        return careful(path, limit=limit, follow=follow)

    untrusted.read = read


def _nesting() -> None:
    """JSON of any depth."""

    def parse(data: bytes) -> Any:
        return json.loads(data)

    for module in (untrusted, canonical, dsse):
        module.parse_json = parse  # type: ignore[attr-defined]


def _digits() -> None:
    """Whatever Unicode calls a digit is one."""
    tile_files._is_number = lambda text: text.isdigit() and str(int(text)) == text
