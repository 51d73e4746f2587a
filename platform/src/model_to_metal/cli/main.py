"""The `helix` command: one file a command in this package, and one place where errors end.

Exit status: 0 done, or yes; 1 the answer is no (a gate, a check, a verification); 2 there is no
answer: wrong usage, or it could not be done (the message says what, where and how to mend it).
docs/exit-status.md says what each of them means for each command that gives a verdict.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from helix_lineage.errors import HelixError
from helix_lineage.formats.canonical import Json
from model_to_metal import refusal
from model_to_metal.cli import (
    attest,
    build,
    cluster,
    demo,
    doctor,
    env,
    fetch,
    gitops,
    keys,
    lineage,
    lock,
    models,
    promote,
    rebuild,
    registry,
    rollback,
    run,
    serve,
    store,
    tools,
    until,
    verify,
)
from model_to_metal.errors import (
    DirtyTree,
    GateRefused,
    ImageDiffers,
    NotReproducible,
    PipelineError,
    PromotionRefused,
)
from model_to_metal.version import VERSION

_NAMED = re.compile(r"(?<![\w/.-])helix(-lineage)? (?=[a-z])")
NO, CANNOT = 1, 2
REFUSALS = (GateRefused, DirtyTree, PromotionRefused, ImageDiffers, NotReproducible)
"""The errors that answer no."""

app = typer.Typer(
    name="helix",
    help="From a researcher's commit to a served, signed, fully traceable protein model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)


def _show(asked: bool) -> None:
    if asked:
        typer.echo(f"helix {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show, is_eager=True, help="Print the version, and stop.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="When a tool fails, show what it wrote, word for word.")
    ] = False,
) -> None:
    """From a researcher's commit to a served, signed, fully traceable protein model."""


COMMANDS = (
    models, doctor, lock, fetch, until, build, rebuild, attest, promote, rollback, run, serve, demo, verify, env,
    gitops, lineage, keys, registry, store, tools,
)  # fmt: skip
"""The modules, each with its `app`: commands without a name of the group stand beside the others."""
for _module in COMMANDS:
    app.add_typer(_module.app)
cluster.register(app)


def main() -> None:
    """Run the command line; errors become a message and an exit status, never a traceback."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _leave)
    try:
        app()
    except HelixError as error:
        report(error, as_json="--json" in sys.argv)
        sys.exit(NO if isinstance(error, REFUSALS) else CANNOT)
    except KeyboardInterrupt:
        sys.exit(130)
    # Whatever else it is, it is a fault of ours: the traceback is for us, the sentence for the user.
    except Exception as error:
        fault = PipelineError(f"a fault in helix itself: {type(error).__name__}: {error}", where=keep(error))
        report(fault, as_json="--json" in sys.argv)
        sys.exit(CANNOT)


def _leave(number: int, _frame: object) -> NoReturn:
    """Leave every context, so that no scratch folder and no process of ours stays behind."""
    raise SystemExit(128 + number)


def as_typed(fix: str | None) -> str | None:
    """A printed command as this user has to type it: `helix` may not be on the PATH."""
    started = Path(sys.argv[0])
    if fix is None or started.name != "helix":
        return fix
    found = shutil.which("helix")
    if found is not None and Path(found).resolve() == started.resolve():
        return fix.replace("helix-lineage ", "helix lineage ")
    near = os.path.relpath(started)
    helix = str(started) if near.startswith("..") else near
    return _NAMED.sub(lambda named: f"{helix}{' lineage' if named[1] else ''} ", fix)


def keep(error: Exception) -> str:
    """Write the traceback to a file; gives its path."""
    with tempfile.NamedTemporaryFile("w", prefix="helix-fault-", suffix=".txt", delete=False) as file:
        file.writelines(traceback.format_exception(error))
        return file.name


def report(error: HelixError, *, as_json: bool) -> None:
    """Say what happened, where, and how to mend it; as JSON on stdout when that was asked for.

    What a tool wrote, word for word, is for who asks for it.
    """
    fix = as_typed(error.fix)
    failed = error.failed if isinstance(error, GateRefused) else ()
    if as_json:
        typer.echo(json.dumps(_facts(error)))
        return
    for row in failed:
        typer.echo(refusal.line(row))
    typer.echo(f"helix: {error.what}", err=True)
    if error.where:
        typer.echo(f"  where: {error.where}", err=True)
    if fix:
        typer.echo(f"  fix:   {fix}", err=True)
    if raw := getattr(error, "raw", None):
        verbose = bool({"--verbose", "-v"} & set(sys.argv))
        typer.echo(raw if verbose else "  more:  the same command with --verbose: helix --verbose …", err=True)


def _facts(error: HelixError) -> dict[str, Json]:
    answer = "no" if isinstance(error, REFUSALS) else "could not tell"
    said: dict[str, Json] = {"what": error.what, "where": error.where, "fix": as_typed(error.fix)}
    facts: dict[str, Json] = {"answer": answer, "error": said}
    if isinstance(error, GateRefused):
        verdict = error.verdict or {"parameters": {}}
        facts |= {"model": verdict["parameters"].get("model"), "passed": False, "failed": list(error.failed)}
        facts |= {"digest": error.digest, "record": error.verdict}
    return facts


if __name__ == "__main__":
    main()
