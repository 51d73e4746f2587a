"""The golden cases are what the reference network gives, and no processor can give another sequence."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch; run: make test-torch")

from proteinmpnn_model import golden, reference  # after the check for torch
from proteinmpnn_model.decode import Choice, choose_residue
from tests.models.proteinmpnn import tolerances

pytestmark = pytest.mark.torch

MODEL = Path(__file__).resolve().parents[3] / "models" / "proteinmpnn"


def margin(log_probabilities_a: np.ndarray, choice: Choice, position: int) -> float:
    """By how much (nat) every log-probability may change before another amino acid is drawn."""
    allowed_a = np.where(choice.allowed_a, log_probabilities_a, -np.inf) / choice.temperature
    weights_a = np.exp(allowed_a - allowed_a.max())
    bounds = np.concatenate([[0.0], np.cumsum(weights_a) / weights_a.sum()])
    drawn, uniform = choose_residue(log_probabilities_a, choice, position), float(choice.uniforms_l[position])

    def logit(share: float) -> float:
        return math.log(share / (1 - share)) if 0 < share < 1 else math.copysign(math.inf, share - 0.5)

    # At worst all that is on one side of a bound rises, and all on the other side falls.
    apart = min(logit(uniform) - logit(bounds[drawn]), logit(bounds[drawn + 1]) - logit(uniform))
    return choice.temperature * apart / 2


def test_a_draw_on_the_brink_has_no_margin() -> None:
    log_p = np.log(np.array([0.25, 0.25, 0.5]))

    def of(uniform: float) -> float:
        return margin(log_p, Choice(np.array([True]), np.array([uniform]), 1.0, np.array([True] * 3)), 0)

    assert of(0.5 - 1e-9) < 1e-8
    assert of(0.5) == 0
    assert of(0.375) == pytest.approx(min(math.log(0.375 / 0.625) - math.log(1 / 3), -math.log(0.375 / 0.625)) / 2)


def test_written_again_they_are_the_committed_ones(
    weights: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    margins: list[float] = []

    def chosen(log_probabilities_a: np.ndarray, choice: Choice, position: int) -> int:
        margins.append(margin(log_probabilities_a, choice, position))
        return choose_residue(log_probabilities_a, choice, position)

    monkeypatch.setattr(reference, "choose_residue", chosen)
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
    # What the gate allows of a log-probability cannot change a golden sequence.
    assert min(margins) >= tolerances.MARGIN * tolerances.NATIVE


def _assert_close(ours: list[dict], theirs: list[dict]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert set(one) == set(other)
        assert one["sequence"] == other["sequence"]
        for output in set(one) - {"sequence"}:
            assert (
                np.abs(np.array(one[output]) - np.array(other[output])).max() <= tolerances.GOLDEN / tolerances.MARGIN
            )
