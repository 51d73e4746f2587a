"""Same bytes, or what differs: the judgement of a replay. Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from helix_lineage.errors import CanonicalError
from helix_lineage.formats.canonical import Json, digest_bytes
from helix_lineage.formats.typed import ITEM_BYTES, Tensor, decode
from helix_lineage.replay.plan import ReplayPlan
from helix_lineage.replay.tolerance import Deviation, compare
from helix_lineage.shard.entries import commitment

_FORMATS = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip


OUTCOMES = SAME, WITHIN, OTHER_CLASS, NOT_REPLAYED, DIFFERS = (
    "same-bytes",
    "within-tolerance",
    "other-machine-class",
    "not-replayed",
    "differs",
)
"""What a replay may come to. `other-machine-class`: the bytes differ, and nothing else than the class of machine
is there to explain it; `not-replayed`: no output came, and nothing that was compared before differs. Both neither
confirm nor refute the entry."""
UNDECIDED = frozenset({OTHER_CLASS, NOT_REPLAYED})
"""The outcomes that are neither yes nor no."""


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """Something in which the replay is not the prediction."""

    factor: str
    """`machine-class`, `weights`, `file`, `seed`, `input`, `output`, `stored-output` or `error`."""
    detail: str
    """One sentence."""

    def to_json(self) -> dict[str, Json]:
        """As JSON values."""
        return {"factor": self.factor, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a replay."""

    id: str
    same: bool
    """The same bytes, from the same input, seed and files."""
    differences: tuple[OutputDifference, ...]
    """What differs, causes first; may name the machine class even when the bytes are the same."""
    machine_class: str | None
    """Of the machine that replayed."""
    output: str | None
    """Digest of the replayed output."""
    recorded_class: str | None = None
    """Of the machine that served."""
    deviation: Deviation | None = None
    """How far the answers are apart, where a tolerance was given and the bytes differ."""

    @property
    def outcome(self) -> str:
        """One of `OUTCOMES`. Other bytes on another machine class, or no output at all, refute nothing."""
        if self.same:
            return SAME
        factors = {difference.factor for difference in self.differences}
        if factors == {"error"}:
            return NOT_REPLAYED
        if factors - {"machine-class", "output"}:
            return DIFFERS
        if self.deviation is not None:
            return WITHIN if self.deviation.within else DIFFERS
        return OTHER_CLASS if self.machine_class != self.recorded_class else DIFFERS

    def to_json(self) -> dict[str, Json]:
        """As JSON values."""
        return {
            "version": 1,
            "id": self.id,
            "same": self.same,
            "differences": [difference.to_json() for difference in self.differences],
            "outcome": self.outcome,
            "machine_class": self.machine_class,
            "recorded_class": self.recorded_class,
            "deviation": None if self.deviation is None else self.deviation.to_json(),
            "output": self.output,
        }


def judge(
    plan: ReplayPlan,
    files: Sequence[OutputDifference],
    machine_class: str,
    output: bytes,
    tolerance: float | None = None,
) -> Verdict:
    """Compare a replayed output with the log.

    Args:
        files: what `check_files` found.
        machine_class: of the machine that replayed.
        output: the typed answer.
        tolerance: where the bytes differ, compare the numbers too. Needs the stored output.
    """
    causes = [*files, *compare_input(plan)]
    met = commitment(plan.output_salt, output) == plan.entry.output_commitment
    same = met and not causes
    if machine_class != plan.machine_class:
        detail = f"served on {plan.machine_class}, replayed on {machine_class}"
        causes.append(OutputDifference("machine-class", detail))
    deviation = None
    if not met:
        causes.append(OutputDifference("output", _output_detail(plan, output, explained=bool(causes))))
        if tolerance is not None and _is_stored(plan):
            deviation = compare(plan.stored_output or b"", output, tolerance)
        elif tolerance is not None:
            lost = "was erased" if plan.stored_output is None else "is not what was committed to"
            causes.append(OutputDifference("stored-output", f"no tolerance can be applied: the stored output {lost}"))
    found = digest_bytes(output)
    return Verdict(plan.id, same, tuple(causes), machine_class, found, plan.machine_class, deviation)


def failed(plan: ReplayPlan, files: Sequence[OutputDifference], why: str) -> Verdict:
    """The verdict when no output came. A factor that was swapped on purpose is not counted as a difference."""
    served = () if plan.swapped else compare_input(plan)
    causes = (*files, *served, OutputDifference("error", why))
    return Verdict(plan.id, False, causes, None, None, plan.machine_class)


def unplanned(prediction: str, why: str) -> Verdict:
    """The verdict on a prediction that cannot even be planned: its input, release or lane does not allow it."""
    return Verdict(prediction, False, (OutputDifference("error", why),), None, None)


def compare_input(plan: ReplayPlan) -> list[OutputDifference]:
    """Is this the input, with the seed, that was served?"""
    if commitment(plan.input_salt, plan.input) == plan.entry.input_commitment:
        return []
    seed = _seed(plan.input)
    if seed is None or plan.entry.seed is None or seed == plan.entry.seed:
        return [OutputDifference("input", "the input is not the one that was served: it misses its commitment")]
    found = [OutputDifference("seed", f"served with seed {plan.entry.seed}, replayed with seed {seed}")]
    restored = plan.with_seed(plan.entry.seed)
    if commitment(plan.input_salt, restored.input) != plan.entry.input_commitment:
        found.append(OutputDifference("input", "the input differs from the one that was served in more than its seed"))
    return found


def first_difference(recorded: bytes, replayed: bytes) -> str:
    """Name the first tensor, and its first element, in which two typed values differ."""
    try:
        left = {tensor.name: tensor for tensor in decode(recorded)}
        right = {tensor.name: tensor for tensor in decode(replayed)}
    except CanonicalError as error:
        return f"one of the outputs is not a typed value: {error}"
    for name in sorted(left.keys() | right.keys()):
        if name not in left or name not in right:
            return f"tensor {name!r} is only in the {'recorded' if name in left else 'replayed'} output"
        one, other = left[name], right[name]
        if (one.datatype, one.shape) != (other.datatype, other.shape):
            return f"tensor {name!r} was {one.datatype} {list(one.shape)}, now {other.datatype} {list(other.shape)}"
        if one.data != other.data:
            at, before, after = _first_element(one, other)
            return f"tensor {name!r}, element {at}: recorded {before}, replayed {after}"
    return "the typed values are equal, but not what was committed to"


def _output_detail(plan: ReplayPlan, output: bytes, *, explained: bool) -> str:
    what = "the output misses its commitment"
    if plan.stored_output is not None:
        stored = _is_stored(plan)
        what = first_difference(plan.stored_output, output) if stored else f"{what}, and so does the stored output"
    if explained:
        return what
    return (
        f"{what}; input, seed, files and machine class are the same, so the model is not deterministic or the log lies"
    )


def _is_stored(plan: ReplayPlan) -> bool:
    """Is the answer kept, and the one that was committed to?"""
    stored = plan.stored_output
    return stored is not None and commitment(plan.output_salt, stored) == plan.entry.output_commitment


def _seed(given: bytes) -> int | None:
    try:
        for tensor in decode(given):
            if tensor.name == "seed" and tensor.datatype == "UINT64" and isinstance(tensor.data, bytes):
                return int.from_bytes(tensor.data, "little")
    except CanonicalError:
        pass
    return None


def _first_element(one: Tensor, other: Tensor) -> tuple[int, str, str]:
    """Flat index and both values of the first differing element."""
    if isinstance(one.data, tuple) or isinstance(other.data, tuple):
        pairs = zip(one.data, other.data, strict=True)
        at = next(at for at, (left, right) in enumerate(pairs) if left != right)
        return at, _short(one.data[at]), _short(other.data[at])
    width = ITEM_BYTES[one.datatype]
    at = next(at for at in range(len(one.data) // width) if _cut(one.data, at, width) != _cut(other.data, at, width))
    shape = "<" + _FORMATS[one.datatype]
    values = [struct.unpack(shape, _cut(data, at, width))[0] for data in (one.data, other.data)]
    return at, repr(values[0]), repr(values[1])


def _cut(data: bytes, at: int, width: int) -> bytes:
    return data[at * width : (at + 1) * width]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
