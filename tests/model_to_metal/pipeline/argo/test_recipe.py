from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from model_to_metal.errors import NixError
from model_to_metal.pipeline.argo import recipe

STORE = "/nix/store/"


def step(name: str, *args: str, needs: Sequence[str] = (), sources: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "outputs": {"out": {"path": f"{STORE}1-{name}"}},
        "inputDrvs": {f"{STORE}0-{need}.drv": ["out"] for need in needs},
        "inputSrcs": [f"{STORE}{source}" for source in sources],
        "builder": "/bin/sh",
        "args": list(args),
        "env": {
            "name": name,
            "builder": "/bin/sh",
            "system": "x86_64-linux",
            "out": f"{STORE}1-{name}",
            "WORD": "hello",
        },
    }


def table(**more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    steps = {
        "locked": step("locked") | {"outputs": {"out": {"path": f"{STORE}1-locked", "hash": "0"}}},
        "tools": step("tools", needs=["locked"]),
        "engine": step("engine", needs=["tools"]),
        "layer": step(
            "layer", f"{STORE}9-pack.sh", recipe.OUT, f"{STORE}1-engine",
            needs=["tools", "engine"], sources=["9-pack.sh"],
        ),
        "image": step(
            "image", "-c", f'cat {STORE}1-layer > "$out"; echo "$WORD" >> {recipe.OUT}', needs=["layer", "tools"]
        ),
        **more,
    }  # fmt: skip
    return {f"{STORE}0-{name}.drv": fields for name, fields in steps.items()}


PRESENT, GIVEN = [f"{STORE}1-tools"], {f"{STORE}1-engine": "model"}


def test_steps_stop_at_what_is_there_and_at_what_stages_give() -> None:
    steps, sources = recipe.describe(table(), "image", present=PRESENT, given=GIVEN)
    assert [row["out"] for row in steps] == [f"{STORE}1-layer", f"{STORE}1-image"]
    assert sources == [f"{STORE}9-pack.sh"]


def test_a_step_that_would_download_is_refused_before_anything_runs() -> None:
    with pytest.raises(NixError, match="download /nix/store/1-locked"):
        recipe.describe(table(), "image", present=[], given=GIVEN)


def test_a_name_that_is_no_step_or_two_is_refused() -> None:
    with pytest.raises(NixError, match="0 steps"):
        recipe.output(table(), "absent")
    double = step("image") | {"outputs": {"out": {"path": f"{STORE}2-image"}}}
    with pytest.raises(NixError, match="2 steps"):
        recipe.output(table(other=double), "image")


def test_the_steps_run_as_nix_wrote_them_at_other_places(tmp_path: Path) -> None:
    steps, _ = recipe.describe(table(), "image", present=PRESENT, given=GIVEN)
    made = recipe.Recipe.from_bytes(recipe.Recipe(tuple(steps), GIVEN, "sha256:" + "0" * 64).to_bytes())
    sources, engine, work = tmp_path / "sources", tmp_path / "engine", tmp_path / "work"
    for folder in (sources, engine, work):
        folder.mkdir()
    (sources / "9-pack.sh").write_text('cat "$2/file" > "$1"')
    (engine / "file").write_text("engine\n")

    def run(argv: Sequence[str], environment: Mapping[str, str]) -> None:
        subprocess.run(argv, env={**environment, "PATH": os.environ["PATH"]}, check=True)

    result = recipe.follow(made, sources, {"model": engine}, work, run)
    assert result.read_text() == "engine\nhello\n"
    assert result.parent == work
