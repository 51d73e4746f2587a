"""What is printed to be typed can be typed: examples in every --help, fixes in errors, commands in the documents."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

import helix_lineage.cli.main
from helix_lineage import version as lineage_version
from model_to_metal import version
from model_to_metal.cli import main
from model_to_metal.local import doctor
from tests.model_to_metal.project import ROOT

PROGRAMS = {"helix": main.app, "helix-lineage": helix_lineage.cli.main.app}
SOURCES = sorted(path for folder in ("lineage/src", "platform/src", "models") for path in (ROOT / folder).rglob("*.py"))
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *ROOT.glob("models/*/README.md"),
    ROOT / "lineage/FORMAT.md",
]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
_COMMAND = re.compile(r"(?<![\w/.-])(?:\.helix/venv/bin/)?(helix(?:-lineage)?|make) (?=[a-z-])")
_ENDS = re.compile(r",? (?:and|or|then|in) |, |; |\||>|&&|\(|\)|…$|`")


def commands(program: str) -> dict[str, TyperCommand]:
    """Every command of a program by the words that name it."""
    found: dict[str, TyperCommand] = {}

    def walk(words: str, command: object) -> None:
        if isinstance(command, TyperGroup):
            for name, below in command.commands.items():
                walk(f"{words} {name}", below)
        elif isinstance(command, TyperCommand):
            found[words] = command

    walk(program, typer.main.get_command(PROGRAMS[program]))
    return found


ALL = {words: command for program in PROGRAMS for words, command in commands(program).items()}


def problem(line: str) -> str | None:
    """Why the command line cannot be typed; None when all of it parses."""
    words = [word.strip("[]") for word in shlex.split(line, comments=True)]
    words[0] = words[0].rpartition("/")[2]
    if words[0] == "make":
        missing = [word for word in words[1:] if "=" not in word and word not in TARGETS]
        return f"no target {missing}" if missing else None
    for length in (4, 3, 2):
        command = ALL.get(" ".join(words[:length])) if len(words) >= length else None
        if command is None:
            continue
        try:
            command.make_context(words[length - 1], words[length:])
        except typer.Exit:
            return None
        except TyperException as error:
            return f"{type(error).__name__}: {error}"
        return None
    root = typer.main.get_command(PROGRAMS[words[0]])
    names = {option for param in root.params for option in param.opts}
    group = any(known.startswith(f"{' '.join(words)} ") for known in ALL)
    return None if group or (len(words) > 1 and words[1] in names | {"--help"}) else f"no such command: {line}"


def typed(text: str) -> list[str]:
    """The command lines in a text for people; each ends where the sentence goes on."""
    starts = [found.start() for found in _COMMAND.finditer(text)]
    return [_ENDS.split(text[at:], maxsplit=1)[0].rstrip(" .:") for at in starts]


def fixes() -> Iterator[tuple[str, str]]:
    """Every text in our sources that names a command to run, and where it stands. What is filled in later is X."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.keyword) and node.arg == "fix":
                yield where, _text(node.value)
            elif isinstance(node, ast.Constant | ast.JoinedStr):
                for said in re.findall(r"(?:run|next): (.*)", _text(node)):
                    yield where, said


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
    return ""


FIXES = [(where, line) for where, text in fixes() for line in typed(text)]


def examples(command: TyperCommand) -> list[str]:
    """The lines below `Examples:` in a command's help."""
    said = (command.help or "").partition("Examples:")[2]
    return [line.strip() for line in said.splitlines() if re.search(r"\b(helix|helix-lineage) ", line)]


@pytest.mark.parametrize("words", ALL)
def test_every_help_has_examples_and_they_parse(words: str) -> None:
    found = examples(ALL[words])
    assert found, f"{words} --help shows no example"
    # A command of `helix lineage` shows how an auditor types it who has `helix-lineage` alone.
    alike = words.replace("helix lineage ", "helix-lineage ")
    assert any(alike in line or words in line for line in found), found
    for line in found:
        found_at = _COMMAND.search(line)
        assert found_at, line
        assert problem(re.split(r" [|>] ", line[found_at.start() :])[0]) is None, line


def test_fixes_are_collected() -> None:
    assert len(FIXES) > 40
    assert {line.split()[0] for _, line in FIXES} == {"helix", "helix-lineage", "make"}


@pytest.mark.parametrize(("where", "line"), FIXES, ids=[f"{where}-{line}" for where, line in FIXES])
def test_each_printed_fix_can_be_typed(where: str, line: str) -> None:
    assert problem(line) is None, f"{where}: {line}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_the_documents_can_be_typed(path: Path) -> None:
    text = path.read_text()
    quoted = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    blocks = [line for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    wrong = []
    for line in [*quoted, *blocks]:
        if _COMMAND.match(line.removeprefix("HELIX_STATE=DIR ")):
            wrong += [f"{text}: {why}" for text in typed(line)[:1] if text not in ALL and (why := problem(text))]
    assert wrong == []


@pytest.mark.parametrize(
    "line",
    ["helix nosuch", "helix build", "helix build m --nosuch", "helix keys", "helix lineage trace", "make nosuch"],
)
def test_what_cannot_be_typed_is_found(line: str) -> None:
    """The planted faults: a command, an argument and an option that are not there."""
    assert (problem(line) is None) == (line == "helix keys")  # a group alone shows its help


def test_a_fix_is_printed_as_this_user_has_to_type_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """README's way: `.helix/venv/bin/helix`, which is on nobody's PATH."""
    binary = tmp_path / ".helix/venv/bin/helix"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(binary)])
    monkeypatch.setenv("PATH", "/usr/bin")
    said = "helix keys init, or git fetch; helix-lineage audit; make setup; rm -r /x/helix /y"
    mine = ".helix/venv/bin/helix"
    wanted = f"{mine} keys init, or git fetch; {mine} lineage audit; make setup; rm -r /x/helix /y"
    assert main.as_typed(said) == wanted
    monkeypatch.setenv("PATH", str(binary.parent))
    assert main.as_typed(said) == said.replace("helix-lineage", "helix lineage")
    assert main.as_typed(None) is None


def test_readme_and_doctor_name_one_figure_for_disk() -> None:
    said = re.findall(r"(\d+) GB of disk", (ROOT / "README.md").read_text())
    assert said == [str(doctor.DISK_GB)]


def test_readme_names_the_interpreter_of_its_examples() -> None:
    before = (ROOT / "README.md").read_text().partition("```python")[0]
    assert "`.helix/venv/bin/python`" in before.splitlines()[-2]


def test_versions_are_those_of_the_packages() -> None:
    for path, told in (("pyproject.toml", version.VERSION), ("lineage/pyproject.toml", lineage_version.VERSION)):
        assert tomllib.loads((ROOT / path).read_text())["project"]["version"] == told


BLIND = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
"""The shell is named, not looked for among this process's parents, where there may be none."""


@pytest.mark.parametrize(
    ("program", "module"), [("helix", "model_to_metal.cli.main"), ("helix-lineage", "helix_lineage")]
)
def test_version_and_completion(program: str, module: str) -> None:
    def run(*words: str, **more: str) -> str:
        environment = {**os.environ, **more}
        code = f"import sys, runpy; sys.argv[0] = {program!r}; runpy.run_module({module!r}, run_name='__main__')"
        done = subprocess.run(
            [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout

    assert run("--version") == f"{program} {version.VERSION}\n"
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
    asked = {variable: "complete_bash", "COMP_WORDS": f"{program} ver", "COMP_CWORD": "1"}
    assert "verify" in run(**asked)
    assert f"complete -o default -F _{program.replace('-', '_')}_completion" in run(
        "--show-completion", "bash", **BLIND
    )
