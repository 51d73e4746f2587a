"""Set-up: safe to run twice, and honest about what it installs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SETUP = ROOT / "platform" / "setup"
SCRIPTS = sorted(SETUP.glob("*.sh"))


def sourced(line: str, **settings: str) -> str:
    """Run a line after the functions of bootstrap.sh, without its main part."""
    functions = (SETUP / "bootstrap.sh").read_text().split("\nkey=$(key)\n")[0]
    environment = {"PATH": os.environ["PATH"], **settings}
    script = functions.replace("${BASH_SOURCE[0]}", str(SETUP / "bootstrap.sh")) + "\n" + line
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_and_stop_at_the_first_failure(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_that_shows_itself_called_by_name_can_be(script: Path) -> None:
    called = re.search(rf"^# +(sudo )?{re.escape(str(script.relative_to(ROOT)))}", script.read_text(), re.MULTILINE)
    assert called is None or os.access(script, os.X_OK)


def test_a_second_set_up_does_nothing() -> None:
    if not (ROOT / ".helix" / "setup.stamp").exists():
        pytest.skip("this checkout was not set up; run: make setup")
    before = (ROOT / ".helix" / "setup.stamp").stat().st_mtime_ns
    done = subprocess.run(["bash", SETUP / "bootstrap.sh"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert (ROOT / ".helix" / "setup.stamp").stat().st_mtime_ns == before


def test_a_changed_lock_is_another_set_up(tmp_path: Path) -> None:
    for name in ("platform/setup/bootstrap.sh", "requirements/host.lock", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    first = sourced(f"root={tmp_path}; key || true")
    with (tmp_path / "requirements" / "host.lock").open("a") as lock:
        lock.write("# changed\n")
    second = sourced(f"root={tmp_path}; key || true")
    assert re.fullmatch(r"[0-9a-f]{64}  -\n", first)
    assert second != first


def test_uv_gets_the_settings_that_pip_would_use(tmp_path: Path) -> None:
    line = "use_pip_settings true; echo ${UV_DEFAULT_INDEX:-} ${UV_INDEX:-} ${UV_FIND_LINKS:-}"
    given = {
        "PIP_INDEX_URL": "https://index.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://more.example/simple",
        "PIP_FIND_LINKS": f"{tmp_path} {tmp_path}/absent https://wheels.example",
    }
    found = sourced(line, **given).split()
    assert found == [
        "https://index.example/simple",
        "https://more.example/simple",
        f"{tmp_path},https://wheels.example",
    ]
    assert sourced(line, UV_DEFAULT_INDEX="https://own.example", **given).split()[0] == "https://own.example"
    assert sourced(line).split() == []


def test_packages_are_asked_for_only_when_their_command_is_absent(tmp_path: Path) -> None:
    have = sourced("missing_packages").split()
    assert "git" not in have
    assert "bubblewrap" in sourced('commands="no-such-command:bubblewrap"; missing_packages').split()


def test_every_locked_distribution_is_installed_from_a_wheel_or_as_a_locked_source() -> None:
    sources = sourced("source_pins").splitlines()
    pins = [line for line in (ROOT / "requirements" / "host.lock").read_text().splitlines() if "==" in line]
    wheels = [line for line in pins if line.endswith(".whl")]
    assert len(wheels) + len(sources) == len(pins)
    assert len(sourced("pin_of uv").splitlines()) == 1
    if sources:
        # They are built without isolation, so what builds them must be locked as well.
        assert any(line.startswith("setuptools==") for line in pins)


def test_an_environment_is_not_made_again_with_its_own_python() -> None:
    own = ROOT / ".helix" / "venv" / "bin"
    found = sourced("find_python", PATH=f"{own}:{own}:{os.environ['PATH']}").strip()
    assert found
    assert not Path(found).is_relative_to(own)
