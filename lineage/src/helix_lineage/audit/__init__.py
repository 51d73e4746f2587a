"""Re-derive everything that a log says of itself, and name what does not hold (FORMAT.md 13).

An edited, dropped or reordered entry, a shard shorter than a checkpoint that was kept
elsewhere, tiles that are not the journal's, payloads that miss their commitments, a release
that the trust root does not know. Reads only. Findings are facts, not exceptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from helix_lineage.attestations.release import VerifiedRelease
from helix_lineage.audit.changes import state_of
from helix_lineage.audit.directory_audit import audit_directory
from helix_lineage.audit.directory_log import audit_directory_log
from helix_lineage.audit.findings import RULES, AuditReport, Finding
from helix_lineage.audit.payload_audit import audit_payload
from helix_lineage.audit.shard_audit import AuditedShard, audit_shard
from helix_lineage.audit.workers import collector_resting
from helix_lineage.directory.view import View
from helix_lineage.errors import LineageError, ShardError, TrustError, printable, reason
from helix_lineage.evidence.promotions import find_promotion
from helix_lineage.evidence.releases import ReleaseSources, find_release
from helix_lineage.formats import untrusted
from helix_lineage.shard import entries
from helix_lineage.shard.header import parse_prediction_id, prediction_id
from helix_lineage.shard.reader import Log, Shard
from helix_lineage.tlog import checkpoint
from helix_lineage.tlog.layout import MAX_NOTE_BYTES, NEW_PREFIX, ShardFolder

__all__ = ["RULES", "AuditReport", "Finding", "audit"]


_LOOKS = 3
"""So often a log is read that changes meanwhile, before what does not hold together in it is believed."""


def audit(
    log: Log,
    sources: ReleaseSources,
    *,
    checkpoints: Iterable[tuple[str, bytes]] = (),
    directory: Callable[[], View | None] | None = None,
    directory_folder: Path | None = None,
    whole: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> AuditReport:
    """Audit every shard of a log.

    Servers may start, write, recover one another and stop meanwhile: where something is found and the log
    has changed, it is looked at again.

    Args:
        checkpoints: `(name, signed note)` of checkpoints that were kept elsewhere.
        directory: gives what a directory holds now, to compare with; a TrustError of it is a finding.
        directory_folder: where that is the directory's own folder, or a copy: its journal is looked at too.
        whole: whether all shards of that directory should be here.
        progress: told what comes next, with the shard's id.
    """
    kept, shards, seen, looks = list(checkpoints), dict[str, AuditedShard](), None, 0
    while True:
        looks += 1
        before = state_of(log)
        view, distrust = seen = _see(directory, seen)
        if directory_folder is not None and sources.trust is not None:
            published = None if view is None else view.checkpoint
            distrust = [*distrust, *audit_directory_log(directory_folder, sources.trust, published)]
        # What has ended, and holds, stays as it is.
        done = {name: shard for name, shard in shards.items() if not shard.unfinished and not shard.findings}
        shards = {name: done.get(name) or _read(log, name, sources, progress) for name in log.shard_ids()}
        report = _judge(log, shards, kept, view, whole=whole)
        report.findings[:0] = distrust
        if not report.findings or state_of(log) == before:
            return report
        if looks == _LOOKS:
            report.notes.append(f"the log changed while it was read, {looks} times over: what is found may be of that")
            return report
        progress("changed while it was read: again")


def _see(
    directory: Callable[[], View | None] | None, before: tuple[View | None, list[Finding]] | None
) -> tuple[View | None, list[Finding]]:
    """What a directory holds, and what is wrong with it; what was seen `before`, when it is away now."""
    try:
        return None if directory is None else directory(), []
    except TrustError as error:
        return None, [Finding("directory", "", str(error))]
    except LineageError:
        if before is None:
            raise
        return before


def _read(log: Log, name: str, sources: ReleaseSources, progress: Callable[[str], None]) -> AuditedShard:
    """A shard, and what can be said of it alone."""
    progress(f"shard {name}")
    try:
        with collector_resting():
            shard = audit_shard(log.root / name, progress)
            if shard.header is not None:
                progress(f"shard {name}: payloads")
                audit_payload(shard)
                _check_release(shard, sources, log)
    except Exception as error:  # whatever lies in one shard, the others are reported
        shard = AuditedShard(ShardFolder(log.root / name))
        shard.find("unreadable", f"the audit of this shard failed: {error!r}")
    return shard


def _judge(
    log: Log, read: Mapping[str, AuditedShard], kept: Iterable[tuple[str, bytes]], view: View | None, *, whole: bool
) -> AuditReport:
    """The shards against each other, against what was kept elsewhere, and against a directory."""
    report = AuditReport()
    shards = {name: replace(shard, findings=[*shard.findings], notes=[*shard.notes]) for name, shard in read.items()}
    for shard in shards.values():
        _check_recoveries(shard, shards)
        _check_mark(shard, shards)
    report.findings += [
        Finding("file", path.name, "no folder lies where a shard's should: what it leads to is not looked at")
        for path in log.foreign_files()
    ]
    if log.root.is_dir():
        unpublished = sorted(path.name for path in log.root.iterdir() if path.name.startswith(NEW_PREFIX))
        report.notes += [
            f"{printable(name)}: a shard that was never opened; nothing was acknowledged from it"
            for name in unpublished
        ]
    for name, note in kept:
        report.checkpoints += 1
        report.findings += [replace(item, message=f"{name}: {item.message}") for item in _check_kept(note, shards)]
    if view is not None:
        found, notes = audit_directory(view, shards, whole=whole)
        report.findings, report.notes = report.findings + found, report.notes + notes
        report.directory = view.checkpoint.size
    for shard in shards.values():
        report.findings += shard.findings
        report.notes += shard.notes
        report.entries += len(shard.covered)
        report.predictions += len(shard.predictions)
    report.shards = len(shards)
    return report


def _check_release(shard: AuditedShard, sources: ReleaseSources, log: Log) -> None:
    """The header's release verifies against the trust root, and names the header's image and model."""
    header = shard.header
    if header is None:
        return
    if header.release is None:
        shard.notes.append(f"{shard.id}: served without a release (mode {header.mode})")
        return
    lost = _lost_copy(shard)
    # The shard's own copy of the bundle must hold by itself; others stand in only where it is gone.
    own = sources if lost else sources.without_stand_ins()
    try:
        found = find_release(Shard(log.root / shard.id), own)
    except LineageError as error:
        shard.find("release", f"{lost}{error}")
        return
    if found.verified is None:
        shard.find("release", f"{lost}the release {header.release} is not verified: {found.problem}")
    elif lost:
        shard.find("release", f"{lost}the release {header.release} is verified by a copy from elsewhere")
    if found.release.parameters["model"] != header.model:
        shard.find(
            "release", f"the header's model is {header.model}, the release's {found.release.parameters['model']}"
        )
    if header.image != found.release.parameters["image"]:
        theirs = found.release.parameters["image"]
        shard.find("release", f"the header's image is {header.image}, the release's {theirs}")
    _check_promotion(shard, sources, log, found.verified)


def _lost_copy(shard: AuditedShard) -> str:
    """Why the shard's own copy of its release cannot be read; empty when it can."""
    try:
        untrusted.read(shard.folder.release, limit=untrusted.MAX_BUNDLE_BYTES)
    except FileNotFoundError:
        return f"the shard's copy {shard.folder.release.name} is missing; "
    except OSError as error:
        return f"the shard's copy {shard.folder.release.name} cannot be read: {error.strerror}; "
    return ""


def _check_promotion(shard: AuditedShard, sources: ReleaseSources, log: Log, release: VerifiedRelease | None) -> None:
    """The header's promotion verifies against the trust root and the release, and has the header's generation."""
    try:
        if find_promotion(Shard(log.root / shard.id), sources.trust, release) is None:
            shard.notes.append(f"{shard.id}: mode local, no promotion")
    except LineageError as error:
        shard.find("promotion", f"the promotion is not verified: {error}")


def _check_recoveries(shard: AuditedShard, shards: dict[str, AuditedShard]) -> None:
    """What this shard's `recovered` entries say of other shards still holds."""
    for sequence, body in shard.others.items():
        if not isinstance(body, entries.Recovered):
            continue
        by = f"{shard.id}.{sequence} says that it had {body.size} entries"
        other = shards.get(body.shard.hex())
        if other is None:
            shard.findings.append(Finding("shard-missing", body.shard.hex(), f"the shard is gone: {by}"))
        elif len(other.leaves) < body.size:
            other.find("truncated", f"the shard has {len(other.leaves)} entries, but {by}", len(other.leaves))
        elif other.root_at(body.size) != body.root:
            other.find("forked", f"the first {body.size} entries are not those that {shard.id}.{sequence} tells of")
        elif len(other.leaves) > body.size:
            other.find("forked", f"the shard has {len(other.leaves)} entries after its recovery, but {by}", body.size)


def _check_mark(shard: AuditedShard, shards: dict[str, AuditedShard]) -> None:
    """The file `recovered` names an entry that tells of this shard."""
    try:
        text = untrusted.read(shard.folder.recovered, limit=MAX_NOTE_BYTES).decode()
        name, sequence = parse_prediction_id(text.removesuffix("\n"))
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError, ShardError) as error:
        shard.find("recovery", f"the file recovered cannot be read: {reason(error)}")
        return
    body = shards[name].others.get(sequence) if name in shards else None
    if text != f"{prediction_id(name, sequence)}\n" or not isinstance(body, entries.Recovered):
        shard.find("recovery", f"the file recovered names {text.strip()}, which is not a recovered entry of this log")
    elif body.shard.hex() != shard.id:
        shard.find("recovery", f"the file recovered names {text.strip()}, which tells of {body.shard.hex()}")


def _check_kept(note: bytes, shards: dict[str, AuditedShard]) -> list[Finding]:
    """A checkpoint that was kept elsewhere is still a prefix of the shard."""
    try:
        claimed = checkpoint.parse(note)
    except TrustError as error:
        return [Finding("checkpoint", "", f"not a checkpoint: {error.what}")]
    name = claimed.origin.removeprefix(checkpoint.SHARD_ORIGIN)
    shard = shards.get(name)
    if shard is None:
        return [Finding("shard-missing", name, f"no such shard here, but it had {claimed.size} entries")]
    if shard.header is None:
        return []  # named already
    try:
        checkpoint.verify(note, shard.origin, shard.header.public_key)
    except TrustError as error:
        return [Finding("checkpoint", name, error.what)]
    have = len(shard.leaves)
    if have < claimed.size:
        message = f"the shard was truncated: it has {have} entries, but its key signed {claimed.size}"
        return [Finding("truncated", name, message, have)]
    if shard.root_at(claimed.size) != claimed.root:
        return [Finding("forked", name, f"the shard's first {claimed.size} entries are not those that its key signed")]
    return []
