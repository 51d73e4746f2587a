"""The command line `helix-lineage`, which `helix` mounts as `helix lineage`.

Exit status: 0 yes, 1 no (a finding, other bytes), 2 could not tell (docs/exit-status.md).
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from helix_lineage.cli import directory, options
from helix_lineage.cli.audit import audit
from helix_lineage.cli.erase import erase
from helix_lineage.cli.listing import list_predictions
from helix_lineage.cli.replay import replay
from helix_lineage.cli.trace import trace
from helix_lineage.cli.verify_receipt import verify_receipt
from helix_lineage.cli.verify_release import verify_release
from helix_lineage.errors import LineageError
from helix_lineage.version import VERSION


def _show(asked: bool) -> None:
    if asked:
        typer.echo(f"helix-lineage {VERSION}")
        raise typer.Exit


app = typer.Typer(
    name="lineage",
    help="Trace a prediction to what made it, make it again, and audit the record.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show, is_eager=True, help="Print the version, and stop.")
    ] = False,
) -> None:
    """Trace a prediction to what made it, make it again, and audit the record."""


app.command(name="list")(list_predictions)
app.command()(trace)
app.command()(replay)
app.command()(audit)
app.command(name="verify-release")(verify_release)
app.command(name="verify-receipt")(verify_receipt)
app.command()(erase)
app.command(name="witness")(directory.keep)
app.add_typer(directory.app, name="directory")


def main() -> None:
    """Run the command line; an error is one line, or one JSON object with --json, and never status 1, which says no."""
    try:
        app()
    except LineageError as error:
        _report(error)
    except BrokenPipeError:  # who read the answer has heard enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(options.FAILED)
    except KeyboardInterrupt:
        sys.exit(130)
    # Whatever else it is, it is a fault of ours; where it was, says the last frame.
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}, line {last.lineno}"
        _report(LineageError(f"a fault in helix-lineage itself: {type(error).__name__}: {error}", where=place))


def _report(error: LineageError) -> NoReturn:
    if "--json" in sys.argv:
        typer.echo(json.dumps({"error": error.what, "where": error.where, "fix": error.fix}))
    else:
        typer.echo(f"error: {error}", err=True)
    sys.exit(options.FAILED)
