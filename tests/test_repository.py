"""The ground rules of this repository, held by a test each."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from model_to_metal.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/claims.md")
GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")


def tracked(*suffixes: str) -> list[Path]:
    """Files that Git tracks or would track."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    paths = sorted(ROOT / name for name in names if name and name.endswith(suffixes or ("",)))
    return [path for path in paths if path.is_file()]


def python_files() -> list[Path]:
    return [path for path in tracked(".py") if not GENERATED.search(path.name)]


def long_functions(source: str) -> list[str]:
    """Functions of more than 50 lines, without their docstring."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node, clean=False)
        lines = (node.end_lineno or node.lineno) - node.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)
        if lines > 50:
            found.append(f"{node.name} ({lines} lines)")
    return found


def test_platform_folder_does_not_hide_the_standard_library() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not (ROOT / "tests" / "platform").exists()
    answer = subprocess.run(
        [sys.executable, "-c", "import platform, uuid; print(platform.python_implementation())"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.stdout.strip() == "CPython"


def test_platform_trap_bites_when_the_file_is_there(tmp_path: Path) -> None:
    (tmp_path / "platform").mkdir()
    (tmp_path / "platform" / "__init__.py").touch()
    answer = subprocess.run(
        [sys.executable, "-c", "import platform; platform.python_implementation()"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode != 0


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_small(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= 400, f"{path.relative_to(ROOT)} has {source.count(chr(10))} lines; split it by idea"
    assert not long_functions(source)


def test_long_functions_are_found() -> None:
    assert long_functions("def f():\n" + "    x = 1\n" * 60) == ["f (61 lines)"]


@pytest.mark.parametrize("path", tracked(".lock"), ids=lambda path: str(path.relative_to(ROOT)))
def test_locks_carry_hashes_and_no_addresses(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    if path.name == "dvc.lock":
        return
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert lines
    assert all(re.search(r"sha256:[0-9a-f]{64}", line) for line in lines)


def test_no_absolute_path_of_the_machine_stands_in_a_file() -> None:
    needle = f"{ROOT}/".encode()
    assert [str(path.relative_to(ROOT)) for path in tracked() if needle in path.read_bytes()] == []


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme


def test_documents_name_only_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in DOCUMENTS:
        used = set(re.findall(r"`?\bmake ([a-z][a-z-]+)`", (ROOT / name).read_text()))
        assert used <= targets, f"{name} names unknown targets: {sorted(used - targets)}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_only_files_that_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    linked = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    named = re.findall(r"`((?:tests|platform|lineage|docs|gitops|models)/[\w./-]+)`", text)
    assert [path for path in {*linked, *named} if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_show_only_commands_and_options_that_exist(name: str) -> None:
    root = typer.main.get_command(app)
    shown = re.findall(r"(?:^|`|/)helix ([a-z][^`\n#]*)", (ROOT / name).read_text(), re.MULTILINE)
    assert name != "README.md" or shown
    for line in shown:
        command, words = root, line.split()
        while isinstance(command, typer.core.TyperGroup):
            assert words[0] in command.commands, f"helix {line}"
            command, words = command.commands[words[0]], words[1:]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, f"helix {line}"


def crowded(root: Path, most: int = 16) -> list[str]:
    """Packages with more modules and packages in them than `most`; `cli` has one file a command."""
    packages = sorted({path.parent for path in root.rglob("__init__.py")} - {*root.rglob("cli")})
    return [
        f"{package.relative_to(root)} ({size})"
        for package in packages
        if (size := len([*package.glob("[!_]*.py"), *package.glob("__main__.py"), *package.glob("*/__init__.py")]))
        > most
    ]


@pytest.mark.parametrize(
    "folder", ["lineage/src", "platform/src", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("models/*/src"))]
)
def test_no_package_is_crowded(folder: str) -> None:
    assert crowded(ROOT / folder) == []


def test_a_crowded_package_is_found(tmp_path: Path) -> None:
    (tmp_path / "crowd" / "cli").mkdir(parents=True)
    for name in ("__init__", "a", "b", "cli/__init__", "cli/c", "cli/d", "cli/e"):
        (tmp_path / "crowd" / f"{name}.py").touch()
    assert crowded(tmp_path, 3) == []
    assert crowded(tmp_path, 2) == ["crowd (3)"]


MODELS = sorted(path.parent.name for path in ROOT.glob("models/*/model.toml"))
NAMES_NO_MODEL = (
    "platform",
    "lineage",
    "gitops",
    "Makefile",
    "pyproject.toml",
    ".importlinter",
    ".github",
    "flake.nix",
)
DEMO = "platform/src/model_to_metal/local/demo.py"


def naming_a_model(root: Path) -> list[str]:
    """`file:line` of what names a model where models are to be found, but for the demo's default."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *NAMES_NO_MODEL], cwd=root, check=True, capture_output=True, text=True
    ).stdout
    found = []
    for name in filter(None, listed.split("\0")):
        environment, model = re.match(r"gitops/argocd/environments/([^/]+)/([^/]+)/", name), Path(name).parent.name
        if (environment and model in MODELS) or not (root / name).is_file():
            continue
        lines = (root / name).read_text(encoding="utf-8", errors="replace").splitlines()
        at = [number for number, line in enumerate(lines, 1) if any(model in line for model in MODELS)]
        if name == DEMO:
            at = at[1:]
        found += [f"{name}:{number}" for number in at]
    return found


def test_nothing_names_a_model_where_models_are_to_be_found() -> None:
    assert naming_a_model(ROOT) == []


def test_a_file_that_names_a_model_is_found(tmp_path: Path) -> None:
    for name in ("platform/src/x.py", DEMO):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"one = {MODELS[0]!r}\ntwo = {MODELS[0]!r}\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "--all"], cwd=tmp_path, check=True)
    assert naming_a_model(tmp_path) == [f"{DEMO}:2", "platform/src/x.py:1", "platform/src/x.py:2"]


def with_examples() -> list[str]:
    """Modules whose docstrings show an example (those of helix_lineage run with its own tests)."""
    folders = [ROOT / "platform/src", *sorted(ROOT.glob("models/*/src"))]
    found = [
        (folder, path) for folder in folders for path in sorted(folder.rglob("*.py")) if ">>> " in path.read_text()
    ]
    names = [".".join(path.relative_to(folder).with_suffix("").parts) for folder, path in found]
    return [name.removesuffix(".__init__") for name in names]


EXAMPLES = """
import doctest, importlib, sys
done = doctest.testmod(importlib.import_module(sys.argv[1]))
sys.exit(done.failed or not done.attempted)
"""


@pytest.mark.parametrize("name", with_examples())
def test_examples_in_docstrings_run(name: str) -> None:
    command = [sys.executable, "-P", "-c", EXAMPLES, name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    "name", ["lineage/src/helix_lineage", "platform/src/helixserve", "platform/src/model_to_metal"]
)
def test_each_package_has_a_map_that_is_whole_and_runs(name: str) -> None:
    text = (ROOT / name / "__init__.py").read_text()
    assert ">>> " in text
    inside = sorted(path.parent.name for path in (ROOT / name).glob("*/__init__.py"))
    assert [package for package in inside if f"{package}/" not in text] == []
