"""The checkpoint becomes safetensors once, unchanged; anything else is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch; run: make test-torch")

from proteinmpnn_model.errors import WeightsError  # noqa: E402  # after the check for torch
from proteinmpnn_model.weights import CHECKPOINT, WEIGHTS, import_weights, load_network, load_weights  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def checkpoint(data_folder: Path) -> dict[str, Any]:
    return torch.load(data_folder / CHECKPOINT, map_location="cpu", weights_only=True)


def _data(folder: Path, checkpoint: object) -> Path:
    (folder / CHECKPOINT).parent.mkdir(parents=True)
    torch.save(checkpoint, folder / CHECKPOINT)
    return folder


def test_every_tensor_keeps_its_name_and_bits(weights: Path, checkpoint: dict[str, Any]) -> None:
    found, state = load_weights(weights), checkpoint["model_state_dict"]
    assert set(found) == set(state)
    assert all(found[name].tobytes() == state[name].numpy().tobytes() for name in state)


def test_the_file_is_the_same_every_time(data_folder: Path, weights: Path, tmp_path: Path) -> None:
    import_weights(data_folder, tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (weights / WEIGHTS).read_bytes()


def test_the_network_is_ready_for_inference(weights: Path) -> None:
    network = load_network(weights)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_checkpoint_for_another_network_is_refused(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="30 neighbours, not 48"):
        import_weights(_data(tmp_path / "a", {**checkpoint, "num_edges": 30}), tmp_path / "out")
    state = dict(checkpoint["model_state_dict"])
    state.pop("W_out.bias")
    with pytest.raises(WeightsError, match=r"W_out\.bias"):
        import_weights(_data(tmp_path / "b", {**checkpoint, "model_state_dict": state}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(checkpoint: dict[str, Any], tmp_path: Path, value: float) -> None:
    checkpoint["model_state_dict"]["W_e.bias"][3] = value
    with pytest.raises(WeightsError, match=r"not finite float32: W_e\.bias"):
        import_weights(_data(tmp_path, checkpoint), tmp_path / "out")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('the pickle ran')",))


def test_a_pickle_that_runs_code_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(pickle.UnpicklingError):
        import_weights(_data(tmp_path, {"num_edges": 48, "model_state_dict": Evil()}), tmp_path / "out")


def test_absent_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"v_48_020\.pt"):
        import_weights(tmp_path, tmp_path / "out")
    with pytest.raises(WeightsError, match=r"weights\.safetensors"):
        load_weights(tmp_path)
