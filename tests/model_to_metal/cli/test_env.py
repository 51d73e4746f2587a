"""`helix env`: what is not there is said in a sentence, before any tool is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_to_metal.cli import env
from model_to_metal.errors import CheckoutError
from model_to_metal.hermetic import nix
from tests.model_to_metal.project import make_project


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A built environment with Python and grep, and a checkout that has it."""
    checkout, state = make_project(tmp_path / "checkout"), tmp_path / "state"
    monkeypatch.chdir(checkout.root)
    monkeypatch.setenv("HELIX_STATE", str(state))
    (checkout.root / "models/toy/environment").mkdir(exist_ok=True)
    for name in ("build", "serve"):
        (checkout.root / f"models/toy/environment/{name}.lock").touch()
    made, base = (state / "nix/nix/store" / name for name in ("aaa-toy-serve-env", "bbb-base"))
    for path in (made / "bin/python", base / "usr/bin/grep", base / "usr/bin/python3.11"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (made / "base").symlink_to("/nix/store/bbb-base")
    monkeypatch.setattr(nix, "build", lambda *_args, **_options: made)
    monkeypatch.setattr(nix, "run_in_env", lambda *_args, **_options: 7)
    return made


def test_an_environment_that_is_not_there(environment: Path) -> None:
    with pytest.raises(CheckoutError, match="toy has no environment 'nosuch'; there are: build, serve"):
        env.run("toy", "nosuch", ["python"])


@pytest.mark.parametrize("command", ["nosuchcmd", "./nosuch", "/usr/bin/nosuch", "/nix/store/bbb-base/nosuch"])
def test_a_command_that_is_not_there(environment: Path, command: str) -> None:
    with pytest.raises(CheckoutError, match=f"the environment serve of toy has no command '{command}'"):
        env.run("toy", "serve", [command])


@pytest.mark.parametrize(
    "command",
    ["python", "grep", "/usr/bin/grep", "./flake.nix", "/checkout/flake.nix", "/nix/store/bbb-base/usr/bin/grep"],
)
def test_a_command_that_is_there_is_run(environment: Path, command: str) -> None:
    assert env.run("toy", "serve", [command]) == 7


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["error: flake 'path:/x' does not provide attribute 'y'"], "flake 'path:/x' does not provide attribute 'y'"),
        (
            ["base> unpacking\n", "base> a.deb is not in the store; run: helix fetch\n",
             "error: builder for '/nix/store/0a-base.drv' failed with exit code 1;\n", "       last 1 log lines:\n",
             "       > a.deb is not in the store; run: helix fetch\n",
             "error: 1 dependencies of derivation 'x' failed to build"],
            "a.deb is not in the store; run: helix fetch",
        ),
        (["\x1b[31;1merror:\x1b[0m unable to download 'http://x'"], "unable to download 'http://x'"),
        (["error: " + "long " * 1000], "long long"),
        ([], "it gives no reason"),
    ],
)  # fmt: skip
def test_what_nix_writes_becomes_one_sentence(lines: list[str], said: str) -> None:
    found = nix.summary(["nix", "build", "--json"], lines)
    assert found.startswith("nix build failed")
    assert said in found
    assert len(found) < 400
    assert "/nix/store" not in found
