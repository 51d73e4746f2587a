"""What was asked and answered, as a log keeps it: typed tensors, shown to people whatever the model.

Only values that meet the entry's commitments are given: anything else is not what was served.

>>> words(Tensor("score", "FP32", (2,), b"\\0\\0\\x80?\\0\\0\\0@"))
['1', '2']
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import islice

from helix_lineage.errors import CanonicalError, ShardError
from helix_lineage.formats.typed import Tensor, decode
from helix_lineage.shard.entries import PredictionEntry, commitment
from helix_lineage.shard.reader import Shard

WARNINGS = "warnings"
"""The output in which a model says what it left out or read differently."""

_FORMATS = {
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "FP16": "e", "FP32": "f", "FP64": "d", "BOOL": "?",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Values:
    """The stored values of one prediction."""

    input: tuple[Tensor, ...] | None = None
    """With resolved defaults; None when erased, damaged or not what was committed to."""
    output: tuple[Tensor, ...] | None = None

    @property
    def warnings(self) -> list[str]:
        """What the model warned of."""
        return [text for tensor in self.output or () if tensor.name == WARNINGS for text in words(tensor)]


def stored(shard: Shard, sequence: int, entry: PredictionEntry) -> Values:
    """The values of a prediction that are kept, and are those that its entry commits to."""
    try:
        kept = shard.payload(sequence)
    except ShardError:
        return Values()
    return Values(
        _opened(kept.input, kept.input_salt, entry.input_commitment),
        _opened(kept.output, kept.output_salt, entry.output_commitment),
    )


def words(tensor: Tensor, most: int | None = None) -> list[str]:
    """Its elements as texts, in order; the first `most`."""
    if isinstance(tensor.data, tuple):
        return [item.decode("utf-8", "backslashreplace") for item in tensor.data[:most]]
    numbers = (value for (value,) in struct.iter_unpack("<" + _FORMATS[tensor.datatype], tensor.data))
    short = "{:.7g}".format if tensor.datatype in {"FP16", "FP32"} else str  # the digits that 32 bits hold
    return [short(value) for value in islice(numbers, most)]


def _opened(value: bytes | None, salt: bytes | None, expected: bytes) -> tuple[Tensor, ...] | None:
    if value is None or salt is None or commitment(salt, value) != expected:
        return None
    try:
        return decode(value)
    except CanonicalError:
        return None
