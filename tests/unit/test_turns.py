"""Turns on the event loop: bounded in each pass, in order, and for everybody."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import SENDER, add, has, said, user
from tracker_store_async import InMemoryTrackerStore, SQLTrackerStore, errors
from tracker_store_async import turns as turns_module
from tracker_store_async.turns import Turns

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def perf_counter(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(turns_module, "time", clock)
    return clock


class Passes:
    """Counts the passes of the loop for as long as it is entered."""

    def __init__(self) -> None:
        self.count = 0
        self._is_over = False

    def __enter__(self) -> Passes:
        asyncio.get_running_loop().call_soon(self._note)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over = True

    def _note(self) -> None:
        self.count += 1
        if not self._is_over:
            asyncio.get_running_loop().call_soon(self._note)


async def take(turns: Turns, clock: Clock, seconds: float) -> None:
    """Take a turn as callers do who nearly all take one."""
    if turns.are_over:
        await turns.wait()
    with turns:
        clock.seconds += seconds


async def test_short_turns_do_not_ask_for_a_pass(clock: Clock) -> None:
    turns = Turns()
    loop, asked = asyncio.get_running_loop(), []
    call_soon: Any = loop.call_soon
    loop.call_soon = lambda *call, **context: asked.append(call)  # type: ignore
    try:
        for _ in range(9):
            await take(turns, clock, 0.0001)
        assert asked == []
        await take(turns, clock, 0.0001)
        assert len(asked) == 1
        await take(turns, clock, 0.0001)
        assert len(asked) == 1
    finally:
        loop.call_soon = call_soon  # type: ignore[method-assign]


@pytest.mark.parametrize("milliseconds", [0.01, 0.3, 0.9, 1.5, 5.0])
async def test_everybody_gets_a_turn_in_the_order_of_asking(
    clock: Clock, milliseconds: float
) -> None:
    turns, order = Turns(), []

    async def one(number: int) -> None:
        await take(turns, clock, milliseconds / 1000)
        order.append(number)

    await take(turns, clock, 0.01)  # so that all of them wait
    assert turns.are_over
    async with asyncio.timeout(10):
        await asyncio.gather(*(one(number) for number in range(50)))
    assert order == list(range(50))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not turns.are_over


@pytest.mark.parametrize("milliseconds", [0.3, 0.9, 1.5])
async def test_a_pass_has_no_more_than_its_work(
    clock: Clock, milliseconds: float
) -> None:
    turns, most, found = Turns(), turns_module.TURNS_SECONDS_PER_PASS, {}

    async def one(passes: Passes) -> None:
        await take(turns, clock, milliseconds / 1000)
        found[passes.count] = found.get(passes.count, 0.0) + milliseconds / 1000

    async with asyncio.timeout(10):
        with Passes() as passes:
            await asyncio.gather(*(one(passes) for _ in range(50)))
    assert max(found.values()) <= most + milliseconds / 1000 + 1e-9
    assert sum(found.values()) == pytest.approx(50 * milliseconds / 1000)


async def test_one_who_is_cancelled_leaves_the_turn_to_the_next(clock: Clock) -> None:
    turns = Turns()
    tasks = [asyncio.ensure_future(take(turns, clock, 0.0001)) for _ in range(5)]
    await take(turns, clock, 0.01)
    await asyncio.sleep(0)  # they wait, and the first one's turn has come
    tasks[0].cancel()
    tasks[2].cancel()
    async with asyncio.timeout(10):
        for number in (1, 3, 4):
            await tasks[number]
    for number in (0, 2):
        with pytest.raises(asyncio.CancelledError):
            await tasks[number]


async def test_a_turn_that_fails_counts_too(clock: Clock) -> None:
    turns = Turns()
    for _ in range(3):
        with suppress(KeyError):
            async with turns:
                clock.seconds += 0.001
                raise KeyError
    async with asyncio.timeout(10):
        await take(turns, clock, 0.0001)


async def test_work_that_is_owed_counts(clock: Clock) -> None:
    turns = Turns()
    async with turns:
        turns.owe(0.01)
    assert turns.are_over
    async with asyncio.timeout(10):
        await take(turns, clock, 0.0001)


async def test_what_a_loop_that_has_ended_left_waiting_holds_nobody_up() -> None:
    store = InMemoryTrackerStore()

    async def leave() -> None:
        await store.open()
        waiting = asyncio.ensure_future(store._loop_turns.wait())
        await asyncio.wait({waiting}, timeout=0.01)

    await asyncio.to_thread(asyncio.run, leave())
    await store.close()
    await store.open()
    async with asyncio.timeout(5):
        await add(store, SENDER, user())
    await store.close()


async def test_a_store_whose_loop_has_ended_can_be_closed(tmp_path: Path) -> None:
    store = SQLTrackerStore(dialect="sqlite", db=str(tmp_path / "conversations.db"))
    await asyncio.to_thread(asyncio.run, add(store, SENDER, user("hi")))
    await store.close()
    with pytest.raises(errors.StoreClosedError):
        await store.exists(SENDER)
    async with store:
        assert said(await has(store)) == ["hi"]
