"""One inference, in a child process; that the guard's sandbox has no network is tested with the sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_to_metal.guardrails import serves
from tests.model_to_metal.project import ROOT, write_toy


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}/lineage/src:{ROOT}/platform/src")
    return write_toy(tmp_path / "toy")


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    (folder / "factor.txt").write_text("2")
    return folder


MODULE = "src/toy_model/model.py"


def test_a_model_that_keeps_its_contract_has_no_findings(toy: Path, artifacts: Path) -> None:
    assert serves.check(toy, artifacts) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        pytest.param(MODULE, "", "import a_package_that_is_not_locked\n", "a_package_that_is_not_locked", id="import"),
        pytest.param(MODULE, '"products"', '"sums"', "sums", id="an answer that breaks the contract"),
        pytest.param(MODULE, "", "import os\nos._exit(7)\n", "7", id="a process that dies"),
        pytest.param("model.toml", "[guard]", "[guarded]", "[guard]", id="no request to serve"),
    ],
)
def test_bites_when_the_model_was_changed(  # noqa: PLR0917
    toy: Path, artifacts: Path, file: str, old: str, new: str, said: str
) -> None:
    text = (toy / file).read_text()
    (toy / file).write_text(text.replace(old, new) if old else new + text)
    (finding,) = serves.check(toy, artifacts)
    assert finding.rule == "serves"
    assert said in finding.message


def test_bites_on_a_nan(toy: Path, artifacts: Path) -> None:
    (artifacts / "factor.txt").write_text("nan")
    (finding,) = serves.check(toy, artifacts)
    assert "the model gave a number that is not finite" in finding.message
    assert "products" in finding.message


def test_bites_when_an_artifact_is_absent(toy: Path, artifacts: Path) -> None:
    (artifacts / "factor.txt").unlink()
    (finding,) = serves.check(toy, artifacts)
    assert "factor.txt" in finding.message


def test_bites_when_serving_loads_torch(toy: Path, artifacts: Path) -> None:
    (toy / "src/torch.py").write_text('"""Stands in for the real one, which the serve image does not hold."""\n')
    path = toy / "src/toy_model/model.py"
    path.write_text("import torch\n" + path.read_text())
    (finding,) = serves.check(toy, artifacts)
    assert "torch" in finding.message
