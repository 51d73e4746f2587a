"""Makes predictions again: a fresh process in the image's own files, without network, root read-only.

Predictions of one request share a process; no two requests do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cbor2

from helix_lineage import process
from helix_lineage.errors import LineageError, ReplayError
from helix_lineage.process import USER
from helix_lineage.replay.emulation import emulator
from helix_lineage.replay.images import UnpackedImage, check_files, obtain
from helix_lineage.replay.plan import ReplayPlan
from helix_lineage.replay.verdict import OutputDifference, Verdict, failed, judge

VERSION = 1
ARGV = ("/usr/bin/python3.11", "-m", "helixserve", "replay")
_K = TypeVar("_K")
_TEMPORARY = "/tmp"  # noqa: S108  inside the sandbox, a file system of its own


@dataclass(frozen=True, slots=True)
class ReplayExecutor:
    """Replays plans on this machine."""

    images: Path
    """Folder of unpacked images."""
    registry: str
    """`HOST:PORT` that images are pulled from."""
    repository: str | None = None
    """Overrides the repository that the release names."""
    timeout_s: float = 600.0
    """For one process."""
    tolerance: float | None = None
    """Where the bytes differ, compare numbers with this; None compares bytes only."""
    cpu: str | None = None
    """Emulate this processor, for instance Haswell; None is the machine's own."""

    def replay(self, plans: Iterable[ReplayPlan], done: Callable[[Verdict], None] = lambda _: None) -> list[Verdict]:
        """Replay every plan; gives the verdicts in the order of the plans.

        What is wrong with one image is the verdict on its predictions; the others are replayed all the same.

        Args:
            done: told each verdict as it comes.
        """
        plans = list(plans)
        verdicts: dict[int, Verdict] = {}
        for (digest, filesystem, repository), of_image in _grouped(
            enumerate(plans), lambda plan: (plan.image, plan.filesystem, plan.repository)
        ):
            for at, verdict in self._run_image(digest, filesystem, self.repository or repository, of_image):
                verdicts[at] = verdict
                done(verdict)
        return [verdicts[at] for at in range(len(plans))]

    def _run_image(
        self, digest: str, filesystem: str, repository: str, plans: list[tuple[int, ReplayPlan]]
    ) -> Iterator[tuple[int, Verdict]]:
        """The numbered plans of one image, as their verdicts come."""
        try:
            image = obtain(digest, repository, self.registry, self.images)
            files = check_files(image, filesystem)
        except LineageError as error:
            yield from ((at, failed(plan, [], f"the image cannot be used: {error}")) for at, plan in plans)
            return
        for (typed, _), batch in _grouped(plans, lambda plan: (plan.input, plan.entry.request_id)):
            results = self._run_batch(image, files, typed, [plan for _, plan in batch])
            yield from ((at, verdict) for (at, _), verdict in zip(batch, results, strict=True))

    def _run_batch(
        self, image: UnpackedImage, files: list[OutputDifference], typed: bytes, plans: list[ReplayPlan]
    ) -> list[Verdict]:
        """One fresh process for items of one request."""
        items = sorted({plan.item for plan in plans})
        try:
            machine_class, outputs = run_in_image(image, typed, items, self.timeout_s, self.cpu)
        except ReplayError as error:
            return [failed(plan, files, str(error)) for plan in plans]
        by_item = dict(zip(items, outputs, strict=True))
        return [judge(plan, files, machine_class, by_item[plan.item], self.tolerance) for plan in plans]


def run_in_image(
    image: UnpackedImage, typed: bytes, items: list[int], timeout_s: float | None = None, cpu: str | None = None
) -> tuple[str, list[bytes]]:
    """Ask the image's model for items of an input; gives machine class and typed outputs. Raises ReplayError."""
    process.require("bwrap", "apt-get install bubblewrap")
    request = cbor2.dumps([VERSION, typed, items], canonical=True)
    with emulator(cpu) as (bind, before):
        words = command(image, bind, before)
        answer = process.run(words, stdin=request, env={"PATH": "/usr/bin:/bin"}, timeout_s=timeout_s)
    try:
        version, machine_class, outputs = cbor2.loads(answer)
    except Exception as error:  # cbor2 and unpacking raise many kinds; all mean: not the protocol
        raise ReplayError(f"the image's answer is not CBOR [version, machine class, outputs]: {error}") from error
    whole = isinstance(outputs, list) and len(outputs) == len(items)
    if version != VERSION or not isinstance(machine_class, str) or not whole:
        raise ReplayError(f"the image's answer is not version {VERSION} with {len(items)} outputs")
    if not all(isinstance(output, bytes) for output in outputs):
        raise ReplayError("the image's outputs are not byte strings")
    return machine_class, outputs


def command(image: UnpackedImage, bind: Sequence[str] = (), before: Sequence[str] = ()) -> list[str]:
    """The bubblewrap command line for an image. Pure but for listing the root's folders. Raises ReplayError.

    Args:
        bind: more words for bubblewrap.
        before: words before the command, for instance an emulator.
    """
    words = [
        "bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
        "--uid", str(USER), "--gid", str(USER), "--hostname", "replay",
    ]  # fmt: skip
    # Folder by folder, because the image's root has no mount points for /proc, /dev and /tmp, and must not get any.
    for path in _top(image):
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), f"/{path.name}"]
        elif path.name not in ("proc", "dev", "tmp"):
            words += ["--ro-bind", str(path), f"/{path.name}"]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", _TEMPORARY, *bind, "--remount-ro", "/"]
    for name, value in sorted(image.env.items()):
        words += ["--setenv", name, value]
    return [*words, "--chdir", image.settings.get("WorkingDir") or "/", "--", *before, *ARGV]


def _top(image: UnpackedImage) -> list[Path]:
    try:
        return sorted(image.rootfs.iterdir())
    except OSError as error:
        what, folder = f"the unpacked image's files cannot be read: {error.strerror}", image.folder
        raise ReplayError(what, where=str(folder), fix=f"rm -r {folder}") from error


def _grouped(
    items: Iterable[tuple[int, ReplayPlan]], key: Callable[[ReplayPlan], _K]
) -> Iterator[tuple[_K, list[tuple[int, ReplayPlan]]]]:
    """Numbered plans by key, groups in order of their first plan."""
    groups: dict[_K, list[tuple[int, ReplayPlan]]] = {}
    for at, plan in items:
        groups.setdefault(key(plan), []).append((at, plan))
    yield from groups.items()
