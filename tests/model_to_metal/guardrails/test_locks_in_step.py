from __future__ import annotations

from pathlib import Path

import pytest

from model_to_metal.guardrails import locks_in_step
from tests.model_to_metal.project import write_toy

PIN = f"numpy==2.4.6 --hash=sha256:{'1' * 64}  # numpy-2.4.6-py3-none-any.whl\n"


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy")


def test_locks_in_step_have_no_findings(toy: Path) -> None:
    assert locks_in_step.check(toy) == []


def wanted(model: Path, requirement: str) -> None:
    path = model / "pyproject.toml"
    path.write_text(path.read_text().replace("numpy>=2", requirement))


@pytest.mark.parametrize(
    ("requirement", "said"),
    [
        ("numpy>=3", "numpy is locked at 2.4.6, wanted is >=3"),
        ("numpy==2.4.5", "numpy is locked at 2.4.6, wanted is ==2.4.5"),
        ("gemmi", "gemmi is wanted and not locked"),
        ("not a requirement", "is not a requirement"),
    ],
)
def test_bites_when_a_lock_does_not_satisfy_its_group(toy: Path, requirement: str, said: str) -> None:
    wanted(toy, requirement)
    (finding,) = locks_in_step.check(toy)
    assert (finding.rule, finding.file, finding.fix) == ("locks-in-step", "environment/serve.lock", "helix lock toy")
    assert said in finding.message


@pytest.mark.parametrize("requirement", ["NumPy", "numpy[extra]>=2,<3", "numpy==2.4.*", "numpy~=2.4"])
def test_names_and_versions_are_compared_as_pip_does(toy: Path, requirement: str) -> None:
    wanted(toy, requirement)
    assert locks_in_step.check(toy) == []


@pytest.mark.parametrize("lock", [None, "numpy==2.4.6\n", PIN + PIN, PIN.replace("sha256:1", "sha256:x")])
def test_bites_when_a_lock_is_absent_or_pins_no_file(toy: Path, lock: str | None) -> None:
    path = toy / "environment/build.lock"
    path.unlink() if lock is None else path.write_text(lock)
    (finding,) = locks_in_step.check(toy)
    assert finding.file == "environment/build.lock"


def test_bites_without_dependency_groups(toy: Path) -> None:
    (toy / "pyproject.toml").write_text("[project]\n")
    (finding,) = locks_in_step.check(toy)
    assert finding.file == "pyproject.toml"
