"""Compiled kernels from the very bytes that were hashed, and arrays that C can read.

The bytes go into an anonymous file in memory, which is then mapped: nothing is loaded by a path that
could change in between.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from helixserve.errors import ContractError

if TYPE_CHECKING:
    from numpy.typing import NDArray


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


_LOADED: dict[str, ctypes.CDLL] = {}


def load(data: bytes, name: str) -> ctypes.CDLL:
    """The library of these bytes, called `name` in errors; loaded once. Raises ContractError for what is none."""
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
    """Raises ContractError for what is not a 64-bit ELF file, or was cut: the loader would die of a bus error."""
    if len(data) >= 64 and data[:5] == b"\x7fELF\x02":
        sections, size, count = struct.unpack_from("<Q", data, 40)[0], *struct.unpack_from("<HH", data, 58)
        if sections + size * count <= len(data):
            return
    raise ContractError("the library cannot be loaded: it is not a whole ELF file", where=name)
