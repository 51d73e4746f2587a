"""Turns: a newcomer waits for one item, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest
from tiny_model.model import Tiny

from helixserve.execution.core import Core
from helixserve.execution.turns import Turns
from helixserve.model.contract import Contract
from tests.helixserve.execution.test_core import ID, request
from tests.helixserve.support import Memory, tiny_graph


class Held:
    """Turns whose thread is held until all that a test asks for has been asked."""

    def __init__(self) -> None:
        self.turns, self.order, self._go = Turns(), list[str](), threading.Event()
        self._first = self.turns.take(self._go.wait, newcomer=False)

    def ask(self, name: str, *, newcomer: bool) -> Future[None]:
        return self.turns.take(lambda: self.order.append(name), newcomer=newcomer)

    def run(self) -> list[str]:
        self._go.set()
        self.turns.close()
        return self.order


def test_a_newcomer_goes_before_those_that_had_a_turn() -> None:
    held = Held()
    for name in ("a", "b", "c"):
        held.ask(name, newcomer=False)
    held.ask("new", newcomer=True)
    assert held.run() == ["new", "a", "b", "c"]


def test_newcomers_keep_nobody_from_ending() -> None:
    held = Held()
    for at in range(4):
        held.ask(f"new {at}", newcomer=True)
    for name in ("a", "b"):
        held.ask(name, newcomer=False)
    assert held.run() == ["new 0", "a", "new 1", "b", "new 2", "new 3"]


def test_a_turn_that_is_cancelled_is_given_away_and_an_error_is_its_own() -> None:
    held = Held()
    gone = held.ask("gone", newcomer=False)
    assert gone.cancel()

    def fail() -> None:
        raise KeyError("x")

    failed = held.turns.take(fail, newcomer=False)
    held.ask("next", newcomer=False)
    assert held.run() == ["next"]
    assert isinstance(failed.exception(), KeyError)


@pytest.fixture
def model(contract: Contract) -> Tiny:
    return Tiny.load({"tiny.onnx": tiny_graph()}, contract)


@pytest.mark.parametrize("others", [1, 3])
def test_a_short_request_waits_for_one_item_of_the_long_ones(model: Tiny, others: int) -> None:
    """Whole answers are computed item by item: between two items the newcomer has its turn."""
    core, at = Core(model, Memory()), list[int]()

    async def ask() -> None:
        long = [asyncio.create_task(core.infer("project", request(seed=n, repeats=40), ID)) for n in range(others)]
        while model.computed < 2 * others:
            await asyncio.sleep(0)
        before = model.computed
        await core.infer("project", request(seed=99), ID)
        at.append(model.computed - before)
        await asyncio.gather(*long)
        await core.close()

    asyncio.run(ask())
    # Its own item, the one that was computed when it came, and those that were computed while it was recorded.
    assert at[0] <= 5
    assert model.computed == 40 * others + 1


def test_turns_change_no_bit(model: Tiny) -> None:
    async def ask(together: bool) -> list[object]:
        core = Core(model, Memory())
        asked = [core.infer("project", request(seed=n, repeats=7), ID) for n in range(4)]
        answers = await asyncio.gather(*asked) if together else [await one for one in asked]
        return [answer.items for answer in answers]

    assert asyncio.run(ask(True)) == asyncio.run(ask(False))
