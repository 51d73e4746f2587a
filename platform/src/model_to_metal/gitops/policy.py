"""Who may run where: an environment's `policy.json`, and the deny-list `denied.json`. Pure.

{"version": 1, "registry": "registry.helix.example", "builders": ["github"], "after": "staging"}
{"version": 1, "denied": [{"model": …, "release": "sha256:…", "image": "sha256:…", "environment": …, "reason": …}]}

- Both files are version 1 with exactly these fields.
- `registry` is HOST or HOST:PORT; `builders` is a list of builder ids; `after` is an environment or null.
- An entry of `denied` has exactly its fields, all texts; release and image are digests.
- A release is denied by its own digest, or by that of its image, in every environment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self

from helix_lineage.errors import CanonicalError
from helix_lineage.formats.canonical import check_digest
from helix_lineage.formats.untrusted import parse_json
from model_to_metal.errors import GitopsError
from model_to_metal.gitops.layout import DENIED, name

_REGISTRY = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Policy:
    """What an environment asks of a release."""

    registry: str
    """`HOST[:PORT]` that the cluster pulls images from."""
    builders: tuple[str, ...]
    """Builders whose releases may run here; `laptop` only where it is named."""
    after: str | None
    """The environment that must run the same release first."""

    @classmethod
    def parse(cls, data: bytes, *, where: str) -> Self:
        """Read `policy.json`. Raises GitopsError."""
        value = _object(data, {"version", "registry", "builders", "after"}, where)
        registry, builders, after = value["registry"], value["builders"], value["after"]
        if not isinstance(registry, str) or not _REGISTRY.fullmatch(registry):
            raise GitopsError(f"registry is HOST or HOST:PORT, not {registry!r}", where=where)
        if not isinstance(builders, list) or not all(isinstance(item, str) and item for item in builders):
            raise GitopsError("builders is a list of builder ids", where=where)
        if after is not None and not isinstance(after, str):
            raise GitopsError(f"after is an environment or null, not {after!r}", where=where)
        return cls(registry, tuple(builders), None if after is None else name(after))


@dataclass(frozen=True, slots=True, order=True)
class Denial:
    """A release that may run nowhere any more."""

    model: str
    release: str
    """Digest of the release."""
    image: str
    """Digest of its image: another release of the same bytes is no better."""
    environment: str
    """Where it was rolled back."""
    reason: str

    def matches(self, release: str, image: str) -> bool:
        """Is it this release, or its image?"""
        return self.release == release or self.image == image


@dataclass(frozen=True, slots=True)
class Denied:
    """The deny-list."""

    denials: tuple[Denial, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read `denied.json`. Raises GitopsError: what cannot be read denies nothing, so it must not pass."""
        value = _object(data, {"version", "denied"}, DENIED)
        if not isinstance(value["denied"], list):
            raise GitopsError("denied is a list", where=DENIED)
        return cls(tuple(_denial(item) for item in value["denied"]))

    def find(self, release: str, image: str) -> Denial | None:
        """The entry against this release or its image."""
        return next((denial for denial in self.denials if denial.matches(release, image)), None)

    def add(self, denial: Denial) -> Denied:
        """The list with one more entry, sorted, so that the same entries give the same bytes."""
        return Denied(tuple(sorted({*self.denials, denial})))

    def to_bytes(self) -> bytes:
        """The file."""
        rows: Iterable[dict[str, str]] = map(asdict, self.denials)
        return json.dumps({"version": 1, "denied": list(rows)}, indent=2, ensure_ascii=False).encode() + b"\n"


def _denial(value: Any) -> Denial:
    fields = {"model", "release", "image", "environment", "reason"}
    if not isinstance(value, dict) or set(value) != fields or not all(isinstance(item, str) for item in value.values()):
        raise GitopsError(f"an entry has exactly these fields, all texts: {sorted(fields)}", where=DENIED)
    try:
        check_digest(value["release"])
        check_digest(value["image"])
    except CanonicalError as error:
        raise GitopsError(str(error), where=DENIED) from error
    return Denial(**value)


def _object(data: bytes, fields: set[str], where: str) -> dict[str, Any]:
    try:
        value = parse_json(data)
    except ValueError as error:
        raise GitopsError(f"not JSON: {error}", where=where) from error
    if not isinstance(value, dict) or set(value) != fields or value["version"] != 1:
        raise GitopsError(f"expected version 1 with exactly the fields {sorted(fields)}", where=where)
    return value
