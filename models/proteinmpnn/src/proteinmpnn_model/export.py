"""The weights as ONNX graphs, in the form that is fast to run.

Stage `export`: takes `weights.safetensors`, gives
    encoder.onnx          a backbone → what every design on it shares; once per backbone
    decoder_step.onnx     messages of one residue's neighbours → its log-probabilities; once per residue
    residue_tables.onnx   amino acids → what each adds to a message; once per process

The same function as `network`, with the linear algebra done fewer times. W1 of a message acts
on [node, edge, amino acid, neighbour's node] side by side, so it splits into a part per node, a
part per edge and a part per amino acid; only sums of the parts are needed where W1 was. W3 is
linear, so neighbours are summed before it. The decoder's edge part, and the part of neighbours
that are not decoded yet, don't depend on the sequence and leave the encoder's graph ready.

Export slices weights and computes nothing with them: a product made here would have other bits
on another machine. Shape suffixes as in `network`; e is l·k edges.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from proteinmpnn_model import network
from proteinmpnn_model.network import AMINO_ACIDS, CHANNELS, LAYERS
from proteinmpnn_model.onnx_graph import GraphWriter
from proteinmpnn_model.weights import load_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Weights = dict[str, NDArray[np.float32]]

ENCODER, DECODER_STEP, RESIDUE_TABLES = "encoder", "decoder_step", "residue_tables"


def export(weights: Path, output: Path) -> None:
    """Write the graphs into the folder `output`. Raises WeightsError when there are no weights."""
    tensors = load_weights(weights)
    output.mkdir(parents=True, exist_ok=True)
    for name, write in GRAPHS.items():
        (output / f"{name}.onnx").write_bytes(write(tensors))


class _Layers:
    """Linear layers, norms and activations of the checkpoint as nodes of one graph."""

    def __init__(self, graph: GraphWriter, weights: Weights) -> None:
        self.graph = graph
        self._weights = weights

    def linear(self, value: str, name: str, columns: slice | None = None, *, bias: bool = True) -> str:
        """`value` [rows, in] through the layer `name`, or through the part of it that takes the inputs `columns`."""
        weight, label = self._weights[f"{name}.weight"], f"{name}.weight"
        if columns is not None:
            weight, label = weight[:, columns], f"{label}[{columns.start}:{columns.stop}]"
        inputs = [value, self.graph.constant(label, weight)]
        if bias:
            inputs.append(self.bias(name))
        return self.graph.op("Gemm", *inputs, transB=1)

    def bias(self, name: str) -> str:
        return self.parameter(f"{name}.bias")

    def parameter(self, name: str) -> str:
        return self.graph.constant(name, self._weights[name])

    def norm(self, value: str, name: str) -> str:
        scale, shift = self.parameter(f"{name}.weight"), self.bias(name)
        return self.graph.op("LayerNormalization", value, scale, shift, axis=-1, epsilon=1e-5)

    def gelu(self, value: str) -> str:
        return self.graph.op("Gelu", value)

    def feed_forward(self, value: str, name: str) -> str:
        return self.linear(self.gelu(self.linear(value, f"{name}.W_in")), f"{name}.W_out")


_NODE, _EDGE, _THIRD, _FOURTH = (slice(start * CHANNELS, (start + 1) * CHANNELS) for start in range(4))
"""What W1 takes: the encoder's is [node, edge, neighbour], the decoder's [node, edge, amino acid, neighbour]."""


def encoder(weights: Weights) -> bytes:
    """Graph: backbone arrays of `featurize.Backbone` → nodes, neighbours and the decoder's shared parts."""
    graph = GraphWriter(ENCODER)
    layers = _Layers(graph, weights)
    coordinates = graph.input("coordinates", "FP32", ["l", 4, 3])
    mask = graph.input("mask", "FP32", ["l"])
    residue_index = graph.input("residue_index", "INT64", ["l"])
    chain = graph.input("chain", "INT64", ["l"])

    atoms = _with_cb(graph, coordinates)
    nearest, neighbours = _nearest(graph, atoms, mask)
    positional = _positional(layers, residue_index, chain, neighbours)
    radial = _radial(graph, atoms, nearest, neighbours)
    features = graph.op("Concat", positional, radial, axis=-1)
    flat = graph.op("Reshape", features, graph.integers(-1, weights["features.edge_embedding.weight"].shape[1]))
    edges_ec = layers.norm(layers.linear(flat, "features.edge_embedding", bias=False), "features.norm_edges")
    edges_ec = layers.linear(edges_ec, "W_e")

    spread = _Spread(graph, neighbours, mask)
    nodes_lc: str | None = None
    for index in range(LAYERS):
        nodes_lc, edges_ec = _encoder_layer(layers, f"encoder_layers.{index}", nodes_lc, edges_ec, spread)
    assert nodes_lc is not None  # noqa: S101 - there is at least one layer

    graph.output("nodes", nodes_lc, "FP32", ["l", CHANNELS])
    graph.output("neighbours", neighbours, "INT64", ["l", "k"])
    for index in range(LAYERS):
        name = f"decoder_layers.{index}.W1"
        shared_lkc = spread.by_neighbour(layers.linear(edges_ec, name, _EDGE))
        unseen_lc = layers.linear(nodes_lc, name, _FOURTH, bias=False)
        if index == 0:
            # The first layer sees the encoder's nodes whether they are decoded or not: all of it is shared.
            own_lc = layers.linear(nodes_lc, name, _NODE, bias=False)
            shared_lkc = graph.add(shared_lkc, spread.neighbour(unseen_lc), spread.own(own_lc))
        else:
            graph.output(f"unseen_{index}", unseen_lc, "FP32", ["l", CHANNELS])
        graph.output(f"shared_{index}", shared_lkc, "FP32", ["l", "k", CHANNELS])
    return graph.serialise()


def decoder_step(weights: Weights) -> bytes:
    """Graph: summed message parts `messages_<layer>` [b, k, c] and `nodes` [b, c] → `log_probabilities` [b, a].

    `seen_<layer>` [b, c] is what the residue, now decoded, sends in that layer, less its amino acid's part.
    """
    graph = GraphWriter(DECODER_STEP)
    layers = _Layers(graph, weights)
    messages = [graph.input(f"messages_{index}", "FP32", ["b", "k", CHANNELS]) for index in range(LAYERS)]
    nodes_bc = graph.input("nodes", "FP32", ["b", CHANNELS])
    count = graph.op("Cast", graph.op("Shape", messages[0], start=1, end=2), to=1)
    seen = []
    for index, shared in enumerate(messages):
        name = f"decoder_layers.{index}"
        hidden = shared
        if index:
            own = layers.linear(nodes_bc, f"{name}.W1", _NODE, bias=False)
            hidden = graph.add(shared, graph.op("Unsqueeze", own, graph.integers(1)))
        hidden = graph.op("Reshape", layers.gelu(hidden), graph.integers(-1, CHANNELS))
        hidden = layers.gelu(layers.linear(hidden, f"{name}.W2"))
        hidden = graph.op("Reshape", hidden, graph.op("Shape", shared))
        summed = graph.op("ReduceSum", hidden, graph.integers(1), keepdims=0)
        nodes_bc = _renew(layers, name, nodes_bc, summed, count)
        if index + 1 < LAYERS:
            seen.append(layers.linear(nodes_bc, f"decoder_layers.{index + 1}.W1", _FOURTH, bias=False))
    logits = layers.linear(nodes_bc, "W_out")
    graph.output("log_probabilities", graph.op("LogSoftmax", logits, axis=-1), "FP32", ["b", AMINO_ACIDS])
    for index, value in enumerate(seen, start=1):
        graph.output(f"seen_{index}", value, "FP32", ["b", CHANNELS])
    return graph.serialise()


def residue_tables(weights: Weights) -> bytes:
    """Graph: `residues` [n] → `table_<layer>` [n, c], the amino acid's part of a decoder message."""
    graph = GraphWriter(RESIDUE_TABLES)
    layers = _Layers(graph, weights)
    residues = graph.input("residues", "INT64", ["n"])
    embedded = graph.op("Gather", layers.parameter("W_s.weight"), residues, axis=0)
    for index in range(LAYERS):
        table = layers.linear(embedded, f"decoder_layers.{index}.W1", _THIRD, bias=False)
        graph.output(f"table_{index}", table, "FP32", ["n", CHANNELS])
    return graph.serialise()


GRAPHS: dict[str, Callable[[Weights], bytes]] = {
    ENCODER: encoder,
    DECODER_STEP: decoder_step,
    RESIDUE_TABLES: residue_tables,
}
"""Graph name → its writer; the file is `<name>.onnx`."""


class _Spread:
    """Moves values between nodes [l, c], edges [e, c] and edges by neighbour [l, k, c]."""

    def __init__(self, graph: GraphWriter, neighbours_lk: str, mask_l: str) -> None:
        self._graph = graph
        self._neighbours_lk = neighbours_lk
        self._shape = graph.op("Concat", graph.op("Shape", neighbours_lk), graph.integers(CHANNELS), axis=0)
        self.mask_l1 = graph.op("Unsqueeze", mask_l, graph.integers(1))
        attend_lk = graph.op("Mul", graph.op("Gather", mask_l, neighbours_lk, axis=0), self.mask_l1)
        self._attend_l1k = graph.op("Unsqueeze", attend_lk, graph.integers(1))
        self.attended_l1 = graph.op("ReduceSum", attend_lk, graph.integers(1), keepdims=1)

    def by_neighbour(self, edges_ec: str) -> str:
        return self._graph.op("Reshape", edges_ec, self._shape)

    def flat(self, edges_lkc: str) -> str:
        return self._graph.op("Reshape", edges_lkc, self._graph.integers(-1, CHANNELS))

    def own(self, nodes_lc: str) -> str:
        return self._graph.op("Unsqueeze", nodes_lc, self._graph.integers(1))

    def neighbour(self, nodes_lc: str) -> str:
        return self._graph.op("Gather", nodes_lc, self._neighbours_lk, axis=0)

    def sum_attended(self, edges_ec: str) -> str:
        """Sum over the neighbours that have a whole backbone, [l, c]."""
        summed_l1c = self._graph.op("MatMul", self._attend_l1k, self.by_neighbour(edges_ec))
        return self._graph.op("Squeeze", summed_l1c, self._graph.integers(1))


def _encoder_layer(layers: _Layers, name: str, nodes_lc: str | None, edges_ec: str, spread: _Spread) -> tuple[str, str]:
    """New nodes and edges; `nodes_lc` is None in the first layer, where all nodes are zero."""
    graph = layers.graph

    def hidden(first: str, second: str, nodes: str | None) -> str:
        part = layers.linear(edges_ec, f"{name}.{first}", _EDGE)
        if nodes is not None:
            own = spread.own(layers.linear(nodes, f"{name}.{first}", _NODE, bias=False))
            other = spread.neighbour(layers.linear(nodes, f"{name}.{first}", _THIRD, bias=False))
            part = spread.flat(graph.add(spread.by_neighbour(part), own, other))
        return layers.gelu(layers.linear(layers.gelu(part), f"{name}.{second}"))

    summed_lc = spread.sum_attended(hidden("W1", "W2", nodes_lc))
    nodes_lc = graph.op("Mul", _renew(layers, name, nodes_lc, summed_lc, spread.attended_l1), spread.mask_l1)
    message_ec = layers.linear(hidden("W11", "W12", nodes_lc), f"{name}.W13")
    return nodes_lc, layers.norm(graph.add(edges_ec, message_ec), f"{name}.norm3")


def _renew(layers: _Layers, name: str, nodes: str | None, summed: str, count: str) -> str:
    """Nodes after their messages, summed before W3: W3's bias counts once for each of `count` messages."""
    graph = layers.graph
    bias = graph.op("Mul", count, layers.bias(f"{name}.W3"))
    message = graph.add(layers.linear(summed, f"{name}.W3", bias=False), bias)
    message = graph.op("Div", message, graph.number(network.MESSAGE_SCALE))
    nodes = layers.norm(message if nodes is None else graph.add(nodes, message), f"{name}.norm1")
    return layers.norm(graph.add(nodes, layers.feed_forward(nodes, f"{name}.dense")), f"{name}.norm2")


def _with_cb(graph: GraphWriter, coordinates: str) -> str:
    """N, CA, C, O and an ideal C-beta, [l, 5, 3]."""
    n, ca, c = (
        graph.op("Gather", coordinates, graph.constant(f"index_{atom}", np.array(atom, dtype=np.int64)), axis=1)
        for atom in (network.N, network.CA, network.C)
    )
    n_ca, ca_c = graph.op("Sub", ca, n), graph.op("Sub", c, ca)

    def turn(value: str, *axes: int) -> str:
        return graph.op("Gather", value, graph.integers(*axes), axis=1)

    cross = graph.op(
        "Sub",
        graph.op("Mul", turn(n_ca, 1, 2, 0), turn(ca_c, 2, 0, 1)),
        graph.op("Mul", turn(n_ca, 2, 0, 1), turn(ca_c, 1, 2, 0)),
    )
    cb = graph.add(
        graph.op("Mul", cross, graph.number(network.CB_FROM_CROSS)),
        graph.op("Mul", n_ca, graph.number(network.CB_FROM_N_CA)),
        graph.op("Mul", ca_c, graph.number(network.CB_FROM_CA_C)),
        ca,
    )
    return graph.op("Concat", coordinates, graph.op("Unsqueeze", cb, graph.integers(1)), axis=1)


def _nearest(graph: GraphWriter, atoms: str, mask: str) -> tuple[str, str]:
    """Distances and indices [l, k] of the nearest CA atoms; of equally far ones the first."""
    ca_l3 = graph.op("Gather", atoms, graph.constant("index_1", np.array(network.CA, dtype=np.int64)), axis=1)
    squares = []
    # One axis at a time: three [l, l] matrices instead of one [l, l, 3], and a fixed order of the sum.
    for axis in range(3):
        along = graph.op("Gather", ca_l3, graph.constant(f"index_{axis}", np.array(axis, dtype=np.int64)), axis=1)
        rows, columns = (graph.op("Unsqueeze", along, graph.integers(position)) for position in (1, 0))
        delta = graph.op("Sub", rows, columns)
        squares.append(graph.op("Mul", delta, delta))
    distance = graph.op("Sqrt", graph.add(*squares, graph.number(network.DISTANCE_EPSILON)))
    rows, columns = (graph.op("Unsqueeze", mask, graph.integers(position)) for position in (1, 0))
    both = graph.op("Mul", rows, columns)
    distance = graph.op("Mul", both, distance)
    farthest = graph.op("ReduceMax", distance, graph.integers(1), keepdims=1)
    away = graph.op("Mul", graph.op("Sub", graph.number(1.0), both), farthest)
    count = graph.op("Min", graph.integers(network.NEIGHBOURS), graph.op("Shape", mask))
    return graph.pair("TopK", graph.add(distance, away), count, axis=1, largest=0, sorted=1)


def _positional(layers: _Layers, residue_index: str, chain: str, neighbours: str) -> str:
    """The embedded offset along the chain, [l, k, 16]."""
    graph = layers.graph

    def both(values: str) -> tuple[str, str]:
        return graph.op("Unsqueeze", values, graph.integers(1)), graph.op("Gather", values, neighbours, axis=0)

    offset = graph.op("Sub", *both(residue_index))
    low, high, other = (
        graph.constant(f"offset_{value}", np.array(value, dtype=np.int64))
        for value in (0, 2 * network.MAX_OFFSET, 2 * network.MAX_OFFSET + 1)
    )
    shift = graph.constant("offset_shift", np.array(network.MAX_OFFSET, dtype=np.int64))
    clipped = graph.op("Clip", graph.add(offset, shift), low, high)
    index = graph.op("Where", graph.op("Equal", *both(chain)), clipped, other)
    name = "features.embeddings.linear"
    table = graph.op("Transpose", layers.parameter(f"{name}.weight"), perm=[1, 0])
    return graph.add(graph.op("Gather", table, index, axis=0), layers.bias(name))


def _radial(graph: GraphWriter, atoms: str, nearest: str, neighbours: str) -> str:
    """Radial bases of the distances between backbone atoms, [l, k, 400]."""
    first, second = (
        graph.op("Gather", atoms, graph.integers(*pick), axis=1) for pick in zip(*network.ATOM_PAIRS, strict=True)
    )
    own = graph.op("Unsqueeze", first, graph.integers(1))
    delta = graph.op("Sub", own, graph.op("Gather", second, neighbours, axis=0))
    squared = graph.op("ReduceSum", graph.op("Mul", delta, delta), graph.integers(3), keepdims=0)
    pairs = graph.op("Sqrt", graph.add(squared, graph.number(network.DISTANCE_EPSILON)))
    distances = graph.op("Concat", graph.op("Unsqueeze", nearest, graph.integers(2)), pairs, axis=2)
    centres = np.linspace(network.RADIAL_MIN_ANGSTROM, network.RADIAL_MAX_ANGSTROM, network.RADIAL_BASES)
    away = graph.op(
        "Sub",
        graph.op("Unsqueeze", distances, graph.integers(3)),
        graph.constant("centres", centres.astype(np.float32)),
    )
    scaled = graph.op("Div", away, graph.number(network.RADIAL_WIDTH_ANGSTROM))
    bases = graph.op("Exp", graph.op("Neg", graph.op("Mul", scaled, scaled)))
    return graph.op("Reshape", bases, graph.integers(0, 0, network.RADIAL_BASES * (1 + len(network.ATOM_PAIRS))))
