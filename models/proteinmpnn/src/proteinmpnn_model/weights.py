"""The published checkpoint, turned once into safetensors.

Stage `import`: takes `weights/v_48_020.pt` of the data folder, gives `weights.safetensors` with the
same tensors under the same names. The checkpoint is a pickle, so torch reads it with
`weights_only`, and nothing after this stage reads a pickle.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.numpy
import safetensors.torch
import torch

from proteinmpnn_model.errors import WeightsError
from proteinmpnn_model.network import NEIGHBOURS, ProteinMPNN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHECKPOINT = "weights/v_48_020.pt"
"""In the data folder."""

WEIGHTS = "weights.safetensors"
"""In the output of stage import."""


def import_weights(data: Path, output: Path) -> None:
    """Write `output/weights.safetensors` from the checkpoint under `data`. Raises WeightsError."""
    path = data / CHECKPOINT
    if not path.is_file():
        raise WeightsError("the checkpoint is absent", where=str(path), fix="dvc repro models/proteinmpnn/dvc.yaml")
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if checkpoint.get("num_edges") != NEIGHBOURS:
        raise WeightsError(
            f"the checkpoint is for {checkpoint.get('num_edges')} neighbours, not {NEIGHBOURS}", where=str(path)
        )
    state = checkpoint["model_state_dict"]
    try:
        ProteinMPNN.from_state(state)
    except RuntimeError as error:
        raise WeightsError(f"the checkpoint does not fit the network: {error}", where=str(path)) from error
    broken = [
        name for name, tensor in state.items() if tensor.dtype != torch.float32 or not torch.isfinite(tensor).all()
    ]
    if broken:
        raise WeightsError(f"not finite float32: {', '.join(broken)}", where=str(path))
    output.mkdir(parents=True, exist_ok=True)
    # No metadata: its order in the file is not fixed.
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, output / WEIGHTS)


def load_weights(weights: Path) -> dict[str, NDArray[np.float32]]:
    """The tensors by name, from the output of stage import. Raises WeightsError."""
    path = weights / WEIGHTS if weights.is_dir() else weights
    if not path.is_file():
        raise WeightsError("the weights are absent", where=str(path), fix="helix run release proteinmpnn")
    found: dict[str, NDArray[np.float32]] = safetensors.numpy.load_file(path)
    return found


def load_network(weights: Path) -> ProteinMPNN:
    """The reference network, float32. Raises WeightsError."""
    return ProteinMPNN.from_state({name: torch.from_numpy(value) for name, value in load_weights(weights).items()})
