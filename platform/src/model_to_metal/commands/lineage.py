"""`helix lineage …`: the commands of `helix_lineage`, with this checkout's registry at hand for a replay."""

from __future__ import annotations

import os

import typer

from helix_lineage.cli import app as lineage
from helix_lineage.paths import State
from model_to_metal import registry


def register(app: typer.Typer) -> None:
    """Mount the group."""
    group = typer.Typer(help=lineage.info.help, no_args_is_help=True, callback=_prepare)
    group.registered_commands.extend(lineage.registered_commands)
    group.registered_groups.extend(lineage.registered_groups)
    app.add_typer(group, name="lineage")


def _prepare(context: typer.Context) -> None:
    """Serve the checkout's registry while a replay runs: it may have to pull an image."""
    if context.invoked_subcommand != "replay" or "HELIX_REGISTRY" in os.environ:
        return
    state = State.find()
    if state.registry.is_dir():
        # The option --registry reads this variable, after this callback.
        os.environ["HELIX_REGISTRY"] = context.with_resource(registry.serving(state))
        context.call_on_close(lambda: os.environ.pop("HELIX_REGISTRY", None))
