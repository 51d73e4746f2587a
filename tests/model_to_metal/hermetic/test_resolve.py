"""Resolving: which file of a distribution the base runs; the index is asked where there is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from packaging.tags import sys_tags

from model_to_metal.errors import LockError
from model_to_metal.hermetic import locks, resolve
from model_to_metal.hermetic.locks import DebPin, Group

INDEX = """\
Package: zlib1g
Source: zlib
Version: 1:1.2.13.dfsg-1
Filename: pool/main/z/zlib/zlib1g_1.2.13.dfsg-1_amd64.deb
SHA256: {}

Package: zlib1g-dev
Filename: pool/main/z/zlib/zlib1g-dev_1.2.13.dfsg-1_amd64.deb
SHA256: {}
""".format("0" * 64, "1" * 64)


def test_the_most_specific_wheel_is_taken() -> None:
    pure, old = "a-1-py3-none-any.whl", "a-1-cp310-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    new, exact = "a-1-cp311-cp311-manylinux_2_36_x86_64.whl", "a-1-cp311-cp311-manylinux2014_x86_64.whl"
    assert resolve.best_wheel([pure, old]) == old
    assert resolve.best_wheel([pure, old, exact]) == exact
    assert resolve.best_wheel([pure, old, exact, new]) == new


@pytest.mark.parametrize(
    "name",
    [
        "a-1-cp311-cp311-manylinux_2_39_x86_64.whl",
        "a-1-cp311-cp311-musllinux_1_2_x86_64.whl",
        "a-1-cp311-cp311-manylinux_2_17_aarch64.whl",
        "a-1-cp312-cp312-manylinux_2_17_x86_64.whl",
        "a-1-cp311-cp311-win_amd64.whl",
    ],
)
def test_a_wheel_that_the_base_cannot_run_is_not_taken(name: str) -> None:
    assert resolve.best_wheel([name]) is None


@pytest.mark.skipif(
    sys.version_info[:2] != resolve.PYTHON, reason="another Python than the base's; run: make test-fast"
)
def test_accepted_tags_are_those_that_this_python_accepts_too() -> None:
    mine = {tag for tag in sys_tags() if "manylinux" in tag.platform or tag.platform == "any"}
    ours = set(resolve.accepted_tags())
    shared = {tag for tag in mine if "_2_" not in tag.platform or int(tag.platform.split("_")[2]) <= resolve.GLIBC[1]}
    assert shared <= ours


def test_packages_are_found_in_debians_index() -> None:
    digest = "sha256:" + "0" * 64
    assert resolve.resolve_debs(["zlib1g"], INDEX) == (
        DebPin("pool/main/z/zlib/zlib1g_1.2.13.dfsg-1_amd64.deb", digest),
    )


def test_a_package_that_debian_does_not_have_is_named() -> None:
    with pytest.raises(LockError, match="no-such-package"):
        resolve.resolve_debs(["zlib1g", "no-such-package"], INDEX)


def test_a_group_resolves_to_what_pip_accepts(tmp_path: Path) -> None:
    pins = resolve.resolve(Group(("rfc8785==0.1.4",), alone=("iniconfig==2.1.0",), sources=("toml==0.10.2",)))
    assert [pin.filename for pin in pins] == [
        "iniconfig-2.1.0-py3-none-any.whl",
        "rfc8785-0.1.4-py3-none-any.whl",
        "toml-0.10.2.tar.gz",
    ]
    lock = tmp_path / "tiny.lock"
    lock.write_text(locks.render((pin for pin in pins if pin.filename.endswith(".whl")), title="Tiny."))
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "-d", tmp_path, "-r", lock]
    subprocess.run(pip, check=True)
    assert (tmp_path / "rfc8785-0.1.4-py3-none-any.whl").is_file()


def test_locked_versions_are_kept_where_they_fit() -> None:
    wanted = Group(("iniconfig>=2",))
    old = resolve.resolve(Group(("iniconfig==2.0.0",)))
    assert resolve.resolve(wanted, keep=old) == old
    assert resolve.resolve(wanted)[0].version != "2.0.0"


def test_what_cannot_be_resolved_says_why() -> None:
    with pytest.raises(LockError, match=r"cannot be resolved(.|\n)*rfc8785"):
        resolve.resolve(Group(("rfc8785==999",)))
