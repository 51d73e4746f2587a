"""The Open Inference Protocol over HTTP, asked over the wire by stock clients."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from tests.helixserve.support import Serving

VALUES = {"name": "values", "datatype": "FP32", "shape": [2], "data": [1, 2]}
PATH = "/v2/models/tiny-project/infer"


def post(server: Serving, body: Any, path: str = PATH) -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=60)


@pytest.fixture
def client(tiny: Serving) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(tiny.url.removeprefix("http://"))


def values(binary: bool) -> triton.InferInput:
    tensor = triton.InferInput("values", [2], "FP32")
    tensor.set_data_from_numpy(np.array([1, 2], np.float32), binary_data=binary)
    return tensor


def test_the_stock_client_finds_server_and_models(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny-project")
    assert client.is_model_ready("tiny-project", "3")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data", "model_configuration"]
    metadata = client.get_model_metadata("tiny-project")
    assert metadata["versions"] == ["3"]
    assert {"name": "table", "datatype": "FP32", "shape": [-1, -1, 3]} in metadata["outputs"]
    assert {"name": "prediction_id", "datatype": "BYTES", "shape": [-1]} in metadata["outputs"]


def test_the_stock_client_reads_configurations_and_the_index(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("tiny-project", "3")
    assert (config["name"], config["max_batch_size"], config["backend"]) == ("tiny-project", 0, "onnxruntime")
    inputs = {tensor["name"]: tensor for tensor in config["input"]}
    assert inputs["values"] == {"name": "values", "data_type": "TYPE_FP32", "dims": [-1], "optional": False}
    assert inputs["words"]["optional"]
    assert {"name": "label", "data_type": "TYPE_STRING", "dims": [-1, 1]} in config["output"]
    # Whoever reads it as protobuf's JSON finds Triton's own fields.
    assert json_format.ParseDict(config, model_config_pb2.ModelConfig()).input[0].data_type
    names = [(entry["name"], entry["version"], entry["state"]) for entry in client.get_model_repository_index()]
    assert names == [("tiny-project", "3", "READY"), ("tiny-measure", "3", "READY")]
    with pytest.raises(InferenceServerException, match="no model"):
        client.get_model_config("tiny")


def test_an_index_is_asked_with_an_object(tiny: Serving) -> None:
    for body in ([], {"ready": 1}):
        assert httpx.post(f"{tiny.url}/v2/repository/index", json=body).status_code == 400


def test_an_unknown_model_or_version_is_not_ready(client: triton.InferenceServerClient) -> None:
    assert not client.is_model_ready("tiny")
    assert not client.is_model_ready("tiny-project", "1")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_tensors_go_as_json_or_as_raw_bytes(
    client: triton.InferenceServerClient, binary_in: bool, binary_out: bool | None
) -> None:
    names = ("projected", "label", "largest", "even", "prediction_id")
    outputs = (
        None if binary_out is None else [triton.InferRequestedOutput(name, binary_data=binary_out) for name in names]
    )
    options = {"seed": 5, "repeats": 3, "words": "a"}
    answer = client.infer("tiny-project", [values(binary_in)], outputs=outputs, request_id="mine", parameters=options)
    assert answer.get_response()["id"] == "mine"
    assert answer.get_response()["parameters"]["seed"] == 5
    assert answer.as_numpy("projected").shape == (3, 8)
    assert answer.as_numpy("largest").tolist() == [[2**64 - 1], [2**64 - 2], [2**64 - 3]]
    assert answer.as_numpy("even").tolist() == [[True], [False], [True]]
    text = answer.as_numpy("label")[2, 0]
    assert (text.decode() if isinstance(text, bytes) else text) == "a/ø2"


def test_only_the_outputs_asked_for_come_and_prediction_ids(tiny: Serving) -> None:
    answer = post(tiny, {"inputs": [VALUES], "outputs": [{"name": "total"}]}).json()
    assert [output["name"] for output in answer["outputs"]] == ["total", "prediction_id"]


def test_data_may_be_nested_or_flat_and_the_version_in_the_path(tiny: Serving) -> None:
    pairs = {"name": "pairs", "datatype": "INT32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}
    flat = pairs | {"data": [1, 2, 3, 4]}
    path = "/v2/models/tiny-project/versions/3/infer"
    answers = [post(tiny, {"inputs": [VALUES, p], "parameters": {"seed": 1}}, path).json() for p in (pairs, flat)]
    assert answers[0]["outputs"][0] == answers[1]["outputs"][0]


BAD: list[tuple[Any, int, str]] = [
    ({"parameters": {"text": "a", "binary_data_output": []}}, 400, "binary_data_output"),
    ({"inputs": [], "outputs": [{"name": "label", "parameters": {"binary_data": 1}}]}, 400, "binary_data"),
    ([], 400, "body"),
    ({}, 400, "values"),
    ({"inputs": {}}, 400, "inputs"),
    ({"inputs": [1]}, 400, "inputs"),
    ({"inputs": [{"datatype": "FP32"}]}, 400, "inputs"),
    ({"inputs": [VALUES | {"shape": [3]}]}, 400, "values"),
    ({"inputs": [VALUES | {"shape": [-1]}]}, 400, "values"),
    ({"inputs": [VALUES | {"shape": "2"}]}, 400, "values"),
    ({"inputs": [VALUES | {"datatype": "FP64"}]}, 400, "values"),
    ({"inputs": [VALUES | {"datatype": "BF16"}]}, 400, "values"),
    ({"inputs": [VALUES | {"data": [1, "2"]}]}, 400, "values"),
    ({"inputs": [{"name": "values", "datatype": "FP32", "shape": [2]}]}, 400, "values"),
    ({"inputs": [VALUES | {"parameters": {"shared_memory_region": "r"}}]}, 400, "values"),
    ({"inputs": [VALUES | {"parameters": {"binary_data_size": 8}}]}, 400, "values"),
    (
        {"inputs": [{k: VALUES[k] for k in ("name", "datatype", "shape")} | {"parameters": {"binary_data_size": 8}}]},
        400,
        "values",
    ),
    ({"inputs": [VALUES, VALUES]}, 400, "values"),
    ({"inputs": [VALUES | {"data": None}]}, 400, "values"),
    ({"inputs": [VALUES | {"name": None}]}, 400, "inputs"),
    ({"inputs": [VALUES | {"datatype": None}]}, 400, "values"),
    ({"inputs": [VALUES | {"parameters": {"content_type": "base64"}}]}, 400, "content_type"),
    ({"inputs": [VALUES | {"parameters": {"unheard": 1}}]}, 400, "values"),
    ({"inputs": [VALUES], "parameters": {"unheard": 1}}, 400, "unheard"),
    ({"inputs": [VALUES], "parameters": {"content_type": "base64"}}, 400, "content_type"),
    ({"inputs": [VALUES], "outputs": [{"name": "label", "parameters": {"classification": 3}}]}, 400, "label"),
    ({"inputs": [VALUES], "parameters": {"repeats": [1]}}, 400, "repeats"),
    ({"inputs": [VALUES], "parameters": {"values": 1.0}}, 400, "values"),
    ({"inputs": [VALUES], "parameters": []}, 400, "parameters"),
    ({"inputs": [VALUES], "outputs": [{"name": "unheard"}]}, 400, "outputs"),
    ({"inputs": [VALUES | {"shape": [9], "data": [1] * 9}]}, 413, "values"),
    ({"inputs": [VALUES], "parameters": {"fault": "raise"}}, 500, "project"),
]


@pytest.mark.parametrize(("body", "status", "where"), BAD, ids=lambda value: str(value)[:60])
def test_a_bad_request_is_refused_with_the_protocols_error(tiny: Serving, body: Any, status: int, where: str) -> None:
    response = post(tiny, body)
    assert (response.status_code, response.json()["where"]) == (status, where)
    assert isinstance(response.json()["error"], str)


NULLS: list[dict[str, Any]] = [
    {"id": None, "parameters": None, "outputs": None},
    {"parameters": {"seed": None, "repeats": None, "binary_data_output": None, "unheard": None}},
    {"outputs": [{"name": "label", "parameters": None}]},
    {"outputs": [{"name": "label", "parameters": {"binary_data": None, "classification": None}}]},
    {"inputs": [VALUES | {"parameters": None}]},
    {"inputs": [VALUES | {"parameters": {"binary_data_size": None, "shared_memory_region": None}}]},
]


@pytest.mark.parametrize("fields", NULLS, ids=str)
def test_an_optional_field_that_is_null_was_not_given(tiny: Serving, fields: dict[str, Any]) -> None:
    response = post(tiny, {"inputs": [VALUES], **fields})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["id"] == answer["parameters"]["request_id"]
    assert "label" in [output["name"] for output in answer["outputs"]]


def test_no_inputs_are_null_too(tiny: Serving) -> None:
    response = post(tiny, {"inputs": None, "parameters": {"text": "ab"}}, "/v2/models/tiny-measure/infer")
    assert response.json()["outputs"][0]["data"] == [2]


def test_null_data_beside_binary_data_is_not_given(tiny: Serving) -> None:
    tensor = VALUES | {"data": None, "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [tensor], "parameters": {"seed": 5}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    raw = np.array([1, 2], np.float32).tobytes()
    response = httpx.post(tiny.url + PATH, content=head + raw, headers=headers, timeout=60)
    plain = post(tiny, {"inputs": [VALUES], "parameters": {"seed": 5}})
    assert response.json()["outputs"][:7] == plain.json()["outputs"][:7]  # then come the prediction ids


def test_what_stock_clients_send_to_any_server_changes_nothing(
    client: triton.InferenceServerClient, tiny: Serving
) -> None:
    options = {"seed": 5}
    sequence = {"sequence_id": 9, "sequence_start": True, "sequence_end": True}
    plain = client.infer("tiny-project", [values(True)], parameters=options)
    dressed = client.infer(
        "tiny-project", [values(True)], parameters=options, priority=2, timeout=1_000_000, **sequence
    )
    assert dressed.as_numpy("projected").tobytes() == plain.as_numpy("projected").tobytes()
    # MLServer's clients name a codec of each tensor and of the request, and repeat the headers.
    answer = post(
        tiny,
        {
            "inputs": [VALUES | {"parameters": {"content_type": "np", "headers": None}}],
            "parameters": {"content_type": "np", "headers": {"x": "y"}, **options},
            "outputs": [{"name": "projected", "parameters": {"content_type": "np"}}],
        },
    )
    assert answer.json()["outputs"][0]["data"] == plain.as_numpy("projected").ravel().tolist()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_the_stock_client_may_compress_what_it_sends(
    client: triton.InferenceServerClient, algorithm: str, binary: bool
) -> None:
    options = {"seed": 5}
    plain = client.infer("tiny-project", [values(binary)], parameters=options)
    packed = client.infer(
        "tiny-project",
        [values(binary)],
        parameters=options,
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,  # which no server must obey
    )
    assert packed.as_numpy("projected").tobytes() == plain.as_numpy("projected").tobytes()


@pytest.mark.parametrize("length", ["-1", "x", "99999", "1e1"])
def test_a_wrong_header_length_is_refused(tiny: Serving, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length}
    assert httpx.post(tiny.url + PATH, content=b"{}", headers=headers).status_code == 400


def test_bytes_that_no_tensor_claims_are_refused(tiny: Serving) -> None:
    headers = {"Inference-Header-Content-Length": "2"}
    response = httpx.post(tiny.url + PATH, content=b"{}garbage", headers=headers)
    assert (response.status_code, response.json()["where"]) == (400, "binary_data_size")


def test_the_stock_client_raises_what_the_server_says(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="must lie in"):
        client.infer("tiny-project", [values(True)], parameters={"repeats": 99})
    with pytest.raises(InferenceServerException, match="no model"):
        client.infer("tiny-unheard", [values(True)])
