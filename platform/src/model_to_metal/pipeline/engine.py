"""The local engine: walks the release workflow, runs what is not recorded yet, keeps the records.

Takes a checkout and the name of a model; gives one `Outcome` a stage. Each stage is either
`recorded` (the cache knows its key, the store has its record and files) or `rebuilt` (by
`executor`, in a sandbox or by Nix).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from helix_lineage.errors import LineageError
from helix_lineage.formats.canonical import file_digest
from helix_lineage.paths import State
from helix_lineage.records.chain import Record
from helix_lineage.records.store import RecordStore
from model_to_metal import refusal
from model_to_metal.errors import CheckoutError, DirtyTree, GateRefused, NotReproducible, WorkflowError
from model_to_metal.host.checkout import Checkout
from model_to_metal.pipeline import precheck
from model_to_metal.pipeline.cache import Cache, Entry
from model_to_metal.pipeline.plan import ReleasePlan, StagePlan, release_plan
from model_to_metal.stages import interface as stages
from model_to_metal.stages.arguments import pair
from model_to_metal.stages.interface import Gate, StageSpec
from model_to_metal.supply_chain import keys
from model_to_metal.supply_chain.cache_keys import CacheSigner
from model_to_metal.workflows.command import COMMAND, parser
from model_to_metal.workflows.release import STEPS, Step, release
from model_to_metal.workflows.walk import StageCall, walk

_HERE = "none: stages run in sandboxes here"
"""The workflow's arguments that only a cluster uses."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one stage."""

    stage: str
    record: Record
    rebuilt: bool
    time: str
    """When the record was made: RFC 3339, UTC."""
    seconds: float
    """How long this run spent on the stage."""
    domain: str | None = None
    """The trust domain that recorded it; None where nothing is signed."""
    ignored: str | None = None
    """Why a cache entry that was there did not count."""

    @property
    def status(self) -> str:
        """`rebuilt`, or `recorded <time>`."""
        return "rebuilt" if self.rebuilt else f"recorded {self.time}"

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "stage": self.stage,
            "record": self.record.digest,
            "status": "rebuilt" if self.rebuilt else "recorded",
            "time": self.time,
            "seconds": round(self.seconds, 3),
            "domain": self.domain,
            "ignored": self.ignored,
        }


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stage to be made."""

    checkout: Checkout
    model: str
    plan: StagePlan
    parents: Mapping[str, Record]
    inputs: Mapping[str, Path]
    """Parent's role → folder with its files."""
    scratch: Path
    """A folder that is the job's own, and goes with it."""
    again: bool
    """Whether the stage must be made again even where Nix has its output."""

    @property
    def spec(self) -> StageSpec:
        """What the stage declares."""
        return stages.spec(self.plan.stage)


class Executor(Protocol):
    """What makes a stage: gives the record and the folder with its files."""

    def make(self, stage_run: StageRun) -> tuple[Record, Path]:
        """Make the stage. Raises StageError and others when it cannot be made."""
        ...

    def is_complete(self, stage_run: StageRun, record: Record) -> bool:
        """Whether what the record speaks of outside the store is still there."""
        ...


class ProgressListener(Protocol):
    """Is told how a run goes on."""

    def started(self, stage: str) -> None:
        """A stage begins."""
        ...

    def done(self, outcome: Outcome) -> None:
        """A stage has its record."""
        ...


class Engine:
    """Runs the release workflow on this machine."""

    def __init__(
        self,
        checkout: Checkout,
        state: State,
        executor: Executor,
        *,
        cache_signer: CacheSigner | None = None,
        before_release: Callable[[], object] = lambda: None,
        builder: Callable[[], str] = lambda: keys.BUILDER,
        listener: ProgressListener | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Without a `cache_signer` nothing is remembered.

        `before_release` refuses a release that could not be signed in the end, `builder` says who would sign it.
        """
        self._checkout = checkout
        self._executor = executor
        self._listener = listener
        self._clock = clock
        self._store = RecordStore(state.store)
        self._before_release = before_release
        self._builder = builder
        self._cache_signer = cache_signer
        self._accepted: tuple[str, ...] = ()
        self._cache = Cache(state.cache, cache_signer)

    def run(self, model: str, *, until: Iterable[str] = (), again: bool = False) -> dict[str, Outcome]:
        """Run the workflow, or only the stages `until` and what they need; stage → outcome.

        With `again` every stage is rebuilt and its record compared with the one recorded.
        Raises GateRefused when a verdict is no (its record is kept), NotReproducible when a
        stage gave other bytes, DirtyTree when attest is asked for on a dirty tree.
        """
        wanted = set(until) or {step.stage for step in STEPS}
        commit = self.admit(model, wanted)
        self._accepted = self._cache_signer.accepted(releasing=_releasing(wanted)) if self._cache_signer else ()
        steps = needed(wanted)
        builder = self._builder() if _releasing(wanted) else keys.BUILDER
        plan = release_plan(self._checkout, model, [step.stage for step in steps], commit, builder=builder)
        for blob in plan.blobs:
            self._store.put_bytes(blob)
        outcomes: dict[str, Outcome] = {}
        template = release(steps=steps)
        arguments = {"model": model, "plan": self._store.put_bytes(plan.to_bytes())}
        arguments |= {"image": _HERE, "registry": _HERE}

        def one(call: StageCall) -> dict[str, str]:
            outcome = self._stage(call, model, plan, commit, again)
            outcomes[call.task] = outcome
            if outcome.record.parameters.get("passed", True) is not True:
                raise _refused(call.task, outcome.record, model)
            return {"record": outcome.record.digest, "status": "rebuilt" if outcome.rebuilt else "recorded"}

        walk(template, arguments, one)
        return outcomes

    def admit(self, model: str, wanted: set[str]) -> str | None:
        """What is known before anything is made: gives the commit, or None for a tree that differs from it.

        Raises CheckoutError for an unknown model, DirtyTree or KeysError where a release is wanted and can't be
        made, and GateRefused where the source alone is refused (the verdict is recorded).
        """
        self._checkout.model(model)
        if releasing := _releasing(wanted):
            self.refuse_dirty()
            self._before_release()
        commit = self._commit(needed=releasing)
        if verdict := precheck.refusal(self._checkout, self._store, model):
            raise _refused("guard", verdict, model)
        return commit

    def refuse_dirty(self) -> None:
        """Raises DirtyTree when the working tree differs from the commit."""
        if changes := self._checkout.changes():
            shown = ", ".join(changes[:5]) + (f" and {len(changes) - 5} more" if len(changes) > 5 else "")
            raise DirtyTree(
                f"a release needs a clean tree, and these differ from the commit: {shown}",
                where=str(self._checkout.root),
                fix="git add --all && git commit",
            )

    def _commit(self, *, needed: bool) -> str | None:
        """The commit that the run is about; None where the tree differs from it, or there is none yet."""
        try:
            return self._checkout.commit() if needed or not self._checkout.changes() else None
        except CheckoutError:
            if needed:
                raise
            return None

    def _stage(self, call: StageCall, model: str, plan: ReleasePlan, commit: str | None, again: bool) -> Outcome:
        """Find or make one stage's record."""
        name, parents = self._read(call)
        if self._listener:
            self._listener.started(name)
        began, started = time.monotonic(), self._now()
        key = plan.stages[name].key(parents)
        found = self._cache.find(key, self._accepted, self._clock().astimezone(UTC))
        with tempfile.TemporaryDirectory(prefix=f"helix-{name}-") as scratch:
            inputs = {role: self._folder(record, Path(scratch) / "input" / role) for role, record in parents.items()}
            work = Path(scratch) / "work"
            work.mkdir()
            stage_run = StageRun(self._checkout, model, plan.stages[name], parents, inputs, work, again)
            known, problem = self._recorded(found.entry)
            ignored = found.refusal or problem
            if found.entry and known and not again and self._executor.is_complete(stage_run, known):
                spent = time.monotonic() - began
                outcome = Outcome(name, known, False, found.entry.time, spent, found.entry.domain)
            else:
                record = self._make(stage_run)
                if again and known:
                    record = _same(name, known, record)
                domain = self._cache_signer.domain if self._cache_signer else None
                outcome = Outcome(name, record, True, started, time.monotonic() - began, domain, ignored)
                self._cache.remember(key, Entry(record.digest, started))
        self._observe(outcome, commit, started)
        if self._listener:
            self._listener.done(outcome)
        return outcome

    def _read(self, call: StageCall) -> tuple[str, dict[str, Record]]:
        if call.command != COMMAND:
            raise WorkflowError("the local engine runs stages only", where=f"{call.task}: {' '.join(call.command)}")
        given = parser().parse_args(call.args)
        return given.name, {role: self._store.get_record(digest) for role, digest in map(pair, given.parent)}

    def _recorded(self, entry: Entry | None) -> tuple[Record | None, str | None]:
        """The record that the cache speaks of, if the store has it and all its files; or why it does not count.

        A refusal is made again: a machine that was too busy must not say no forever.
        """
        if entry is None:
            return None, None
        try:
            record = self._store.get_record(entry.record)
            changed = [
                output.name
                for output in record.outputs
                if file_digest(self._store.path(output.digest)) != output.digest
            ]
        except LineageError as error:
            return None, f"what it names is lost: {error.what}"
        if changed:
            return None, f"a file that it names was changed in the store: {', '.join(changed)}"
        return (record, None) if record.parameters.get("passed", True) is True else (None, None)

    def _make(self, stage_run: StageRun) -> Record:
        record, files = self._executor.make(stage_run)
        for output in record.outputs:
            kept = self._store.put_file(files / output.name, output.name)
            if kept != output:
                raise NotReproducible("a file changed while the stage was recorded", where=output.name)
        self._store.put_record(record)
        return record

    def _folder(self, record: Record, folder: Path) -> Path:
        """The record's files as a folder that a sandbox can be given."""
        folder.mkdir(parents=True)
        for output in record.outputs:
            target = folder / output.name
            target.parent.mkdir(parents=True, exist_ok=True)
            source = self._store.path(output.digest)
            try:
                target.hardlink_to(source)
            except OSError:
                # Another filesystem, or one without hard links.
                shutil.copyfile(source, target)
        return folder

    def _observe(self, outcome: Outcome, commit: str | None, started: str) -> None:
        self._store.observe(
            outcome.record.digest,
            {
                "kind": "stage",
                "stage": outcome.stage,
                "status": "rebuilt" if outcome.rebuilt else "recorded",
                "commit": commit,
                "started": started,
                "seconds": round(outcome.seconds, 3),
                "domain": outcome.domain,
            },
        )

    def _now(self) -> str:
        return self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _releasing(wanted: set[str]) -> bool:
    """Do those stages end in a signed release?"""
    return any(stages.spec(name).runs is stages.Runs.SIGNER for name in wanted & set(stages.stages()))


def needed(wanted: set[str]) -> list[Step]:
    """The workflow's steps up to and with those wanted."""
    if unknown := sorted(wanted - {step.stage for step in STEPS}):
        raise WorkflowError(f"the workflow has no stage {', '.join(unknown)}")
    needed = set(wanted)
    for step in reversed(STEPS):
        if step.stage in needed:
            needed |= {stage for _, stage in step.parents} | set(step.after)
    return [step for step in STEPS if step.stage in needed]


def _refused(stage: str, record: Record, model: str) -> GateRefused:
    gate = stages.spec(stage).gate or Gate(f"stage {stage!r}", "helix run release", "failures")
    failed = refusal.failures(record.parameters)
    return GateRefused(
        f"the {gate.name} refused {model}; {gate.failed}: {len(failed)}, listed here and in the recorded verdict",
        digest=record.digest,
        failed=failed,
        verdict=record.to_json(),
        where=record.digest,
        fix=f"mend what is listed, then: {gate.command} {model}",
    )


def _same(stage: str, known: Record, record: Record) -> Record:
    """The known record, where the new one of the same key repeats it. Raises NotReproducible, naming what differs.

    What a verdict only reports depends on the processor, and may differ.
    """
    reported = {"reported": known.parameters["reported"]} if "reported" in known.parameters else {}
    record = replace(record, parameters={**record.parameters, **reported})
    if record == known:
        return known
    before = {output.name: output.digest for output in known.outputs}
    after = {output.name: output.digest for output in record.outputs}
    names = [f"output {name}" for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    names += [
        f"parameter {name}"
        for name in sorted({*known.parameters, *record.parameters})
        if known.parameters.get(name) != record.parameters.get(name)
    ]
    raise NotReproducible(
        f"made again, the stage {stage!r} gave something else: {', '.join(names) or 'its identity'}",
        where=f"{known.digest} and {record.digest}",
    )
