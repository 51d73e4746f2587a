"""`helix-lineage directory …` and `helix-lineage witness`: run a directory, look at one, keep its checkpoint."""

from __future__ import annotations

import json
import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from helix_lineage.cli import options
from helix_lineage.directory import service, source, view, witness
from helix_lineage.directory.admission import Bounds, Registrants
from helix_lineage.directory.client import DirectoryClient
from helix_lineage.errors import DirectoryError, TrustError
from helix_lineage.formats.named import read_named
from helix_lineage.paths import State
from helix_lineage.tlog.layout import MAX_NOTE_BYTES

PORT = 5080

app = typer.Typer(help="The log that remembers which shards there are.", no_args_is_help=True)

Place = Annotated[str, typer.Argument(metavar="URL|FOLDER", help="A running directory, or a copy of its folder.")]


@app.command()
def serve(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Its log. Default: the checkout's .helix/directory.")
    ] = None,
    *,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its Ed25519 key. Default: .helix/keys/directory.key.")
    ] = None,
    registrants: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Who may register shards: lines of a name and its token's SHA-256. Default: .helix/keys/registrants.",
        ),
    ] = None,
    environment: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Register only what was promoted there. May be repeated."),
    ] = None,
    registrations: Annotated[
        int, typer.Option(metavar="N", min=1, help="So many shards a minute of each registrant.")
    ] = Bounds().registrations,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = PORT,
    trust: options.TrustOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Run the directory until Ctrl-C or SIGTERM. Prints its address when it listens.

    Examples:

        helix-lineage directory serve

        helix-lineage directory serve /var/lib/directory --key key.pem --trust trust.json --registrants registrants
            --environment production --host 0.0.0.0
    """
    root, secret = folder or State.find().directory, key or State.find().keys / "directory.key"
    tokens = registrants or State.find().keys / "registrants"
    try:
        from helix_lineage.directory import server  # noqa: PLC0415  an auditor's machine has no web server
    except ImportError as error:
        fix = "pip install 'helix-lineage[directory]'"
        raise DirectoryError(f"this machine cannot serve: {error}", fix=fix) from error
    known, signing = options.trust_root(trust), service.load_key(secret)
    Registrants.load(tokens)  # says now what is wrong with it
    bounds = Bounds(registrations=registrations)
    origin = service.origin_of(signing, known, datetime.now(UTC))
    with server.listen(host, port) as listening:
        running = service.Directory(root, origin, signing, known, environments=environment or (), bounds=bounds)
        try:
            url = f"http://{host}:{listening.getsockname()[1]}"
            said = {"url": url, "origin": origin, "entries": running.book.size}
            typer.echo(json.dumps(said) if as_json else f"{origin}: {running.book.size} entries\n  {url}")
            server.run(running, root, tokens, listening)
        finally:
            running.close()


@app.command()
def status(
    place: Place,
    *,
    trust: options.TrustOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """What a directory holds: shards, how far they came, releases, promotions, revocations. Everything is checked.

    Exit status: 0 it holds; 1 an entry should not have been taken, its bundle is missing, or its log does not hold;
    2 could not tell.

    Examples:

        helix-lineage directory status http://127.0.0.1:5080

        helix-lineage directory status .helix/directory --json
    """
    known = options.trust_root(trust)
    with closing(source.open_source(place)) as log:
        try:
            seen = view.load(log, known, datetime.now(UTC), audited=True)
        except TrustError as error:
            _say_no(error, as_json=as_json)
    book = seen.book
    rows = [
        {"shard": shard.id, "model": shard.header.model, "entries": shard.size, "closed": shard.closed,
         "registered": options.time(shard.time_ns), "last": options.time(shard.seen[-1][1])}
        for shard in book.shards.values()
    ]  # fmt: skip
    marks = [
        {"kind": found.kind, "target": found.target, "since": found.since.isoformat(), "reason": found.reason}
        for found in book.all_revocations()
    ]
    if as_json:
        options.print_json(
            {"version": 1, "origin": seen.checkpoint.origin, "entries": seen.checkpoint.size, "shards": rows,
             "releases": sorted(book.releases), "promotions": sorted(book.promotions), "revocations": marks,
             "missing": [{"index": index, "file": lost.where, "message": lost.what} for index, lost in seen.missing],
             "problems": [{"index": index, "message": message} for index, message in seen.problems]}
        )  # fmt: skip
    else:
        typer.echo(f"{seen.checkpoint.origin}: {seen.checkpoint.size} entries, root {seen.checkpoint.root.hex()}")
        for row in rows:
            state = "closed" if row["closed"] else "open"
            typer.echo(f"  {row['shard']}  {row['model']}  {row['entries']} entries, {state}, last {row['last']}")
        for mark in marks:
            typer.echo(f"  revoked {mark['kind']} {mark['target']} since {mark['since']}: {mark['reason']}")
        for index, lost in seen.missing:
            typer.echo(f"  entry {index} cannot be read: {lost.what} ({lost.where}); restore it from a backup")
        for index, message in seen.problems:
            typer.echo(f"  entry {index} should not be there: {message}")
    if seen.problems or seen.missing:
        raise typer.Exit(options.FOUND)


@app.command()
def submit(
    bundle: Annotated[
        Path, typer.Argument(metavar="FILE", help="A signed release, promotion or revocation; - is standard input.")
    ],
    url: Annotated[str, typer.Argument(metavar="URL", help="A running directory.")],
    *,
    trust: options.TrustOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Put a signed statement into a directory's log. Done again, it changes nothing.

    Examples:

        helix-lineage directory submit release.sigstore.json http://127.0.0.1:5080
    """
    with closing(DirectoryClient(url, options.trust_root(trust))) as client:
        receipt = client.submit(read_named(bundle, "the statement"))
    if as_json:
        options.print_json({"version": 1, "index": receipt.index, "checkpoint": receipt.note.decode()})
    else:
        typer.echo(f"entry {receipt.index}")


def keep(
    place: Place,
    kept: Annotated[Path, typer.Option("--keep", metavar="FILE", help="Where the checkpoint is kept.")],
    *,
    trust: options.TrustOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Check that a directory only grew since the kept checkpoint, then keep the new one. Run it elsewhere.

    Exit status: 0 it only grew; 1 it was rolled back or forked, or is another one (the file is left alone);
    2 could not tell.

    Examples:

        helix-lineage witness http://127.0.0.1:5080 --keep /mnt/elsewhere/checkpoint
    """
    known, now = options.trust_root(trust), datetime.now(UTC)
    before = None
    if os.path.lexists(kept):
        before = witness.opened(read_named(kept, "the kept checkpoint", limit=MAX_NOTE_BYTES), known, now)
    with closing(source.open_source(place)) as log:
        try:
            note, signed = witness.newest(log, before, known, now)
        except TrustError as error:
            _say_no(error, as_json=as_json)
    witness.replace(kept, note)
    size = 0 if before is None else before.size
    if as_json:
        said = {"origin": signed.origin, "before": size, "entries": signed.size, "root": signed.root.hex()}
        options.print_json({"version": 1, "holds": True, **said})
    else:
        typer.echo(f"{signed.origin}: {size} → {signed.size} entries, the same history")


def _say_no(error: TrustError, *, as_json: bool) -> NoReturn:
    """What was asked about does not hold."""
    if as_json:
        options.print_json({"version": 1, "holds": False, "problem": str(error)})
    else:
        typer.echo(str(error))
    raise typer.Exit(options.FOUND) from error
