"""The workshop of the local engine: how each stage is made on this machine.

As its StageSpec says (`stages.interface.Runs`): by Nix from the stage's own command, by that command in
a sandbox with a Nix-built environment or the host's, or in this process, where the keys are.

A stage is shown a copy of exactly those sources that its cache key covers.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from helix_lineage.formats.canonical import dumps
from helix_lineage.paths import State
from helix_lineage.records.chain import Artifact, Record, parse
from model_to_metal.errors import StageError
from model_to_metal.hermetic import nix
from model_to_metal.host import process, sandbox
from model_to_metal.pipeline.engine import StageRun
from model_to_metal.stages import interface as stages
from model_to_metal.stages.interface import Runs

Sign = Callable[[StageRun, Record], None]
"""Signs a release and pushes its image; see `model_to_metal.supply_chain.attest`."""

Progress = Callable[[str], None]


class LocalExecutor:
    """Makes stages with Nix and bubblewrap."""

    def __init__(
        self, state: State, *, sign: Sign, is_signed: Callable[[Record], bool], report: Progress = nix.silent
    ) -> None:
        self._state = state
        self._sign = sign
        self._is_signed = is_signed
        self._report = report

    def make(self, stage_run: StageRun) -> tuple[Record, Path]:
        """Make the stage; gives the record and the folder with its files. Raises StageError and others."""
        match stage_run.spec.runs:
            case Runs.DERIVATION:
                return self._derived(stage_run)
            case Runs.SERVE | Runs.BUILD:
                return self._in_environment(stage_run)
            case Runs.SIGNER:
                return self._signed(stage_run)
            case Runs.HOST:
                return self._on_host(stage_run)

    def is_complete(self, stage_run: StageRun, record: Record) -> bool:
        """A release counts as recorded only while its signature is there and its image in the registry."""
        return stage_run.spec.runs is not Runs.SIGNER or self._is_signed(record)

    def build(self, stage_run: StageRun, attribute: str, *, again: bool = False) -> Path:
        """Ask Nix for `<model>-<attribute>` of the job's checkout; gives where its output lies.

        With `again` Nix runs the last step once more and compares.
        """
        return nix.build(
            f"{stage_run.model}-{attribute}", stage_run.checkout.root, self._state, rebuild=again, report=self._report
        )

    def _derived(self, stage_run: StageRun) -> tuple[Record, Path]:
        folder = self.build(stage_run, str(stage_run.spec.attribute), again=stage_run.again)
        for role, attribute in stage_run.spec.checks.items():
            compare_data(stages.artifacts(self.build(stage_run, attribute)), stage_run.parents[role].outputs)
        made = stages.StageResult(plan=stage_run.plan.plan, parents=stage_run.parents, outputs=stages.artifacts(folder))
        return stages.record(stage_run.spec, made), folder

    def _in_environment(self, stage_run: StageRun) -> tuple[Record, Path]:
        environment = f"{nix.PREFIX}/{self.build(stage_run, stage_run.spec.runs).name}"
        home, output = self._stage_folder(stage_run), _empty(stage_run.scratch / "output")
        words = self._arguments(stage_run, "/task", "/output")
        paths = ["/source/lineage/src", "/source/platform/src", f"/source/models/{stage_run.model}/src"]
        argv = nix.environment_command(
            nix.NixStore.of(self._state),
            environment,
            ["python", "-P", "-m", "model_to_metal.stages", *words],
            read={stage_run.scratch / "source": "/source", home: "/task", **self._inputs(stage_run)},
            write={output: "/output"},
            variables={"PYTHONPATH": ":".join([*paths, f"{environment}/site-packages"]), "OMP_NUM_THREADS": "1"},
        )
        return _result(stage_run, process.attempt(argv), output)

    def _on_host(self, stage_run: StageRun) -> tuple[Record, Path]:
        home, output = self._stage_folder(stage_run), _empty(stage_run.scratch / "output")
        read_only = {inside: outside for outside, inside in self._inputs(stage_run).items()}
        for role, attribute in stage_run.spec.gives.items():
            downloads = attribute == "downloads"
            brought = self._state.downloads if downloads else self.build(stage_run, attribute, again=stage_run.again)
            read_only[f"/input/{role}"] = brought
        extra = [f"--input={role}=/input/{role}" for role in stage_run.spec.gives]
        box = sandbox.Sandbox(
            read_only={"/source": stage_run.scratch / "source", "/task": home, **read_only, **_host_python()},
            writable={"/output": output},
            env={
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
                "PYTHONPATH": f"/source/lineage/src:/source/platform/src:/source/models/{stage_run.model}/src",
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONHASHSEED": "0",
                "HOME": "/tmp",  # noqa: S108  a private tmpfs
                # DVC asks who it is, and a numbered user has no name.
                "LOGNAME": "helix",
                "LC_ALL": "C.UTF-8",
            },
        )
        words = self._arguments(stage_run, "/task", "/output")
        argv = [sys.executable, "-P", "-m", "model_to_metal.stages", *words, *extra]
        return _result(stage_run, sandbox.run(box, argv), output)

    def _signed(self, stage_run: StageRun) -> tuple[Record, Path]:
        task = stages.StageTask(
            model=stage_run.checkout.model(stage_run.model),
            output=_empty(stage_run.scratch / "output"),
            parents=stage_run.parents,
            plan=stage_run.plan.plan,
        )
        found = stages.load(stage_run.spec.name).make(task)
        record = stages.record(stage_run.spec, stages.StageResult(plan=task.plan, parents=task.parents, found=found))
        self._sign(stage_run, record)
        return record, task.output

    def _stage_folder(self, stage_run: StageRun) -> Path:
        """A folder with the plan and the parents' records, and beside it the sources."""
        stage_run.plan.sources.copy(stage_run.checkout.root, stage_run.scratch / "source")
        home = _empty(stage_run.scratch / "task")
        (home / "plan.json").write_bytes(dumps(stage_run.plan.plan.to_json()))
        for role, record in stage_run.parents.items():
            (home / f"{role}.json").write_bytes(record.to_bytes())
        return home

    def _inputs(self, stage_run: StageRun) -> dict[Path, str]:
        return {folder: f"/input/{role}" for role, folder in stage_run.inputs.items()}

    def _arguments(self, stage_run: StageRun, task: str, output: str) -> list[str]:
        words = [stage_run.plan.stage, f"--model=/source/models/{stage_run.model}", f"--plan={task}/plan.json"]
        for role in stage_run.parents:
            words += [f"--parent={role}={task}/{role}.json", f"--input={role}=/input/{role}"]
        return [*words, f"--output={output}/files", f"--record={output}/record.json"]


def compare_data(taken: Iterable[Artifact], named: Iterable[Artifact]) -> None:
    """Nix derives the data that import reads by itself: it must be what `DataCommit` names.

    `taken` may be less than `named`, as not every file is needed. Raises StageError.
    """
    known = set(named)
    for artifact in taken:
        if artifact not in known:
            raise StageError("the data that Nix derived is not what DVC derived", where=f"data/{artifact.name}")


def _result(stage_run: StageRun, done: subprocess.CompletedProcess[bytes], output: Path) -> tuple[Record, Path]:
    """The record that a sandboxed stage wrote. Raises StageError when it ended without one."""
    path = output / "record.json"
    if done.returncode not in (0, stages.EXIT_REFUSED) or not path.is_file():
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-4000:]
        raise StageError(
            said or f"ended with status {done.returncode} and said nothing", where=f"stage {stage_run.plan.stage}"
        )
    return parse(path.read_bytes()), output / "files"


def _empty(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _host_python() -> dict[str, Path]:
    """The host environment and the Python that it stands on, at their own places."""
    return {prefix: Path(prefix) for prefix in {sys.prefix, sys.base_prefix} if not prefix.startswith("/usr")}
