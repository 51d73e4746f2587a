"""The life of a serving process: real processes, real signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
import tritonclient.grpc as triton
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from helix_lineage.shard.entries import Close, decode
from helix_lineage.shard.reader import Log
from helixserve.runners import machine
from tests.helixserve import support
from tests.helixserve.support import Place, Serving, serving
from tests.ports import free_port
from tests.waiting import LONGEST_S, longer, until


def without_release(place: Place) -> str:
    place.release.unlink()
    return "HELIX_RELEASE"


def with_another_key(place: Place) -> str:
    place.trust.write_text(json.dumps(support.trust(ec.generate_private_key(ec.SECP256R1()))))
    return "releaser"


def with_a_flipped_weight(place: Place) -> str:
    path = place.home / "artifacts" / "tiny.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    return "opt/helix/artifacts/tiny.onnx"


def with_another_contract(place: Place) -> str:
    """Released, but not what the release's image lists."""
    path = place.home / "model" / "model.toml"
    path.write_text(path.read_text().replace("request_bytes = 20000", "request_bytes = 20001"))
    return "opt/helix/model/model.toml"


def without_a_log(place: Place) -> str:
    place.log.touch()
    return "log"


@pytest.mark.parametrize(
    "spoil", [without_release, with_another_key, with_a_flipped_weight, with_another_contract, without_a_log]
)
def test_a_server_that_cannot_prove_its_release_never_serves_and_says_why(place: Place, spoil: object) -> None:
    named = spoil(place)  # type: ignore[operator]
    with serving(place) as server:
        for path in ("/readyz", "/v2/health/ready", "/v2/models/tiny-project/ready"):
            response = httpx.get(server.url + path, timeout=LONGEST_S)
            assert response.status_code == 503, path
            assert named in response.text, path
        assert httpx.get(server.url + "/livez", timeout=LONGEST_S).status_code == 200
        body = {"values": [1]}
        tensor = {"name": "values", "datatype": "FP32", "shape": [1], "data": [1]}
        for path, content in (("/project", body), ("/v2/models/tiny-project/infer", {"inputs": [tensor]})):
            response = httpx.post(server.url + path, json=content, timeout=LONGEST_S)
            assert response.status_code == 503, path
            assert named in response.json()["error"]
        with grpc.insecure_channel(server.grpc) as channel:
            status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status
            assert status == health_pb2.HealthCheckResponse.NOT_SERVING
        with triton.InferenceServerClient(server.grpc) as client:
            assert client.is_server_live()
            assert not client.is_server_ready()
            with pytest.raises(InferenceServerException, match="UNAVAILABLE") as caught:
                client.infer("tiny-project", [])
            assert named in str(caught.value)
        assert server.stop() == 0
    assert Log(place.log).shard_ids() == []


def test_term_finishes_what_was_accepted_and_closes_the_shard(place: Place) -> None:
    body = {"values": [1], "seed": 3}
    with serving(place) as server, ThreadPoolExecutor(2) as pool:
        with server.holding():
            first = pool.submit(httpx.post, f"{server.url}/project", json=body, timeout=LONGEST_S)
            second = pool.submit(grpc_infer, server)
            until(lambda: server.inside == 2, "two accepted requests")
            terminate(server)
        assert server.stop() == 0
        answer = first.result()
        prediction = second.result()
    assert answer.status_code == 200
    log = Log(place.log)
    (shard_id,) = log.shard_ids()
    shard = log.shard(shard_id)
    assert not shard.live
    assert isinstance(decode(shard.entry(shard.size - 1)), Close)
    recorded = {f"{shard_id}.{sequence}" for sequence, _ in shard.predictions()}
    assert recorded == {answer.json()["predictions"][0]["prediction_id"], prediction}


def terminate(server: Serving) -> None:
    """Send TERM, and wait until the server knows it."""
    with triton.InferenceServerClient(server.grpc) as client:
        assert client.is_server_ready()  # else the channel may be made too late, when nobody listens any more
        server.process.terminate()
        until(lambda: not client.is_server_ready(), "the server's notice of TERM")


def test_an_idle_stream_does_not_hold_up_the_end_and_one_at_work_is_answered(place: Place) -> None:
    idle_given: list[Any] = []
    with serving(place) as server, triton.InferenceServerClient(server.grpc) as idle:
        idle.start_stream(lambda result, error: idle_given.append((result, error)))  # asks nothing
        assert idle.is_server_live()  # on the same connection: the stream came before
        with server.holding(after=1), idle_stream(server) as given:
            until(lambda: given, "the first item of a stream at work")
            terminate(server)
            until(lambda: idle_given, "the end of the idle stream, before that of the one at work")
            server.let(7)
            assert server.stop() == 0
            results = [result for result, error in given if error is None]
    assert [result.get_response().parameters["index"].uint64_param for result in results] == list(range(8))
    assert "stopping" in str(given[-1][1])
    ((_, error),) = idle_given
    assert "stopping" in str(error)


@contextlib.contextmanager
def idle_stream(server: Serving) -> Iterator[list[Any]]:
    """A stream with one request of eight items under way, which then asks nothing more."""
    given: list[Any] = []
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: given.append((result, error)))
        values = triton.InferInput("values", [0], "FP32")
        values.set_data_from_numpy(support.np.zeros(0, support.np.float32))
        client.async_stream_infer("tiny-project", [values], parameters={"repeats": 8})
        yield given


def grpc_infer(server: Serving) -> str:
    with triton.InferenceServerClient(server.grpc) as client:
        values = triton.InferInput("values", [0], "FP32")
        values.set_data_from_numpy(support.np.zeros(0, support.np.float32))
        answer = client.infer("tiny-project", [values])
        return str(answer.as_numpy("prediction_id")[0].decode())


def test_a_grpc_call_past_its_deadline_leaves_the_queue_unrecorded(place: Place) -> None:
    def queued(seconds: float) -> bool:
        """Whether a call with that deadline came into the queue; waits until it has left."""
        given: list[Any] = []

        def tell(result: object, error: object) -> None:
            given.append(error)

        values = triton.InferInput("values", [0], "FP32")
        values.set_data_from_numpy(support.np.zeros(0, support.np.float32))
        with triton.InferenceServerClient(server.grpc) as client:
            client.async_infer("tiny-project", [values], tell, client_timeout=seconds)
            until(lambda: given or server.inside == 2, "a call in the queue, or its deadline")
            came = not given
            until(lambda: given and server.inside == 1, "the call's end")
        assert "DEADLINE_EXCEEDED" in str(given[0])
        return came

    with serving(place) as server, ThreadPoolExecutor(1) as pool:
        with server.holding():
            first = pool.submit(grpc_infer, server)
            until(lambda: server.inside == 1, "a call that is computed")
            assert any(queued(seconds) for seconds in longer(0.3, "a call in the queue at its deadline"))
        prediction = first.result()
        assert server.stop() == 0
    (shard_id,) = Log(place.log).shard_ids()
    assert [f"{shard_id}.{n}" for n, _ in Log(place.log).shard(shard_id).predictions()] == [prediction]


def test_a_restart_opens_a_new_shard_and_keeps_the_old_ones_readable(place: Place) -> None:
    predictions = []
    for _ in range(2):
        with serving(place) as server:
            answer = httpx.post(f"{server.url}/project", json={"values": [1], "seed": 1}, timeout=LONGEST_S).json()
            predictions.append(answer["predictions"][0]["prediction_id"])
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
    log = Log(place.log)
    assert len(log.shard_ids()) == 2
    outputs = set()
    for prediction in predictions:
        shard, sequence = log.find(prediction)
        outputs.add(shard.payload(sequence).output)
    assert len(outputs) == 1


def test_an_answer_that_cannot_be_recorded_is_withheld_and_the_server_is_unready(place: Place) -> None:
    with serving(place) as server:
        assert httpx.post(f"{server.url}/project", json={"values": [1]}, timeout=LONGEST_S).status_code == 200
        psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_FSIZE, (1, 1))
        refused = httpx.post(f"{server.url}/project", json={"values": [1]}, timeout=LONGEST_S)
        assert (refused.status_code, refused.json()["where"]) == (503, "log")
        assert httpx.get(f"{server.url}/readyz", timeout=LONGEST_S).status_code == 503
        assert httpx.get(f"{server.url}/v2/health/ready", timeout=LONGEST_S).status_code == 503
        server.process.kill()
    (shard_id,) = Log(place.log).shard_ids()
    assert len(list(Log(place.log).shard(shard_id).predictions())) == 1


def test_under_bentomls_supervisor_the_worker_ends_with_it(place: Place) -> None:
    """`bentoml serve` works too; killing the supervisor must not leave a worker that serves."""
    command = [
        sys.executable,
        "-m",
        "bentoml",
        "serve",
        str(place.home / "model"),
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
    ]
    numpy = {"NPY_DISABLE_CPU_FEATURES": pinned()}
    with serving(place, *command, **numpy) as server:
        assert httpx.post(f"{server.url}/project", json={"values": [1]}, timeout=LONGEST_S).status_code == 200
        workers = psutil.Process(server.process.pid).children(recursive=True)
        assert workers
        server.process.kill()
        _, alive = psutil.wait_procs(workers, timeout=LONGEST_S)
        assert not alive
    (shard_id,) = Log(place.log).shard_ids()
    shard = Log(place.log).shard(shard_id)
    assert not shard.live
    assert isinstance(decode(shard.entry(shard.size - 1)), Close)


def pinned() -> str:
    return " ".join(machine._BEYOND)


@pytest.mark.parametrize("taken", ["HELIX_HTTP_PORT", "HELIX_GRPC_PORT"])
def test_a_server_whose_port_is_taken_ends_without_a_shard(place: Place, tiny: Serving, taken: str) -> None:
    ports = {"HELIX_HTTP_PORT": tiny.http_port, "HELIX_GRPC_PORT": tiny.grpc_port}
    free = {name: str(free_port()) for name in ports}
    env = place.environment(**(free | {taken: str(ports[taken])}))
    command = [sys.executable, "-m", "helixserve", "serve"]
    answer = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode != 0
    assert str(ports[taken]) in answer.stderr + answer.stdout
    assert Log(place.log).shard_ids() == []


def test_the_help_names_both_commands() -> None:
    answer = subprocess.run([sys.executable, "-m", "helixserve", "--help"], capture_output=True, text=True, check=True)
    assert "serve" in answer.stdout
    assert "replay" in answer.stdout


def test_a_server_writes_nothing_outside_its_log_and_temporary_folders(place: Place) -> None:
    before = {path: path.stat().st_mtime_ns for path in place.root.rglob("*") if "__pycache__" not in str(path)}
    with serving(place) as server:
        httpx.post(f"{server.url}/project", json={"values": [1]}, timeout=LONGEST_S)
    after = {path: path.stat().st_mtime_ns for path in place.root.rglob("*") if "__pycache__" not in str(path)}
    assert before == after
    assert Path(server.output).exists()
