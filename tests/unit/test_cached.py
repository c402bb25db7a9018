"""The cache: always fresh, bounded, and nobody's but its own."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.kit import SENDER, Clock, add, has, new_session, said, turn, user
from tests.histories import Row, domain, events_of, everything_of, histories
from tests.unit.legacy_stores import JSONTextStore
from tracker_store_async import (
    AwaitableTrackerStore,
    CachedTrackerStore,
    InMemoryTrackerStore,
)
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.events import SlotSet, UserUttered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tracker_store_async.rows import Read, StoredConversation
    from tracker_store_async.store import TrackerStore


class SpyStore(InMemoryTrackerStore):
    """Notes what is read: where from, and how many rows came."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.reads: list[tuple[int | None, int]] = []

    async def _read(self, read: Read) -> StoredConversation | None:
        found = await super()._read(read)
        self.reads.append((read.start, 0 if found is None else len(found.rows)))
        return found


@pytest.fixture
async def plain() -> AsyncIterator[SpyStore]:
    async with SpyStore() as store:
        yield store


@pytest.fixture
async def cached(plain: SpyStore) -> AsyncIterator[CachedTrackerStore]:
    async with CachedTrackerStore(plain) as store:
        yield store


# -- the same answers ------------------------------------------------------------------


@settings(max_examples=150)
@given(
    st.lists(histories(), min_size=1, max_size=5),
    st.lists(st.sampled_from([None, 1, 2, 5, 100]), min_size=1, max_size=3),
)
def test_it_answers_as_the_store_does(
    parts: list[list[Row]], bounds: list[int | None]
) -> None:
    async def run() -> None:
        plain = InMemoryTrackerStore(domain())
        async with CachedTrackerStore(plain) as store:
            for part in parts:
                writer = await plain.get_or_create_tracker(SENDER, None, False)
                for event in events_of(part):
                    writer.update(event)
                await plain.save(writer)
                for last in bounds:
                    await compare(plain, store, last)
            await goes_on_alike(plain, store, parts[-1])

    asyncio.run(run())


async def compare(plain: TrackerStore, store: TrackerStore, last: int | None) -> None:
    expected = await plain.get_or_create_tracker(SENDER, last, False)
    found = await store.get_or_create_tracker(SENDER, last, False)
    assert everything_of(found) == everything_of(expected)
    assert found.version == expected.version
    assert found.is_truncated == expected.is_truncated
    for name in ("slots", "active_loop", "loop_names", "latest_bot_utterance"):
        assert found.state_snapshot()[name] == expected.state_snapshot()[name]
    assert deque.__len__(found.events) == len(expected.events)


async def goes_on_alike(
    plain: TrackerStore, store: TrackerStore, rows: list[Row]
) -> None:
    """What is added to a cached tracker, and stored, is what would have been."""
    expected = await plain.get_or_create_tracker(SENDER, 3, False)
    found = await store.get_or_create_tracker(SENDER, 3, False)
    for one, other in zip(events_of(rows), events_of(rows), strict=True):
        expected.update(one)
        found.update(other)
    assert everything_of(found) == everything_of(expected)
    await store.save(found)
    await compare(plain, store, None)


# -- what it costs ---------------------------------------------------------------------


async def test_a_read_brings_only_what_is_new(
    plain: SpyStore, cached: CachedTrackerStore
) -> None:
    await add(plain, SENDER, *turn("one"))
    assert said(await has(cached)) == ["one"]
    plain.reads.clear()
    assert said(await has(cached)) == ["one"]
    await add(cached, SENDER, *turn("two"))
    assert said(await has(cached)) == ["one", "two"]
    assert plain.reads == [(3, 1), (3, 1), (3, 5)]  # and the last one that it has
    assert (cached.hits, cached.misses) == (3, 1)


async def test_another_writer_is_seen(
    plain: SpyStore, cached: CachedTrackerStore
) -> None:
    await add(cached, SENDER, *turn("one"))
    assert said(await has(cached)) == ["one"]
    await add(plain, SENDER, *turn("two"))
    assert said(await has(cached)) == ["one", "two"]
    await add(plain, SENDER, *new_session(), user("three"))
    assert said(await has(cached)) == ["three"]
    await plain.delete(SENDER)
    assert await cached.retrieve(SENDER) is None
    assert cached.cached_count == 0
    await add(plain, SENDER, *turn("a"), *turn("b"), *turn("c"))
    assert said(await has(cached)) == ["a", "b", "c"]


async def test_a_log_that_was_begun_again_is_another(
    plain: SpyStore, cached: CachedTrackerStore
) -> None:
    clock = Clock()
    clock.drive(plain)
    await add(plain, SENDER, *turn("old"))
    assert said(await has(cached)) == ["old"]
    await plain.delete(SENDER)
    clock.advance(1)
    await add(plain, SENDER, *turn("new"), *turn("newer"))
    assert said(await has(cached)) == ["new", "newer"]


async def test_many_readers_at_once_see_the_same(
    plain: SpyStore, cached: CachedTrackerStore
) -> None:
    await add(plain, SENDER, *turn("0"))
    for n in range(1, 6):
        await asyncio.gather(
            *(has(cached) for _ in range(20)), add(plain, SENDER, *turn(str(n)))
        )
        assert said(await has(cached)) == [str(i) for i in range(n + 1)]
    assert cached.cached_count == 1
    assert cached.cached_bytes == await stored_bytes(plain)


async def stored_bytes(store: InMemoryTrackerStore) -> int:
    conversation = store._conversations[SENDER]
    return sum(len(data.encode()) for _, data in conversation.rows)  # type: ignore[union-attr]


async def test_a_full_tracker_goes_past_it(
    plain: SpyStore, cached: CachedTrackerStore
) -> None:
    await add(plain, SENDER, *turn("one"))
    await has(cached)
    await add(plain, SENDER, *new_session(), user("two"))
    full = await cached.retrieve_full_tracker(SENDER)
    assert said(full) == ["one", "two"]


# -- bounds ----------------------------------------------------------------------------


async def test_the_least_recent_one_goes(plain: SpyStore) -> None:
    async with CachedTrackerStore(plain, max_trackers=2) as store:
        for name in ("a", "b"):
            await add(store, name, *turn())
            await has(store, name)
        await has(store, "a")
        await add(store, "c", *turn())
        await has(store, "c")
        assert list(store._entries) == ["a", "c"]
        assert store.cached_count == 2


async def test_bytes_are_bounded_exactly(plain: SpyStore) -> None:
    await add(plain, SENDER, *turn("\N{WINKING FACE} one"))
    size_bytes = await stored_bytes(plain)
    for spare, kept in ((-1, 0), (0, 1)):
        async with CachedTrackerStore(plain, max_bytes=size_bytes + spare) as store:
            await has(store)
            assert store.cached_count == kept
            assert store.cached_bytes == kept * size_bytes
        assert (store.cached_count, store.cached_bytes) == (0, 0)


async def test_one_that_outgrows_the_bound_goes_and_is_answered(
    plain: SpyStore,
) -> None:
    async with CachedTrackerStore(plain, max_bytes=2000) as store:
        for n in range(20):
            await add(store, SENDER, *turn(str(n)))
            assert said(await has(store)) == [str(i) for i in range(n + 1)]
            assert store.cached_bytes <= 2000
        assert store.cached_count == 0


@pytest.mark.parametrize("name", ["max_trackers", "max_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "10"])
def test_a_bound_is_a_positive_number(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        CachedTrackerStore(InMemoryTrackerStore(), **{name: value})


def test_a_store_that_cannot_tell_logs_apart_is_refused() -> None:
    legacy = AwaitableTrackerStore(JSONTextStore(domain=None))
    with pytest.raises(ConfigurationError, match="out of date"):
        CachedTrackerStore(legacy)


async def test_health_tells_of_it(cached: CachedTrackerStore) -> None:
    await add(cached, SENDER, *turn())
    await has(cached)
    await has(cached)
    found = (await cached.health()).details["cache"]
    assert found == {
        "trackers": 1,
        "bytes": cached.cached_bytes,
        "hits": 1,
        "misses": 1,
    }


# -- nothing is shared -----------------------------------------------------------------


@pytest.mark.parametrize("last", [None, 2])
async def test_a_hit_shares_nothing(
    plain: SpyStore, cached: CachedTrackerStore, last: int | None
) -> None:
    nested = SlotSet("s", {"list": [1, {"deep": []}]})
    message = UserUttered("hi", entities=[{"entity": "a", "value": ["b"]}])
    await add(plain, SENDER, *turn("one"), message, nested)
    first = await cached.get_or_create_tracker(SENDER, last)
    expected = everything_of(first)
    for _ in range(2):
        spoil_all(first)
        first = await cached.get_or_create_tracker(SENDER, last)
        assert everything_of(first) == expected


def spoil_all(tracker: Any) -> None:
    for event in tracker.events:
        event.metadata["spoilt"] = True
        if isinstance(event, UserUttered):
            event.entities.append({"entity": "spoilt", "value": 1})
            event.parse_data["spoilt"] = True
        if isinstance(event, SlotSet):
            event.value["list"].append("spoilt")
    tracker.latest_message.entities.append({"entity": "spoilt", "value": 2})
    tracker.get_slot("s")["list"].append("spoilt")
    tracker.events.clear()
