from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from helix_lineage.paths import State
from model_to_metal.local import doctor
from tests.model_to_metal.project import make_project

NEEDS = {
    "python", "git", "nix", "bwrap", "runc", "umoci", "skopeo", "sandbox", "cosign", "olareg", "downloads",
    "signing key", "processor", "disk", "memory",
}  # fmt: skip


def test_a_bare_state_names_what_is_missing_and_what_mends_it(tmp_path: Path) -> None:
    checkout = make_project(tmp_path / "checkout")
    found = {finding.name: finding for finding in doctor.examine(checkout, State(tmp_path / "state"))}
    assert set(found) == NEEDS
    assert not (tmp_path / "state").exists(), "a doctor changes nothing"
    for name, fix in {
        "cosign": "helix tools build cosign",
        "olareg": "helix tools build olareg",
        "downloads": "helix fetch",
        "signing key": "helix keys init",
    }.items():
        assert not found[name].met
        assert found[name].fix == fix
    assert all(finding.met or finding.fix for finding in found.values())


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda _name, path=None: path and None)
    finding = doctor._program("umoci")
    assert (finding.met, finding.detail, finding.fix) == (False, "not installed", "make setup")


def test_too_little_memory_is_said() -> None:
    assert doctor._memory("MemTotal:  8000000 kB\nMemFree: 1 kB\n").met
    assert not doctor._memory("MemTotal:  2000000 kB\n").met


@pytest.mark.parametrize(("free", "used", "met"), [(25, 0, True), (19, 0, False), (9, 12, True), (5, 12, False)])
def test_one_figure_for_disk_whatever_lies_there_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, used: int, met: bool
) -> None:
    """Asking for a few gigabytes more once there is a store let a first build run full."""
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _place: SimpleNamespace(free=free * 10**9))
    monkeypatch.setattr(doctor, "_taken", lambda _root: used * 10**9)
    found = doctor._disk(tmp_path)
    assert (found.met, f"{doctor.DISK_GB} GB wanted" in found.detail) == (met, True)
    assert found.fix == (None if met else f"free {doctor.DISK_GB - free - used} GB at {tmp_path}")


def test_what_the_state_takes_is_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 10**6)
    assert 10**6 <= doctor._taken(tmp_path) < 2 * 10**6
    assert doctor._taken(tmp_path / "absent") == 0
