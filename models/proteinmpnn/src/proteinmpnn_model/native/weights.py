"""The network's numbers, from the constants of the exported graphs into the form that the kernels read.

Packing moves numbers and computes nothing; the two tables that are products (`offset`, `residue`)
are made by the kernels themselves, so they have the same bits everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from helixserve.errors import ContractError
from helixserve.runners import initializers
from helixserve.runners.shared_library import address, aligned
from proteinmpnn_model.native.library import (
    AMINO_ACIDS,
    CHANNELS,
    HIDDEN,
    LOGITS,
    OFFSET_CHANNELS,
    OFFSETS,
    PANEL,
    RADIAL,
    KernelLibrary,
    Network,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRAPHS = ("encoder", "decoder_step", "residue_tables")
"""Whose constants make up the network."""

_PARTS = {name: f"[{part * CHANNELS}:{(part + 1) * CHANNELS}]" for part, name in enumerate(("own", "edge", "third"))}
_RESIDUE, _FOURTH = _PARTS["third"], f"[{3 * CHANNELS}:{4 * CHANNELS}]"


class Weights:
    """The network for `KernelLibrary`, and the memory that it points to.

    Args:
        graphs: graph name → serialised ONNX model.
        library: computes the tables.
    """

    def __init__(self, graphs: Mapping[str, bytes], library: KernelLibrary) -> None:
        self._library = library
        self._kept: list[NDArray[Any]] = []
        self._constants = _constants(graphs)
        self.network = Network()
        self.tables: list[NDArray[np.float32]] = []
        """By decoder layer [21, 128]: what each amino acid adds to a message."""
        self._features()
        for number, layer in enumerate(self.network.encoder):
            self._encoder_layer(layer, f"encoder_layers.{number}", number)
        for number, layer in enumerate(self.network.decoder):
            self._decoder_layer(layer, f"decoder_layers.{number}", number)
        self._linear(self.network.output, "W_out", CHANNELS, AMINO_ACIDS, padded=LOGITS)

    def _features(self) -> None:
        net, name = self.network, "features.embeddings.linear"
        embedding = self._take("features.edge_embedding.weight", (CHANNELS, OFFSET_CHANNELS + RADIAL))
        offsets = self._take(f"{name}.weight", (OFFSET_CHANNELS, OFFSETS)).T
        offsets = np.ascontiguousarray(offsets + self._take(f"{name}.bias", (OFFSET_CHANNELS,)))
        net.offset = self._keep(self._library.product(offsets, pack(embedding[:, :OFFSET_CHANNELS])))
        net.radial.panels = self._keep(pack(embedding[:, OFFSET_CHANNELS:]))
        self._norm(net.after_features, "features.norm_edges")
        self._linear(net.embed, "W_e", CHANNELS, CHANNELS)

    def _encoder_layer(self, layer: Any, name: str, number: int) -> None:
        for message, (first, second, third) in (
            (layer.node, ("W1", "W2", "W3")),
            (layer.edge, ("W11", "W12", "W13")),
        ):
            parts = {"own": _PARTS["own"], "edge": _PARTS["edge"], "other": _PARTS["third"]}
            if number == 0 and first == "W1":  # all nodes are zero: the graph has only the edges' part
                parts = {"edge": _PARTS["edge"]}
            self._message(message, name, (first, second, third), parts)
        self._norm(layer.after_message, f"{name}.norm1")
        self._norm(layer.after_dense, f"{name}.norm2")
        self._norm(layer.after_edge, f"{name}.norm3")
        self._dense(layer, name)

    def _decoder_layer(self, layer: Any, name: str, number: int) -> None:
        parts = {"own": _PARTS["own"], "edge": _PARTS["edge"], "other": _FOURTH}
        self._message(layer.message, name, ("W1", "W2", "W3"), parts)
        self._norm(layer.after_message, f"{name}.norm1")
        self._norm(layer.after_dense, f"{name}.norm2")
        self._dense(layer, name)
        embedded = np.ascontiguousarray(self._take("W_s.weight", (AMINO_ACIDS, CHANNELS)))
        weight = self._take(f"{name}.W1.weight{_RESIDUE}", (CHANNELS, CHANNELS))
        self.tables.append(self._library.product(embedded, pack(weight)))
        layer.residue = self._keep(self.tables[number])

    def _message(self, message: Any, name: str, linears: tuple[str, str, str], parts: Mapping[str, str]) -> None:
        first, second, third = linears
        for field, part in parts.items():
            weight = self._take(f"{name}.{first}.weight{part}", (CHANNELS, CHANNELS))
            getattr(message, field).panels = self._keep(pack(weight))
        message.edge.bias = self._keep(self._take(f"{name}.{first}.bias", (CHANNELS,)))
        self._linear(message.second, f"{name}.{second}", CHANNELS, CHANNELS)
        self._linear(message.third, f"{name}.{third}", CHANNELS, CHANNELS)

    def _dense(self, layer: Any, name: str) -> None:
        self._linear(layer.widen, f"{name}.dense.W_in", CHANNELS, HIDDEN)
        self._linear(layer.narrow, f"{name}.dense.W_out", HIDDEN, CHANNELS)

    def _linear(self, linear: Any, name: str, inner: int, columns: int, padded: int | None = None) -> None:
        linear.panels = self._keep(pack(self._take(f"{name}.weight", (columns, inner)), padded))
        bias = np.zeros(padded or columns, dtype=np.float32)
        bias[:columns] = self._take(f"{name}.bias", (columns,))
        linear.bias = self._keep(bias)

    def _norm(self, norm: Any, name: str) -> None:
        norm.scale = self._keep(self._take(f"{name}.weight", (CHANNELS,)))
        norm.shift = self._keep(self._take(f"{name}.bias", (CHANNELS,)))

    def _take(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        found = self._constants.get(name)
        if found is None or found.shape != shape or found.dtype != np.float32 or not np.isfinite(found).all():
            what = "is absent" if found is None else f"is not finite float32 {list(shape)}"
            raise ContractError(f"the constant {name} {what}", where="graphs", fix="export the weights again")
        return found

    def _keep(self, array: NDArray[np.float32]) -> int | None:
        kept = aligned(array.shape)
        kept[...] = array
        self._kept.append(kept)
        return address(kept)


def pack(weight: NDArray[np.float32], padded: int | None = None) -> NDArray[np.float32]:
    """[columns, inner] as panels of 16 columns, [columns / 16, inner, 16]; missing columns are zero."""
    columns, inner = weight.shape
    panels = aligned(((padded or columns) // PANEL, inner, PANEL))
    panels[...] = 0
    for column in range(columns):
        panels[column // PANEL, :, column % PANEL] = weight[column]
    return panels


def _constants(graphs: Mapping[str, bytes]) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for graph in GRAPHS:
        if graph not in graphs:
            raise ContractError(f"the release holds no graph {graph!r}", where=", ".join(sorted(graphs)))
        for name, array in initializers.read(graphs[graph], graph).items():
            if name in found and not np.array_equal(found[name], array):
                raise ContractError(f"the graphs disagree on the constant {name}", where=graph)
            found[name] = array
    return found
