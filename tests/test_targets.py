"""No test and no check is left out: every test belongs to one make target, every claim to a test that runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression

from tests import collected, skips

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("test-lineage", "test-fast", "test-torch", "test-slow", "test-long", "test-cluster")
IN_TEST = TARGETS[:-2]
"""Those that `make test` makes."""
CLAIMED = (*IN_TEST, "test-cluster")
"""Those whose tests may stand behind a claim."""
TORCH = "test-torch"
"""The one target that runs in another environment."""
CLAIMS = ROOT / "docs" / "claims.md"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of pytest, as a make target starts it."""

    target: str
    expression: str
    folder: str
    ignored: tuple[str, ...]

    def takes(self, test: str, marks: list[str]) -> bool:
        """Does it run a test of that id and those marks?"""
        path = test.partition("::")[0]
        inside = Path(path).is_relative_to(self.folder) and not any(Path(path).is_relative_to(i) for i in self.ignored)
        return inside and Expression.compile(self.expression).evaluate(lambda name, **_: name in marks)


def runs(target: str, makefile: Path = ROOT / "Makefile") -> list[Run]:
    """The runs of pytest that `make` says the target starts."""
    command = ["make", "--dry-run", "--no-print-directory", f"--file={makefile}", target]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = []
    for line in said.splitlines():
        words = shlex.split(line, comments=True)
        if "pytest" not in words:
            continue
        words = words[words.index("pytest") + 1 :]
        folders = [word for word in words if word == "tests" or word.startswith("tests/")]
        ignored = tuple(word.partition("=")[2] for word in words if word.startswith("--ignore="))
        assert len(folders) == 1, line
        assert "--strict-skips" in words, line
        found.append(Run(target, words[words.index("-m") + 1], folders[0], ignored))
    assert found, f"make {target} starts no pytest"
    return found


@cache
def every_test() -> dict[str, list[str]]:
    """Test id → marks, of everything that pytest collects here without a filter."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.collected", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run([*command, "--collect-only", "tests"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return collected.read(done.stdout)


def wrong(tests: dict[str, list[str]], made: list[Run]) -> dict[str, list[str]]:
    """Tests that not exactly one run takes, with the targets of those that do."""
    taken = {test: [run.target for run in made if run.takes(test, marks)] for test, marks in tests.items()}
    return {test: targets for test, targets in taken.items() if len(targets) != 1}


def test_every_test_is_run_by_exactly_one_target() -> None:
    assert len(every_test()) > 3000
    assert wrong(every_test(), [run for target in TARGETS for run in runs(target)]) == {}


def test_a_test_that_no_target_or_two_run_is_found() -> None:
    """The planted faults: a mark on a test elsewhere, as a nested conftest's hook once set it; overlapping targets."""
    made = [run for target in TARGETS for run in runs(target)]
    lost = {"tests/model_to_metal/test_x.py::test_y": ["torch"]}
    assert wrong(lost, made) == {"tests/model_to_metal/test_x.py::test_y": []}
    both = {"tests/helix_lineage/test_x.py::test_y": []}
    assert wrong(both, [*made, Run("coverage", "not slow", "tests", ())]) == {
        "tests/helix_lineage/test_x.py::test_y": ["test-lineage", "coverage"]
    }


def test_make_test_makes_these_targets_and_continuous_integration_makes_it() -> None:
    command = ["make", "--dry-run", "--no-print-directory", "test"]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    (timed,) = (line for line in said.splitlines() if "timed.sh" in line)
    made = {run for target in shlex.split(timed)[2:] for run in runs(target)}
    wanted = {(run.expression, run.folder, run.ignored) for target in IN_TEST for run in runs(target)}
    assert {(run.expression, run.folder, run.ignored) for run in made} == wanted
    assert re.search(r"^(exec )?make test$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


@pytest.mark.slow
def test_what_the_build_environment_collects_is_run_there_or_here() -> None:
    """A module that skips itself where there is no torch, and is not marked for where there is, would never run."""
    helix = Path(sys.executable).with_name("helix")
    inside = ["python", "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.collected", "--collect-only", "-q"]
    done = subprocess.run(
        [helix, "env", "proteinmpnn", "build", "--", *inside, "tests/models"],
        cwd=ROOT, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    there = collected.read(done.stdout)
    (torch,) = runs(TORCH)
    left_out = {test for test, marks in there.items() if not torch.takes(test, marks)} - set(every_test())
    assert left_out == set()
    assert any(torch.takes(test, marks) for test, marks in there.items())


def test_only_the_torch_tests_are_run_where_torch_is() -> None:
    (torch,) = runs(TORCH)
    assert [test for test, marks in every_test().items() if "torch" in marks and not torch.takes(test, marks)] == []


# ---- claims --------------------------------------------------------------------------------------


def claims(text: str) -> list[tuple[str, list[str]]]:
    """Each row's claim, and the test files and folders that it names, as paths below the repository."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("|") or cells[0] in ("claim", "---|---|---") or set(line) <= set("|- "):
            continue
        named, folder = [], ""
        for name in re.findall(r"`((?:[\w-]+/)*(?:test_\w+\.py|[\w-]+/?))`", " ".join(cells[1:])):
            # A name without its folder lies beside the one that was named last, or below that one's parent.
            if name.startswith("tests/"):
                folder = name if not name.endswith(".py") else str(Path(name).parent)
                named.append(name)
            elif name.endswith(".py"):
                places = [Path(folder, name), Path(folder).parent / name]
                hits = [place for place in places if (ROOT / place).is_file()]
                hits = hits or sorted(path.relative_to(ROOT) for path in ROOT.glob(f"tests/**/{name}"))
                assert len(hits) == 1, f"{name} of the claim {cells[0]!r} is {len(hits)} files"
                named.append(str(hits[0]))
        found.append((cells[0], named))
    return found


def untested(rows: list[tuple[str, list[str]]], tests: dict[str, list[str]], made: list[Run]) -> dict[str, list[str]]:
    """Claims that name no test, or one that no run takes, with the names that are wrong."""
    modules = torch_modules()
    live = {test.partition("::")[0] for test, marks in tests.items() if any(run.takes(test, marks) for run in made)}
    found = {}
    for claim, named in rows:
        lost = [name for name in named if not any(Path(path).is_relative_to(name) for path in live | modules)]
        if lost or not named:
            found[claim] = lost
    return found


def torch_modules() -> set[str]:
    """Modules of tests that only the build environment collects; the test above sees that they run there."""
    paths = sorted((ROOT / "tests" / "models").rglob("test_*.py"))
    return {str(path.relative_to(ROOT)) for path in paths if "\npytestmark = pytest.mark.torch" in path.read_text()}


def test_every_claim_names_tests_that_make_test_or_make_test_cluster_runs() -> None:
    rows = claims(CLAIMS.read_text())
    assert len(rows) > 40
    assert untested(rows, every_test(), [run for target in CLAIMED for run in runs(target)]) == {}


def test_a_claim_without_a_test_that_runs_is_found() -> None:
    made = [run for target in IN_TEST for run in runs(target)]
    tests = {"tests/a/test_x.py::test_y": ["long"], "tests/a/test_z.py::test_y": []}
    text = "| one | `helix run` | none |\n| two | `tests/a/test_x.py` | |\n| three | `tests/a` | `helix` |\n"
    assert untested(claims(text), tests, made) == {"one": [], "two": ["tests/a/test_x.py"]}


# ---- skips ---------------------------------------------------------------------------------------


def test_every_listed_skip_says_why_and_what_runs_it() -> None:
    assert skips.load()
    for row in skips.load():
        assert row.why and row.runs


@pytest.mark.parametrize(
    ("code", "failed"),
    [
        ("import pytest\ndef test_x(): pytest.skip('no chromium here')", True),
        ("import pytest\npytest.skip('no chromium here', allow_module_level=True)", True),
        ("import pytest\n@pytest.mark.skipif(True, reason='no root')\ndef test_x(): pass", True),
        ("import pytest\ndef test_x(): pytest.skip('needs a processor with AVX-512')", False),
        ("def test_x(): pass", False),
    ],
)
@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "worker"])
def test_a_skip_that_is_not_listed_fails(tmp_path: Path, code: str, failed: bool, workers: list[str]) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_planted.py").write_text(code)
    (tmp_path / "tests" / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *workers]
    # The planted folder is not a package, so that `tests` stays ours.
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [*command, "--strict-skips", "tests"], cwd=tmp_path, env=environment, check=False, capture_output=True,
        text=True,
    )  # fmt: skip
    assert ("does not list" in done.stdout) is failed, done.stdout + done.stderr
    assert (done.returncode != 0) is failed
