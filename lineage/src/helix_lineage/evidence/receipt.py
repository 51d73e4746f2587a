"""A receipt: what the owner of one prediction needs to check it with no server and no log at hand.

`make` reads a shard and gives a `PredictionReceipt`; `Receipt.verify` believes nothing but the id that the
owner was given: the id binds the header, the header's key signed the checkpoint, the proof leads
from the entry to it. The salts open this one item's commitments and no other's.

- The receipt has the known fields, and its id is the one asked about.
- Its header makes the shard's id; the header's key signed the checkpoint; the proof leads from the entry there.
- The entry is a prediction, and header and receipt agree on whether there is a release.
- Input and output are the bytes that the entry commits to; the release bundle is the one that the server verified.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from helix_lineage.errors import LineageError, ShardError, TrustError
from helix_lineage.formats import untrusted
from helix_lineage.formats.canonical import check_digest, digest_bytes, dumps, loads
from helix_lineage.shard import entries
from helix_lineage.shard.entries import PredictionEntry, commitment
from helix_lineage.shard.header import ShardHeader, parse_prediction_id, shard_id
from helix_lineage.shard.reader import Log, Shard
from helix_lineage.tlog import checkpoint, merkle

VERSION = 1
_KEYS = {"version", "id", "entry", "header", "proof", "checkpoint", "salts", "release_bundle"}


@dataclass(frozen=True, slots=True)
class ProvenPrediction:
    """What a receipt that holds says."""

    entry: PredictionEntry
    header: ShardHeader
    checkpoint: checkpoint.Checkpoint


@dataclass(frozen=True, slots=True)
class PredictionReceipt:
    """One prediction's."""

    id: str
    entry: bytes
    """The entry, as the log holds it."""
    header: bytes
    """Entry 0 of its shard."""
    proof: tuple[bytes, ...]
    """From the entry to the checkpoint."""
    note: bytes
    """The signed checkpoint."""
    input_salt: bytes | None
    """None when the payload was erased with its salts, or is not kept."""
    output_salt: bytes | None
    release_bundle: str | None
    """Digest of the release bundle that the server verified; None where it had no release."""

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return dumps(
            {
                "version": VERSION,
                "id": self.id,
                "entry": self.entry.hex(),
                "header": self.header.hex(),
                "proof": [node.hex() for node in self.proof],
                "checkpoint": self.note.decode(),
                "salts": {"input": _hex(self.input_salt), "output": _hex(self.output_salt)},
                "release_bundle": self.release_bundle,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> PredictionReceipt:
        """Read a receipt; nothing is checked but its form. Raises TrustError."""
        try:
            value: Any = loads(data)
            if set(value) != _KEYS or value["version"] != VERSION or set(value["salts"]) != {"input", "output"}:
                raise TrustError(f"not a receipt of version {VERSION}")
            if value["release_bundle"] is not None:
                check_digest(value["release_bundle"])
            return cls(
                id=value["id"],
                entry=bytes.fromhex(value["entry"]),
                header=bytes.fromhex(value["header"]),
                proof=tuple(bytes.fromhex(node) for node in value["proof"]),
                note=value["checkpoint"].encode(),
                input_salt=_raw(value["salts"]["input"]),
                output_salt=_raw(value["salts"]["output"]),
                release_bundle=value["release_bundle"],
            )
        except (LineageError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise TrustError(f"not a receipt of version {VERSION}: {error}", where="receipt") from error

    def verify(self, prediction: str) -> ProvenPrediction:
        """Does it prove the prediction of that id? Raises TrustError naming the part that does not hold."""
        try:
            shard, sequence = parse_prediction_id(prediction)
            if self.id != prediction:
                raise TrustError("the receipt is another prediction's", where="id")
            if shard_id(self.header) != shard:
                raise TrustError("the header does not make the shard's id", where="header")
            header = ShardHeader.from_bytes(self.header)
            signed = checkpoint.verify(self.note, checkpoint.SHARD_ORIGIN + shard, header.public_key)
            leaf = merkle.leaf_hash(self.entry)
            if not merkle.verify_inclusion(sequence, signed.size, leaf, self.proof, signed.root):
                raise TrustError("the proof does not lead from the entry to the checkpoint", where="proof")
            entry = entries.decode(self.entry)
        except ShardError as error:
            raise TrustError(error.what, where=error.where or "receipt") from error
        if not isinstance(entry, PredictionEntry):
            raise TrustError("the entry is not a prediction", where="entry")
        if (header.release is None) != (self.release_bundle is None):
            raise TrustError(
                "the header and the receipt disagree on whether there is a release", where="release_bundle"
            )
        return ProvenPrediction(entry, header, signed)

    def check_input(self, typed: bytes, proven: ProvenPrediction) -> None:
        """The entry commits to this typed input. Raises TrustError."""
        _check("input", self.input_salt, typed, proven.entry.input_commitment)

    def check_output(self, typed: bytes, proven: ProvenPrediction) -> None:
        """The entry commits to this typed output. Raises TrustError."""
        _check("output", self.output_salt, typed, proven.entry.output_commitment)

    def check_release(self, bundle: bytes) -> None:
        """This is the release bundle that the server verified, by the server's word. Raises TrustError.

        What the entry proves is the release's digest in `Proven.header`: compare it with that of the verified release.
        """
        if digest_bytes(bundle) != self.release_bundle:
            raise TrustError(f"the bundle is {digest_bytes(bundle)}, not {self.release_bundle}", where="release_bundle")


def make(log: Log, prediction: str) -> PredictionReceipt:
    """The receipt of a prediction. Raises PredictionNotFound or ShardError."""
    shard, sequence = log.find(prediction)
    shard.prediction(sequence)
    inclusion = shard.inclusion(sequence)
    try:
        kept = shard.payload(sequence)
        salts = kept.input_salt, kept.output_salt
    except ShardError:
        salts = None, None
    return PredictionReceipt(
        id=prediction,
        entry=shard.entry(sequence),
        header=shard.entry(0),
        proof=inclusion.proof,
        note=inclusion.note,
        input_salt=salts[0],
        output_salt=salts[1],
        release_bundle=_release_bundle(shard),
    )


def _release_bundle(shard: Shard) -> str | None:
    """Digest of the shard's copy of its release; None when there is none. Raises ShardError."""
    try:
        return digest_bytes(untrusted.read(shard.folder.release, limit=untrusted.MAX_BUNDLE_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ShardError(f"cannot read the release: {error.strerror}", where=str(shard.folder.release)) from error


def _check(name: str, salt: bytes | None, typed: bytes, expected: bytes) -> None:
    if salt is None:
        raise TrustError(f"the {name}'s salt was erased: nobody can tell any more", where=f"salts.{name}")
    if commitment(salt, typed) != expected:
        raise TrustError(f"the entry does not commit to this {name}", where=name)


def _hex(salt: bytes | None) -> str | None:
    return None if salt is None else salt.hex()


def _raw(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)
