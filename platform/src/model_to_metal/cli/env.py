"""`helix env MODEL GROUP -- COMMAND…`: run a command in a model's Nix-built Python environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from helix_lineage.paths import State
from model_to_metal.errors import CheckoutError
from model_to_metal.hermetic import nix
from model_to_metal.host.checkout import Checkout

INSIDE = "/checkout"
STATE = "/state"


app = typer.Typer()


@app.command(context_settings={"ignore_unknown_options": True})
def env(
    model: Annotated[str, typer.Argument(help="folder under models/")],
    group: Annotated[str, typer.Argument(help="build (with torch) or serve (what the image holds)")],
    command: Annotated[list[str], typer.Argument(help="what to run, after --")],
) -> None:
    """Run a command beside the locked wheels of a model: no network, the checkout read-only.

    Examples:

      helix env MODEL build -- python -m pytest -m torch tests/models

      helix env MODEL serve -- python -c 'import onnxruntime; print(onnxruntime.__version__)'
    """
    raise typer.Exit(run(model, group, command))


def _is_there(store: nix.NixStore, environment: Path, program: str, root: Path) -> bool:
    """Is there such a program inside? Its folders are looked at from outside."""
    base = store.real(str((environment / "base").readlink()))
    if "/" not in program:
        return any((folder / program).exists() for folder in (environment / "bin", base / "usr/bin"))
    inside = Path(INSIDE) / program
    if inside.is_relative_to(INSIDE):
        return (root / inside.relative_to(INSIDE)).exists()
    return store.real(program).exists() or (base / program.lstrip("/")).exists()


def run(model: str, group: str, command: list[str]) -> int:
    """Build the environment if need be, then run `command` in it; gives the exit status."""
    state = State.find()
    checkout = Checkout.find()
    known = sorted(path.stem for path in (checkout.model(model) / "environment").glob("*.lock"))
    if group not in known:
        raise CheckoutError(f"{model} has no environment {group!r}; there are: {', '.join(known)}")
    environment = nix.build(f"{model}-{group}-env", checkout.root, state)
    store = nix.NixStore.of(state)
    store_path = f"{nix.PREFIX}/{environment.name}"
    if not _is_there(store, environment, command[0], checkout.root):
        raise CheckoutError(f"the environment {group} of {model} has no command {command[0]!r}")
    sources = [f"{INSIDE}/{folder}" for folder in ("lineage/src", "platform/src", f"models/{model}/src")]
    command_line = nix.environment_command(
        store,
        store_path,
        command,
        read={checkout.root: INSIDE, state.downloads: f"{STATE}/downloads"},
        variables={"PYTHONPATH": ":".join([*sources, f"{store_path}/site-packages"]), "HELIX_STATE": STATE},
        folder=INSIDE,
    )
    return nix.run_in_env(command_line)
