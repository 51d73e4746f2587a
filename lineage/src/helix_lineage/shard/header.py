"""Entry 0 of a shard, which names everything that its predictions share, and gives the shard its id. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from helix_lineage.errors import CanonicalError, ShardError
from helix_lineage.formats.canonical import check_digest
from helix_lineage.shard.entries import VERSION, dump, load_array, raw, uint

MODES = ("local", "promoted")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardHeader:
    """What the serving process claims about itself."""

    KIND: ClassVar[int] = 0

    release: str | None
    """Digest of the Release record that the process verified."""
    image: str | None
    """Manifest digest as the scheduler claims it; None outside an image."""
    machine_class: str
    """For instance `x86-64-v4`."""
    libraries: Mapping[str, str]
    """Library → version."""
    model: str
    promotion: str | None = None
    """Digest of the promotion; None in mode `local`."""
    generation: int = 0
    """The promotion's generation."""
    mode: str = "local"
    public_key: bytes = field(default=b"\0" * 32, repr=False)
    """Ed25519, raw; the writer fills it in."""
    started_ns: int = 0
    """The writer fills it in."""

    def __post_init__(self) -> None:
        try:
            for digest in (self.release, self.image, self.promotion):
                if digest is not None:
                    check_digest(digest)
        except CanonicalError as error:
            raise ShardError(f"shard header: {error}") from error
        if self.mode not in MODES or (self.mode == "promoted") != (self.promotion is not None):
            raise ShardError(f"mode {self.mode!r} with promotion {self.promotion!r}")
        raw(self.public_key, "public key", 32)
        uint(self.generation, "generation")
        uint(self.started_ns, "start time")
        texts = [self.model, self.machine_class, *self.libraries, *self.libraries.values()]
        if not all(isinstance(text, str) and text for text in texts):
            raise ShardError("model, machine class, library names and versions are texts, and not empty")

    def to_bytes(self) -> bytes:
        """Entry 0."""
        libraries = [[name, version] for name, version in sorted(self.libraries.items())]
        fields = [
            self.public_key, self.model, self.mode, _raw_digest(self.release), _raw_digest(self.promotion),
            self.generation, _raw_digest(self.image), self.machine_class, libraries, self.started_ns,
        ]  # fmt: skip
        return dump([VERSION, self.KIND, *fields])

    @classmethod
    def from_bytes(cls, data: bytes) -> ShardHeader:
        """Read entry 0. Raises ShardError."""
        fields = load_array(data)
        if fields[:2] != [VERSION, cls.KIND]:
            raise ShardError(f"entry 0 is not a header of version {VERSION}: {fields[:2]}")
        try:
            key, model, mode, release, promotion, generation, image, machine_class, libraries, started = fields[2:]
            header = cls(
                public_key=key,
                model=model,
                mode=mode,
                release=_text_digest(release),
                promotion=_text_digest(promotion),
                generation=generation,
                image=_text_digest(image),
                machine_class=machine_class,
                libraries={name: version for name, version in libraries},  # noqa: C416  (rows of exactly two)
                started_ns=started,
            )
        except (TypeError, ValueError) as error:
            raise ShardError(f"entry 0 has other fields: {error}") from error
        if header.to_bytes() != data:
            raise ShardError("entry 0 is not in its one form")
        return header


def shard_id(entry_zero: bytes) -> str:
    """The first 128 bits of the header entry's SHA-256, as 32 hex digits."""
    return hashlib.sha256(entry_zero).hexdigest()[:32]


def prediction_id(shard: str, sequence: int) -> str:
    """`<shard>.<sequence>`."""
    return f"{shard}.{sequence}"


def parse_prediction_id(text: str) -> tuple[str, int]:
    """Split an id into shard and sequence. Raises ShardError."""
    shard, dot, number = text.partition(".")
    digits = number.isascii() and number.isdigit() and len(number) <= 19 and str(int(number)) == number
    if not dot or len(shard) != 32 or not set(shard) <= set("0123456789abcdef") or not digits:
        raise ShardError(f"not a prediction id: {text!r}; an id is 32 hex digits, a dot and a number")
    return shard, int(number)


def _raw_digest(digest: str | None) -> bytes | None:
    return None if digest is None else bytes.fromhex(check_digest(digest).removeprefix("sha256:"))


def _text_digest(value: object) -> str | None:
    return None if value is None else "sha256:" + raw(value, "digest", 32).hex()
