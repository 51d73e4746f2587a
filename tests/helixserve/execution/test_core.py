from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from tiny_model.model import Tiny

from helix_lineage.formats.typed import Tensor, decode, encode
from helix_lineage.shard import Prediction
from helixserve.errors import BusyError, ContractError, HelixServeError, NotReadyError, UnrecordedError
from helixserve.execution import core as core_module
from helixserve.execution.core import Core
from helixserve.model import tensors
from helixserve.model.contract import Contract
from helixserve.observe.call import Call
from tests.helixserve.support import Memory, tiny_graph
from tests.waiting import LONGEST_S, until_async

ID = bytes(range(16))


class Full:
    async def append_soon(self, predictions: Sequence[Prediction]) -> list[str]:
        raise UnrecordedError("the disk is full")


@pytest.fixture
def model(contract: Contract) -> Tiny:
    return Tiny.load({"tiny.onnx": tiny_graph()}, contract)


def request(**more: object) -> list[Tensor]:
    kinds = {"seed": "UINT64", "repeats": "INT64", "delay": "FP64", "pause": "FP64", "fault": "BYTES"}
    given = [tensors.from_value(name, kinds[name], value) for name, value in more.items()]
    return [tensors.from_value("values", "FP32", [1, 2, 3]), *given]


def test_every_item_is_recorded_as_it_is_answered(model: Tiny) -> None:
    log = Memory()
    answer = asyncio.run(Core(model, log).infer("project", request(seed=9, repeats=3), ID))
    assert answer.seed == 9
    assert answer.request_id == ID.hex()
    assert answer.prediction_ids == ("shard.0", "shard.1", "shard.2")
    assert [encode(item) for item in answer.items] == [prediction.output for prediction in log.predictions]
    assert [(p.index, p.count, p.seed, p.lane) for p in log.predictions] == [(i, 3, 9, "strict") for i in range(3)]
    names = {tensor.name for tensor in decode(log.predictions[0].input)}
    assert {"task", "seed", "scale", "repeats"} <= names
    assert all(p.started_ns <= p.finished_ns for p in log.predictions)


def test_a_drawn_seed_is_recorded_and_given(model: Tiny) -> None:
    log = Memory()
    answer = asyncio.run(Core(model, log, draw_seed=lambda: 77).infer("project", request(), ID))
    recorded = tensors.find(decode(log.predictions[0].input), "seed")
    assert recorded is not None
    assert (answer.seed, log.predictions[0].seed, tensors.scalar(recorded)) == (77, 77, 77)


def test_drawn_seeds_are_whole_in_every_json_reader() -> None:
    drawn = {core_module.draw() for _ in range(100)}
    assert len(drawn) == 100
    assert all(0 <= seed < 2**53 for seed in drawn)


def test_an_item_depends_on_nothing_but_input_seed_and_number(model: Tiny) -> None:
    """The strict lane: the same item, whichever items and requests are computed beside it."""
    core = Core(model, Memory())

    async def ask() -> list[core_module.Answer]:
        many = [core.infer("project", request(seed=seed, repeats=5), ID) for seed in (3, 4, 3, 5)]
        return await asyncio.gather(*many, core.infer("project", request(seed=3, repeats=5), ID))

    answers = asyncio.run(ask())
    assert answers[0].items == answers[2].items == answers[4].items
    assert answers[0].items != answers[1].items
    resolved = model.resolve("project", request(seed=3, repeats=5), lambda: 0)
    assert [tuple(item) for item in model.predict(resolved, [4, 1])] == [answers[0].items[4], answers[0].items[1]]


def test_requests_are_computed_one_after_another_off_the_event_loop(
    model: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, most, threads = 0, 0, set()
    original = model._project

    def watched(fields: object, item: int) -> tuple[Tensor, ...]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        threads.add(threading.current_thread().name)
        made = original(fields, item)  # type: ignore[arg-type]
        inside -= 1
        return made

    monkeypatch.setattr(model, "_project", watched)
    core = Core(model, Memory())

    async def ask() -> None:
        await asyncio.gather(*(core.infer("project", request(seed=i), ID) for i in range(10)))

    asyncio.run(ask())
    assert most == 1
    assert len(threads) == 1
    assert next(iter(threads)).startswith("helix-compute")


def test_what_cannot_be_recorded_is_not_answered(model: Tiny) -> None:
    with pytest.raises(UnrecordedError):
        asyncio.run(Core(model, Full()).infer("project", request(), ID))


@pytest.mark.parametrize("fault", ["nan", "shape", "missing", "bytes"])
def test_an_answer_that_breaks_the_contract_is_neither_recorded_nor_given(model: Tiny, fault: str) -> None:
    log = Memory()
    with pytest.raises(ContractError):
        asyncio.run(Core(model, log).infer("project", request(fault=fault, repeats=2), ID))
    assert log.predictions == []


def test_a_bug_in_the_model_becomes_an_error_without_its_message(model: Tiny) -> None:
    with pytest.raises(HelixServeError) as caught:
        asyncio.run(Core(model, Memory()).infer("project", request(fault="raise"), ID))
    assert caught.value.http_status == 500
    assert "secrets" not in str(caught.value)


def test_too_many_waiting_requests_are_refused_and_the_others_answered(model: Tiny) -> None:
    core = Core(model, Memory())

    async def ask() -> list[object]:
        asked = [core.infer("project", request(delay=0.02, seed=1), ID) for _ in range(20)]
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(ask())
    refused = [answer for answer in answers if isinstance(answer, BusyError)]
    assert len(refused) == 20 - model.contract.limits["queue"]
    assert all(isinstance(answer, core_module.Answer | BusyError) for answer in answers)


@pytest.fixture
def gate(model: Tiny, monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """The model waits for it within each item, which it has counted as computed by then."""
    made, project = threading.Semaphore(0), model._project

    def held(*arguments: Any) -> tuple[Tensor, ...]:
        assert made.acquire(timeout=LONGEST_S)
        return project(*arguments)

    monkeypatch.setattr(model, "_project", held)
    return made


def test_a_cancelled_request_leaves_the_queue_uncomputed(model: Tiny, gate: threading.Semaphore) -> None:
    log = Memory()
    core = Core(model, log)

    async def ask() -> None:
        first = asyncio.create_task(core.infer("project", request(seed=1), ID))
        second = asyncio.create_task(core.infer("project", request(seed=2), ID))
        await until_async(lambda: core.inside == 2 and model.computed == 1, "one request computed, and one queued")
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.release()
        await first
        await core.close()

    asyncio.run(ask())
    assert [prediction.seed for prediction in log.predictions] == [1]


def test_closing_finishes_what_was_accepted_and_refuses_the_rest(model: Tiny, gate: threading.Semaphore) -> None:
    core = Core(model, Memory())

    async def ask() -> core_module.Answer:
        accepted = asyncio.create_task(core.infer("project", request(), ID))
        await until_async(lambda: model.computed == 1, "a request that is computed")
        closing = asyncio.create_task(core.close())
        await asyncio.sleep(0)
        with pytest.raises(NotReadyError, match="stopping"):
            await core.infer("project", request(), ID)
        gate.release()
        await closing
        return await accepted

    assert len(asyncio.run(ask()).items) == 1


async def collect(core: Core, **more: object) -> list[core_module.Item]:
    return [item async for item in core.stream("project", request(**more), ID)]


def test_a_stream_gives_the_items_and_the_bytes_of_the_whole_answer(model: Tiny) -> None:
    log = Memory()
    core = Core(model, log)
    whole = asyncio.run(core.infer("project", request(seed=4, repeats=5), ID))
    items = asyncio.run(collect(core, seed=4, repeats=5))
    assert tuple(item.answer.items[0] for item in items) == whole.items
    assert [(item.index, item.count, item.last) for item in items] == [(i, 5, i == 4) for i in range(5)]
    assert [item.answer.prediction_ids for item in items] == [(f"shard.{n}",) for n in range(5, 10)]
    assert [p.output for p in log.predictions[:5]] == [p.output for p in log.predictions[5:]]
    assert {item.answer.seed for item in items} == {4}


def test_an_item_is_given_when_it_is_recorded_and_the_next_is_computed_meanwhile(model: Tiny) -> None:
    class Behind(Memory):
        """Records an item once the model is at the next one."""

        async def append_soon(self, predictions: Sequence[Prediction]) -> list[str]:
            (item,) = predictions
            await until_async(lambda: model.computed >= min(item.index + 2, item.count), "the next item")
            return await super().append_soon(predictions)

    log = Behind()
    core = Core(model, log)

    async def ask() -> None:
        async for item in core.stream("project", request(repeats=8), ID):
            assert len(log.predictions) == item.index + 1

    asyncio.run(ask())


def test_a_reader_that_stops_reading_holds_neither_the_worker_nor_more_than_one_item(model: Tiny) -> None:
    core = Core(model, Memory())

    async def ask() -> None:
        async with contextlib.aclosing(core.stream("project", request(repeats=50), ID)) as items:
            await anext(items)
            answers = [await core.infer("project", request(seed=seed), ID) for seed in range(3)]
            assert len(answers) == 3
        await core.close()

    asyncio.run(asyncio.wait_for(ask(), LONGEST_S))
    # The item that was read, the one ahead of it, and the three of the others; the last reply may let one more in.
    assert model.computed <= 6


def test_streams_and_whole_answers_side_by_side_have_the_bits_of_each_alone(model: Tiny) -> None:
    alone = [asyncio.run(collect(Core(model, Memory()), seed=seed, repeats=6)) for seed in range(3)]

    async def ask() -> list[list[core_module.Item]]:
        core = Core(model, Memory())
        streams = [collect(core, seed=seed, repeats=6, pause=0.001) for seed in range(3)]
        whole = [core.infer("project", request(seed=seed, repeats=6), ID) for seed in range(3)]
        found = await asyncio.gather(*streams, *whole)
        for stream, answer in zip(found[:3], found[3:], strict=True):
            assert tuple(item.answer.items[0] for item in stream) == answer.items  # type: ignore[union-attr]
        return found[:3]  # type: ignore[return-value]

    for one, other in zip(alone, asyncio.run(ask()), strict=True):
        assert [item.answer.items for item in one] == [item.answer.items for item in other]


@pytest.mark.parametrize("how", ["whole", "stream", "closed"])
def test_a_caller_that_goes_away_stops_the_computing(model: Tiny, gate: threading.Semaphore, how: str) -> None:
    log = Memory()
    core = Core(model, log)

    async def stream() -> None:
        async with contextlib.aclosing(core.stream("project", request(repeats=50), ID)) as items:
            async for item in items:
                if how == "closed" and item.index == 2:
                    return

    async def ask() -> None:
        whole = core.infer("project", request(repeats=50), ID)
        asked = asyncio.create_task(whole if how == "whole" else stream())
        if how != "whole":
            whole.close()
        gate.release(3)
        if how != "closed":
            await until_async(lambda: model.computed == 4, "three items, and the next one begun")
            asked.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asked
        assert core.inside == 0
        gate.release(50)
        await core.close()

    asyncio.run(ask())
    # Who closes a stream at an item may do so before the next one is begun.
    assert model.computed in ({3, 4} if how == "closed" else {4}), "the model went on"
    # A whole answer is recorded as a whole; the items of a stream that were given stay recorded.
    assert bool(log.predictions) == (how != "whole")


def test_a_stream_ends_with_the_error_of_the_item_that_fails(model: Tiny) -> None:
    log = Memory()

    async def ask() -> list[int]:
        seen = []
        with pytest.raises(ContractError, match="shape"):
            async for item in Core(model, log).stream("project", request(fault="shape", repeats=3), ID):
                seen.append(item.index)
        return seen

    assert asyncio.run(ask()) == [0]
    assert len(log.predictions) == 1


def test_a_stream_that_cannot_be_recorded_gives_nothing(model: Tiny) -> None:
    with pytest.raises(UnrecordedError):
        asyncio.run(collect_all(Core(model, Full())))


async def collect_all(core: Core) -> None:
    async for _ in core.stream("project", request(repeats=3), ID):
        raise AssertionError("given, but not recorded")


def test_closing_waits_for_streams(model: Tiny, gate: threading.Semaphore) -> None:
    core = Core(model, Memory())

    async def ask() -> list[core_module.Item]:
        reading = asyncio.create_task(collect(core, repeats=5))
        await until_async(lambda: model.computed == 1, "a stream that is computed")
        closing = asyncio.create_task(core.close())
        await asyncio.sleep(0)
        gate.release(5)
        await closing
        return await reading

    assert len(asyncio.run(ask())) == 5


class Slow(Memory):
    """Records as slowly as a bad disk."""

    async def append_soon(self, predictions: Sequence[Prediction]) -> list[str]:
        await asyncio.sleep(0.05)
        return await super().append_soon(predictions)


def test_the_call_learns_where_the_time_went(model: Tiny) -> None:
    call = Call("grpc", traced=True)
    asyncio.run(Core(model, Slow()).infer("project", request(repeats=2, pause=0.03), ID, call))
    assert call.seconds["compute"] >= 0.06
    assert call.seconds["record"] >= 0.05
    assert call.prediction_ids == ["shard.0", "shard.1"]
    assert [phase.name for phase in call.phases] == [
        "queue", "resolve", "compute", "queue", "compute", "record",
    ]  # fmt: skip
