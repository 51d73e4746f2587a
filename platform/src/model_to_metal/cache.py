"""The stage cache: what a stage would give again needs not be made again.

A key covers everything that may change a stage's bytes: its code digest, parameters,
parents, environment, target and machine class. Under a key stands the digest of the record
that the stage gave; the store has the record and its files, or the entry does not count.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from helix_lineage.canonical import Json, check_digest, digest_bytes, dumps
from helix_lineage.errors import CanonicalError


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Everything that a stage's bytes depend on."""

    stage: str
    code: str
    """Digest of the stage's import closure."""
    environment: str
    """Digest of what the stage's environment is made from."""
    parameters: Mapping[str, Json] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    """Role → digest of a parent record."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Role → digest of a source tree or lock that the stage reads besides its parents."""
    target: str | None = None
    machine_class: str | None = None

    @property
    def digest(self) -> str:
        """The key itself."""
        return digest_bytes(dumps(asdict(self)))


@dataclass(frozen=True, slots=True)
class Entry:
    """What the cache knows under a key."""

    record: str
    """Digest of the record."""
    time: str
    """When it was made, RFC 3339 in UTC."""


class Cache:
    """Keys and entries as small files in one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, key: Key) -> Entry | None:
        """The entry under `key`; a damaged one counts as absent."""
        try:
            value = json.loads(self._path(key).read_bytes())
            return Entry(check_digest(value["record"]), str(value["time"]))
        except (OSError, ValueError, KeyError, TypeError, CanonicalError):
            return None

    def remember(self, key: Key, entry: Entry) -> None:
        """Note what a stage gave. Atomic: readers see the old entry or the new one."""
        self._root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._root, prefix=".new-", delete=False) as file:
            file.write(dumps({"key": asdict(key), "record": entry.record, "time": entry.time}))
        Path(file.name).replace(self._path(key))

    def _path(self, key: Key) -> Path:
        return self._root / f"{key.stage}-{key.digest.removeprefix('sha256:')}.json"
