"""The compiled kernels (platform/kernels) as Python sees them: structs, functions, loading.

A library is loaded from the very bytes that the caller has hashed: they go into an anonymous file
in memory, which is then mapped. Nothing here checks extents; `native_runner` does, before it calls.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from helixserve.errors import ContractError, HelixServeError

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


class Backbone(ctypes.Structure):
    """`Backbone` of kernels.h."""

    _fields_ = (
        ("length", ctypes.c_int32), ("neighbours", ctypes.c_int32), ("coordinates", _POINTER), ("mask", _POINTER),
        ("residue_index", _POINTER), ("chain", _POINTER),
    )  # fmt: skip


class Encoded(ctypes.Structure):
    """`Encoded` of kernels.h."""

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


def aligned(shape: Sequence[int], dtype: Any = np.float32) -> NDArray[Any]:
    """An array, its values not set, that begins at a cache line."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, dtype=np.uint8)
    start = -memory.ctypes.data % 64
    array: NDArray[Any] = memory[start : start + size].view(dtype).reshape(tuple(shape))
    return array


def address(array: NDArray[Any] | None) -> int | None:
    """Where C finds the array; None is NULL. The caller keeps the array alive."""
    if array is None:
        return None
    if not array.flags.c_contiguous:
        raise ValueError("an array that C reads is contiguous")
    return int(array.ctypes.data)


class KernelLibrary:
    """One variant of the kernels.

    Args:
        data: the bytes of the shared library.
        name: its file name, for errors.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._library = _load(data, name)
        self.variant = self._declare(name)

    def encode(self, network: Network, backbone: Backbone, out: Encoded) -> None:
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

    def decode(self, network: Network, backbone: Backbone, encoded: Encoded, designs: Designs) -> None:
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
        if sizes != [ctypes.sizeof(struct) for struct in (Network, Backbone, Encoded, Designs)]:
            raise ContractError("the library was compiled from other sources than this code", where=name)
        return variant.decode()


_LOADED: dict[str, ctypes.CDLL] = {}


def _load(data: bytes, name: str) -> ctypes.CDLL:
    digest = hashlib.sha256(data).hexdigest()
    if digest not in _LOADED:
        _check_whole(data, name)
        # The descriptor stays open: the loader knows a library by its path, and a number used again
        # would be the older library's.
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        try:
            _LOADED[digest] = ctypes.CDLL(f"/proc/self/fd/{descriptor}")
        except OSError as error:
            os.close(descriptor)
            raise ContractError("the library cannot be loaded", where=name) from error
    return _LOADED[digest]


def _check_whole(data: bytes, name: str) -> None:
    """Raises ContractError for what is no 64-bit ELF file, or was cut: the loader would die of a bus error."""
    if len(data) >= 64 and data[:5] == b"\x7fELF\x02":
        sections, size, count = struct.unpack_from("<Q", data, 40)[0], *struct.unpack_from("<HH", data, 58)
        if sections + size * count <= len(data):
            return
    raise ContractError("the library cannot be loaded: it is not a whole ELF file", where=name)


def _check(status: int) -> None:
    if status == 1:
        raise HelixServeError("there is not enough memory for this request", where="native kernels")
    if status != 0:
        raise ValueError("no positive weight to choose from")
