"""What an auditor's machine needs: this package, a few others, and nothing of the rest of Helix."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import helix_lineage
from helix_lineage import replay, shard

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(helix_lineage.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
_DISTRIBUTIONS = {"cbor2", "cryptography", "jinja2", "markupsafe", "rfc8785", "rich", "typer", "zstandard"}
_EXTRA = {"httpx", "starlette", "uvicorn"}
"""What running a directory or talking to one needs: the optional part, imported only then."""
_BROUGHT = {"h11"}
"""What uvicorn always brings: the states that its HTTP/1.1 connections are in."""


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found


def test_it_imports_what_it_declares_and_nothing_else() -> None:
    imported = {name for path in MODULES for name in _imports(path)}
    assert imported - set(sys.stdlib_module_names) - {"helix_lineage"} == _DISTRIBUTIONS | _EXTRA | _BROUGHT
    project = tomllib.loads((ROOT / "lineage/pyproject.toml").read_text())["project"]
    assert {re.split("[>=<]", text)[0] for text in project["dependencies"]} == _DISTRIBUTIONS
    assert {re.split("[>=<]", text)[0] for text in project["optional-dependencies"]["directory"]} == _EXTRA


def test_the_command_line_needs_no_optional_part() -> None:
    """An auditor's machine: the whole command line is loaded, and a folder's directory read, without any of it."""
    code = f"import sys, helix_lineage.cli.main\nprint(sorted({_EXTRA | _BROUGHT} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_server_imports_neither_typer_nor_rich() -> None:
    code = (
        "import sys, helix_lineage.shard, helix_lineage.attestations.release, helix_lineage.formats.typed\n"
        "print(sorted({'typer', 'rich', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_modules_and_functions_stay_small() -> None:
    for path in MODULES:
        text = path.read_text()
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and path.parent.name != "cli":
                assert (node.end_lineno or 0) - node.lineno < 50, (path, node.name)


def test_public_names_are_pinned() -> None:
    assert shard.__all__ == ["Prediction", "ShardHeader", "ShardWriter"]
    assert replay.__all__ == ["OutputDifference", "ReplayExecutor", "ReplayPlan", "ReplayPlanner", "Verdict", "plan"]


@pytest.mark.parametrize("path", [path for path in MODULES if ">>> " in path.read_text()], ids=lambda path: path.stem)
def test_examples_in_docstrings_run(path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "doctest", str(path)], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.slow
def test_it_installs_alone(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, str(ROOT / "lineage")], check=True)
    listed = subprocess.run(
        [str(venv / "bin/pip"), "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    assert not re.search(r"^(torch|bentoml|hera|numpy|onnx)", listed.stdout, re.MULTILINE)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(venv / "bin/helix-lineage"), "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    assert "trace" in done.stdout
