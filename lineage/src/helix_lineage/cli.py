"""The command line `helix-lineage`, which `helix` mounts as `helix lineage`.

Exit status: 0 yes, 1 no (a finding, other bytes), 2 no answer.
"""

from __future__ import annotations

import json
import sys

import typer

from helix_lineage.commands import directory, options
from helix_lineage.commands.audit import audit
from helix_lineage.commands.erase import erase
from helix_lineage.commands.replay import replay
from helix_lineage.commands.trace import trace
from helix_lineage.commands.verify_receipt import verify_receipt
from helix_lineage.commands.verify_release import verify_release
from helix_lineage.errors import LineageError

app = typer.Typer(
    name="lineage",
    help="Trace a prediction to what made it, make it again, and audit the record.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(trace)
app.command()(replay)
app.command()(audit)
app.command(name="verify-release")(verify_release)
app.command(name="verify-receipt")(verify_receipt)
app.command()(erase)
app.command(name="witness")(directory.keep)
app.add_typer(directory.app, name="directory")


def main() -> None:
    """Run the command line; an error is one line, or one JSON object with --json."""
    try:
        app()
    except LineageError as error:
        if "--json" in sys.argv:
            typer.echo(json.dumps({"error": error.what, "where": error.where, "fix": error.fix}))
        else:
            typer.echo(f"error: {error}", err=True)
        sys.exit(options.FAILED)
