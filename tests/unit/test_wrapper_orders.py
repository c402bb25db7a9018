"""Wrappers compose in any order: every pair, every triple, and over a legacy store.

The cache alone refuses a legacy store, which cannot tell it what it must know.
"""

from __future__ import annotations

from itertools import permutations, product
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import (
    SENDER,
    FailingBroker,
    add,
    has,
    said,
    slot,
    state,
    stored_ids,
    turn,
    update,
)
from tests.outages import SwitchedStore, caught_up
from tests.unit.legacy_stores import JSONTextStore
from tracker_store_async import (
    AwaitableTrackerStore,
    CachedTrackerStore,
    FailSafeTrackerStore,
    InMemoryTrackerStore,
    errors,
)
from tracker_store_async.wrappers.base import WrapperTrackerStore
from tracker_store_async.wrappers.retrying import RetryingTrackerStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracker_store_async import TrackerStore


def fail_safe(store: TrackerStore) -> FailSafeTrackerStore:
    return FailSafeTrackerStore(store, probe_min_seconds=0.01, probe_max_seconds=0.02)


WRAPPERS: dict[str, Callable[[TrackerStore], TrackerStore]] = {
    "cached": CachedTrackerStore,
    "failsafe": fail_safe,
    "retrying": lambda store: RetryingTrackerStore(store, attempts=2),
}

PAIRS = list(product(WRAPPERS, repeat=2))
ORDERS = [*PAIRS, *permutations(WRAPPERS)]


def wrapped(store: TrackerStore, order: Sequence[str]) -> TrackerStore:
    """Wrap a store; the last of the names is the outermost wrapper."""
    for name in order:
        store = WRAPPERS[name](store)
    return store


def fail_safes(store: Any) -> list[FailSafeTrackerStore]:
    """Return the fail-safes among the wrappers."""
    found = []
    while isinstance(store, WrapperTrackerStore):
        if isinstance(store, FailSafeTrackerStore):
            found.append(store)
        store = store._wrapped
    return found


@pytest.mark.parametrize("order", ORDERS, ids=">".join)
async def test_any_order_serves_publishes_once_and_forwards(
    order: Sequence[str],
) -> None:
    broker = FailingBroker()
    inner = SwitchedStore(event_broker=broker, max_event_history=50)
    async with wrapped(inner, order) as store:
        await add(store, SENDER, slot("people", 4), *turn("one"))
        tracker = await has(store)
        await add(inner, SENDER, *turn("theirs"))  # another writer
        assert said(await has(store)) == ["one", "theirs"]
        update(tracker, turn("mine"))
        await store.save(tracker)  # rebased
        assert said(await has(store)) == ["one", "theirs", "mine"]
        assert state(await has(store))["slots"] == {"people": 4}
        assert await stored_ids(inner) == broker.ids
        assert len(broker.ids) == len(set(broker.ids)) == 13
        assert store.conflict_count == inner.conflict_count == 1
        assert store.max_event_history == 50
        assert [summary.sender_id async for summary in store.conversations()] == [
            SENDER
        ]
        assert (await store.health()).reachable
        assert await store.delete(SENDER)
        assert await store.retrieve(SENDER) is None
        await add(store, SENDER, *turn("anew"))
        assert said(await has(store)) == said(await has(inner)) == ["anew"]


@pytest.mark.parametrize(
    "order", [order for order in ORDERS if "failsafe" in order], ids=">".join
)
async def test_any_order_with_a_fail_safe_goes_on_through_an_outage(
    order: Sequence[str],
) -> None:
    broker = FailingBroker()
    inner = SwitchedStore(event_broker=broker)
    async with wrapped(inner, order) as store:
        await add(store, SENDER, *turn("before"))
        tracker = await has(store)
        inner.loses_answers = 1  # it lands, and then the storage is away
        update(tracker, turn("lost"))
        await store.save(tracker)
        for text in ("during", "outage"):
            await add(store, SENDER, *turn(text))
        assert said(await has(store)) == ["before", "lost", "during", "outage"]
        inner.is_down = False
        for each in fail_safes(store):
            await caught_up(each)
        await add(store, SENDER, *turn("after"))
        texts = ["before", "lost", "during", "outage", "after"]
        assert said(await has(store)) == said(await has(inner)) == texts
        assert await stored_ids(inner) == broker.ids


@pytest.mark.parametrize("name", sorted(WRAPPERS.keys() - {"cached"}))
async def test_every_wrapper_goes_around_a_legacy_store(name: str) -> None:
    legacy = JSONTextStore()
    async with WRAPPERS[name](AwaitableTrackerStore(legacy)) as store:
        for text in ("one", "two"):
            await add(store, SENDER, *turn(text))
            assert said(await has(store))[-1] == text
        assert said(await has(store)) == ["one", "two"]


def test_a_cache_refuses_a_legacy_store_however_it_is_wrapped() -> None:
    """Nothing tells it that a conversation was deleted and begun again by others."""
    for order in ((), ("failsafe",), ("retrying",)):
        store = wrapped(AwaitableTrackerStore(JSONTextStore()), order)
        with pytest.raises(errors.ConfigurationError, match="out of date"):
            CachedTrackerStore(store)


async def test_a_wrapped_store_can_be_the_fallback() -> None:
    inner = SwitchedStore()
    fallback = CachedTrackerStore(RetryingTrackerStore(InMemoryTrackerStore()))
    fast = {"probe_min_seconds": 0.01, "probe_max_seconds": 0.02}
    async with FailSafeTrackerStore(inner, fallback, **fast) as store:  # type: ignore[arg-type]
        inner.is_down = True
        await add(store, SENDER, *turn("during"))
        assert said(await has(store)) == ["during"]
        inner.is_down = False
        await caught_up(store)
        assert said(await has(inner)) == ["during"]
