"""A log against a directory: what was registered, how far it was seen, and when (FORMAT.md 13).

Takes shards as the audit read them, and everything that the directory holds. A shard that its key
took further elsewhere, another history, a registered shard that is gone, one that was never
registered, and host times that the directory's times rule out are found. Pure.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import replace

from helix_lineage.audit.findings import Finding
from helix_lineage.audit.shard_audit import AuditedShard
from helix_lineage.directory.rules import RegisteredShard
from helix_lineage.directory.view import View
from helix_lineage.shard import entries
from helix_lineage.tlog import checkpoint

SKEW_NS = 60 * 10**9
"""How far a host's clock and the directory's may be apart, sending included."""


def audit_directory(
    view: View, shards: Mapping[str, AuditedShard], *, whole: bool = True, skew_ns: int = SKEW_NS
) -> tuple[list[Finding], list[str]]:
    """Findings that belong to no shard here, and notes; the others are added to their shards.

    Args:
        whole: whether all shards of the directory should be here; else those that are not are notes.
        skew_ns: how far clocks may be apart.
    """
    # What is missing comes first: without it, what rests on it cannot hold either.
    missing = [
        Finding("directory", "", f"entry {index} cannot be read: {lost.what} ({lost.where}); restore it from a backup")
        for index, lost in view.missing
    ]
    findings = _folded(missing, view.problems)
    notes = [
        f"entry {index} of the directory: its statement is not borne by the trust root" for index in view.book.void
    ]
    refused = {index for index, _ in view.problems}
    for name, known in view.book.shards.items():
        if name in shards or known.index in refused:
            continue
        had = f"had {known.size} entries (entry {known.last})"
        message = f"the shard is gone: it was registered (entry {known.index}), and {had}"
        if known.withdrawn:
            notes.append(f"{name}: withdrawn: its own key closed it before it served anything (entry {known.last})")
        elif whole:
            findings.append(Finding("shard-missing", name, message))
        else:
            notes.append(f"{name}: not here; {message.partition(': ')[2]}")
    for name, shard in shards.items():
        found = view.shard(name)
        if found is None:
            _unregistered(shard)
        elif shard.header is not None:
            _compare(shard, found)
            _bracket(shard, found, skew_ns)
            _mark(shard, view)
    return findings, notes


_FOLLOWS = ("is unknown here", "is not registered here")
"""How it is said that an entry rests on another one that does not hold, or was never there."""


def _folded(missing: Iterable[Finding], problems: Iterable[tuple[int, str]]) -> list[Finding]:
    """What should not be in the directory: a cause first, and how many entries only follow from it."""
    findings = list(missing)
    for index, why in problems:
        if findings and why.endswith(_FOLLOWS):
            findings[-1] = replace(findings[-1], follow=findings[-1].follow + 1)
        else:
            findings.append(Finding("directory", "", f"entry {index} should not be there: {why}"))
    return findings


def _unregistered(shard: AuditedShard) -> None:
    if served := len(shard.predictions):
        shard.find("unregistered", f"the directory does not know this shard, which holds {served} predictions")
    else:
        shard.notes.append(f"{shard.id}: the directory does not know this shard; it never served")


def _compare(shard: AuditedShard, known: RegisteredShard) -> None:
    """Is every checkpoint that the directory took still a prefix of what is here?"""
    have = len(shard.leaves)
    for index, _, size, note in known.seen:
        if size > have:
            _shorter(shard, known)
            break
        if shard.root_at(size) != checkpoint.parse(note).root:
            message = f"the first {size} entries are not those that the directory took (entry {index})"
            shard.find("forked", message, size)
            break
    beyond = have - known.size
    if known.closed and beyond > 0:
        message = f"{beyond} entries follow the {known.size} with which the directory saw it closed"
        shard.find("forked", message, known.size)
    if known.closed or shard.live:
        return
    how = "recovered" if shard.folder.recovered.exists() else "closed here" if shard.ended else "not recovered yet"
    gap = f"; {beyond} entries after the last that it saw have only this host's word" if beyond > 0 else ""
    shard.notes.append(f"{shard.id}: the directory never saw it closed ({how}){gap}")


def _shorter(shard: AuditedShard, known: RegisteredShard) -> None:
    """Less is here than the directory took. Whole in itself: an older state was put back. Else: cut."""
    have = len(shard.leaves)
    if any(found.rule in ("truncated", "rolled-back") for found in shard.findings):
        return
    rule = "rolled-back" if not shard.findings else "truncated"
    what = "an older state of the shard was put back" if rule == "rolled-back" else "the shard was truncated"
    message = f"{what}: it has {have} entries, but the directory took {known.size} (entry {known.last})"
    shard.find(rule, message, have)


def _bracket(shard: AuditedShard, known: RegisteredShard, skew_ns: int) -> None:
    """Host times that the directory's rule out: before the last checkpoint without them, after the first with them.

    The directory's time of a checkpoint bounds its entries from above. From below it says only that
    an honest host, which sends what it has, wrote later entries later.
    """
    sizes, times = [seen[2] for seen in known.seen], [seen[1] for seen in known.seen]
    wrong: list[str] = []
    first = None
    for sequence in shard.predictions:
        body = entries.decode(shard.covered[sequence])
        if not isinstance(body, entries.PredictionEntry):
            continue
        covered = bisect.bisect_right(sizes, sequence)  # the first checkpoint with more than `sequence` entries
        latest = times[covered] if covered < len(times) else None
        earliest = times[covered - 1] if covered else None
        late = latest is not None and body.finished_ns > latest + skew_ns
        early = earliest is not None and body.finished_ns < earliest - skew_ns
        if late or early:
            first = sequence if first is None else first
            wrong.append(f"{sequence}")
    if first is not None:
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        shard.find("time", f"host times outside the directory's bracket: entries {shown}", first)


def _mark(shard: AuditedShard, view: View) -> None:
    """Note what was revoked of what the shard names."""
    header = shard.header
    if header is None:
        return
    for mark in view.marks(header):
        shard.notes.append(f"{shard.id}: {mark.text}")
