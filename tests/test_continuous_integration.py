"""The hosted checks: they call the make targets, run pinned actions only, and may do nothing but read."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from helix_lineage.paths import State
from model_to_metal.host import tools
from tests.model_to_metal.conftest import write_layout
from tests.model_to_metal.project import git

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
    assert [path.name for path in WORKFLOWS] == ["check.yml", "image.yml", "promote.yml"]


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
    # By `pull_request` a proposal would bring the workflow that judges it, onto the runner that reaches the key.
    assert set(workflow[True]) == {"workflow_dispatch", "pull_request_target"}
    refs = [step["with"]["ref"] for job in workflow["jobs"].values() for step in job["steps"] if "with" in step
            and "ref" in step["with"]]  # fmt: skip
    assert refs == ["main", "${{ github.event.pull_request.base.sha }}", "${{ github.event.pull_request.base.sha }}"]
    remake = workflow["jobs"]["remake"]
    assert "head.repo.full_name == github.repository" in remake["if"]
    scripts = [step.get("run", "") for step in remake["steps"]]
    assert "secrets." not in json.dumps(remake)
    for verb in ("promote", "rollback"):
        assert any(f"helix {verb} " in script and "--check" in script for script in scripts)


def test_the_required_check_decides_on_every_pull_request() -> None:
    workflow = load(ROOT / ".github" / "workflows" / "promote.yml")
    # A required check of a workflow that a path filter keeps from starting is waited for, for ever.
    starts = {"branches": ["main"], "types": ["opened", "synchronize", "reopened", "edited"]}
    assert workflow[True]["pull_request_target"] == starts
    for name, job in workflow["jobs"].items():
        wanted = {"propose": "workflow_dispatch", "remake": None}.get(name, "pull_request_target")
        assert wanted is None or f"github.event_name == '{wanted}'" in job["if"]
    compare = workflow["jobs"]["compare"]
    assert compare["if"].startswith("always()")
    assert set(compare["needs"]) == {"touched", "remake"}


@pytest.mark.parametrize(
    ("touched", "promotion", "remake", "passes"),
    [
        ("success", "no", "skipped", True),
        ("success", "yes", "success", True),
        ("success", "yes", "skipped", False),  # a fork's
        ("success", "yes", "failure", False),
        ("success", "yes", "cancelled", False),
        ("success", "", "skipped", False),
        ("failure", "", "skipped", False),
        ("cancelled", "no", "skipped", False),
        ("skipped", "", "skipped", False),
    ],
)
def test_the_required_check_passes_only_on_what_was_seen(
    touched: str, promotion: str, remake: str, passes: bool
) -> None:
    (step,) = load(ROOT / ".github" / "workflows" / "promote.yml")["jobs"]["compare"]["steps"]
    env = {"TOUCHED": touched, "PROMOTION": promotion, "REMAKE": remake}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", step["run"]], env=env, check=False, capture_output=True)
    assert (done.returncode == 0) is passes


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("README.md", "no"),
        ("gitops/argocd/base/network.yaml", "no"),
        ("gitops/argocd/environments/staging/_common/kustomization.yaml", "no"),
        ("gitops/argocd/environments/staging/policy.json", "no"),
        ("gitops/argocd/environments/staging/m/kustomization.yaml", "yes"),
        ("gitops/argocd/environments/staging/m/deep/er.yaml", "yes"),
        ("gitops/argocd/environments/new/.m/x", "yes"),
        ("gitops/argocd/policies/denied.json", "yes"),
    ],
)
def test_a_pull_request_that_changes_a_promotion_is_told_from_others(tmp_path: Path, path: str, said: str) -> None:
    place = "gitops/argocd/environments/staging/m/release.sigstore.json"
    commit_file(tmp_path, place)
    git(tmp_path, "branch", "proposal")
    commit_file(tmp_path, "later-on-main")
    git(tmp_path, "checkout", "--quiet", "proposal")
    commit_file(tmp_path, path)
    assert changes_promotion(tmp_path, "main", "proposal") == said
    # What is moved away is changed, too.
    git(tmp_path, "mv", place, "moved")
    git(tmp_path, "commit", "--quiet", "--message", "moved")
    assert changes_promotion(tmp_path, "main", "proposal") == "yes"


def test_where_it_cannot_be_told_the_script_fails(tmp_path: Path) -> None:
    commit_file(tmp_path, "README.md")
    with pytest.raises(subprocess.CalledProcessError):
        changes_promotion(tmp_path, "main", "nowhere")


def commit_file(root: Path, path: str) -> None:
    """One commit that writes a file; the first one makes the repository."""
    if not (root / ".git").exists():
        git(root, "init", "--quiet", "--initial-branch", "main")
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("changed")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", f"change {path}")


def changes_promotion(root: Path, base: str, head: str) -> str:
    """What the workflow's script prints."""
    script = ["bash", str(ROOT / "platform/setup/changes_promotion.sh"), base, head]
    return subprocess.run(script, cwd=root, check=True, capture_output=True, text=True).stdout.strip()


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
    steps = load(ROOT / ".github" / "workflows" / "promote.yml")["jobs"]["remake"]["steps"]
    guard = next(step["run"] for step in steps if "case" in step.get("run", "")).partition("gh auth")[0]
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", guard], env={"BRANCH": branch}, check=False)
    assert (done.returncode == 0) is passes


# ---- the image, made on two machines -------------------------------------------------------------


def machines(folder: Path, *contents: str) -> list[Path]:
    """What `make images` writes, on machines that each put a text into the image of one model."""
    found = []
    for number, content in enumerate(contents):
        made = folder / f"made-{number}" / "m"
        digest = write_layout(made / "layout", {"opt/text": content.encode()})
        (made / "digest").write_text(f"{digest}\n")
        found.append(made.parent)
    return found


def same_images(folder: Path, made: list[Path]) -> subprocess.CompletedProcess[str]:
    script = ROOT / "platform/setup/same_images.sh"
    return subprocess.run(["bash", script, *made, "report"], cwd=folder, capture_output=True, text=True, check=False)


def test_the_same_digest_on_both_machines_passes(tmp_path: Path) -> None:
    done = same_images(tmp_path, machines(tmp_path, "text", "text"))
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"the same on both machines: m sha256:[0-9a-f]{64}\n", done.stdout)


@pytest.mark.skipif(shutil.which("diffoscope") is None, reason="needs diffoscope; run: make setup-tests test-fast")
def test_another_digest_fails_and_the_file_is_named(tmp_path: Path) -> None:
    done = same_images(tmp_path, machines(tmp_path, "text", "other"))
    assert done.returncode == 1
    assert "opt/text" in done.stderr
    assert "-text" in done.stderr
    assert "+other" in done.stderr
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.txt", "report.html", "report.json"}


def test_no_image_at_all_does_not_pass(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    assert same_images(tmp_path, [tmp_path / "one", tmp_path / "other"]).returncode == 1
    (made,) = machines(tmp_path, "text")
    assert same_images(tmp_path, [made, tmp_path / "one"]).returncode == 1


def test_two_jobs_make_the_image_and_a_third_compares() -> None:
    jobs = load(ROOT / ".github" / "workflows" / "image.yml")["jobs"]
    assert len(jobs["build"]["strategy"]["matrix"]["machine"]) == 2
    assert jobs["compare"]["needs"] == "build"
    assert "continue-on-error" not in json.dumps(jobs)
    scripts = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert any("fresh.sh /mnt/fresh make images" in script for script in scripts)
    assert "bash platform/setup/same_images.sh made-one made-two report" in scripts
    assert "\nimages:" in (ROOT / "Makefile").read_text()
