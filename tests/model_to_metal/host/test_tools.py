from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from helix_lineage.paths import State
from model_to_metal.errors import ToolError, ToolMissing
from model_to_metal.host import tools
from tests.together import at_once


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tools folder of the test's own, beside the real lock of Go, with one tool that needs no module."""
    folder = tmp_path / "tools"
    (folder / "tiny").mkdir(parents=True)
    shutil.copy(tools.SOURCES / "go.lock", folder)
    (folder / "tiny" / "go.mod").write_text(
        "module helix.example/tools/tiny\n\ngo 1.25.0\n\ntool helix.example/tools/tiny\n"
    )
    (folder / "tiny" / "go.sum").write_text("")
    (folder / "tiny" / "main.go").write_text('package main\n\nfunc main() { print("built") }\n')
    monkeypatch.setattr(tools, "SOURCES", folder)
    return folder


@pytest.fixture
def own(tmp_path: Path) -> State:
    return State(tmp_path / "state")


@pytest.mark.parametrize("name", tools.names())
def test_every_tool_is_declared_with_checksums(name: str) -> None:
    tool = tools.declared(name)
    module = (tool.source / "go.mod").read_text()
    sums = (tool.source / "go.sum").read_text()
    assert tool.go.startswith("1.")
    assert "replace" not in module
    for line in module.splitlines():
        if line.startswith("\t") and " v" in line:
            path, version = line.split()[:2]
            assert f"{path} {version} h1:" in sums or f"{path} {version}/go.mod h1:" in sums


def test_the_tools_are_the_versions_that_were_decided() -> None:
    pins = {name: (tools.SOURCES / name / "go.mod").read_text() for name in tools.names()}
    assert "github.com/sigstore/cosign/v3 v3.1.3" in pins["cosign"]
    assert "github.com/olareg/olareg v0.1.2" in pins["olareg"]
    assert "github.com/rhysd/actionlint v1.7.12" in pins["actionlint"]
    assert "sigs.k8s.io/kustomize/kustomize/v5 v5.8.1" in pins["kustomize"]
    assert "github.com/yannh/kubeconform v0.8.0" in pins["kubeconform"]
    assert "github.com/transparency-dev/tessera v1.0.2" in pins["fsck"]


def test_a_tool_is_built_once(sources: Path, own: State) -> None:
    told: list[str] = []
    path = tools.ensure("tiny", own, told.append)
    assert subprocess.run([path], capture_output=True, check=True).stderr == b"built"
    assert told
    told.clear()
    made = path.stat().st_mtime_ns
    assert tools.ensure("tiny", own, told.append) == tools.binary("tiny", own) == path
    assert (told, path.stat().st_mtime_ns) == ([], made)


def test_another_declaration_is_another_build(sources: Path, own: State) -> None:
    tools.ensure("tiny", own)
    with (sources / "tiny" / "go.mod").open("a") as file:
        file.write("// another key\n")
    with pytest.raises(ToolMissing) as caught:
        tools.binary("tiny", own)
    assert caught.value.fix == "helix tools build tiny"
    tools.ensure("tiny", own)
    tools.binary("tiny", own)


def test_a_binary_that_was_cut_short_is_not_used(sources: Path, own: State) -> None:
    path = tools.ensure("tiny", own)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ToolMissing):
        tools.binary("tiny", own)


def test_two_that_need_a_tool_at_once_build_it_once(sources: Path, own: State) -> None:
    told: list[str] = []
    at_once(*[partial(tools.ensure, "tiny", own, told.append)] * 4)
    assert sum(line.startswith("built") for line in told) == 1


def test_builds_do_not_depend_on_where_they_happen(sources: Path, own: State, tmp_path: Path) -> None:
    other = State(tmp_path / "elsewhere" / "state")
    tools.ensure("tiny", own)
    tools.ensure("tiny", other)
    stamps = [json.loads((state.tools / "tiny.json").read_bytes()) for state in (own, other)]
    assert stamps[0]["digest"] == stamps[1]["digest"]


def test_settings_of_the_machine_do_not_change_a_build(
    sources: Path, own: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools.ensure("tiny", own)
    for name, value in {"GOFLAGS": "-tags=other -mod=mod", "GOOS": "windows", "CGO_ENABLED": "1"}.items():
        monkeypatch.setenv(name, value)
    other = State(tmp_path / "other")
    tools.ensure("tiny", other)
    stamps = [json.loads((state.tools / "tiny.json").read_bytes()) for state in (own, other)]
    assert stamps[0] == stamps[1]


def test_a_wrong_checksum_is_refused(sources: Path, own: State) -> None:
    shutil.rmtree(sources / "tiny")
    shutil.copytree(Path(tools.__file__).resolve().parents[3] / "tools" / "olareg", sources / "tiny")
    sums = sources / "tiny" / "go.sum"
    lines = sums.read_text().splitlines()
    planted = [line[:-5] + "AAAA=" if "olareg v0.1.2 h1:" in line else line for line in lines]
    assert planted != lines
    sums.write_text("\n".join(planted) + "\n")
    with pytest.raises(ToolError, match="checksum mismatch"):
        tools.ensure("tiny", own)
    assert not (own.tools / "tiny").exists()


def test_a_module_without_a_checksum_is_refused(sources: Path, own: State) -> None:
    shutil.rmtree(sources / "tiny")
    shutil.copytree(Path(tools.__file__).resolve().parents[3] / "tools" / "olareg", sources / "tiny")
    (sources / "tiny" / "go.sum").write_text("")
    with pytest.raises(ToolError, match="missing go"):
        tools.ensure("tiny", own)


def test_an_unknown_tool_names_the_known_ones() -> None:
    with pytest.raises(ToolError, match="cosign"):
        tools.declared("rm")
    with pytest.raises(ToolError):
        tools.declared("../tools/cosign")


@given(st.tuples(*[st.integers(0, 99)] * 3), st.tuples(*[st.integers(0, 99)] * 3))
def test_versions_are_ordered_by_number(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    text = ["go" + ".".join(map(str, version)) for version in (left, right)]
    assert (tools.go_version(text[0]) < tools.go_version(text[1])) == (left < right)


def test_the_machines_go_is_used_only_when_it_is_new_enough(
    own: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "bin" / "go"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho go1.19.8\n")
    old.chmod(old.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    assert tools.toolchain("1.19", own)[0] == old
    locked = tmp_path / "locked"
    locked.write_text("#!/bin/sh\necho go1.27.3\n")
    locked.chmod(0o755)
    monkeypatch.setattr(tools, "_locked_go", lambda _state, _report: locked)
    assert tools.toolchain("1.26.0", own) == (locked, {**tools.toolchain("1.26.0", own)[1], "GOTOOLCHAIN": "local"})
    assert tools.toolchain("1.28.1", own)[1]["GOTOOLCHAIN"] == "go1.28.1"


@pytest.mark.slow
def test_without_a_go_the_locked_one_is_fetched_and_builds(
    sources: Path, own: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    told: list[str] = []
    path = tools.ensure("tiny", own, told.append)
    assert "no Go that is new enough" in told[0]
    assert subprocess.run([path], capture_output=True, check=True).stderr == b"built"
