"""What an auditor sees first: what was asked, what was answered, when and by what, what was not checked. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from helix_lineage.evidence.releases import FoundRelease
from helix_lineage.evidence.trace import artifacts
from helix_lineage.evidence.values import WARNINGS, words
from helix_lineage.formats.typed import Tensor
from helix_lineage.page.chain import time
from helix_lineage.page.evidence import Evidence
from helix_lineage.page.graph import Graph, Node, NodeState
from helix_lineage.shard.entries import PredictionEntry
from helix_lineage.shard.header import ShardHeader
from helix_lineage.version import VERSION

_LINE = 24  # characters that stand beside a name
_SHORT = 200  # characters of a value that are shown before it is unfolded
_WHOLE = 2**18  # characters of one value that the page holds at most
_MOST = 2**15  # numbers


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor as text."""

    name: str
    kind: str
    """Data type and shape."""
    short: str
    whole: str | None
    """To be unfolded; None when `short` is all of it."""

    @property
    def long(self) -> bool:
        """Does it need lines of its own?"""
        return len(self.short) > _LINE


@dataclass(frozen=True, slots=True)
class Fact:
    """Something about the prediction, and the link of the chain that shows why."""

    name: str
    value: str
    target: str
    digest: bool = False
    """Is the value a digest, which may be shown by its beginning?"""


@dataclass(frozen=True, slots=True)
class Overview:
    """The first screen."""

    asked: tuple[Value, ...] | None
    """None when the input is not kept."""
    answered: tuple[Value, ...] | None
    warnings: tuple[str, ...]
    when: tuple[Fact, ...]
    made_by: tuple[Fact, ...]
    unchecked: tuple[str, ...]
    """One sentence each."""
    verifier: str
    trust: str


def overview(given: Evidence, graph: Graph) -> Overview:
    """Put together what matters most."""
    header = given.header if isinstance(given.header, ShardHeader) else None
    entry = given.entry if isinstance(given.entry, PredictionEntry) else None
    keys = 0 if given.trust is None else len(given.trust.keys)
    trust = "none" if given.trust is None else f"{given.trust.digest} ({keys} keys)"
    return Overview(
        asked=_values(given.values.input),
        answered=_values(given.values.output),
        warnings=tuple(given.values.warnings),
        when=tuple(_when(given, entry)),
        made_by=(*_made_by(given, header), *_drawn(entry, header)),
        unchecked=tuple(_unchecked(given, graph)),
        verifier=f"helix-lineage {VERSION}",
        trust=trust,
    )


def _values(tensors: tuple[Tensor, ...] | None) -> tuple[Value, ...] | None:
    """Short values first; warnings have a place of their own."""
    if tensors is None:
        return None
    found = [_value(tensor) for tensor in tensors if tensor.name != WARNINGS]
    return tuple(sorted(found, key=lambda value: (value.whole is not None, value.long, value.name)))


def _value(tensor: Tensor) -> Value:
    extent = "" if tensor.shape in {(), (1,)} else " " + " by ".join(map(str, tensor.shape))
    elements = words(tensor, _MOST)
    text = ", ".join(elements) if elements else "(empty)"
    count = len(tensor.data) if isinstance(tensor.data, tuple) else len(elements)
    first = " ".join(text[: 4 * _SHORT].split())
    if len(text) <= _SHORT and "\n" not in text:
        return Value(tensor.name, tensor.datatype + extent, text, None)
    more = f"{len(text):,} characters" if count == 1 else f"{count:,} values"
    whole = text[:_WHOLE] + ("" if len(text) <= _WHOLE else f"\n… {len(text) - _WHOLE:,} characters more")
    return Value(tensor.name, tensor.datatype + extent, f"{first[: _SHORT // 2]}… ({more})", whole)


def _when(given: Evidence, entry: PredictionEntry | None) -> list[Fact]:
    if entry is None:
        return []
    said, found = given.directory, [Fact("finished", f"{_at(entry.finished_ns)} (host's clock)", "prediction")]
    if said is not None and said.before_ns is not None:
        after = said.after_ns or said.registered_ns or 0
        found += [Fact("not before", _at(after), "directory"), Fact("not after", _at(said.before_ns), "directory")]
    found.append(Fact("request", entry.request_id.hex(), "prediction", digest=True))
    found.append(Fact("item", f"{entry.index + 1} of {entry.count}", "prediction"))
    return found


def _at(nanoseconds: int) -> str:
    return f"{time(nanoseconds)[:23].replace('T', ' ')} UTC"


def _made_by(given: Evidence, header: ShardHeader | None) -> list[Fact]:
    if header is None:
        return []
    found = []
    if isinstance(given.found, FoundRelease):
        release = given.found.release
        found.append(Fact("code commit", str(release.parameters["commit"]), "commit", digest=True))
        for role in ("image", "engine", "weights", "data"):
            if role in release.parents:
                things = artifacts(role, given.found.records[release.parents[role]])
                one = len(things) == 1
                text = things[0].digest if one else f"{len(things)} files" if things else "no file of its own"
                found.append(Fact(role, text, role, digest=one))
    elif header.image is not None:
        found.append(Fact("image (claimed)", header.image, "shard", digest=True))
    if header.release is not None:
        found.append(Fact("release record", header.release, "release", digest=True))
    return found


def _drawn(entry: PredictionEntry | None, header: ShardHeader | None) -> list[Fact]:
    seed = [] if entry is None else [Fact("seed", "none" if entry.seed is None else str(entry.seed), "prediction")]
    return seed if header is None else [*seed, Fact("machine class", header.machine_class, "shard")]


def _unchecked(given: Evidence, graph: Graph) -> list[str]:
    nodes: list[Node] = [*graph.of(NodeState.UNCHECKED), *graph.of(NodeState.UNKNOWN), *graph.of(NodeState.ABSENT)]
    found = [f"{node.title}: {node.why}" for node in nodes]
    if isinstance(given.found, FoundRelease):
        found.append("Replay: whether the image gives the same bytes again; helix lineage replay tells.")
    return found
