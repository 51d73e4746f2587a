"""TERM under load: what was accepted is answered and recorded, at every endpoint; what comes later is refused."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import httpx
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from helix_lineage.shard.entries import Close, decode
from helix_lineage.shard.reader import Log
from tests.helixserve import support
from tests.helixserve.support import Place, Serving, serving
from tests.waiting import LONGEST_S, until

CLIENTS = 4
"""An endpoint."""
DELAY_S = 0.02


def by_json(server: Serving) -> list[str]:
    answer = httpx.post(f"{server.url}/project", json={"values": [1], "delay": DELAY_S}, timeout=LONGEST_S)
    return [item["prediction_id"] for item in answer.json().get("predictions", ())]


def by_open_inference(server: Serving) -> list[str]:
    tensor = {"name": "values", "datatype": "FP32", "shape": [1], "data": [1]}
    body = {"inputs": [tensor], "parameters": {"delay": DELAY_S}}
    answer = httpx.post(f"{server.url}/v2/models/tiny-project/infer", json=body, timeout=LONGEST_S).json()
    return [
        name for tensor in answer.get("outputs", ()) if tensor["name"] == "prediction_id" for name in tensor["data"]
    ]


def by_grpc(server: Serving) -> list[str]:
    values = triton.InferInput("values", [0], "FP32")
    values.set_data_from_numpy(np.zeros(0, np.float32))
    with triton.InferenceServerClient(server.grpc) as client, contextlib.suppress(InferenceServerException):
        answer = client.infer("tiny-project", [values], parameters={"delay": DELAY_S})
        return [name.decode() for name in answer.as_numpy("prediction_id").tolist()]
    return []


ENDPOINTS: tuple[Callable[[Serving], list[str]], ...] = (by_json, by_open_inference, by_grpc)


def under_load(server: Serving, end: Callable[[], object]) -> dict[str, list[str]]:
    """Endpoint → ids of the answers that arrived, while many clients ask and `end` is called in between."""
    received: dict[str, list[str]] = {endpoint.__name__: [] for endpoint in ENDPOINTS}
    stop = threading.Event()

    def ask(endpoint: Callable[[Serving], list[str]]) -> None:
        while not stop.is_set():
            with contextlib.suppress(httpx.TransportError):
                received[endpoint.__name__] += endpoint(server)

    threads = [threading.Thread(target=ask, args=(endpoint,)) for endpoint in ENDPOINTS for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    until(lambda: all(len(ids) > 2 for ids in received.values()), "every endpoint under load")
    end()
    stop.set()
    for thread in threads:
        thread.join()
    return received


def complaints(place: Place, received: dict[str, list[str]]) -> list[str]:
    """What was recorded and not answered, answered and not recorded, and a shard that was not closed."""
    log = Log(place.log)
    (name,) = log.shard_ids()
    shard = log.shard(name)
    recorded = {f"{name}.{sequence}" for sequence, _ in shard.predictions()}
    answered = {item for items in received.values() for item in items}
    found = [f"accepted, and never answered: {item}" for item in sorted(recorded - answered)]
    found += [f"answered, and not recorded: {item}" for item in sorted(answered - recorded)]
    return found + ([] if isinstance(decode(shard.entry(shard.size - 1)), Close) else ["the shard is not closed"])


def test_no_accepted_request_is_lost_at_any_endpoint(place: Place) -> None:
    with serving(place) as server:
        received = under_load(server, server.stop)
        assert server.process.returncode == 0
    assert complaints(place, received) == []
    assert list(server.scratch.iterdir()) == []  # and nothing is left behind


SLOW = """
import asyncio
from helixserve.endpoints.grpc.server import GrpcEndpoints as _Endpoint

_infer = _Endpoint._infer


async def _slowly(self, request, context):
    answer = await _infer(self, request, context)
    await asyncio.sleep(3)
    return answer


_Endpoint._infer = _slowly
"""
"""An answer that takes longer to leave than what only watches may stay, as on a machine that is very busy."""


def test_an_answer_that_leaves_slowly_is_waited_for(place: Place) -> None:
    service = place.home / "model" / "src" / "tiny_model" / "service.py"
    service.write_text(service.read_text() + SLOW)
    support.publish(place, "tiny")
    received: list[str] = []
    with serving(place) as server:
        threads = [threading.Thread(target=lambda: received.extend(by_grpc(server))) for _ in range(CLIENTS)]
        with server.holding():
            for thread in threads:
                thread.start()
            until(lambda: server.inside == CLIENTS, "accepted requests")
            server.process.terminate()
        for thread in threads:
            thread.join()
        server.process.wait(LONGEST_S)
    assert len(received) == CLIENTS
    assert complaints(place, {"grpc": received}) == []


def test_a_server_that_does_not_drain_is_caught(place: Place) -> None:
    """The planted fault: killed instead of told."""
    with serving(place) as server:

        def killed() -> None:
            server.process.kill()
            server.process.wait()

        received = under_load(server, killed)
    assert complaints(place, received)


def test_after_term_new_requests_are_refused_while_old_ones_are_finished(place: Place) -> None:
    with serving(place) as server:
        answers: list[httpx.Response] = []

        def slow() -> None:
            answers.append(httpx.post(f"{server.url}/project", json={"values": [1]}, timeout=LONGEST_S))

        with server.holding(), triton.InferenceServerClient(server.grpc) as client:
            assert client.is_server_ready()
            thread = threading.Thread(target=slow)
            thread.start()
            until(lambda: server.inside == 1, "an accepted request")
            server.process.terminate()
            # gRPC still listens: HTTP is drained first. It says what is the case, and takes nothing.
            until(lambda: not client.is_server_ready(), "the server's notice of TERM")
            values = triton.InferInput("values", [0], "FP32")
            values.set_data_from_numpy(np.zeros(0, np.float32))
            refused = ""
            try:
                client.infer("tiny-project", [values])
            except InferenceServerException as error:
                refused = str(error)
            assert "UNAVAILABLE" in refused
            assert "stopping" in refused
        thread.join()
        assert server.stop() == 0
    assert answers[0].status_code == 200
    received = {"json": [item["prediction_id"] for item in answers[0].json()["predictions"]]}
    assert complaints(place, received) == []
