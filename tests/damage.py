"""Damage that tests do to files."""

from __future__ import annotations

from pathlib import Path


def flip_bit(path: Path) -> None:
    """What a failing disk does."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
