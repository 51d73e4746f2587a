"""The written list of skips that may happen where everything is installed (`skips.toml`)."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("skips.toml")


@dataclass(frozen=True, slots=True)
class Listed:
    """One row."""

    tests: re.Pattern[str]
    """Matches the start of a test's id."""
    reason: re.Pattern[str]
    why: str
    """Why this skip may happen although everything is installed."""
    runs: str
    """What runs these tests."""


@cache
def load(path: Path = FILE) -> tuple[Listed, ...]:
    """The rows. Raises KeyError or TypeError for one that lacks a field or has one more."""
    rows = tomllib.loads(path.read_text())["skip"]
    return tuple(Listed(**row | {name: re.compile(row[name]) for name in ("tests", "reason")}) for row in rows)


def listed(name: str, reason: str, path: Path = FILE) -> bool:
    """Is a test of that id allowed to be skipped for that reason?"""
    return any(row.tests.match(name) and row.reason.search(reason) for row in load(path))
