"""What the commands share: options, and how progress is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(help="A folder under models/.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Make every stage again and compare with what is recorded.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show what Nix and the tools write.")]
AllTheyWrite = Annotated[bool, typer.Option("--verbose", "-v", help="Show all that the builders say.")]
TrustFile = Annotated[Path | None, typer.Option(metavar="FILE", help="Trust root; default: the checkout's own.")]


def report(line: str) -> None:
    """Print progress, to standard error: standard output holds the answer alone."""
    typer.echo(line, err=True)
