"""Between the protocol's messages and typed tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helix_lineage.formats.typed import Tensor
from helixserve.endpoints import open_inference as protocol, triton
from helixserve.endpoints.grpc import open_inference_pb2 as pb
from helixserve.errors import InvalidInputError
from helixserve.execution.core import Answer, Item
from helixserve.model import tensors as plain
from helixserve.model.contract import Contract, Task

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip

FINAL = "triton_final_response"
"""The parameter of a stream's response that says whether it is its request's last."""


def read(task: Task, request: pb.ModelInferRequest) -> list[Tensor]:
    """The tensors of a request. Raises InvalidInputError."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInputError(f"{len(raw)} raw contents for {len(request.inputs)} inputs", where="raw_input_contents")
    tensors = []
    for index, entry in enumerate(request.inputs):
        protocol.check_parameters(entry.name, _parameters(entry.parameters))
        if raw:
            if entry.HasField("contents"):
                raise InvalidInputError(
                    f"{entry.name} has contents and raw contents; send one of them", where=entry.name[:80]
                )
            tensors.append(protocol.from_raw(entry.name, entry.datatype, entry.shape, raw[index]))
        else:
            tensors.append(_from_contents(entry))
    for output in request.outputs:
        protocol.check_parameters(output.name, _parameters(output.parameters))
    return protocol.with_parameters(task, tensors, _parameters(request.parameters))


def write(
    contract: Contract, request: pb.ModelInferRequest, wanted: list[str], answer: Answer
) -> pb.ModelInferResponse:
    """The response: raw if the inputs came raw, else typed contents."""
    response = pb.ModelInferResponse(
        model_name=request.model_name,
        model_version=contract.version,
        id=request.id or answer.request_id,
    )
    for name, value in protocol.parameters_of(answer).items():
        if isinstance(value, int):
            response.parameters[name].uint64_param = value
        else:
            response.parameters[name].string_param = value
    tensors = [tensor for tensor in protocol.stack(answer) if tensor.name in wanted]
    # Raw contents are one an output or none at all, so a single FP16 makes all of them raw.
    raw = bool(request.raw_input_contents) or any(tensor.datatype not in _CONTENTS for tensor in tensors)
    for tensor in tensors:
        entry = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if raw:
            response.raw_output_contents.append(protocol.to_raw(tensor))
        else:
            values = tensor.data if isinstance(tensor.data, tuple) else plain.to_array(tensor).reshape(-1).tolist()
            getattr(entry.contents, _CONTENTS[tensor.datatype]).extend(values)
    return response


def write_item(
    contract: Contract, request: pb.ModelInferRequest, wanted: list[str], item: Item
) -> pb.ModelInferResponse:
    """The response of one item of a stream; says whether it is the request's last, as Triton does."""
    response = write(contract, request, wanted, item.answer)
    response.parameters[FINAL].bool_param = item.last
    response.parameters["index"].uint64_param = item.index
    response.parameters["count"].uint64_param = item.count
    return response


def metadata(contract: Contract, task: Task) -> pb.ModelMetadataResponse:
    """The protocol's model metadata."""
    kind = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=protocol.model_name(contract, task),
        versions=[contract.version],
        platform=triton.platform(contract),
        inputs=[kind(name=m.name, datatype=m.datatype, shape=m.shape) for m in protocol.inputs_of(task)],
        outputs=[kind(name=m.name, datatype=m.datatype, shape=m.shape) for m in protocol.outputs_of(task)],
    )


def _from_contents(entry: pb.ModelInferRequest.InferInputTensor) -> Tensor:
    field = _CONTENTS.get(entry.datatype)
    if field is None:
        raise InvalidInputError(
            f"{entry.name}: {entry.datatype[:20]!r} goes as raw contents only", where=entry.name[:80]
        )
    others = [other.name for other, _ in entry.contents.ListFields() if other.name != field]
    if others:
        raise InvalidInputError(
            f"{entry.name} is {entry.datatype}, so it belongs in {field}, not {others[0]}", where=entry.name
        )
    return protocol.from_elements(entry.name, entry.datatype, entry.shape, list(getattr(entry.contents, field)))


def _parameters(given: Mapping[str, pb.InferParameter]) -> dict[str, plain.Scalar | None]:
    """The parameters by name; one that holds nothing is what JSON calls null."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        choice = value.WhichOneof("parameter_choice")
        found[name] = None if choice is None else getattr(value, choice)
    return found
