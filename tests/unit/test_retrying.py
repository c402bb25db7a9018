"""Faults that pass are waited out; everything else is told at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.kit import (
    SENDER,
    FailingBroker,
    add,
    has,
    said,
    stored_ids,
    turn,
)
from tests.outages import SwitchedStore
from tracker_store_async import (
    FailSafeTrackerStore,
    InMemoryTrackerStore,
    RetryingTrackerStore,
    errors,
)


class Faltering(SwitchedStore):
    """Fails for so many calls, before or after it has done what it was asked.

    Attributes:
        failures: How many more calls fail.
        error: What they raise.
        is_late: Whether they did what they were asked.
    """

    failures = 0
    error: Exception = errors.StoreTimeoutError("no answer")
    is_late = False

    async def _append(self, append: Any) -> bool:
        return bool(await self._falter(super()._append(append)))

    async def _read(self, read: Any) -> Any:
        return await self._falter(super()._read(read))

    async def _falter(self, work: Any) -> Any:
        if not self.failures:
            return await work
        self.failures -= 1
        if self.is_late:
            await work
        else:
            self.calls += 1
            work.close()
        raise self.error


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_fault_that_passes_is_not_noticed(is_late: bool) -> None:
    broker = FailingBroker()
    faltering = Faltering(event_broker=broker)
    async with RetryingTrackerStore(faltering) as store:
        await add(store, SENDER, *turn("one"))
        faltering.failures, faltering.is_late = 2, is_late
        tracker = await has(store)
        faltering.failures = 2
        await add(store, SENDER, *turn("two"))
        faltering.failures = 2
        tracker = await has(store)
        tracker.update_with_events(turn("three"))
        faltering.failures = 2
        await store.save(tracker)
        assert said(await has(store)) == ["one", "two", "three"]
        assert await stored_ids(store) == broker.ids
        assert store.conflict_count == 0


async def test_no_more_attempts_than_allowed() -> None:
    faltering = Faltering()
    async with RetryingTrackerStore(faltering, attempts=3) as store:
        faltering.failures = 3
        calls = faltering.calls
        with pytest.raises(errors.StoreTimeoutError):
            await store.retrieve(SENDER)
        assert faltering.calls == calls + 3
        assert await store.retrieve(SENDER) is None


async def test_no_attempt_beyond_the_budget() -> None:
    faltering = Faltering()
    loop = asyncio.get_running_loop()
    async with RetryingTrackerStore(
        faltering, attempts=1000, budget_seconds=0.3
    ) as store:
        faltering.failures = 1000
        started = loop.time()
        with pytest.raises(errors.StoreTimeoutError):
            await store.retrieve(SENDER)
        assert loop.time() - started < 0.5
        assert faltering.failures < 999  # it did try again


@pytest.mark.parametrize(
    "error", [errors.StoreAccessError("refused"), KeyError("a bug"), ValueError("x")]
)
async def test_everything_else_is_told_at_once(error: Exception) -> None:
    faltering = Faltering()
    async with RetryingTrackerStore(faltering) as store:
        faltering.failures, faltering.error = 1, error
        with pytest.raises(type(error)):
            await store.retrieve(SENDER)
        assert faltering.failures == 0


async def test_refused_credentials_are_tried_again_where_they_may_have_changed() -> (
    None
):
    faltering = Faltering()
    faltering._renews_credentials = True
    async with RetryingTrackerStore(faltering, attempts=3) as store:
        faltering.error = errors.StoreAccessError("refused")
        faltering.failures = 2
        assert await store.retrieve(SENDER) is None
        faltering.failures = 3
        with pytest.raises(errors.StoreAccessError):
            await store.retrieve(SENDER)


async def test_opening_is_retried() -> None:
    primary = SwitchedStore()
    primary.is_down = True
    store = RetryingTrackerStore(primary, attempts=50, budget_seconds=5)
    opening = asyncio.create_task(store.open())
    await asyncio.sleep(0.02)
    primary.is_down = False
    await opening
    await store.close()


async def test_others_run_while_it_waits() -> None:
    faltering = Faltering()
    async with RetryingTrackerStore(faltering, attempts=4) as store:
        faltering.failures = 3
        waiting = asyncio.create_task(store.retrieve(SENDER))
        turns = 0
        while not waiting.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 10


async def test_below_a_fail_safe_an_outage_begins_later() -> None:
    faltering = Faltering()
    retrying = RetryingTrackerStore(faltering)
    async with FailSafeTrackerStore(retrying) as store:
        await add(store, SENDER, *turn("one"))
        faltering.failures = 2
        await add(store, SENDER, *turn("two"))
        assert store._breaker.state == "closed"
        assert said(await has(store)) == ["one", "two"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"attempts": 0},
        {"attempts": 1.5},
        {"budget_seconds": 0},
        {"budget_seconds": "1"},
    ],
)
def test_wrong_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigurationError, match=next(iter(arguments))):
        RetryingTrackerStore(InMemoryTrackerStore(), **arguments)
