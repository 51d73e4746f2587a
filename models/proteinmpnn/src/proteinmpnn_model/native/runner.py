"""ProteinMPNN's graphs by our own kernels (`models/proteinmpnn/kernels`): the same bits on every x86-64-v3 machine.

Serves the graphs that `proteinmpnn_model.export` writes, with the same inputs and outputs, from
the constants inside them; and one more, `decode`, which decodes whole designs together. A design's
bits are those of decoding it alone, step by step, on either variant of the kernels.

Shapes and values are checked here: nothing that C would read past reaches it. Shape suffixes:
b designs or rows, l residues, k neighbours, c channels, a amino acids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from helixserve.errors import ContractError
from helixserve.runners import machine
from helixserve.runners.interface import Runner
from helixserve.runners.shared_library import address, aligned
from proteinmpnn_model.native.library import (
    AMINO_ACIDS,
    CHANNELS,
    LAYERS,
    NEIGHBOURS,
    BackbonePointers,
    Designs,
    EncodedPointers,
    KernelLibrary,
)
from proteinmpnn_model.native.weights import Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from helixserve.runners.interface import Arrays

    Outputs = dict[str, np.ndarray[Any, np.dtype[Any]]]

PREFIX, SUFFIX = "helix-kernels-", ".so"
"""Of a library's file name, around the variant."""

_LENGTHS = 1_000_000
"""Residues that a request may have, far beyond any `model.toml`; keeps products of extents in range."""

_SHARED = tuple(f"shared_{layer}" for layer in range(LAYERS))
_UNSEEN = tuple(f"unseen_{layer}" for layer in range(1, LAYERS))


class NativeRunner(Runner):
    """Holds the packed weights and one variant of the kernels.

    Args:
        graphs: graph name → serialised ONNX model.
        libraries: file name → bytes of each variant of the kernels.
        variant: which to use; the widest that this processor has, when missing.
    """

    extra = frozenset({"decode"})
    machine_class = machine.V3

    def __init__(self, graphs: Mapping[str, bytes], libraries: Mapping[str, bytes], variant: str | None = None) -> None:
        name = _pick(libraries, variant)
        self._library = KernelLibrary(libraries[name], name)
        self._weights = Weights(graphs, self._library)
        self._graphs: dict[str, Callable[[Arrays], Outputs]] = {
            "encoder": self._encode,
            "decoder_step": self._decoder_step,
            "residue_tables": self._residue_tables,
            "decode": self._decode,
        }

    @property
    def variant(self) -> str:
        """The variant of the kernels that runs."""
        return self._library.variant

    def run(self, graph: str, inputs: Arrays) -> Outputs:
        """Run one graph. Raises ContractError for inputs that do not fit it."""
        if graph not in self._graphs:
            raise ContractError(f"the release holds no graph {graph!r}", where=", ".join(sorted(self._graphs)))
        return self._graphs[graph](inputs)

    def _encode(self, inputs: Arrays) -> Outputs:
        length = len(_array(inputs, "mask", np.float32, (None,)))
        _require(1 <= length <= _LENGTHS, f"mask has {length} residues")
        count = min(NEIGHBOURS, length)
        given = {
            "coordinates": _array(inputs, "coordinates", np.float32, (length, 4, 3)),
            "mask": _mask(inputs, length),
            "residue_index": _array(inputs, "residue_index", np.int64, (length,)),
            "chain": _array(inputs, "chain", np.int64, (length,)),
        }
        _require(bool(np.isfinite(given["coordinates"]).all()), "coordinates are not finite")
        _require(_within(given["residue_index"], -(2**40), 2**40), "residue_index is out of range")
        edges, rows = (length, count, CHANNELS), (length, CHANNELS)
        neighbours = aligned((length, count), np.int32)
        out = {"nodes": aligned(rows), **{name: aligned(edges) for name in _SHARED}}
        out |= {name: aligned(rows) for name in _UNSEEN}
        backbone = _backbone(length, count, given)
        self._library.encode(self._weights.network, backbone, _encoded(out, neighbours))
        return {**out, "neighbours": neighbours.astype(np.int64)}

    def _decoder_step(self, inputs: Arrays) -> Outputs:
        nodes = _array(inputs, "nodes", np.float32, (None, CHANNELS))
        rows = len(nodes)
        first = _array(inputs, "messages_0", np.float32, (rows, None, CHANNELS))
        count = first.shape[1]
        _require(1 <= rows <= _LENGTHS and 1 <= count <= NEIGHBOURS, f"messages_0 has shape {list(first.shape)}")
        shape = (rows, count, CHANNELS)
        messages = [_array(inputs, f"messages_{layer}", np.float32, shape) for layer in range(LAYERS)]
        out, seen = aligned((rows, AMINO_ACIDS)), [aligned((rows, CHANNELS)) for _ in range(1, LAYERS)]
        self._library.decoder_step(self._weights.network, messages, nodes, out, seen)
        return {"log_probabilities": out, **{f"seen_{layer}": part for layer, part in enumerate(seen, start=1)}}

    def _residue_tables(self, inputs: Arrays) -> Outputs:
        residues = _array(inputs, "residues", np.int64, (None,))
        _require(_within(residues, 0, AMINO_ACIDS), "residues are out of range")
        return {f"table_{layer}": table[residues] for layer, table in enumerate(self._weights.tables)}

    def _decode(self, inputs: Arrays) -> Outputs:
        residues = _array(inputs, "residues", np.int64, (None, None))
        count, length = residues.shape
        _require(1 <= length <= _LENGTHS and 1 <= count <= _LENGTHS // length, f"{count} designs of {length} residues")
        neighbours = min(NEIGHBOURS, length)
        index = _array(inputs, "neighbours", np.int64, (length, neighbours))
        order = _array(inputs, "order", np.int64, (count, length))
        allowed = _array(inputs, "allowed", np.bool_, (count, AMINO_ACIDS))
        _require(_within(residues, 0, AMINO_ACIDS), "residues are out of range")
        _require(_within(index, 0, length), "neighbours are out of range")
        _require(np.array_equal(np.sort(order, axis=1), np.tile(np.arange(length), (count, 1))), "order is no order")
        _require(bool(allowed.any(axis=1).all()), "no amino acid is allowed")
        shapes = {"nodes": (length, CHANNELS)} | dict.fromkeys(_SHARED, (length, neighbours, CHANNELS))
        shapes |= dict.fromkeys(_UNSEEN, (length, CHANNELS))
        given = {name: _array(inputs, name, np.float32, shape) for name, shape in shapes.items()}
        places = np.ascontiguousarray(index, dtype=np.int32)
        mask = {"mask": _mask(inputs, length)}
        chosen = residues.astype(np.int32)
        # Zero where the backbone is not whole: C leaves those alone.
        out = np.zeros((count, length, AMINO_ACIDS), dtype=np.float32)
        arrays = {
            "order": order.astype(np.int32),
            "free": _array(inputs, "free", np.bool_, (count, length)),
            "uniforms": _array(inputs, "uniforms", np.float64, (count, length)),
            "temperature": _array(inputs, "temperature", np.float64, (count,)),
            "allowed": allowed,
            "residues": chosen,
            "log_probabilities": out,
        }
        designs = Designs(count=count, **{name: address(array) for name, array in arrays.items()})
        backbone, encoded = _backbone(length, neighbours, mask), _encoded(given, places)
        self._library.decode(self._weights.network, backbone, encoded, designs)
        return {"residues": chosen.astype(np.int64), "log_probabilities": out}


def _pick(libraries: Mapping[str, bytes], variant: str | None) -> str:
    """The file name of the variant to use. Raises ContractError when the release does not hold it."""
    if variant is None:
        widest = machine.widest()
        # Both give the same bits; a v4 machine runs v3 code, too.
        wanted = ["x86-64-v4", "x86-64-v3"] if widest == "x86-64-v4" else ["x86-64-v3"]
    else:
        wanted = [variant]
    for name in (f"{PREFIX}{one}{SUFFIX}" for one in wanted):
        if name in libraries:
            return name
    raise ContractError(
        f"the release holds no kernels for {wanted[0]}",
        where=", ".join(sorted(libraries)) or "model.toml [serve] artifacts",
        fix=f"name {PREFIX}{wanted[-1]}{SUFFIX} in [serve] artifacts",
    )


def _array(inputs: Arrays, name: str, dtype: Any, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """The input, contiguous. Raises ContractError when it is absent or of another type or shape."""
    found = inputs.get(name)
    _require(isinstance(found, np.ndarray), f"{name} is absent")
    assert found is not None  # noqa: S101 - for the type checker; the line above refused it
    fits = found.ndim == len(shape) and all(
        want in (None, extent) for want, extent in zip(shape, found.shape, strict=True)
    )
    kind = np.dtype(dtype).name
    _require(found.dtype == dtype and fits, f"{name} is {found.dtype}{list(found.shape)}, not {kind}{list(shape)}")
    return np.ascontiguousarray(found)


def _mask(inputs: Arrays, length: int) -> NDArray[Any]:
    mask = _array(inputs, "mask", np.float32, (length,))
    _require(bool(((mask == 0) | (mask == 1)).all()), "mask is neither 0 nor 1")
    return mask


def _within(values: NDArray[Any], low: int, high: int) -> bool:
    return not values.size or bool(values.min() >= low and values.max() < high)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ContractError(what, where="native runner")


def _backbone(length: int, neighbours: int, arrays: Mapping[str, NDArray[Any]]) -> BackbonePointers:
    return BackbonePointers(
        length=length, neighbours=neighbours, **{name: address(array) for name, array in arrays.items()}
    )


def _encoded(arrays: Mapping[str, NDArray[Any]], neighbours: NDArray[np.int32]) -> EncodedPointers:
    encoded = EncodedPointers(nodes=address(arrays["nodes"]), neighbours=address(neighbours))
    encoded.shared[:] = [address(arrays[name]) for name in _SHARED]
    encoded.unseen[:] = [address(arrays[name]) for name in _UNSEEN]
    return encoded
