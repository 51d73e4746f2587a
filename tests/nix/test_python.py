"""platform/nix/python and base: environments from wheels, byte code, and the libraries that they need."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy
import pytest

Script = Callable[[str], ModuleType]

UNCHECKED_HASH = (0b01).to_bytes(4, "little")  # PEP 552


def wheel(folder: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Write a wheel as the store would name it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{'0' * 32}-{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in files.items():
            archive.writestr(file, data)
    return path


def install(script: Script, tmp_path: Path, *wheels: Path) -> Path:
    out = tmp_path / "out"
    out.mkdir(parents=True)
    script("python/install.py").main(out, "/nix/store/base", *map(str, wheels))
    return out


def test_wheels_are_unpacked_side_by_side_and_remembered(script: Script, tmp_path: Path) -> None:
    one = wheel(
        tmp_path,
        "one",
        {"one/__init__.py": b"x = 1\n", "one-1.data/purelib/late.py": b"", "one-1.data/scripts/run": b"#!python"},
    )
    two = wheel(tmp_path, "two", {"two.py": b"", "one/__init__.py": b"x = 1\n"})
    out = install(script, tmp_path, one, two)
    assert json.loads((out / "wheels.json").read_text()) == {
        "one": ["late.py", "one/__init__.py"],
        "two": ["one/__init__.py", "two.py"],
    }
    assert (out / "scripts/run").is_file()
    assert (out / "bin/python").readlink() == Path("/usr/bin/python3.11")


@pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "a/../../evil.py"])
def test_a_wheel_that_writes_outside_itself_is_refused(script: Script, tmp_path: Path, name: str) -> None:
    with pytest.raises(SystemExit, match="outside itself"):
        install(script, tmp_path, wheel(tmp_path, "evil", {name: b""}))
    assert not list(tmp_path.rglob("evil.py"))


def test_two_wheels_that_disagree_about_a_file_are_refused(script: Script, tmp_path: Path) -> None:
    one, two = wheel(tmp_path, "one", {"a.py": b"1"}), wheel(tmp_path, "two", {"a.py": b"2"})
    with pytest.raises(SystemExit, match=r"another wheel brought a different a\.py"):
        install(script, tmp_path, one, two)


def test_another_environment_is_linked_folder_by_folder(script: Script, tmp_path: Path) -> None:
    big = wheel(tmp_path, "big", {"big/lib.py": b"x = 1\n", "alone.py": b"y = 2\n"})
    shared = install(script, tmp_path / "shared", big)
    small = wheel(tmp_path, "small", {"small.py": b"z = 3\n"})
    (tmp_path / "env").mkdir()
    script("python/install.py").main(tmp_path / "env/out", "/base", str(small), "--link", str(shared))
    site = tmp_path / "env/out/site-packages"
    assert (site / "big").readlink() == shared / "site-packages/big"
    assert not (site / "small.py").is_symlink()
    code = "import alone, big.lib, small; print(big.lib.x, alone.y, small.z)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 2 3\n"
    assert set(json.loads((tmp_path / "env/out/wheels.json").read_text())) == {"big", "small"}


def test_folders_of_two_environments_are_not_merged(script: Script, tmp_path: Path) -> None:
    shared = install(script, tmp_path / "shared", wheel(tmp_path, "one", {"space/a.py": b""}))
    other = wheel(tmp_path, "two", {"space/b.py": b""})
    with pytest.raises(SystemExit, match="not merged"):
        script("python/install.py").main(tmp_path / "out", "/base", str(other), "--link", str(shared))


def test_byte_code_names_its_source_by_hash_and_not_by_time(script: Script, tmp_path: Path) -> None:
    out = install(script, tmp_path, wheel(tmp_path, "one", {"one.py": b"x = 1\n"}))
    (made,) = (out / "site-packages/__pycache__").iterdir()
    assert made.read_bytes()[4:8] == UNCHECKED_HASH
    assert str(tmp_path).encode() not in made.read_bytes()
    assert b"/opt/helix/site-packages/one.py" in made.read_bytes()


def test_sources_are_compiled_where_the_image_holds_them(script: Script, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.py").write_text("x = 1\n")
    source.chmod(0o555)
    script("python/compile.py").main(tmp_path / "out", "/opt/helix/platform", json.dumps({"pkg": str(source)}))
    (made,) = (tmp_path / "out/pkg/__pycache__").iterdir()
    assert made.read_bytes()[4:8] == UNCHECKED_HASH
    assert b"/opt/helix/platform/pkg/a.py" in made.read_bytes()


def test_a_source_that_does_not_compile_ends_the_build(script: Script, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.py").write_text("x = = 1\n")
    with pytest.raises(SystemExit, match="does not compile"):
        script("python/compile.py").main(tmp_path / "out", "/opt", json.dumps({"pkg": str(tmp_path / "source")}))


def test_needed_libraries_are_read_from_elf_files(script: Script, tmp_path: Path) -> None:
    libraries = script("base/libraries.py")
    core = next(Path(numpy.__file__).parent.rglob("_multiarray_umath*.so"))
    assert "libc.so.6" in libraries.needed(core.read_bytes())
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / core.name).write_bytes(core.read_bytes())
    assert any(line.endswith("needs libc.so.6") for line in libraries.unresolved((tmp_path,)))
    for name in libraries.needed(core.read_bytes()):
        (tmp_path / "lib" / name).touch()
    assert libraries.unresolved((tmp_path,)) == []


def test_a_missing_library_fails_the_check_and_names_the_fix(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core = next(Path(numpy.__file__).parent.rglob("_multiarray_umath*.so"))
    (tmp_path / core.name).write_bytes(core.read_bytes())
    assert script("base/libraries.py").main(tmp_path) == 1
    assert "helix lock --debs" in capsys.readouterr().err


def test_what_must_not_be_in_an_environment_fails_its_check(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    imports = script("checks/imports.py")
    monkeypatch.setattr(sys, "path", list(sys.path))
    imports.WANTED = ("json", "no_such_module_here")
    (tmp_path / "torch").mkdir()
    assert imports.main(str(tmp_path), "no_such_service", "torch") == 1
    said = capsys.readouterr().err
    assert "torch must not be in the image" in said
    assert "no_such_module_here cannot be imported" in said
    assert "no_such_service cannot be imported" in said


def test_a_check_that_fails_leaves_no_result(script: Script, tmp_path: Path) -> None:
    passed = script("checks/passed.py")
    (tmp_path / "check.py").write_text("raise SystemExit(1)\n")
    with pytest.raises(SystemExit):
        passed.main(tmp_path / "out", str(tmp_path / "check.py"))
    assert not (tmp_path / "out").exists()
    (tmp_path / "check.py").write_text("raise SystemExit(0)\n")
    passed.main(tmp_path / "out", str(tmp_path / "check.py"))
    assert (tmp_path / "out").read_text() == "passed\n"
