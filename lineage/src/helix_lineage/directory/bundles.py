"""The signed bundles beside a directory's log: is each the one that its entry names, and what does it say? Pure.

An entry holds only the digest of its bundle. Without the bundle nobody can tell what was released,
promoted or revoked there, so one that is absent or another one is an error for whoever reads the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helix_lineage.attestations import dsse, promotion, release, revocation
from helix_lineage.directory.entries import StatementEntry, digest_of
from helix_lineage.errors import DirectoryRefusal, StatementMissing, TrustError

_KINDS = {
    release.PREDICATE_TYPE: "release",
    promotion.PREDICATE_TYPE: "promotion",
    revocation.PREDICATE_TYPE: "revocation",
}
_LISTED = 5
"""So many missing files are named."""


def missing(found: Sequence[StatementMissing], place: str) -> StatementMissing:
    """One error of them all (at least one): which files of the directory at `place`, and how to mend them."""
    names = [str(error.where) for error in found]
    shown = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    what = found[0].what if len(found) == 1 else f"{len(found)} bundles of statements are missing or changed"
    which = names[0] if len(found) == 1 else "statement/*"
    return StatementMissing(
        f"{what}: what was revoked cannot be told until every bundle is back, from a backup or a copy of the directory",
        where=f"{shown} of {place}",
        fix=f"cp BACKUP/{which} {'DIRECTORY' if '://' in place else place}/statement/",
    )


def own(body: StatementEntry, bundle: bytes | None) -> bytes:
    """The bundle that the statement's entry names. Raises StatementMissing."""
    kind = _KINDS.get(body.predicate_type, "statement")
    where = f"statement/{body.digest.hex()}"
    if bundle is None:
        raise StatementMissing(f"the bundle of a {kind} is missing", where=where)
    if digest_of(bundle) != body.digest:
        raise StatementMissing(f"the bundle of a {kind} is not the one that the entry names", where=where)
    return bundle


def named_release(bundle: bytes) -> str:
    """The release that a promotion says it is of; unverified. Raises DirectoryRefusal."""
    try:
        return str(payload(bundle)["predicate"]["promotion"]["parents"]["release"])
    except (KeyError, TypeError) as error:
        raise DirectoryRefusal("the bundle's promotion names no release") from error


def payload(bundle: bytes) -> dict[str, Any]:
    """The statement in a bundle; unverified. Raises DirectoryRefusal."""
    try:
        return dsse.claimed_statement(bundle)
    except TrustError as error:
        raise DirectoryRefusal(error.what) from error
