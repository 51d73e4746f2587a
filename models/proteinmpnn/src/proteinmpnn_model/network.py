"""ProteinMPNN as a torch module: the reference that every faster form is compared with.

A message-passing network over the graph of each residue's 48 nearest neighbours. The encoder
sees the backbone only; the decoder gives the probabilities of each residue's amino acid, given
the backbone and the residues decoded before it. Dauparas et al., Science 378, 49 (2022).

One backbone at a time. Shape suffixes: l residues, k neighbours, c channels (128), a amino
acids (21), d atoms. Parameter names are those of the published checkpoint.
"""

# mypy: allow-subclassing-any
# (torch's types are not read: the host environment has no torch)

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

CHANNELS = 128
AMINO_ACIDS = 21
NEIGHBOURS = 48
LAYERS = 3
MESSAGE_SCALE = 30.0
"""Sums of messages are divided by this, however many neighbours there are."""

MAX_OFFSET = 32
"""Offsets along the chain are clipped to it; index 2 * MAX_OFFSET + 1 stands for another chain."""

RADIAL_BASES = 16
RADIAL_MIN_ANGSTROM, RADIAL_MAX_ANGSTROM = 2.0, 22.0
RADIAL_WIDTH_ANGSTROM = (RADIAL_MAX_ANGSTROM - RADIAL_MIN_ANGSTROM) / RADIAL_BASES
DISTANCE_EPSILON = 1e-6
"""Added to squared distances (square angstrom)."""

CB_FROM_CROSS, CB_FROM_N_CA, CB_FROM_CA_C = -0.58273431, 0.56802827, -0.54067466
"""An ideal C-beta from the vectors N to CA, CA to C, and their cross product."""

N, CA, C, O, CB = range(5)  # noqa: E741 - the atom is called O
ATOM_PAIRS = (
    (N, N), (C, C), (O, O), (CB, CB), (CA, N), (CA, C), (CA, O), (CA, CB), (N, C), (N, O), (N, CB), (CB, C),
    (CB, O), (O, C), (N, CA), (C, CA), (O, CA), (CB, CA), (C, N), (O, N), (CB, N), (C, CB), (O, CB), (C, O),
)  # fmt: skip
"""(atom of the residue, atom of its neighbour), in the order of the edge features, after CA-CA."""


class BackboneTensors(NamedTuple):
    """`featurize.Backbone` as tensors."""

    coordinates_ld3: Tensor
    """N, CA, C, O in angstrom."""
    mask_l: Tensor
    """1 where all four atoms are there."""
    residue_index_l: Tensor
    chain_l: Tensor


class EncodedTensors(NamedTuple):
    """What the encoder gives."""

    nodes_lc: Tensor
    edges_lkc: Tensor
    neighbours_lk: Tensor
    mask_l: Tensor


class EdgeFeatures(nn.Module):
    """Distances between backbone atoms and offsets along the chain, embedded, for each neighbour."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict({"linear": nn.Linear(2 * MAX_OFFSET + 2, 16)})
        self.edge_embedding = nn.Linear(16 + RADIAL_BASES * (1 + len(ATOM_PAIRS)), CHANNELS, bias=False)
        self.norm_edges = nn.LayerNorm(CHANNELS)

    def forward(self, backbone: BackboneTensors) -> tuple[Tensor, Tensor]:
        """Give edges [l, k, c] and neighbours [l, k]."""
        coordinates_ld3, mask_l, residue_index_l, chain_l = backbone
        atoms_ld3 = with_cb(coordinates_ld3)
        nearest_lk, neighbours_lk = nearest(atoms_ld3[:, CA], mask_l)
        first, second = (list(atoms) for atoms in zip(*ATOM_PAIRS, strict=True))
        delta_lkd3 = atoms_ld3[:, None, first] - atoms_ld3[:, second][neighbours_lk]
        pairs_lkd = torch.sqrt(delta_lkd3.square().sum(-1) + DISTANCE_EPSILON)
        distances_lkd = torch.cat([nearest_lk[..., None], pairs_lkd], dim=-1)
        centres = torch.linspace(RADIAL_MIN_ANGSTROM, RADIAL_MAX_ANGSTROM, RADIAL_BASES, dtype=distances_lkd.dtype)
        radial = torch.exp(-(((distances_lkd[..., None] - centres) / RADIAL_WIDTH_ANGSTROM) ** 2))
        offset_lk = residue_index_l[:, None] - residue_index_l[neighbours_lk]
        same_chain_lk = chain_l[:, None] == chain_l[neighbours_lk]
        clipped_lk = (offset_lk + MAX_OFFSET).clamp(0, 2 * MAX_OFFSET)
        index_lk = torch.where(same_chain_lk, clipped_lk, 2 * MAX_OFFSET + 1)
        linear = self.embeddings["linear"]
        positional = linear.weight.t()[index_lk] + linear.bias
        edges_lkc = self.edge_embedding(torch.cat([positional, radial.flatten(-2)], dim=-1))
        return self.norm_edges(edges_lkc), neighbours_lk


class FeedForward(nn.Module):
    """Two linear layers at each residue."""

    def __init__(self) -> None:
        super().__init__()
        self.W_in = nn.Linear(CHANNELS, 4 * CHANNELS)
        self.W_out = nn.Linear(4 * CHANNELS, CHANNELS)

    def forward(self, nodes_lc: Tensor) -> Tensor:
        """Give [l, c]."""
        return self.W_out(functional.gelu(self.W_in(nodes_lc)))


class EncoderLayer(nn.Module):
    """Messages from neighbours renew the nodes, then the edges."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(CHANNELS) for _ in range(3))
        self.W1, self.W11 = nn.Linear(3 * CHANNELS, CHANNELS), nn.Linear(3 * CHANNELS, CHANNELS)
        self.W2, self.W3, self.W12, self.W13 = (nn.Linear(CHANNELS, CHANNELS) for _ in range(4))
        self.dense = FeedForward()

    def forward(
        self, nodes_lc: Tensor, edges_lkc: Tensor, neighbours_lk: Tensor, mask_l: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Give new nodes and edges. Neighbours without a whole backbone send no message."""
        attend_lk = mask_l[neighbours_lk] * mask_l[:, None]
        inputs = torch.cat([spread(nodes_lc, neighbours_lk), edges_lkc, nodes_lc[neighbours_lk]], dim=-1)
        message = self.W3(functional.gelu(self.W2(functional.gelu(self.W1(inputs)))))
        nodes_lc = self.norm1(nodes_lc + (attend_lk[..., None] * message).sum(1) / MESSAGE_SCALE)
        nodes_lc = self.norm2(nodes_lc + self.dense(nodes_lc)) * mask_l[:, None]
        inputs = torch.cat([spread(nodes_lc, neighbours_lk), edges_lkc, nodes_lc[neighbours_lk]], dim=-1)
        message = self.W13(functional.gelu(self.W12(functional.gelu(self.W11(inputs)))))
        return nodes_lc, self.norm3(edges_lkc + message)


class DecoderLayer(nn.Module):
    """Messages from neighbours, with their amino acid where it is already known, renew the nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(CHANNELS), nn.LayerNorm(CHANNELS)
        self.W1 = nn.Linear(4 * CHANNELS, CHANNELS)
        self.W2, self.W3 = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.dense = FeedForward()

    def forward(self, nodes_lc: Tensor, inputs_lkc: Tensor, mask_l: Tensor) -> Tensor:
        """Give new nodes [l, c] from each neighbour's edge, amino acid and node [l, k, 3c]."""
        inputs = torch.cat([nodes_lc[:, None].expand(-1, inputs_lkc.shape[1], -1), inputs_lkc], dim=-1)
        message = self.W3(functional.gelu(self.W2(functional.gelu(self.W1(inputs)))))
        nodes_lc = self.norm1(nodes_lc + message.sum(1) / MESSAGE_SCALE)
        return self.norm2(nodes_lc + self.dense(nodes_lc)) * mask_l[:, None]


class ProteinMPNN(nn.Module):
    """The whole network."""

    def __init__(self) -> None:
        super().__init__()
        self.features = EdgeFeatures()
        self.W_e = nn.Linear(CHANNELS, CHANNELS)
        self.W_s = nn.Embedding(AMINO_ACIDS, CHANNELS)
        self.encoder_layers = nn.ModuleList(EncoderLayer() for _ in range(LAYERS))
        self.decoder_layers = nn.ModuleList(DecoderLayer() for _ in range(LAYERS))
        self.W_out = nn.Linear(CHANNELS, AMINO_ACIDS)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """The network with these parameters, for inference. Raises RuntimeError when names or shapes differ."""
        network = cls()
        network.load_state_dict(dict(state))
        network.eval().requires_grad_(False)
        return network

    def encode(self, backbone: BackboneTensors) -> EncodedTensors:
        """What all sequences on a backbone share."""
        edges_lkc, neighbours_lk = self.features(backbone)
        edges_lkc = self.W_e(edges_lkc)
        nodes_lc = edges_lkc.new_zeros(edges_lkc.shape[0], CHANNELS)
        for layer in self.encoder_layers:
            nodes_lc, edges_lkc = layer(nodes_lc, edges_lkc, neighbours_lk, backbone.mask_l)
        return EncodedTensors(nodes_lc, edges_lkc, neighbours_lk, backbone.mask_l)

    def decode(self, encoded: EncodedTensors, residues_l: Tensor, order_l: Tensor) -> Tensor:
        """log p (nat) [l, a] of every residue, given those that come before it in `order_l`."""
        encoded_lc, edges_lkc, neighbours_lk, mask_l = encoded
        rank_l = torch.empty_like(order_l)
        rank_l[order_l] = torch.arange(len(order_l))
        known_lk1 = (rank_l[neighbours_lk] < rank_l[:, None])[..., None]
        residues_lkc = self.W_s(residues_l)[neighbours_lk]
        blank = torch.cat([edges_lkc, torch.zeros_like(residues_lkc), encoded_lc[neighbours_lk]], dim=-1)
        nodes_lc = encoded_lc
        for layer in self.decoder_layers:
            decoded = torch.cat([edges_lkc, residues_lkc, nodes_lc[neighbours_lk]], dim=-1)
            nodes_lc = layer(nodes_lc, torch.where(known_lk1, decoded, blank), mask_l)
        return torch.log_softmax(self.W_out(nodes_lc), dim=-1)

    def forward(self, backbone: BackboneTensors, residues_l: Tensor, order_l: Tensor) -> Tensor:
        """Encode and decode."""
        return self.decode(self.encode(backbone), residues_l, order_l)


def with_cb(coordinates_ld3: Tensor) -> Tensor:
    """N, CA, C, O and an ideal C-beta [l, 5, 3] from N, CA, C, O [l, 4, 3]."""
    n_ca = coordinates_ld3[:, CA] - coordinates_ld3[:, N]
    ca_c = coordinates_ld3[:, C] - coordinates_ld3[:, CA]
    cross = torch.linalg.cross(n_ca, ca_c)
    cb = CB_FROM_CROSS * cross + CB_FROM_N_CA * n_ca + CB_FROM_CA_C * ca_c + coordinates_ld3[:, CA]
    return torch.cat([coordinates_ld3, cb[:, None]], dim=1)


def nearest(ca_l3: Tensor, mask_l: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (angstrom) and indices [l, k] of the nearest CA atoms, itself among them.

    A residue without a whole backbone counts as being as far as the farthest one, so it is a
    neighbour only where fewer than 48 others are.
    """
    both_ll = mask_l[:, None] * mask_l[None, :]
    distance_ll = both_ll * torch.sqrt((ca_l3[None] - ca_l3[:, None]).square().sum(-1) + DISTANCE_EPSILON)
    farthest_l1 = distance_ll.amax(-1, keepdim=True)
    adjusted_ll = distance_ll + (1.0 - both_ll) * farthest_l1
    # A stable sort, unlike topk, fixes which of equally far residues are taken: those that come first.
    ordered = torch.sort(adjusted_ll, dim=-1, stable=True)
    count = min(NEIGHBOURS, len(mask_l))
    return ordered.values[:, :count], ordered.indices[:, :count]


def spread(nodes_lc: Tensor, neighbours_lk: Tensor) -> Tensor:
    """Repeat each node for its neighbours, [l, k, c]."""
    return nodes_lc[:, None].expand(-1, neighbours_lk.shape[1], -1)
