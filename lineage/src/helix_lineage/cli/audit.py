"""`helix-lineage audit`: did anybody change the record?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from helix_lineage.audit import AuditReport, audit as audit_log
from helix_lineage.cli import options
from helix_lineage.formats.named import read_named
from helix_lineage.tlog.layout import MAX_NOTE_BYTES


def audit(
    *,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", metavar="FILE", help="A checkpoint that was kept elsewhere. May be repeated."),
    ] = None,
    directory: options.DirectoryOption = None,
    part: Annotated[
        bool,
        typer.Option("--part", help="Other shards of the directory lie elsewhere: not being here is a note."),
    ] = False,
    log: options.LogOption = None,
    store: options.StoreOption = None,
    trust: options.TrustOption = None,
    release: options.ReleaseOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Derive everything in the log again, and name what does not hold.

    With a directory: what was dropped, truncated, rolled back, forked, never registered or never closed too,
    and host times that the directory's rule out. The directory's own log is checked by its rules; of a folder, its
    journal too. The checkout's own is the default for the checkout's log; without one, the verdict says what was
    not checked.

    Exit status: 0 nothing found in what was checked; 1 something found; 2 could not tell: no audit.

    Examples:

        helix-lineage audit

        helix-lineage audit --log /mnt/log --trust trust.json --checkpoint kept/checkpoint --json

        helix-lineage audit --directory http://127.0.0.1:5080
    """
    kept = [(str(path), read_named(path, "the checkpoint", limit=MAX_NOTE_BYTES)) for path in checkpoint or ()]
    place = options.directory_of(directory, log)
    console = Console(stderr=True, highlight=False)
    with console.status("reading") as status:
        report = audit_log(
            options.open_log(log),
            options.sources(trust, store, release),
            checkpoints=kept,
            directory=None if place is None else lambda: options.open_directory(place, trust, audited=True),
            directory_folder=Path(place) if place is not None and Path(place).is_dir() else None,
            whole=not part,
            progress=status.update,
        )
    if as_json:
        options.print_json(report.to_json() | {"not_checked": unchecked(report, part=part)})
    else:
        _print(report, unchecked(report, part=part))
    if not report.passed:
        raise typer.Exit(options.FOUND)


def unchecked(report: AuditReport, *, part: bool) -> list[str]:
    """What this audit could not see, one phrase each: an answer that leaves it out would promise too much."""
    if report.directory is None:
        kept = ", or older than the checkpoints given" if report.checkpoints else ""
        return [
            f"whether a shard was dropped, cut, rolled back or forked{kept}: no directory was compared with; "
            "add --directory URL|FOLDER"
        ]
    found = ["whether the directory was rolled back together with the log: keep its checkpoint elsewhere; "
             "helix-lineage witness URL --keep FILE"]  # fmt: skip
    return ["shards of the directory that are not here (--part)", *found] if part else found


def _print(report: AuditReport, left_out: list[str]) -> None:
    console = options.console()
    for finding in report.findings:
        more = f" (and {finding.follow} more that follow from it)" if finding.follow else ""
        console.print(f"[red]{finding.rule}[/red]  {finding.shard}  {escape(finding.message)}{more}")
    for note in report.notes:
        console.print(f"[dim]note  {escape(note)}[/dim]")
    counts = f"{report.shards} shards, {report.entries} entries, {report.predictions} predictions"
    kept = f", {report.checkpoints} checkpoints from elsewhere" if report.checkpoints else ""
    kept += "" if report.directory is None else f", a directory of {report.directory} entries"
    whole = "everything holds" if report.directory is not None else "what is here holds"
    verdict = f"[green]{whole}[/green]" if report.passed else f"[red]{len(report.findings)} findings[/red]"
    console.print(f"{verdict}: {counts}{kept}")
    for phrase in left_out:
        console.print(f"[yellow]not checked:[/yellow] {escape(phrase)}")
