"""The golden cases are what the reference network gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch; run: make test-torch")

from proteinmpnn_model import golden  # after the check for torch

pytestmark = pytest.mark.torch

MODEL = Path(__file__).resolve().parents[3] / "models" / "proteinmpnn"


def test_written_again_they_are_the_committed_ones(weights: Path, data_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    folder.mkdir()
    shutil.copy(MODEL / "model.toml", tmp_path)
    arguments = ["--weights", str(weights), "--data", str(data_folder), "--golden", str(folder)]
    assert golden.main(arguments) == 0
    committed = {path.name: json.loads(path.read_text()) for path in (MODEL / "golden").glob("*.json")}
    written = {path.name: json.loads(path.read_text()) for path in folder.iterdir()}
    assert set(written) == set(committed)
    for name, case in written.items():
        _assert_close(case.pop("items"), committed[name].pop("items"))
        assert case == committed[name]


def _assert_close(ours: list[dict], theirs: list[dict]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert set(one) == set(other)
        assert one["sequence"] == other["sequence"]
        for output in set(one) - {"sequence"}:
            assert np.abs(np.array(one[output]) - np.array(other[output])).max() <= 2e-6
