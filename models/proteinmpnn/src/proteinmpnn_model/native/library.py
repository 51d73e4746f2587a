"""The compiled kernels (`models/proteinmpnn/kernels`) as Python sees them: structs, functions, loading.

Nothing here checks extents; `runner` does, before it calls.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from helixserve.errors import ContractError, HelixServeError
from helixserve.runners import shared_library
from helixserve.runners.shared_library import address, aligned

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHANNELS, HIDDEN, NEIGHBOURS, AMINO_ACIDS, LAYERS = 128, 512, 48, 21, 3
RADIAL, OFFSETS, OFFSET_CHANNELS, LOGITS, PANEL = 400, 66, 16, 64, 16
PLAIN, GELU, GELU_SUM = range(3)
"""What a product does with its outputs."""

_POINTER = ctypes.c_void_p


class _Linear(ctypes.Structure):
    _fields_ = (("panels", _POINTER), ("bias", _POINTER))


class _Norm(ctypes.Structure):
    _fields_ = (("scale", _POINTER), ("shift", _POINTER))


class _Message(ctypes.Structure):
    _fields_ = tuple((name, _Linear) for name in ("own", "edge", "other", "second", "third"))


class _EncoderLayer(ctypes.Structure):
    _fields_ = (
        ("node", _Message), ("edge", _Message), ("after_message", _Norm), ("after_dense", _Norm),
        ("after_edge", _Norm), ("widen", _Linear), ("narrow", _Linear),
    )  # fmt: skip


class _DecoderLayer(ctypes.Structure):
    _fields_ = (
        ("message", _Message), ("residue", _POINTER), ("after_message", _Norm), ("after_dense", _Norm),
        ("widen", _Linear), ("narrow", _Linear),
    )  # fmt: skip


class Network(ctypes.Structure):
    """`Network` of network.h."""

    _fields_ = (
        ("offset", _POINTER), ("radial", _Linear), ("after_features", _Norm), ("embed", _Linear),
        ("encoder", _EncoderLayer * LAYERS), ("decoder", _DecoderLayer * LAYERS), ("output", _Linear),
    )  # fmt: skip


class BackbonePointers(ctypes.Structure):
    """`BackbonePointers` of kernels.h."""

    _fields_ = (
        ("length", ctypes.c_int32), ("neighbours", ctypes.c_int32), ("coordinates", _POINTER), ("mask", _POINTER),
        ("residue_index", _POINTER), ("chain", _POINTER),
    )  # fmt: skip


class EncodedPointers(ctypes.Structure):
    """`EncodedPointers` of kernels.h."""

    _fields_ = (
        ("nodes", _POINTER), ("neighbours", _POINTER), ("shared", _POINTER * LAYERS),
        ("unseen", _POINTER * (LAYERS - 1)),
    )  # fmt: skip


class Designs(ctypes.Structure):
    """`Designs` of kernels.h."""

    _fields_ = (
        ("count", ctypes.c_int32), ("order", _POINTER), ("free", _POINTER), ("uniforms", _POINTER),
        ("temperature", _POINTER), ("allowed", _POINTER), ("residues", _POINTER), ("log_probabilities", _POINTER),
    )  # fmt: skip


class KernelLibrary:
    """One variant of the kernels.

    Args:
        data: the bytes of the shared library.
        name: its file name, for errors.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._library = shared_library.load(data, name)
        self.variant = self._declare(name)

    def encode(self, network: Network, backbone: BackbonePointers, out: EncodedPointers) -> None:
        """Run the encoder."""
        _check(self._library.helix_encode(ctypes.byref(network), ctypes.byref(backbone), ctypes.byref(out)))

    def decoder_step(
        self,
        network: Network,
        messages: Sequence[NDArray[np.float32]],
        nodes: NDArray[np.float32],
        out: NDArray[np.float32],
        seen: Sequence[NDArray[np.float32]],
    ) -> None:
        """Run the decoder's layers on summed messages."""
        rows, neighbours, _ = messages[0].shape
        given = (_POINTER * LAYERS)(*map(address, messages))
        sent = (_POINTER * (LAYERS - 1))(*map(address, seen))
        _check(
            self._library.helix_decoder_step(
                ctypes.byref(network), rows, neighbours, given, address(nodes), address(out), sent
            )
        )

    def decode(self, network: Network, backbone: BackbonePointers, encoded: EncodedPointers, designs: Designs) -> None:
        """Decode whole designs. Raises ValueError when a probability is not a number."""
        pointers = [ctypes.byref(struct) for struct in (network, backbone, encoded, designs)]
        _check(self._library.helix_decode(*pointers))

    def product(
        self,
        a: NDArray[np.float32],
        panels: NDArray[np.float32],
        *,
        after: int = PLAIN,
        bias: NDArray[np.float32] | None = None,
        table: NDArray[np.float32] | None = None,
        index: NDArray[np.int32] | None = None,
        weight: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """`a` [rows, inner] times packed weights; see product.h. Sums over rows give [columns]."""
        rows, inner = a.shape
        columns = panels.shape[0] * PANEL
        out = aligned((columns,) if after == GELU_SUM else (rows, columns))
        self._library.helix_product(
            after, rows, inner, columns, *map(address, (a, panels, bias, table, index, weight, out))
        )
        return out

    def call(self, name: str, *arguments: Any) -> Any:
        """Call one of probes.c's functions; arrays are passed by address."""
        function = getattr(self._library, name)
        return function(*(address(value) if isinstance(value, np.ndarray) else value for value in arguments))

    def _declare(self, name: str) -> str:
        """Give the functions their types; gives the variant. Raises ContractError for another interface."""
        number, real, pointer = ctypes.c_int32, ctypes.c_float, _POINTER
        types: dict[str, tuple[Any, list[Any]]] = {
            "helix_encode": (number, [pointer] * 3),
            "helix_decoder_step": (number, [pointer, number, number, *[pointer] * 4]),
            "helix_decode": (number, [pointer] * 4),
            "helix_product": (None, [*[number] * 4, *[pointer] * 7]),
            "helix_norm": (None, [number, pointer, pointer, real, pointer, pointer]),
            "helix_exp": (None, [number, pointer]),
            "helix_gelu": (None, [number, pointer]),
            "helix_nearest": (None, [*[number] * 3, *[pointer] * 5]),
            "helix_radial": (None, [real, pointer, pointer]),
            "helix_log_softmax": (None, [pointer, pointer]),
            "helix_choose": (number, [pointer, pointer, ctypes.c_double, ctypes.c_double]),
        }
        try:
            for function, (result, arguments) in types.items():
                found = getattr(self._library, function)
                found.restype, found.argtypes = result, arguments
            sizes = list((number * 4).in_dll(self._library, "helix_sizes"))
            variant = ctypes.c_char_p.in_dll(self._library, "helix_variant").value or b""
        except (AttributeError, ValueError) as error:
            raise ContractError(f"the library is not one of the kernels: {error}", where=name) from error
        if sizes != [ctypes.sizeof(struct) for struct in (Network, BackbonePointers, EncodedPointers, Designs)]:
            raise ContractError("the library was compiled from other sources than this code", where=name)
        return variant.decode()


def _check(status: int) -> None:
    if status == 1:
        raise HelixServeError("there is not enough memory for this request", where="native kernels")
    if status != 0:
        raise ValueError("no positive weight to choose from")
