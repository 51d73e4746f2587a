"""Runs import-linter on .importlinter and on the packages of every model: `python platform/setup/layers.py`.

A model's package is a root package and stands beside `model_to_metal` on the top layer. It is found,
not named: a new model is a folder of models/.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[2]
MODELS, LAYER = "(models)", "model_to_metal | (models)"


def with_models(text: str, packages: list[str]) -> str:
    """The configuration, with the packages where it says `(models)`. Raises SystemExit where it nowhere does."""
    rows = text.splitlines()
    if not any(row.strip() == MODELS for row in rows) or LAYER not in map(str.strip, rows):
        raise SystemExit(f".importlinter has lines `{MODELS}`, and a layer `{LAYER}`")
    made = {MODELS: "\n".join(f"    {package}" for package in packages)}
    made[LAYER] = "    " + " | ".join([LAYER.partition(" ")[0], *packages])
    return "\n".join(made.get(row.strip(), row) for row in rows) + "\n"


def main() -> int:
    """Check every contract; gives the exit status."""
    packages = sorted(path.parent.name for path in ROOT.glob("models/*/src/*/__init__.py"))
    sys.path[:0] = sorted(str(path) for path in ROOT.glob("models/*/src"))
    with tempfile.NamedTemporaryFile("w", suffix=".importlinter") as file:
        file.write(with_models((ROOT / ".importlinter").read_text(encoding="utf-8"), packages))
        file.flush()
        return int(lint_imports(config_filename=file.name))


if __name__ == "__main__":
    raise SystemExit(main())
