"""What runs in a stage's pod: fetches what the stage takes, runs it confined, stores what it gave.

The stage's command is the same as in a sandbox elsewhere, in the same environment: a researcher's
code runs in a process without network, which reaches its inputs and its output folder, and nothing
of this one. What was made before under the same key is not made again.

Gives the record's digest and whether it was made now in two files, and on a refusal or a fault the
reason where Kubernetes looks for it. Exit status: 0 made; 3 made, and the verdict is no; 69 the
registry or the disk failed, which says nothing about the stage; 1 not made.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from helix_lineage.attestations.trust import Trust
from helix_lineage.errors import LineageError
from helix_lineage.formats.canonical import dumps
from helix_lineage.records.chain import Record, parse
from model_to_metal import refusal
from model_to_metal.errors import PipelineError, RegistryAway, StageError
from model_to_metal.pipeline.argo import archive, confine, signing
from model_to_metal.pipeline.argo.exchange import Exchange
from model_to_metal.pipeline.argo.order import Order, StageOrder
from model_to_metal.pipeline.argo.recipe import Recipe, follow
from model_to_metal.pipeline.cache import Cache, Entry
from model_to_metal.registry import artifacts
from model_to_metal.registry.client import Client
from model_to_metal.stages import interface as stages
from model_to_metal.stages.arguments import pair
from model_to_metal.stages.interface import EXIT_REFUSED, Runs
from model_to_metal.supply_chain.cache_keys import CacheSigner
from model_to_metal.workflows.command import parser

EXIT_AWAY = 69
"""The registry or the disk failed (EX_UNAVAILABLE): the same step may succeed later."""

HOME = Path("/build")
"""The pod's working folder. It has the path that a build's folder has in Nix."""
HOST_SITE = "/opt/helix/host/site-packages"
"""The platform's own Python packages, in the pipeline image."""
CACHE_KEY = Path("/var/run/helix/cache-key")
"""Where the key that signs cache entries is mounted."""
MESSAGE = Path("/dev/termination-log")
"""What stands there becomes the message of the pod, and of Argo's node."""

_MESSAGE_BYTES = 4000
_READ = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/nix", "/opt/helix", "/proc", "/dev/zero", "/dev/urandom")
_WRITE = ("/tmp", "/dev/null", "/dev/shm")  # noqa: S108  the pod's own
_BUSY = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


@dataclass(frozen=True, slots=True)
class Job:
    """One stage in one pod."""

    name: str
    order: Order
    parents: Mapping[str, Record]
    exchange: Exchange
    home: Path = HOME

    @property
    def stage(self) -> StageOrder:
        """What is settled about it."""
        return self.order.stages[self.name]

    @property
    def spec(self) -> stages.StageSpec:
        """What it declares."""
        return stages.spec(self.name)


def main(argv: Sequence[str] | None = None) -> int:
    """Make one stage; see the module's docstring."""
    arguments = parser().parse_args(argv)
    try:
        confine.hide()
        with Client(arguments.registry) as client:
            return _run(arguments.name, arguments.plan, dict(map(pair, arguments.parent)), Exchange(client))
    except RegistryAway as error:
        return _say(EXIT_AWAY, [str(error)])
    except (PipelineError, LineageError) as error:
        return _say(1, [f"{arguments.name}: {error}"])
    except OSError as error:
        return _say(EXIT_AWAY if error.errno in _BUSY else 1, [f"{arguments.name}: {error}"])
    # Whatever else it is, it is a fault of ours; the node's message must say more than a number.
    except Exception as error:
        traceback.print_exc()
        return _say(1, [f"{arguments.name}: a fault in helix itself: {type(error).__name__}: {error}"])


def _run(name: str, plan: str, parents: Mapping[str, str], exchange: Exchange) -> int:
    order = exchange.order(plan)
    if name not in order.stages:
        raise StageError(f"the order has no stage {name!r}", where=plan)
    stage_run = Job(name, order, {role: exchange.record(digest) for role, digest in parents.items()}, exchange)
    record, made = _find_or_make(stage_run)
    (HOME / "record").write_text(record.digest)
    (HOME / "status").write_text("rebuilt" if made else "recorded")
    print(f"{name} {'rebuilt' if made else 'recorded'} {record.digest}", flush=True)  # noqa: T201  the pod's log
    if record.parameters.get("passed", True) is True:
        return 0
    rows = refusal.failures(record.parameters)
    gate = stage_run.spec.gate.name if stage_run.spec.gate else name
    return _say(EXIT_REFUSED, [f"the {gate} refused {order.model} ({record.digest})", *map(refusal.line, rows)])


def _find_or_make(stage_run: Job) -> tuple[Record, bool]:
    """The stage's record, and whether it was made now."""
    if stage_run.spec.runs is Runs.SIGNER:
        return signing.sign(
            stage_run.spec, stage_run.order, stage_run.parents, stage_run.exchange, stage_run.home / "state"
        )
    now = datetime.now(UTC)
    cache_signer = _cache_signer(now)
    cache, key = Cache(stage_run.home / "cache", cache_signer), stage_run.stage.key(stage_run.name, stage_run.parents)
    if cache_signer is not None:
        found = stage_run.exchange.find(cache, key, cache_signer.accepted(releasing=stage_run.order.releasing), now)
        if found.refusal:
            print(f"a cache entry does not count: {found.refusal}", flush=True)  # noqa: T201  the pod's log
        if found.entry and (known := _whole(stage_run, found.entry.record)):
            return known, False
    record, files = _make(stage_run)
    stage_run.exchange.send(record, files)
    # A refusal is made again: a machine that was too busy must not say no forever.
    if record.parameters.get("passed", True) is True:
        stage_run.exchange.remember(cache, key, Entry(record.digest, now.strftime("%Y-%m-%dT%H:%M:%SZ")))
    return record, True


def _whole(stage_run: Job, digest: str) -> Record | None:
    """The record, if the registry has it and all its files."""
    try:
        record = stage_run.exchange.record(digest)
    except RegistryAway:
        raise
    except (PipelineError, LineageError):
        return None
    if stage_run.spec.gives.get("layout") and not signing.has_image(stage_run.exchange, stage_run.order.model, record):
        return None
    return record if stage_run.exchange.has_files(record) else None


def _cache_signer(now: datetime) -> CacheSigner | None:
    secret = CACHE_KEY / "cache.key"
    if not secret.is_file():
        return None
    # Kubernetes mounts a secret readable by a group; the check is against other people's machines.
    own = HOME / "cache.key"
    own.touch(mode=0o600)
    own.write_bytes(secret.read_bytes())
    cache_signer = CacheSigner.open(own, Trust.load(CACHE_KEY / "trust.json"), now)
    own.unlink()
    return cache_signer


def _make(stage_run: Job) -> tuple[Record, Path]:
    """Run the stage's command; gives the record and the folder with its files."""
    source, task, output = stage_run.home / "source", stage_run.home / "task", stage_run.home / "output"
    for folder in (source, task, output, stage_run.home / "input"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    stage_run.exchange.save(stage_run.stage.sources, stage_run.home / "source.tar")
    archive.extract(stage_run.home / "source.tar", source)
    (task / "plan.json").write_bytes(dumps(stage_run.stage.plan.to_json()))
    inputs = {}
    for role, record in stage_run.parents.items():
        (task / f"{role}.json").write_bytes(record.to_bytes())
        inputs[role] = stage_run.home / "input" / role
        stage_run.exchange.fetch(record, inputs[role])
    for role in stage_run.stage.given:
        inputs[role] = _given(stage_run, role, inputs)
    words = [stage_run.name, f"--model={source}/models/{stage_run.order.model}", f"--plan={task}/plan.json"]
    words += [f"--parent={role}={task}/{role}.json" for role in stage_run.parents]
    words += [f"--input={role}={folder}" for role, folder in inputs.items()]
    words += [f"--output={output}/files", f"--record={output}/record.json"]
    _confined(stage_run, ["/usr/bin/python3.11", "-P", "-m", "model_to_metal.stages", *words], inputs.values(), output)
    record = parse((output / "record.json").read_bytes())
    if stage_run.spec.gives.get("layout"):
        image = str(record.parameters["image"])
        artifacts.push_layout(
            stage_run.exchange.client, artifacts.repository(stage_run.order.model), inputs["layout"], image
        )
    return record, output / "files"


def _given(stage_run: Job, role: str, inputs: Mapping[str, Path]) -> Path:
    """Files of a stage that are no parent's: downloads by hash, or what a recipe makes."""
    given, folder = stage_run.stage.given[role], stage_run.home / "input" / role
    for name, digest in given.files.items():
        stage_run.exchange.save(digest, folder / name)
    if given.recipe is None:
        return folder
    recipe = Recipe.from_bytes(stage_run.exchange.blob(given.recipe))
    sources, work = stage_run.home / "recipe" / role / "sources", stage_run.home / "recipe" / role / "steps"
    stage_run.exchange.save(recipe.archive, stage_run.home / "recipe.tar")
    archive.extract(stage_run.home / "recipe.tar", sources)
    work.mkdir(parents=True, exist_ok=True)
    reads = [sources, *inputs.values()]

    def run(argv: Sequence[str], environment: Mapping[str, str]) -> None:
        _process(argv, {**environment, "HOME": str(work), "TMPDIR": str(work)}, reads, [work], stage_run.name)

    return follow(recipe, sources, inputs, work, run)


def _confined(stage_run: Job, argv: Sequence[str], inputs: object, output: Path) -> None:
    source = stage_run.home / "source"
    paths = [f"{source}/lineage/src", f"{source}/platform/src", f"{source}/models/{stage_run.order.model}/src"]
    environment = {
        "PATH": "/opt/helix/host/bin:/usr/bin:/bin",
        "PYTHONPATH": ":".join([*paths, _site(stage_run)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "HOME": "/tmp",  # noqa: S108  the pod's own
        "LOGNAME": "helix",
        "LC_ALL": "C.UTF-8",
    }
    reads = [source, stage_run.home / "task", *inputs]  # type: ignore[misc]
    done = _process(argv, environment, reads, [output], stage_run.name, accepted=(0, EXIT_REFUSED))
    if not (output / "record.json").is_file():
        raise StageError(f"ended with status {done} and gave no record", where=f"stage {stage_run.name}")


def _site(stage_run: Job) -> str:
    group = {Runs.DERIVATION: "build", Runs.BUILD: "build", Runs.SERVE: "serve"}.get(stage_run.spec.runs)
    return f"{stage_run.order.environments[group]}/site-packages" if group else HOST_SITE


def _process(
    argv: Sequence[str], environment: Mapping[str, str], reads: Sequence[Path], writes: Sequence[Path], name: str,
    *, accepted: Sequence[int] = (0,),
) -> int:  # fmt: skip
    """Run a command confined, with nothing of this environment. Raises StageError with its last words."""
    read = [path for path in (*_READ, *map(str, reads)) if Path(path).exists()]
    write = [path for path in (*_WRITE, *map(str, writes)) if Path(path).exists()]
    done = subprocess.run(
        confine.command(argv, read=read, write=write), env=dict(environment), cwd=writes[0], check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said = done.stdout.decode(errors="replace").strip()
    if said:
        print(said, flush=True)  # noqa: T201  the pod's log
    if done.returncode not in accepted:
        raise StageError(said[-_MESSAGE_BYTES:] or f"ended with status {done.returncode}", where=f"stage {name}")
    return done.returncode


def _say(status: int, lines: Sequence[str]) -> int:
    text = "\n".join(lines)
    print(text, file=sys.stderr, flush=True)  # noqa: T201  the pod's log
    if os.access(MESSAGE, os.W_OK):
        MESSAGE.write_bytes(text.encode()[:_MESSAGE_BYTES])
    return status
