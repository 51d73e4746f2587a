"""One request after another: resolve, predict, record. That order, and one compute thread, is the strict lane.

Doors hand in typed tensors and get an `Answer`, whose items are on disk before it is given. The
compute thread leaves the event loop free; recording has threads of its own, so that requests
share a group commit while the next one computes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from helix_lineage.shard import Prediction
from helix_lineage.typed import Tensor, encode
from helixserve import tensors as plain
from helixserve.contract import SEED, Contract, Field, Model, Task
from helixserve.errors import BusyError, ContractError, HelixServeError, NotReadyError

logger = logging.getLogger("helixserve.core")

QUEUE = 256
"""Requests that may wait or run at once, where `[limits] queue` says nothing."""


class Log(Protocol):
    """What `Core` needs of a recorder."""

    def append(self, predictions: Sequence[Prediction]) -> list[str]:
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
class _Computed:
    seed: int | None
    items: tuple[tuple[Tensor, ...], ...]
    predictions: tuple[Prediction, ...]


class Core:
    """Serves one model.

    Args:
        model: computes; called in one thread only.
        log: takes what was computed.
        draw_seed: gives a root seed to a request that brings none.
    """

    def __init__(self, model: Model, log: Log, *, draw_seed: Callable[[], int] | None = None) -> None:
        self.contract: Contract = model.contract
        self._model = model
        self._log = log
        self._draw_seed = draw_seed or draw
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="helix-compute")
        self._record = ThreadPoolExecutor(8, thread_name_prefix="helix-record")
        self._queue = self.contract.limits.get("queue", QUEUE)
        self._inside = 0
        self._stopping = False

    async def infer(self, task: str, tensors: Sequence[Tensor], request_id: bytes) -> Answer:
        """Answer one request. Raises HelixServeError; nothing else leaves here.

        A caller that is cancelled leaves the queue; once computing has begun it ends, and is recorded.
        """
        loop = asyncio.get_running_loop()
        async with self._admitted():
            done = await loop.run_in_executor(self._compute, self._work, task, tuple(tensors), request_id)
            ids = await loop.run_in_executor(self._record, self._log.append, done.predictions)
        return Answer(self.contract.task(task), request_id.hex(), done.seed, done.items, tuple(ids))

    @property
    def inside(self) -> int:
        """Requests that were accepted and are not answered yet."""
        return self._inside

    async def close(self) -> None:
        """Refuse new requests and wait for those inside."""
        self._stopping = True
        for pool in (self._compute, self._record):
            await asyncio.to_thread(pool.shutdown)

    @contextlib.asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        if self._stopping:
            raise NotReadyError("the server is stopping", fix="retry at another replica")
        if self._inside >= self._queue:
            raise BusyError(f"{self._inside} requests are waiting already", fix="retry in a second")
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    def _work(self, task: str, tensors: tuple[Tensor, ...], request_id: bytes) -> _Computed:
        try:
            return self._predict(task, tensors, request_id)
        except HelixServeError:
            raise
        except Exception as error:
            logger.exception("request %s: %s failed", request_id.hex(), task)
            raise HelixServeError("the model failed; this is a fault of the server", where=task) from error

    def _predict(self, task: str, tensors: tuple[Tensor, ...], request_id: bytes) -> _Computed:
        wanted = self.contract.task(task)
        resolved = self._model.resolve(task, tensors, self._draw_seed)
        count = self._model.count(resolved)
        typed_input = encode(resolved)
        seed_tensor = plain.find(resolved, SEED)
        seed = None if seed_tensor is None else int(plain.scalar(seed_tensor))
        items: list[tuple[Tensor, ...]] = []
        predictions: list[Prediction] = []
        started = time.time_ns()
        for index, item in enumerate(self._model.predict(resolved, range(count))):
            items.append(check_item(wanted, item, items[0] if items else None))
            finished = time.time_ns()
            predictions.append(
                Prediction(
                    request_id=request_id,
                    index=index,
                    count=count,
                    input=typed_input,
                    output=encode(item),
                    seed=seed,
                    lane=self.contract.lane,
                    started_ns=started,
                    finished_ns=finished,
                )
            )
            started = finished
        if len(items) != count:
            raise ContractError(f"the model gave {len(items)} items instead of {count}", where=task)
        return _Computed(seed, tuple(items), tuple(predictions))


def draw() -> int:
    """A root seed below 2**53, which every JSON reader keeps exactly."""
    return secrets.randbelow(2**53)


def check_item(task: Task, item: Sequence[Tensor], first: Sequence[Tensor] | None) -> tuple[Tensor, ...]:
    """The item's tensors in the contract's order. Raises ContractError when they break the contract.

    Items of one request are stacked at the doors, so their shapes equal those of the `first`.
    """
    given = {tensor.name: tensor for tensor in item}
    if set(given) != set(task.outputs) or len(given) != len(item):
        raise ContractError(f"the model gave {sorted(given)} instead of {sorted(task.outputs)}", where=task.name)
    ordered = tuple(given[name] for name in task.outputs)
    for tensor in ordered:
        _check_output(task.outputs[tensor.name], tensor)
    if first is not None and [t.shape for t in first] != [t.shape for t in ordered]:
        raise ContractError("two items of one request differ in shape", where=task.name)
    return ordered


def _check_output(field: Field, tensor: Tensor) -> None:
    fits = len(tensor.shape) == len(field.shape) and all(
        want in (-1, extent) for want, extent in zip(field.shape, tensor.shape, strict=True)
    )
    if tensor.datatype != field.datatype or not fits:
        raise ContractError(
            f"the model gave {tensor.datatype} {list(tensor.shape)} for {field.datatype} {list(field.shape)}",
            where=field.name,
        )
    if isinstance(tensor.data, tuple) and not all(_is_text(element) for element in tensor.data):
        raise ContractError("the model gave bytes that are no text, which JSON cannot carry", where=field.name)
    # JSON has no NaN; an answer that holds one is a fault, at every door.
    if tensor.datatype in ("FP16", "FP32", "FP64") and not np.isfinite(plain.to_array(tensor)).all():
        raise ContractError("the model gave a number that is not finite", where=field.name)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
