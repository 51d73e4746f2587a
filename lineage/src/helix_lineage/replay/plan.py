"""What a replay needs: read from the log and the release, nothing run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from helix_lineage.errors import LineageError, ReplayError
from helix_lineage.evidence.releases import FoundRelease, ReleaseSources, find_release
from helix_lineage.formats.typed import Tensor, decode, encode
from helix_lineage.records.chain import ImageBuild
from helix_lineage.shard.entries import PredictionEntry
from helix_lineage.shard.header import prediction_id
from helix_lineage.shard.reader import Log, Shard


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """One prediction, ready to be made again."""

    id: str
    model: str
    image: str
    """Manifest digest that the release names."""
    filesystem: str
    """Digest of the image's list of files."""
    repository: str
    """Where the image lies in a registry, without the registry's address."""
    machine_class: str
    """Of the machine that served."""
    input: bytes = field(repr=False)
    """Typed input; with a factor swapped, not the one that was served."""
    item: int
    entry: PredictionEntry
    input_salt: bytes = field(repr=False)
    output_salt: bytes = field(repr=False)
    stored_output: bytes | None = field(repr=False)
    """The answer as it was stored; None when it was erased. Not needed, but tells where bytes differ."""
    swapped: bool = field(default=False, compare=False)
    """Is the input or its seed another one on purpose (what if)?"""

    def with_seed(self, seed: int) -> ReplayPlan:
        """The same with another seed in the input. Raises ReplayError for a task that draws nothing."""
        if self.entry.seed is None:
            raise ReplayError("it was served without a seed: its task draws nothing", where=self.id)
        tensors = [tensor for tensor in decode(self.input) if tensor.name != "seed"]
        given = encode([*tensors, Tensor("seed", "UINT64", (1,), seed.to_bytes(8, "little"))])
        return replace(self, input=given, swapped=True)

    def with_input(self, given: bytes) -> ReplayPlan:
        """The same with another typed input. Raises CanonicalError when it is none."""
        return replace(self, input=encode(decode(given)), swapped=True)


class ReplayPlanner:
    """Plans many predictions; a shard and its release are read once."""

    def __init__(self, log: Log, sources: ReleaseSources) -> None:
        self._log, self._sources = log, sources
        self._shards: dict[str, tuple[Shard, FoundRelease]] = {}

    def plan(self, prediction: str) -> ReplayPlan:
        """Plan a replay. Raises PredictionNotFound, or ReplayError when something that it needs is gone."""
        shard, sequence = self._log.find(prediction)
        shard, found = self._open(shard)
        entry = shard.prediction(sequence)
        if not shard.inclusion(sequence).holds:
            raise ReplayError("the entry is not under a signed checkpoint", where=prediction, fix="helix-lineage audit")
        if entry.lane != "strict":
            raise ReplayError(f"replay of lane {entry.lane!r} needs its batch plan, which version 1 does not replay")
        kept = shard.payload(sequence)
        if kept.input is None or kept.input_salt is None:
            raise ReplayError("the input was erased", where=prediction)
        if kept.output_salt is None:
            raise ReplayError("the output's salt was erased, so nothing can be compared with it", where=prediction)
        if found.verified is None:
            raise ReplayError(f"the release does not verify: {found.problem}", where=shard.header.release)
        build = found.verified.parent("image")
        if not isinstance(build, ImageBuild):
            raise ReplayError("the release names no image", where=shard.header.release)
        return ReplayPlan(
            id=prediction,
            model=shard.header.model,
            image=build.parameters["image"],
            filesystem=build.parameters["filesystem"],
            repository=repository_of(found.verified.statement_subject.name, shard.header.model),
            machine_class=shard.header.machine_class,
            input=kept.input,
            item=entry.index,
            entry=entry,
            input_salt=kept.input_salt,
            output_salt=kept.output_salt,
            stored_output=kept.output,
        )

    def all(self, damaged: Callable[[str, LineageError], None]) -> list[str]:
        """The ids of every prediction in the log.

        Args:
            damaged: told of each shard that cannot be read (to its end).
        """
        found = []
        for name in self._log.shard_ids():
            try:
                for sequence, _ in self._log.shard(name).predictions():
                    found.append(prediction_id(name, sequence))
            except LineageError as error:
                damaged(name, error)
        return found

    def _open(self, shard: Shard) -> tuple[Shard, FoundRelease]:
        if shard.id not in self._shards:
            try:
                self._shards[shard.id] = (shard, find_release(shard, self._sources))
            except LineageError as error:
                raise ReplayError(f"the release cannot be read: {error}", where=shard.id) from error
        return self._shards[shard.id]


def plan(log: Log, prediction: str, sources: ReleaseSources) -> ReplayPlan:
    """Plan the replay of one prediction. Raises PredictionNotFound or ReplayError."""
    return ReplayPlanner(log, sources).plan(prediction)


def repository_of(subject: str, model: str) -> str:
    """The repository in a statement's subject name, without the registry's address, tag or digest.

    >>> repository_of("127.0.0.1:5070/helix/toy", "toy")
    'helix/toy'
    """
    name = subject.partition("@")[0]
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        name = rest
    path, colon, tag = name.rpartition(":")
    return (path if colon and "/" not in tag else name) or model
