"""Callers cancelled at every moment of an outage and of the replay after it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.conformance.kit import (
    SENDER,
    CancelledAt,
    FailingBroker,
    add,
    has,
    said,
    stored_ids,
    turn,
    update,
)
from tests.outages import SwitchedStore, caught_up
from tracker_store_async import FailSafeTrackerStore

if TYPE_CHECKING:
    from pathlib import Path

MOMENTS = 60
"""More than any of these operations has; each test says that it reached the end."""


def safe_store(tmp_path: Path, number: int, *, journal: bool) -> FailSafeTrackerStore:
    """Return a fail-safe whose primary goes away on demand."""
    path = str(tmp_path / f"journal-of-{number}.db") if journal else None
    primary = SwitchedStore(event_broker=FailingBroker())
    return FailSafeTrackerStore(primary, journal=path, probe_min_seconds=60)


async def check(store: FailSafeTrackerStore, texts: list[str]) -> None:
    """End the outage; check that the primary has all, once."""
    primary = store._wrapped
    assert isinstance(primary, SwitchedStore)
    primary.is_down = False
    store._breaker.half_open()
    assert said(await has(store)) == texts
    ids = await stored_ids(primary)
    assert len(ids) == len(set(ids))
    assert said(await has(primary)) == texts
    broker = primary.event_broker
    assert isinstance(broker, FailingBroker)
    assert set(broker.ids) == set(ids)
    assert not store._backlog.entries


def as_task(coroutine: object, n: int, *, late: bool) -> CancelledAt:
    return CancelledAt(coroutine, n, late=late)  # type: ignore[arg-type]


async def run(awaited: CancelledAt) -> None:
    await awaited


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("journal", [False, True], ids=["memory", "journal"])
@pytest.mark.parametrize("moment", ["as it begins", "in the midst of it"])
async def test_a_cancelled_save_is_repeated(
    tmp_path: Path, moment: str, journal: bool, late: bool
) -> None:
    reached_the_end = False
    for n in range(1, MOMENTS):
        async with safe_store(tmp_path, n, journal=journal) as store:
            await add(store, SENDER, *turn("before"))
            tracker = await has(store)
            store._wrapped.is_down = True  # type: ignore[attr-defined]
            texts = ["before", "during"]
            if moment == "in the midst of it":
                update(tracker, turn("first"))
                await store.save(tracker)
                texts.insert(1, "first")
            update(tracker, turn("during"))
            awaited = as_task(store.save(tracker), n, late=late)
            task = asyncio.create_task(run(awaited))
            await asyncio.gather(task, return_exceptions=True)
            reached_the_end = not awaited.cancelled
            await store.save(tracker)
            assert said(await has(store)) == texts
            await check(store, texts)
        if reached_the_end:
            break
    assert reached_the_end
    assert n > 3


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("conflict", [False, True], ids=["alone", "conflict"])
async def test_a_cancelled_replay_is_repeated(
    tmp_path: Path, conflict: bool, late: bool
) -> None:
    reached_the_end = False
    for n in range(1, MOMENTS):
        async with safe_store(tmp_path, n, journal=False) as store:
            primary = store._wrapped
            assert isinstance(primary, SwitchedStore)
            await add(store, SENDER, *turn("before"))
            primary.is_down = True
            await add(store, SENDER, *turn("one"))
            await add(store, SENDER, *turn("two"))
            primary.is_down = False
            texts = ["before", "one", "two"]
            if conflict:
                await add(primary, SENDER, *turn("theirs"))
                texts.insert(1, "theirs")
            store._breaker.half_open()
            awaited = as_task(store.retrieve(SENDER), n, late=late)
            task = asyncio.create_task(run(awaited))
            await asyncio.gather(task, return_exceptions=True)
            reached_the_end = not awaited.cancelled
            await check(store, texts)
        if reached_the_end:
            break
    assert reached_the_end
    assert n > 3


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
async def test_a_cancelled_opening_or_closing_leaves_no_lock(
    tmp_path: Path, late: bool
) -> None:
    for n in range(1, 12):
        store = safe_store(tmp_path, 0, journal=True)
        task = asyncio.create_task(run(as_task(store.open(), n, late=late)))
        await asyncio.gather(task, return_exceptions=True)
        await store.close()
        async with safe_store(tmp_path, 0, journal=True) as other:
            assert [file.path.name for file in other._files] == ["journal-of-0.db"]
            await caught_up(other)
