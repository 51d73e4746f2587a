"""`helix doctor`: what is there, what is missing, and the command that mends it."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the `helix` application."""
    app.command("doctor")(doctor)


def doctor() -> None:
    """Say what is there, what is missing, and the command that mends it."""
