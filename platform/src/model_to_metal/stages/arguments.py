"""The arguments of `python -m model_to_metal.stages`."""

from __future__ import annotations

import argparse
from pathlib import Path

from model_to_metal.errors import StageError
from model_to_metal.stages.interface import stages


def pair(text: str) -> tuple[str, str]:
    """`ROLE=VALUE` as two texts. Raises StageError."""
    role, equals, value = text.partition("=")
    if not equals or not role or not value:
        raise StageError(f"expected ROLE=VALUE, not {text!r}")
    return role, value


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(prog="python -m model_to_metal.stages", description="Run one stage of the pipeline.")
    made.add_argument("name", choices=list(stages()))
    made.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="the model's folder")
    made.add_argument("--input", action="append", default=[], metavar="ROLE=FOLDER")
    made.add_argument("--parent", action="append", default=[], metavar="ROLE=FILE", help="a parent's record")
    made.add_argument("--plan", type=Path, metavar="FILE", help="what is settled: canonical JSON")
    made.add_argument("--parameters", type=Path, metavar="FILE", help="the plan's parameters alone: canonical JSON")
    made.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="absent or empty")
    made.add_argument("--record", type=Path, metavar="FILE", help="where the record goes")
    return made
