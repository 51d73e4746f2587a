"""Reports of the real diffoscope."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from model_to_metal.hermetic import diff
from tests.model_to_metal.conftest import write_layout

needs_diffoscope = pytest.mark.skipif(
    shutil.which(diff.TOOL) is None, reason="needs diffoscope; run: make setup-tests test-fast"
)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two images that differ in one line of one file."""
    found = tmp_path / "one", tmp_path / "other"
    for folder, line in zip(found, ("same\nred\n", "same\ngreen\n"), strict=True):
        write_layout(folder, {"opt/colour": line.encode(), "opt/same": b"same"})
    return found


@needs_diffoscope
def test_the_line_that_differs_inside_a_layer_is_named(pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = diff.report(*pair, tmp_path / "report", ("released", "rebuilt"))
    text = (tmp_path / "report/report.txt").read_text()
    assert "opt/colour" in text
    assert "-red" in text
    assert "+green" in text
    assert "opt/same" not in text
    assert "opt/colour" in found.head
    assert "opt/colour" in json.dumps(json.loads((tmp_path / "report/report.json").read_text()))
    assert "<html" in (tmp_path / "report/report.html").read_text()
    assert [path.name for path in (tmp_path / "report").iterdir() if path.is_dir()] == []
    assert found.to_json()["files"] == [f"{tmp_path}/report/report.{end}" for end in ("txt", "json", "html")]


def test_layers_stand_side_by_side(pair: tuple[Path, Path]) -> None:
    (layer,) = diff.layers(*pair)
    assert not layer.equal
    assert all(layer.equal for layer in diff.layers(pair[0], pair[0]))


@needs_diffoscope
def test_folders_are_compared_too_and_a_new_report_replaces_the_old(tmp_path: Path) -> None:
    for name, text in (("one", "a"), ("other", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
    (tmp_path / "report").mkdir()
    (tmp_path / "report/old").write_text("")
    assert "file" in diff.report(tmp_path / "one", tmp_path / "other", tmp_path / "report").head
    assert not (tmp_path / "report/old").exists()


@needs_diffoscope
def test_what_is_equal_has_no_report(pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = diff.report(pair[0], pair[0], tmp_path / "report")
    assert (found.folder, "it sees no difference" in found.head) == (None, True)


def test_a_diffoscope_that_fails_hides_nothing(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bin" / diff.TOOL
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho boom >&2\nexit 2\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    found = diff.report(*pair, tmp_path / "report")
    assert (found.folder, found.head) == (None, "diffoscope gave no report: status 2: boom")


def test_without_diffoscope_a_sentence_says_how_to_get_it(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = diff.report(*pair, tmp_path / "report")
    assert found.head.endswith("run: make setup-tests")
    assert (found.folder, found.to_json()["files"]) == (None, [])
