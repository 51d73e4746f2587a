"""The one typed encoding of inputs and answers: what "same bytes" means, at every endpoint.

A value is a list of named tensors with the data types of the Open Inference Protocol v2.
Numbers are little-endian, C order. The encoding is deterministic CBOR (RFC 8949, 4.2.1):
an array of `[name, datatype, shape, data]`, sorted by name.

>>> decode(encode([Tensor("score", "FP32", (1,), b"\\0\\0\\x80?")]))[0].name
'score'
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cbor2

from helix_lineage.errors import CanonicalError

ITEM_BYTES = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8,
    "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8, "FP16": 2, "FP32": 4, "FP64": 8,
}  # fmt: skip
"""Bytes an element; BYTES has no fixed size."""

_MAX_EXTENT = 2**63


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor."""

    name: str
    """The tensor's name in the model's contract."""
    datatype: str
    """Open Inference Protocol v2 data type, for instance FP32 or BYTES."""
    shape: tuple[int, ...]
    """Row-major shape."""
    data: bytes | tuple[bytes, ...]
    """Raw little-endian bytes; for BYTES, one byte string an element."""

    def __post_init__(self) -> None:
        # `type(…) is`, because True and 1.0 equal 1 and have other bytes: one value would have two encodings.
        if type(self.name) is not str or not self.name or _has_surrogate(self.name):
            raise CanonicalError(f"a tensor's name is a text, and not empty: {self.name!r}")
        object.__setattr__(self, "shape", tuple(self.shape))
        if not all(type(extent) is int and 0 <= extent < _MAX_EXTENT for extent in self.shape):
            raise CanonicalError(f"tensor {self.name!r}: extents are integers in [0, 2**63), not {self.shape}")
        elements = math.prod(self.shape)
        if self.datatype == "BYTES":
            if not isinstance(self.data, tuple) or len(self.data) != elements:
                raise CanonicalError(f"tensor {self.name!r}: BYTES {self.shape} needs {elements} byte strings")
            if not all(type(item) is bytes for item in self.data):
                raise CanonicalError(f"tensor {self.name!r}: its elements are byte strings")
        elif self.datatype not in ITEM_BYTES:
            raise CanonicalError(f"tensor {self.name!r}: unknown data type {self.datatype!r}")
        elif not isinstance(self.data, bytes) or len(self.data) != elements * ITEM_BYTES[self.datatype]:
            raise CanonicalError(f"tensor {self.name!r}: data does not fill {self.datatype} {self.shape}")
        elif self.datatype == "BOOL" and self.data.strip(b"\0\1"):
            raise CanonicalError(f"tensor {self.name!r}: a BOOL is 0 or 1")


def encode(tensors: Iterable[Tensor]) -> bytes:
    """The canonical bytes. Raises CanonicalError when two tensors share a name."""
    ordered = sorted(tensors, key=lambda tensor: tensor.name)
    if len({tensor.name for tensor in ordered}) != len(ordered):
        raise CanonicalError("two tensors of one name")
    # Arrays only: cbor2's canonical form sorts map keys by the rule of RFC 7049, not of RFC 8949.
    rows = [[t.name, t.datatype, list(t.shape), list(t.data) if t.datatype == "BYTES" else t.data] for t in ordered]
    return cbor2.dumps(rows, canonical=True)


def decode(data: bytes) -> tuple[Tensor, ...]:
    """Read canonical bytes; raises CanonicalError for anything `encode` would not have written."""
    try:
        rows = cbor2.loads(data)
        tensors = tuple(
            Tensor(name, datatype, tuple(shape), tuple(raw) if datatype == "BYTES" else raw)
            for name, datatype, shape, raw in rows
        )
        again = encode(tensors)
    except CanonicalError:
        raise
    except Exception as error:  # cbor2 and unpacking raise many kinds; all mean: not our encoding
        raise CanonicalError(f"not a typed value: {error}") from error
    if again != data:
        raise CanonicalError("the typed value is not in its canonical form")
    return tensors


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
