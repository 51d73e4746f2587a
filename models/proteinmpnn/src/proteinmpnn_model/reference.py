"""The reference network where the server has its graphs: slow, plain, and in either precision.

`ProteinMPNN(ReferenceDecoder(network), contract)` is the whole model on `network`; the golden cases
come from it in float64, and the regression gate compares the exported graphs with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from proteinmpnn_model.decode import Choice, Decoded, choose_residue
from proteinmpnn_model.network import BackboneTensors, EncodedTensors
from proteinmpnn_model.weights import load_network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from proteinmpnn_model.featurize import Backbone


class ReferenceDecoder:
    """A `SequenceDecoder` that runs the decoder on all residues for every residue it chooses.

    Args:
        weights: the output of stage import.
        double: float64 instead of float32.
    """

    def __init__(self, weights: Path, *, double: bool) -> None:
        network = load_network(weights)
        self._network = network.double() if double else network
        self._dtype = torch.float64 if double else torch.float32

    def encode(self, backbone: Backbone) -> EncodedTensors:
        """Run the network's encoder."""
        tensors = BackboneTensors(
            torch.from_numpy(backbone.coordinates).to(self._dtype),
            torch.from_numpy(backbone.mask).to(self._dtype),
            torch.from_numpy(backbone.residue_index),
            torch.from_numpy(backbone.chain),
        )
        with torch.inference_mode():
            return self._network.encode(tensors)

    def decode(
        self,
        backbone: Backbone,
        encoded: EncodedTensors,
        residues_l: NDArray[np.int64],
        order_l: NDArray[np.int64],
        choice: Choice | None = None,
    ) -> Decoded:
        """Log-probabilities of `Decoded` are in the network's precision here."""
        residues_l = residues_l.copy()
        if choice is not None:
            for position in order_l[choice.free_l[order_l]].tolist():
                # Residues later in the order are not looked at, so it doesn't matter that they are the old ones.
                log_probabilities_a = self._decode(encoded, residues_l, order_l)[position]
                residues_l[position] = choose_residue(log_probabilities_a.astype(np.float64), choice, position)
        found_la = self._decode(encoded, residues_l, order_l)
        return Decoded(residues_l, np.where(backbone.mask[:, None] > 0, found_la, 0))

    def _decode(
        self, encoded: EncodedTensors, residues_l: NDArray[np.int64], order_l: NDArray[np.int64]
    ) -> NDArray[Any]:
        with torch.inference_mode():
            found = self._network.decode(encoded, torch.from_numpy(residues_l), torch.from_numpy(order_l))
        array: NDArray[Any] = found.numpy()
        return array
