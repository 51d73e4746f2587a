"""The Open Inference Protocol v2 without its wires: what HTTP and gRPC have in common.

A task is the protocol's model `<model>-<task>`. Inputs are tensors by name; an input may also
come as a scalar among the request's `parameters`. Outputs are the items' tensors stacked along a
new first axis, and `prediction_id` BYTES [N]. Raw tensor bytes are those of Triton's binary
tensor extension: little-endian, BYTES elements each after its length in four bytes.

A parameter that is null, and every other optional field, counts as not given. Parameters that stock
clients send to any server (`IGNORED`) change nothing here and are ignored, unless the task has an
input of that name. Every other unknown parameter is refused by name: it may be a mistyped option.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helix_lineage.formats.typed import ITEM_BYTES, Tensor
from helixserve.endpoints.values import check_texts
from helixserve.errors import InvalidInputError, NotFoundError
from helixserve.execution.core import Answer
from helixserve.model import tensors as plain
from helixserve.model.contract import Contract, Field, Task

PREDICTION_ID = "prediction_id"
LARGEST_RANK = 8
"""Most axes of a tensor: a product over millions of them would never end."""
EXTENSIONS = ("binary_tensor_data", "model_configuration")
IGNORED = frozenset(
    {
        # Of Triton's clients: hints to a scheduler of batches, and sequences, which stateless models have not.
        *("priority", "timeout", "sequence_id", "sequence_start", "sequence_end"),
        "triton_enable_empty_final_response",  # the last item is itself the last response, so there never is one
        "binary_data_output",  # the HTTP endpoint reads it; over gRPC the inputs' form decides
        "headers",  # MLServer's clients repeat the HTTP headers here
    }
)
"""Parameters of a request that change nothing."""
CONTENT_TYPES = ("np", "pd", "str")
"""Values of MLServer's parameter `content_type` that mean what is done anyway: elements in order, texts in UTF-8."""

Parameters = Mapping[str, plain.Scalar | None]


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the protocol's model metadata says of one tensor."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """-1 is any extent; an output's first axis counts items."""


def model_name(contract: Contract, task: Task) -> str:
    """The protocol's name of a task."""
    return f"{contract.name}-{task.name}"


def find_task(contract: Contract, model: str, version: str) -> Task:
    """The task of a protocol's model. An empty version is any. Raises NotFoundError."""
    by_name = {model_name(contract, task): task for task in contract.tasks.values()}
    if model not in by_name:
        raise NotFoundError(f"no model {model[:80]!r} is served", where="model", fix=f"use one of {', '.join(by_name)}")
    if version not in ("", contract.version):
        raise NotFoundError(
            f"no version {version[:80]!r} of {model} is served", where="model_version", fix=f"use {contract.version}"
        )
    return by_name[model]


def inputs_of(task: Task) -> list[Metadata]:
    """The inputs that a request may bring."""
    return [Metadata(field.name, field.datatype, field.shape) for field in task.inputs.values()]


def outputs_of(task: Task) -> list[Metadata]:
    """The outputs of an answer; the first axis counts items."""
    stacked = [Metadata(field.name, field.datatype, (-1, *field.shape)) for field in task.outputs.values()]
    return [*stacked, Metadata(PREDICTION_ID, "BYTES", (-1,))]


def with_parameters(task: Task, tensors: Iterable[Tensor], parameters: Parameters) -> list[Tensor]:
    """The tensors of a request, those given as scalar parameters among them. Raises InvalidInputError."""
    found = list(tensors)
    for name, value in parameters.items():
        field = task.inputs.get(name)
        if value is None or (field is None and _is_ignored(name, value)):
            continue
        if field is None:
            raise InvalidInputError(
                f"{task.name} has no option {name[:80]!r}",
                where=name[:80],
                fix=f"known inputs: {', '.join(task.inputs)}",
            )
        if not isinstance(value, bool | int | float | str):
            raise InvalidInputError(f"parameter {name} is not a scalar", where=name, fix="send it as an input tensor")
        found.append(plain.from_value(name, field.datatype, value))
    return found


def check_parameters(tensor: str, parameters: Mapping[str, object]) -> None:
    """Raises InvalidInputError for a parameter of one tensor that would change its meaning.

    Shared memory and Triton's `classification` would; so would an encoding such as base64.
    """
    for name, value in parameters.items():
        if value is not None and not _is_ignored(name, value):
            what = f"{tensor[:80]}: the parameter {name[:80]!r} is not served"
            raise InvalidInputError(what, where=tensor[:80], fix="send the tensor without it")


def _is_ignored(name: str, value: object) -> bool:
    if name != "content_type":
        return name in IGNORED
    if value not in CONTENT_TYPES:
        what = f"tensors of the content type {str(value)[:80]!r} are not served"
        raise InvalidInputError(what, where=name, fix=f"leave it out, or send {' or '.join(CONTENT_TYPES)}")
    return True


def wanted_outputs(task: Task, names: Sequence[str]) -> list[str]:
    """The outputs to answer with: all when none is named, and always the prediction ids. Raises InvalidInputError."""
    known = [metadata.name for metadata in outputs_of(task)]
    for name in names:
        if name not in known:
            raise InvalidInputError(f"{task.name} has no output {name[:80]!r}", where="outputs", fix=", ".join(known))
    return [name for name in known if not names or name in names or name == PREDICTION_ID]


def stack(answer: Answer) -> list[Tensor]:
    """The output tensors of an answer."""
    stacked = []
    for index, field in enumerate(answer.task.outputs.values()):
        stacked.append(_stack(field, [item[index] for item in answer.items]))
    return [*stacked, plain.from_texts(PREDICTION_ID, answer.prediction_ids)]


def to_raw(tensor: Tensor) -> bytes:
    """The raw bytes of a tensor."""
    if isinstance(tensor.data, bytes):
        return tensor.data
    return b"".join(struct.pack("<I", len(item)) + item for item in tensor.data)


def from_raw(name: str, datatype: str, shape: Sequence[int], raw: bytes) -> Tensor:
    """The tensor of raw bytes. Raises InvalidInputError when they do not fill the shape."""
    elements = check_shape(name, datatype, shape)
    if datatype != "BYTES":
        if len(raw) != elements * ITEM_BYTES[datatype]:
            raise InvalidInputError(
                f"{name}: {len(raw)} bytes do not fill {datatype} {list(shape)}", where=name, fix="check the shape"
            )
        if datatype == "BOOL" and raw.strip(b"\0\1"):
            raise InvalidInputError(f"{name}: a BOOL is a byte of 0 or 1", where=name)
        return Tensor(name, datatype, tuple(shape), raw)
    items: list[bytes] = []
    offset = 0
    while offset < len(raw):
        end = offset + 4
        if end <= len(raw):
            end += struct.unpack_from("<I", raw, offset)[0]
        if end > len(raw) or len(items) >= elements:
            break
        items.append(raw[offset + 4 : end])
        offset = end
    if offset != len(raw) or len(items) != elements:
        raise InvalidInputError(
            f"{name}: the bytes are not {elements} elements, each after its length in four bytes", where=name
        )
    return Tensor(name, "BYTES", tuple(shape), tuple(items))


def from_elements(name: str, datatype: str, shape: Sequence[int], elements: Sequence[object]) -> Tensor:
    """The tensor of plain elements in C order. Raises InvalidInputError when they do not fill the shape."""
    wanted = check_shape(name, datatype, shape)
    if len(elements) != wanted:
        raise InvalidInputError(f"{name}: {len(elements)} elements do not fill {list(shape)}", where=name)
    return Tensor(name, datatype, tuple(shape), plain.pack(name, datatype, elements))


def check_shape(name: str, datatype: str, shape: Sequence[int]) -> int:
    """The number of elements. Raises InvalidInputError for an unknown type or a negative or absurd extent."""
    if datatype not in ITEM_BYTES and datatype != "BYTES":
        raise InvalidInputError(f"{name}: unknown data type {datatype[:20]!r}", where=name)
    if len(shape) > LARGEST_RANK:
        raise InvalidInputError(f"{name}: {len(shape)} axes, at most {LARGEST_RANK} are served", where=name)
    elements = 1
    for extent in shape:
        if isinstance(extent, bool) or not isinstance(extent, int) or not 0 <= extent < 2**31:
            raise InvalidInputError(f"{name}: a shape holds extents from 0, not {str(extent)[:20]}", where=name)
        elements *= extent
    if datatype == "BYTES":
        check_texts(name, elements)
    return elements


def parameters_of(answer: Answer) -> dict[str, Any]:
    """What an answer's parameters tell: the request id, and the seed that was used."""
    seed = {} if answer.seed is None else {"seed": answer.seed}
    return {"request_id": answer.request_id, **seed}


def _stack(field: Field, items: Sequence[Tensor]) -> Tensor:
    shape = (len(items), *items[0].shape)
    if field.datatype == "BYTES":
        return Tensor(field.name, "BYTES", shape, tuple(element for item in items for element in item.data))  # type: ignore[misc]  # BYTES
    return Tensor(field.name, field.datatype, shape, b"".join(item.data for item in items))  # type: ignore[misc]  # not BYTES
