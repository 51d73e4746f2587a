"""What the compute thread does for one request: resolve it, then one item after another, until it is cancelled.

Only `cancel` may be called from another thread. A request that was cancelled before it began is
not begun; one that was cancelled while it computes stops after the item it is at.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from helix_lineage.formats.typed import Tensor, encode
from helix_lineage.shard import Prediction
from helixserve.errors import ContractError, GoneError, HelixServeError
from helixserve.model import tensors as plain
from helixserve.model.contract import SEED, Field, Model, Task
from helixserve.observe.call import Call

logger = logging.getLogger("helixserve.core")


@dataclass(frozen=True, slots=True)
class Computed:
    """One item, not yet recorded."""

    item: tuple[Tensor, ...]
    prediction: Prediction


class RequestWork:
    """One request's computing.

    Args:
        model: computes.
        task: the task's name.
        tensors: what the request brought.
        call: who asks; is told where the time goes.
        draw_seed: gives a root seed to a request that brings none.
    """

    def __init__(
        self, model: Model, task: str, tensors: Sequence[Tensor], call: Call, draw_seed: Callable[[], int]
    ) -> None:
        self.task = model.contract.task(task)
        self.call = call
        self.seed: int | None = None
        """The root seed, known once something was computed."""
        self.count = 0
        """Items that the request asks for, known once something was computed."""
        self._model, self._tensors, self._draw_seed = model, tuple(tensors), draw_seed
        self._queued_ns = call.now()
        self._cancelled = False
        self._first: tuple[Tensor, ...] | None = None
        self._input = b""
        self._items: Iterator[tuple[Tensor, ...]] | None = None
        self._done = 0

    def cancel(self) -> None:
        """Compute nothing more."""
        self._cancelled = True

    @property
    def begun(self) -> bool:
        """Whether it had a turn."""
        return self._items is not None

    @property
    def finished(self) -> bool:
        """Whether every item was given."""
        return self.begun and self._done == self.count

    def step(self) -> Computed | None:
        """The next item; None after the last. Raises HelixServeError; nothing else leaves here."""
        with self._guard():
            # Between two items others have their turn: time in the queue, too.
            self.call.spent("queue", self._queued_ns)
            made = self._one()
            self._queued_ns = self.call.now()
            return made

    def close(self) -> None:
        """Let go of what the model holds for this request."""
        close = getattr(self._items, "close", None)
        if close is not None:
            close()

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except HelixServeError:
            raise
        except Exception as error:
            logger.exception("request %s: %s failed", self.call.request_id.hex(), self.task.name)
            raise HelixServeError("the model failed; this is a fault of the server", where=self.task.name) from error

    def _one(self) -> Computed | None:
        if self._cancelled:
            raise GoneError("the caller is gone", where=self.task.name)
        return self._next(self._items or self._resolve())

    def _resolve(self) -> Iterator[tuple[Tensor, ...]]:
        began = self.call.now()
        resolved = self._model.resolve(self.task.name, self._tensors, self._draw_seed)
        self.count = self._model.count(resolved)
        self._input = encode(resolved)
        seed = plain.find(resolved, SEED)
        self.seed = None if seed is None else int(plain.scalar(seed))
        self.call.spent("resolve", began)
        self._items = iter(self._model.predict(resolved, range(self.count)))
        return self._items

    def _next(self, items: Iterator[tuple[Tensor, ...]]) -> Computed | None:
        began, started = self.call.now(), time.time_ns()
        given = next(items, None)
        if given is None:
            if self._done != self.count:
                raise ContractError(f"the model gave {self._done} items instead of {self.count}", where=self.task.name)
            return None
        item = check_item(self.task, given, self._first)
        self._first = self._first or item
        self._done += 1
        prediction = Prediction(
            request_id=self.call.request_id,
            index=self._done - 1,
            count=self.count,
            input=self._input,
            output=encode(item),
            seed=self.seed,
            lane=self._model.contract.lane,
            started_ns=started,
            finished_ns=time.time_ns(),
        )
        if self._done == self.count and next(items, None) is not None:
            raise ContractError(f"the model gave more items instead of {self.count}", where=self.task.name)
        self.call.spent("compute", began)
        return Computed(item, prediction)


def check_item(task: Task, item: Sequence[Tensor], first: Sequence[Tensor] | None) -> tuple[Tensor, ...]:
    """The item's tensors in the contract's order. Raises ContractError when they break the contract.

    Items of one request are stacked at the endpoints, so their shapes equal those of the `first`.
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
    # JSON has no NaN; an answer that holds one is a fault, at every endpoint.
    if tensor.datatype in plain.FLOATS and not plain.is_finite(tensor):
        raise ContractError("the model gave a number that is not finite", where=field.name)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
