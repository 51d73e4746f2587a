from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tiny_model.model import Tiny

from helix_lineage.formats.typed import Tensor
from helixserve.errors import ContractError, GoneError
from helixserve.execution.request import RequestWork
from helixserve.model import tensors
from helixserve.model.contract import Contract
from helixserve.observe.call import Call
from tests.helixserve.support import tiny_graph


@pytest.fixture
def model(contract: Contract) -> Tiny:
    return Tiny.load({"tiny.onnx": tiny_graph()}, contract)


def work(model: Tiny, repeats: int = 3) -> RequestWork:
    given = [tensors.from_value("values", "FP32", [1]), tensors.from_value("repeats", "INT64", repeats)]
    return RequestWork(model, "project", given, Call(), lambda: 7)


def test_each_step_gives_the_next_item_until_all_are_given(model: Tiny) -> None:
    by_steps, finished = work(model), list[bool]()
    items = []
    while (made := by_steps.step()) is not None:
        items.append(made)
        finished.append(by_steps.finished)
    assert finished == [False, False, True]
    assert [(made.prediction.index, made.prediction.count) for made in items] == [(0, 3), (1, 3), (2, 3)]
    assert (by_steps.seed, by_steps.count) == (7, 3)


def test_what_was_cancelled_before_it_began_is_not_begun(model: Tiny) -> None:
    asked = work(model)
    asked.cancel()
    with pytest.raises(GoneError):
        asked.step()
    assert (model.computed, asked.begun) == (0, False)


def test_what_is_cancelled_later_stops_after_the_item_it_is_at(model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = work(model, repeats=9)
    original = model._project

    def cancelled_at_the_third(fields: Any, item: int) -> tuple[Tensor, ...]:
        if item == 2:
            asked.cancel()
        return original(fields, item)

    monkeypatch.setattr(model, "_project", cancelled_at_the_third)
    with pytest.raises(GoneError):
        while asked.step() is not None:
            pass
    assert model.computed == 3


class Closing(Tiny):
    """Tells when its iterator is closed, and may give more or fewer items than it counts."""

    closed = False
    extra = 0

    def predict(self, resolved: Sequence[Tensor], items: Sequence[int]) -> Iterator[tuple[Tensor, ...]]:
        try:
            yield from super().predict(resolved, range(len(items) + self.extra))
        finally:
            self.closed = True


@pytest.fixture
def closing(contract: Contract) -> Closing:
    made = Closing.load({"tiny.onnx": tiny_graph()}, contract)
    assert isinstance(made, Closing)
    return made


def test_what_the_model_holds_is_let_go_of(closing: Closing) -> None:
    asked = work(closing)
    asked.close()  # nothing was begun
    asked.step()
    assert not closing.closed
    asked.close()
    assert closing.closed


@pytest.mark.parametrize("extra", [-1, 1])
def test_items_that_were_not_counted_are_refused(closing: Closing, extra: int) -> None:
    closing.extra = extra
    asked = work(closing)
    given = 0
    with pytest.raises(ContractError, match="instead of 3"):
        while asked.step() is not None:
            given += 1
    assert given == 2, "the last one is not given either: the model can't be believed"
