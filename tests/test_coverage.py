"""The coverage that `make test-lineage` asks for: what it measures, and that it bites."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRUST = {
    "formats/canonical", "formats/typed", "records/chain",
    "attestations/dsse", "attestations/trust", "attestations/release", "attestations/promotion",
    "attestations/revocation", "tlog/merkle", "tlog/checkpoint", "shard/header", "shard/entries",
    "directory/admission", "directory/bundles", "directory/entries", "directory/receipt", "directory/rules",
    "directory/witness", "evidence/releases", "evidence/trace",
}  # fmt: skip
"""The modules that decide what is believed."""


def test_every_branch_of_the_trust_code_counts() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]
    package = "lineage/src/helix_lineage/"
    assert {name.removeprefix(package).removesuffix(".py") for name in settings["run"]["include"]} == TRUST
    assert all((ROOT / name).is_file() for name in settings["run"]["include"])
    assert (settings["run"]["branch"], settings["report"]["fail_under"]) == (True, 100)
    recipe = re.search(r"^test-lineage:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    assert " --cov " in recipe[1]
    assert "--no-cov" not in recipe[1]


def test_no_line_is_excused_from_it() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]
    for name in settings["run"]["include"]:
        assert "no cover" not in (ROOT / name).read_text()


def test_a_test_left_out_is_a_failure(tmp_path: Path) -> None:
    """The planted fault: the same measure without the tests of all modules but one."""
    environment = {**os.environ, "COVERAGE_FILE": str(tmp_path / "data")}

    tests = "tests/helix_lineage/tlog/test_checkpoint.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--cov", "-n", "2", tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert "passed" in done.stdout
    assert "failed" not in done.stdout
    assert done.returncode != 0
    assert "Coverage failure: total of" in done.stdout + done.stderr
