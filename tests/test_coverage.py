"""`make coverage`: what it measures, and that it bites."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRUST = {
    "canonical", "records", "dsse", "trust", "release", "merkle", "checkpoint", "promotion", "releases", "typed",
    "trace", "revocation", "shard/header", "shard/entries",
    "directory/entries", "directory/receipt", "directory/rules", "directory/witness",
}  # fmt: skip
"""The modules that decide what is believed."""


def test_every_branch_of_the_trust_code_counts() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]
    package = "lineage/src/helix_lineage/"
    assert {name.removeprefix(package).removesuffix(".py") for name in settings["run"]["include"]} == TRUST
    assert all((ROOT / name).is_file() for name in settings["run"]["include"])
    assert (settings["run"]["branch"], settings["report"]["fail_under"]) == (True, 100)
    recipe = re.search(r"^coverage:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    assert "coverage run" in recipe[1]
    assert "coverage report" in recipe[1]


def test_no_line_is_excused_from_it() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]
    for name in settings["run"]["include"]:
        assert "no cover" not in (ROOT / name).read_text()


def test_a_test_left_out_is_a_failure(tmp_path: Path) -> None:
    """The planted fault: the same measure without the tests of all modules but one."""
    pytest.importorskip("coverage", reason="not in requirements/host.lock yet: make lock")
    environment = {**os.environ, "COVERAGE_FILE": str(tmp_path / "data")}

    def coverage(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "coverage", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    tests = ["tests/helix_lineage/test_checkpoint.py"]
    assert coverage("run", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests).returncode == 0
    report = coverage("report")
    assert report.returncode == 2
    assert "less than fail-under=100" in report.stdout
