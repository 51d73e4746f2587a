"""The hosted checks: they call the make targets, run pinned actions only, and may do nothing but read."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from helix_lineage.paths import State
from model_to_metal import tools

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
PINNED = re.compile(r"(\./\S+|[\w.-]+/[\w./-]+@[0-9a-f]{40})")


@pytest.fixture(scope="module")
def actionlint() -> Path:
    state = State(Path(os.environ.get("HELIX_STATE", ROOT / ".helix")))
    return tools.ensure("actionlint", state)


def lint(actionlint: Path, text: str) -> str:
    # Without the linters that it would start where they happen to be installed.
    command = [actionlint, "-shellcheck=", "-pyflakes=", "-no-color", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False).stdout


def unpinned(workflow: dict[str, Any]) -> list[str]:
    """Actions, of steps and of whole jobs, that are not named by commit."""
    jobs = workflow["jobs"].values()
    used = [job["uses"] for job in jobs if "uses" in job]
    used += [step["uses"] for job in jobs for step in job.get("steps", ()) if "uses" in step]
    return [name for name in used if not PINNED.fullmatch(name)]


def too_free(workflow: dict[str, Any]) -> list[str]:
    """Jobs that may write, whose rights are left to a default, or that may run for ever."""
    found = [] if workflow.get("permissions") == {} else ["workflow"]
    for name, job in workflow["jobs"].items():
        rights = job.get("permissions", {"all": "write"})
        if not isinstance(rights, dict) or set(rights.values()) - {"read"} or "timeout-minutes" not in job:
            found.append(name)
    return found


def load(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text())
    assert isinstance(found, dict)
    return found


def test_there_is_a_workflow() -> None:
    assert [path.name for path in WORKFLOWS] == ["check.yml", "promote.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actionlint_has_nothing_to_say(actionlint: Path, path: Path) -> None:
    assert lint(actionlint, path.read_text()) == ""


def test_actionlint_bites(actionlint: Path) -> None:
    planted = WORKFLOWS[0].read_text().replace("matrix.target", "matrix.goal")
    assert 'property "goal" is not defined' in lint(actionlint, planted)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_named_by_commit(path: Path) -> None:
    assert unpinned(load(path)) == []


@pytest.mark.parametrize(
    "name", ["actions/checkout@v7", "actions/checkout@main", "actions/checkout@3d3c42e5", "x@" + "a" * 40]
)
def test_an_action_by_tag_or_branch_is_found(name: str) -> None:
    assert unpinned({"jobs": {"one": {"steps": [{"uses": name}]}}}) == [name]
    assert unpinned({"jobs": {"one": {"uses": name}}}) == [name]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_jobs_may_only_read_and_end_in_time(path: Path) -> None:
    assert too_free(load(path)) == []


@pytest.mark.parametrize(
    "job",
    [
        {"permissions": {"contents": "write"}, "timeout-minutes": 1},
        {"permissions": "read-all", "timeout-minutes": 1},
        {"timeout-minutes": 1},
        {"permissions": {"contents": "read"}},
    ],
)
def test_a_job_that_may_too_much_is_found(job: dict[str, Any]) -> None:
    assert too_free({"permissions": {}, "jobs": {"planted": job}}) == ["planted"]
    assert too_free({"jobs": {}}) == ["workflow"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_newer_pushes_replace_older_runs(path: Path) -> None:
    assert set(load(path)["concurrency"]) == {"group", "cancel-in-progress"}


def test_the_jobs_run_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    jobs = load(ROOT / ".github" / "workflows" / "check.yml")["jobs"].values()
    used = {target for job in jobs for target in job.get("strategy", {}).get("matrix", {}).get("target", ())}
    text = (ROOT / ".github" / "workflows" / "check.yml").read_text()
    used |= set(re.findall(r"fresh\.sh \S+ make ([a-z-]+)", text))
    assert used == {"check", "demo", "test"}
    assert used <= targets


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_step_writes_what_it_is_given_into_a_shell_line(path: Path) -> None:
    jobs = load(path)["jobs"].values()
    assert not [step["run"] for job in jobs for step in job["steps"] if "${{" in step.get("run", "")]


def test_the_promotion_is_made_again_by_the_code_of_main_and_only_for_branches_of_ours() -> None:
    workflow = load(ROOT / ".github" / "workflows" / "promote.yml")
    assert "pull_request_target" not in workflow[True]
    refs = [step["with"]["ref"] for job in workflow["jobs"].values() for step in job["steps"] if "with" in step
            and "ref" in step["with"]]  # fmt: skip
    assert refs == ["main", "${{ github.event.pull_request.base.sha }}"]
    compare = workflow["jobs"]["compare"]
    assert "head.repo.full_name == github.repository" in compare["if"]
    scripts = [step.get("run", "") for step in compare["steps"]]
    assert "secrets." not in json.dumps(compare)
    for verb in ("promote", "rollback"):
        assert any(f"helix {verb} " in script and "--check" in script for script in scripts)


@pytest.mark.parametrize(
    ("branch", "passes"),
    [
        ("promote/staging/m/0123", True),
        ("rollback/x/m/0123", True),
        ("main", False),
        ("promote/x", False),
        ("feature/a/b/c", False),
    ],
)
def test_other_branches_may_not_change_environments(branch: str, passes: bool) -> None:
    steps = load(ROOT / ".github" / "workflows" / "promote.yml")["jobs"]["compare"]["steps"]
    guard = next(step["run"] for step in steps if "case" in step.get("run", "")).partition("gh auth")[0]
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", guard], env={"BRANCH": branch}, check=False)
    assert (done.returncode == 0) is passes
