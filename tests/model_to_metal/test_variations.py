"""Nothing differs: what is written outside of Nix is the same bytes in surroundings that have nothing in common."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from helix_lineage.paths import State
from tests import variations
from tests.model_to_metal.project import ROOT, commit, make_project

pytestmark = pytest.mark.skipif(variations.absent() is not None, reason=variations.absent() or "")

PYTHON_PATH = ("lineage/src", "platform/src")
PAIRS, MANY = 4, 20

PLANTED = """\
import os, platform, sys, time, stat
from pathlib import Path
out = Path(sys.argv[1])
def write(name, value):
    (out / name).write_text(f"the same beginning {value}")
write("same", "and the same end")
write("time", time.time_ns() // 10**9)
write("host", platform.node())
write("order", os.listdir("."))
write("path", os.getcwd())
write("environment", sorted(name for name in os.environ if name.startswith("CAPTURED")))
write("home", Path.home())
write("locale", sys.getfilesystemencoding() + os.environ["LC_ALL"])
write("zone", time.strftime("%H:%M %z", time.localtime(0)))
write("search path", os.get_exec_path())
write("umask", oct(stat.S_IMODE((out / "same").stat().st_mode)))
write("kernel", platform.release())
write("processors", len(os.sched_getaffinity(0)))
write("user", os.getuid())
write("group", os.getgid())
write("hash", hash("text"))
write("layout", Path("/proc/self/personality").read_text())
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the model `toy`."""
    return make_project(tmp_path_factory.mktemp("source") / "checkout").root


@pytest.fixture(scope="module")
def program(checkout_state: State) -> list[str]:
    return [str(ROOT / "tests/model_to_metal/outside.py"), str(ROOT), str(checkout_state.downloads.resolve())]


def test_a_pair_has_nothing_in_common() -> None:
    for seed in range(MANY):
        one, other = variations.pair(seed)
        for name in (field for field in vars(one) if field != "env"):
            same = getattr(one, name) == getattr(other, name)
            assert not same or (name == "cpus" and len(os.sched_getaffinity(0)) == 1), name
        assert not set(one.env.items()) & set(other.env.items())


@pytest.mark.slow
def test_what_is_written_outside_of_nix_is_the_same_bytes(source: Path, program: list[str]) -> None:
    found = variations.check(program, source, range(PAIRS), python_path=PYTHON_PATH)
    assert found == {seed: [] for seed in range(PAIRS)}


@pytest.mark.long
def test_twenty_pairs_give_the_same_bytes(source: Path, program: list[str]) -> None:
    seeds = range(100, 100 + MANY)
    found = variations.check(program, source, seeds, python_path=PYTHON_PATH)
    print(f"{MANY} pairs, entries in the order of {variations.order_by()}")
    assert found == {seed: [] for seed in seeds}


def test_each_planted_fault_is_found_and_its_file_and_offset_are_named(source: Path) -> None:
    found = variations.check(["-c", PLANTED], source, [7])[7]
    offsets = {mismatch.file: mismatch.offset for mismatch in found}
    wanted = {
        "time", "host", "order", "path", "environment", "home", "locale", "zone", "search path", "umask", "kernel",
        "processors", "user", "group", "hash", "layout",
    }  # fmt: skip
    if len(os.sched_getaffinity(0)) == 1:
        wanted -= {"processors"}
    assert set(offsets) == wanted
    assert all(offset is not None and offset >= len("the same beginning ") for offset in offsets.values())
    assert str(found[0]).startswith(f"{found[0].file} at byte ")


SOURCES = "platform/src/model_to_metal"
OURS = [
    # file, what stands there, what a careless hand would add, the output that must be named
    (
        f"{SOURCES}/pipeline/plan.py",
        '"commit": lambda: self._commit',
        ' + str(__import__("time").time_ns() >> 33)',
        "plan/plan.json",
    ),
    (
        f"{SOURCES}/supply_chain/provenance.py",
        '"workflow": "release"',
        ', "on": __import__("os").uname()[1]',
        "attest/statement-0",
    ),
    (
        f"{SOURCES}/gitops/overlay.py",
        "text.encode()",
        " + __import__('os').getcwd().encode()",
        "promotion/",
    ),
    (
        "models/toy/src/toy_model/export.py",
        "from toy_model import shared\n",
        "    (output / 'listed').write_text(str(__import__('os').listdir()))\n",
        "records/exported/listed",
    ),
]


@pytest.mark.slow
def test_a_fault_in_our_own_code_fails_the_same_check(source: Path, program: list[str], tmp_path: Path) -> None:
    root = Path(shutil.copytree(source, tmp_path / "checkout", symlinks=True))
    for file, before, more, _ in OURS:
        path = root / file
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, before + more))
    commit(root, "planted")
    found = variations.check(program, root, [3], python_path=PYTHON_PATH)[3]
    for *_, named in OURS:
        assert any(mismatch.file.startswith(named) and mismatch.offset for mismatch in found), (named, found)


def test_folders_are_compared_to_the_byte(tmp_path: Path) -> None:
    for name, files in (("one", {"a": b"0123456789", "b": b"x"}), ("other", {"a": b"01234x6789", "c": b"x"})):
        (tmp_path / name).mkdir()
        for file, data in files.items():
            (tmp_path / name / file).write_bytes(data)
    found = variations.compare(tmp_path / "one", tmp_path / "other")
    assert [(mismatch.file, mismatch.offset) for mismatch in found] == [("a", 5), ("b", None), ("c", None)]
    (tmp_path / "other" / "a").write_bytes(b"0123456789+")
    assert variations.compare(tmp_path / "one", tmp_path / "other")[0].offset == 10
    assert variations.compare(tmp_path / "one", tmp_path / "one") == []
