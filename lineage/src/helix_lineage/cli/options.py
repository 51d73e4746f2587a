"""What the commands share: options, where things lie by default, how answers are printed."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from helix_lineage.attestations.dsse import parse_bundle
from helix_lineage.attestations.trust import Trust
from helix_lineage.directory.source import open_source
from helix_lineage.directory.view import View, load
from helix_lineage.errors import LineageError, TrustError
from helix_lineage.evidence.releases import ReleaseSources
from helix_lineage.formats.named import read_named
from helix_lineage.paths import State
from helix_lineage.records.store import RecordStore
from helix_lineage.shard.reader import Log

FOUND = 1
"""Exit status when the answer is no: a finding, other bytes, a release that does not verify."""
FAILED = 2
"""Exit status when there is no answer: it could not be told (docs/exit-status.md)."""

_WIDE = 10_000  # columns: a file has no edge

LogOption = Annotated[
    Path | None, typer.Option("--log", metavar="DIR", help="Folder of shards. Default: the checkout's .helix/log.")
]
StoreOption = Annotated[
    Path | None, typer.Option("--store", metavar="DIR", help="Store of records. Default: .helix/store, if it is there.")
]
TrustOption = Annotated[
    Path | None,
    typer.Option("--trust", metavar="FILE", help="Trust root. Default: .helix/keys/trust.json, if it is there."),
]
ReleaseOption = Annotated[
    list[Path] | None,
    typer.Option("--release", metavar="FILE", help="Release bundle, where a shard has no copy. May be repeated."),
]
DirectoryOption = Annotated[
    str | None,
    typer.Option(
        "--directory",
        metavar="URL|FOLDER",
        help="The directory to compare with: running, or a copy. Default: .helix/directory, with the checkout's log.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def state() -> State | None:
    """The checkout's state, or None outside a checkout."""
    try:
        return State.find()
    except LineageError:
        return None


def open_log(path: Path | None) -> Log:
    """The log to read. Raises LineageError when there is none."""
    here = state()
    if path is None and here is None:
        raise LineageError("there is no log here", where=str(Path.cwd()), fix="add --log DIR, or cd into the checkout")
    found = path or (here.log if here else Path())
    if not found.is_dir():
        raise LineageError("there is no log here", where=str(found))
    return Log(found)


def sources(trust: Path | None, store: Path | None, releases: list[Path] | None) -> ReleaseSources:
    """Where to look for releases: what was named, else what the checkout has. Raises TrustError."""
    here = state()
    if trust is None and here is not None and here.trust.is_file():
        trust = here.trust
    if store is None and here is not None and here.store.is_dir():
        store = here.store
    if store is not None and not store.is_dir():
        raise LineageError("there is no store here", where=str(store))
    known = sorted(here.releases.glob("*/*.sigstore.json")) if here is not None else []
    for path in releases or ():
        _check_bundle(path)
    return ReleaseSources(
        bundles=(*(releases or ()), *known),
        store=None if store is None else RecordStore(store),
        trust=None if trust is None else Trust.load(trust),
    )


def trust_root(path: Path | None) -> Trust:
    """The trust root that was named, else the checkout's. Raises LineageError when there is none."""
    found = sources(path, None, None).trust
    if found is None:
        raise LineageError("there is no trust root here", fix="add --trust FILE, or cd into the checkout")
    return found


def _check_bundle(path: Path) -> None:
    """Raises LineageError: what was named, and is no bundle, would be passed over in silence later."""
    data = read_named(path, "the release bundle")
    try:
        parse_bundle(data)
    except TrustError as error:
        raise LineageError(f"this is not a release bundle: {error.what}", where=str(path)) from error


def open_directory(place: str | None, trust: Path | None, *, audited: bool = False) -> View | None:
    """Everything that a directory holds, or None when none was named. Raises LineageError."""
    if place is None:
        return None
    root = trust_root(trust)
    with closing(open_source(place)) as source:
        return load(source, root, datetime.now(UTC), audited=audited)


def directory_of(place: str | None, log: Path | None) -> str | None:
    """The directory that was named; else the checkout's own, where the checkout's own log is asked about."""
    here = state()
    if place is not None or log is not None or here is None:
        return place
    known = here.trust.is_file() and (here.directory / "checkpoint").is_file()
    return str(here.directory) if known else None


def console() -> Console:
    """Standard output for people. Long lines are folded on a terminal, and left whole in a file: digests are copied."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=_WIDE)


def time(nanoseconds: int) -> str:
    """A time for people and JSON: RFC 3339, UTC."""
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="milliseconds")


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
