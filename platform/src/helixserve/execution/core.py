"""One compute thread: resolve, predict, record. An item's bits depend on its request alone: the strict lane.

Endpoints hand in typed tensors and get an `Answer`, or a stream of items; either way an item is on
disk before it is given. The compute thread leaves the event loop free; the log has a thread of
its own, so that requests share a group commit while the next one computes.

Every request takes its turns item by item (`turns`). Of a stream, the next item is computed while one
is recorded and read, and no further one: a slow reader holds neither the compute thread nor more than
one item. A caller that goes away stops the computing of its request.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from helix_lineage.formats.typed import Tensor
from helix_lineage.shard import Prediction
from helixserve.errors import BusyError, NotReadyError
from helixserve.execution.request import Computed, RequestWork
from helixserve.execution.turns import Turns
from helixserve.model.contract import Contract, Model, Task
from helixserve.observe.call import Call

QUEUE = 256
"""Requests that may wait or run at once, where `[limits] queue` says nothing."""

STALL_S = 20.0
"""How long the reader of a stream may take nothing before the endpoint ends it: nobody keeps a place in the queue."""


class PredictionLog(Protocol):
    """What `Core` needs of a recorder."""

    async def append_soon(self, predictions: Sequence[Prediction]) -> list[str]:
        """Prediction ids, once everything is on disk."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gave, recorded."""

    task: Task
    request_id: str
    """32 hex digits."""
    seed: int | None
    """The root seed, drawn or given; None where the task draws nothing."""
    items: tuple[tuple[Tensor, ...], ...]
    """The typed answer, one tuple an item, in the contract's order of outputs."""
    prediction_ids: tuple[str, ...]
    """One an item."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a stream, recorded."""

    answer: Answer
    """This item alone."""
    index: int
    count: int
    """Items of the whole request."""

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.index == self.count - 1


class Core:
    """Serves one model.

    Args:
        model: computes; called in one thread only.
        log: takes what was computed.
        draw_seed: gives a root seed to a request that brings none.
    """

    def __init__(self, model: Model, log: PredictionLog, *, draw_seed: Callable[[], int] | None = None) -> None:
        self.contract: Contract = model.contract
        self.inside = 0
        """Requests that were accepted and are not answered yet."""
        self._model = model
        self._log = log
        self._draw_seed = draw_seed or draw
        self._turns = Turns()
        self._queue = self.contract.limits.get("queue", QUEUE)
        self._stopping = False
        self._left = asyncio.Event()

    async def infer(self, task: str, tensors: Sequence[Tensor], request_id: bytes, call: Call | None = None) -> Answer:
        """Answer one request. Raises HelixServeError; nothing else leaves here.

        A caller that is cancelled leaves the queue, or stops the computing after the item it is at;
        then nothing of the request is recorded. Recording that has begun ends.
        """
        work = RequestWork(self._model, task, tensors, call or Call(request_id=request_id), self._draw_seed)
        made: list[Computed] = []
        async with self._admitted():
            try:
                while not work.finished:
                    if (computed := await self._turn(work)) is not None:
                        made.append(computed)
                ids = await self._write(work, made)
            finally:
                self._leave(work)
        return Answer(work.task, request_id.hex(), work.seed, tuple(computed.item for computed in made), tuple(ids))

    async def stream(
        self, task: str, tensors: Sequence[Tensor], request_id: bytes, call: Call | None = None
    ) -> AsyncGenerator[Item, None]:
        """Each item of one request as soon as it is recorded. Raises HelixServeError; nothing else leaves here.

        Close it when you stop early (`contextlib.aclosing`): computing then ends after the item it is
        at. What was recorded until then stays recorded.
        """
        work = RequestWork(self._model, task, tensors, call or Call(request_id=request_id), self._draw_seed)
        async with self._admitted():
            ahead: asyncio.Future[Computed | None] | None = self._turn(work)
            try:
                while ahead is not None and (made := await ahead) is not None:
                    ahead = None if work.finished else self._turn(work)
                    ids = await self._write(work, [made])
                    answer = Answer(work.task, request_id.hex(), work.seed, (made.item,), tuple(ids))
                    yield Item(answer, made.prediction.index, made.prediction.count)
            finally:
                if ahead is not None:
                    ahead.cancel()
                self._leave(work)

    async def close(self) -> None:
        """Refuse new requests and wait for those inside."""
        self._stopping = True
        while self.inside:
            self._left.clear()
            await self._left.wait()
        await asyncio.to_thread(self._turns.close)

    @contextlib.asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        if self._stopping:
            raise NotReadyError("the server is stopping", fix="retry at another replica")
        if self.inside >= self._queue:
            raise BusyError(f"{self.inside} requests are waiting already", fix="retry in a second")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
            self._left.set()

    def _turn(self, work: RequestWork) -> asyncio.Future[Computed | None]:
        """The request's next item, when its turn comes. What nobody awaits any more is no error."""
        future = asyncio.wrap_future(self._turns.take(work.step, newcomer=not work.begun))
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future

    def _leave(self, work: RequestWork) -> None:
        """Let go of what the model holds for a request, in the thread that computes."""
        work.cancel()
        self._turns.take(work.close, newcomer=True)

    async def _write(self, work: RequestWork, made: Sequence[Computed]) -> list[str]:
        began = work.call.now()
        ids = await self._log.append_soon([computed.prediction for computed in made])
        work.call.prediction_ids += ids
        work.call.spent("record", began, ids)
        return ids


def draw() -> int:
    """A root seed below 2**53, which every JSON reader keeps exactly."""
    return secrets.randbelow(2**53)
