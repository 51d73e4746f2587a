"""Typed tensors and the two forms that code works with: numpy arrays and plain values.

>>> scalar(from_value("temperature", "FP64", 0.1))
0.1
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_lineage.formats.typed import ITEM_BYTES, Tensor
from helixserve.errors import InvalidInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scalar = bool | int | float | str

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"), "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
}  # fmt: skip
"""Open Inference Protocol data type → numpy type; BYTES has none."""

FLOATS = ("FP16", "FP32", "FP64")

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def from_array(name: str, array: NDArray[Any]) -> Tensor:
    """A numeric tensor; the data type follows the array's. Raises ValueError for a type that has no name."""
    datatype = _NAMES.get(array.dtype.newbyteorder("<"))
    if datatype is None:
        raise ValueError(f"no Open Inference Protocol data type for {array.dtype}")
    return Tensor(name, datatype, array.shape, array.astype(DTYPES[datatype], copy=False).tobytes())


def to_array(tensor: Tensor) -> NDArray[Any]:
    """The numeric tensor as a read-only array. Raises ValueError for BYTES."""
    if not isinstance(tensor.data, bytes):
        raise ValueError(f"{tensor.name} holds BYTES")
    return np.frombuffer(tensor.data, DTYPES[tensor.datatype]).reshape(tensor.shape)


def is_finite(tensor: Tensor) -> bool:
    """Whether a numeric tensor holds neither NaN nor an infinite number."""
    return bool(np.isfinite(to_array(tensor)).all())


def from_texts(name: str, texts: Sequence[str | bytes]) -> Tensor:
    """A BYTES[n] tensor; text as UTF-8."""
    data = tuple(text.encode() if isinstance(text, str) else text for text in texts)
    return Tensor(name, "BYTES", (len(data),), data)


def texts(tensor: Tensor) -> list[str]:
    """The elements of a BYTES tensor as text. Raises InvalidInputError when they are not UTF-8."""
    if not isinstance(tensor.data, tuple):
        raise ValueError(f"{tensor.name} is {tensor.datatype}, not BYTES")
    try:
        return [item.decode() for item in tensor.data]
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{tensor.name} is not UTF-8 text: {error}", where=tensor.name) from None


def scalar(tensor: Tensor) -> Scalar:
    """The only element of a tensor: text of a BYTES[1], else a Python number. Raises InvalidInputError."""
    if math.prod(tensor.shape) != 1:
        raise InvalidInputError(
            f"{tensor.name} needs exactly one element, not shape {list(tensor.shape)}", where=tensor.name
        )
    if isinstance(tensor.data, tuple):
        return texts(tensor)[0]
    return to_array(tensor).reshape(1).tolist()[0]  # type: ignore[no-any-return]  # numpy types tolist() as Any


def find(tensors: Iterable[Tensor], name: str) -> Tensor | None:
    """The tensor of that name, or None."""
    return next((tensor for tensor in tensors if tensor.name == name), None)


def from_value(name: str, datatype: str, value: object, rank: int = 1) -> Tensor:
    """A tensor of plain values, as JSON and TOML give them: a scalar, or lists nested `rank` deep.

    Integers must fit the type and are never rounded; a whole number may stand for a float.
    Raises InvalidInputError.
    """
    nested = value if isinstance(value, list | tuple) else [value]
    shape = _shape(name, nested, rank)
    return Tensor(name, datatype, shape, pack(name, datatype, flatten(nested)))


def to_value(tensor: Tensor, shape: Sequence[int] | None = None) -> Scalar | list[Any]:
    """The plain value that `from_value` reads: a scalar for shape [1], else nested lists; BYTES as text.

    Args:
        shape: what the contract says, where a list may have one element by chance; the tensor's own when missing.
    """
    if (tensor.shape if shape is None else tuple(shape)) == (1,):
        return scalar(tensor)
    if isinstance(tensor.data, tuple):
        value: list[Any] = np.array(texts(tensor), dtype=object).reshape(tensor.shape).tolist()
    else:
        value = to_array(tensor).tolist()
    return value


def flatten(value: object) -> list[object]:
    """The elements of nested lists, in C order; however deep, for an untrusted party wrote them."""
    flat: list[object] = []
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, list | tuple):
            pending.extend(reversed(item))
        else:
            flat.append(item)
    return flat


def pack(name: str, datatype: str, values: Sequence[object]) -> bytes | tuple[bytes, ...]:
    """The tensor data of plain values. Raises InvalidInputError for a value that the type cannot hold."""
    if datatype == "BYTES":
        return tuple(_text(name, value) for value in values)
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InvalidInputError(f"{name}: unknown data type {datatype!r}", where=name, fix=f"use one of {_KNOWN}")
    for value in values:
        _check_kind(name, datatype, dtype.kind, value)
    try:
        # An explicit object array: numpy would turn a mix of large integers into floats.
        return np.array(values, dtype=object).astype(dtype).tobytes() if dtype.kind != "f" else _floats(dtype, values)
    except (OverflowError, struct.error):
        raise InvalidInputError(f"{name}: a value does not fit {datatype}", where=name) from None


def unpack(tensor: Tensor) -> list[Scalar]:
    """The elements of a tensor, flat, as plain values; BYTES as text. Raises InvalidInputError if not UTF-8."""
    if isinstance(tensor.data, tuple):
        return list(texts(tensor))
    values: list[Scalar] = to_array(tensor).reshape(-1).tolist()
    return values


def _shape(name: str, nested: Sequence[object], rank: int) -> tuple[int, ...]:
    if rank <= 1:
        if any(isinstance(item, list | tuple) for item in nested):
            raise InvalidInputError(f"{name} holds lists where values belong", where=name)
        return (len(nested),)
    inner = [_shape(name, item, rank - 1) if isinstance(item, list | tuple) else None for item in nested]
    if None in inner or len(set(inner)) > 1:
        raise InvalidInputError(f"{name} is not made of equally long lists, {rank} deep", where=name)
    return (len(nested), *(inner[0] or () if inner else (0,) * (rank - 1)))


_KNOWN = ", ".join([*ITEM_BYTES, "BYTES"])


def _floats(dtype: np.dtype[Any], values: Sequence[object]) -> bytes:
    array = np.array(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        narrow = array.astype(dtype)
    if np.count_nonzero(np.isinf(narrow)) != np.count_nonzero(np.isinf(array)):
        raise OverflowError
    return narrow.tobytes()


def _text(name: str, value: object) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
            raise InvalidInputError(f"{name} holds text that is not valid Unicode", where=name) from None
    if isinstance(value, bytes):
        return value
    raise InvalidInputError(f"{name} takes text, not {_kind(value)}", where=name)


def _check_kind(name: str, datatype: str, kind: str, value: object) -> None:
    if kind == "b":
        good = isinstance(value, bool | np.bool_)
    elif kind == "f":
        good = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        good = isinstance(value, int) and not isinstance(value, bool)
        if good and not np.iinfo(DTYPES[datatype]).min <= value <= np.iinfo(DTYPES[datatype]).max:  # type: ignore[operator]  # an int, by `good`
            raise InvalidInputError(f"{name}: {_digits(value)} does not fit {datatype}", where=name)
    if not good:
        raise InvalidInputError(f"{name} takes {datatype} values, not {_kind(value)}", where=name)


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _digits(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"a number of {len(text.lstrip('-'))} digits"
