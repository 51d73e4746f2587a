"""Locks: their form, and what a model folder asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from model_to_metal.errors import LockError
from model_to_metal.hermetic import locks
from model_to_metal.hermetic.locks import DebPin, Group, Pin

ROOT = Path(__file__).resolve().parents[3]

digests = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:".__add__)
names = st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True)
versions = st.from_regex(r"[0-9]+(\.[0-9]+){0,2}(rc1|\.post1|\+local)?", fullmatch=True)
pins = st.builds(
    lambda name, version, digest: Pin(name, version, digest, f"{name}-{version}.whl"), names, versions, digests
)


@given(st.lists(pins, max_size=8, unique_by=lambda pin: pin.name))
def test_a_rendered_lock_reads_back(listed: list[Pin]) -> None:
    assert locks.parse(locks.render(listed, title="A lock.")) == tuple(sorted(listed))


@given(st.lists(st.builds(DebPin, names.map("pool/main/x/{0}/{0}_1_all.deb".format), digests), unique=True))
def test_a_rendered_deb_lock_reads_back(listed: list[DebPin]) -> None:
    assert locks.parse_debs(locks.render(listed, title="A lock.")) == tuple(sorted(listed))


def test_names_that_begin_alike_are_sorted_by_name() -> None:
    one = Pin("aiohttp", "1", "sha256:" + "0" * 64, "aiohttp-1.whl")
    two = Pin("aiohttp-asgi", "1", "sha256:" + "1" * 64, "aiohttp_asgi-1.whl")
    assert locks.parse(locks.render([two, one], title="A lock.")) == (one, two)


@pytest.mark.parametrize(
    "line",
    [
        "numpy==1",
        "numpy>=1 --hash=sha256:" + "0" * 64 + "  # numpy-1.whl",
        "numpy==1 --hash=md5:" + "0" * 32 + "  # numpy-1.whl",
        "numpy==1 --hash=sha256:" + "0" * 64,
        "numpy @ https://example.org/numpy",
        "pool/updates/z/zlib1g_1_amd64.deb sha256:" + "0" * 64,
    ],
)
def test_what_is_not_one_file_by_hash_is_refused(line: str) -> None:
    with pytest.raises(LockError, match="line 1"):
        locks.parse(line, where="serve.lock")
    with pytest.raises(LockError, match="line 1"):
        locks.parse_debs(line, where="debs.lock")


def test_a_distribution_that_stands_twice_is_refused() -> None:
    line = "numpy==1 --hash=sha256:" + "0" * 64 + "  # numpy-1.whl\n"
    with pytest.raises(LockError, match="twice"):
        locks.parse(line + line)


def test_an_absent_lock_names_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(LockError) as caught:
        locks.read(tmp_path / "serve.lock")
    assert caught.value.fix == "helix lock"


def test_dependency_groups_become_locks(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[dependency-groups]\nserve = ["numpy"]\nbuild = ["torch"]\nbuild-alone = ["old==1"]\n'
        'data = ["old==1"]\ndata-sources = ["pdb==2"]\n'
    )
    assert locks.groups(tmp_path) == {
        "environment/serve.lock": Group(("numpy",)),
        "environment/build.lock": Group(("torch",), alone=("old==1",)),
        "data/upstream.lock": Group((), alone=("old==1",), sources=("pdb==2",)),
    }


@pytest.mark.parametrize("text", ["", "[dependency-groups]\nserve = 'numpy'\n", "[dependency-groups\n"])
def test_unreadable_dependency_groups_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(LockError):
        locks.groups(tmp_path)


@pytest.mark.parametrize("folder", sorted(ROOT.glob("models/*/pyproject.toml")), ids=lambda path: path.parent.name)
def test_every_group_of_every_model_is_locked(folder: Path) -> None:
    for name in locks.groups(folder.parent):
        assert locks.read(folder.parent / name)


def test_the_base_is_locked_with_its_seed() -> None:
    packages = {pin.package for pin in locks.read_debs(ROOT / "platform/nix/debs.lock")}
    assert packages == set(locks.requirements((ROOT / "platform/nix/debs.in").read_text()))


def test_serve_holds_no_torch() -> None:
    for path in ROOT.glob("models/*/environment/serve.lock"):
        assert not {pin.name for pin in locks.read(path)} & {"torch", "triton", "dvc", "hera"}
