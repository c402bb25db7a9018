"""Conversations are listed once each, in constant memory, while others write."""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import (
    START,
    Clock,
    Spy,
    add,
    has,
    has_full,
    said,
    state,
    turn,
    user,
)
from tracker_store_async import DialogueStateTracker, errors

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import ConversationSummary, TrackerStore

NAMES = [f"user-{n:02}" for n in range(23)]


async def fill(store: TrackerStore, names: list[str] = NAMES) -> None:
    for name in names:
        await add(store, name, user())


async def listed(store: TrackerStore, **filters: Any) -> list[ConversationSummary]:
    return [summary async for summary in store.conversations(**filters)]


async def names_of(store: TrackerStore, **filters: Any) -> list[str]:
    return sorted(summary.sender_id for summary in await listed(store, **filters))


async def test_an_empty_store(store: TrackerStore) -> None:
    assert await listed(store) == []
    assert list(await store.keys()) == []


@pytest.mark.parametrize("page_size", [1, 2, 7, 22, 23, 24, 500])
async def test_every_page_size_lists_each_once(
    store: TrackerStore, page_size: int
) -> None:
    await fill(store)
    spy = Spy(store)
    assert await names_of(store, page_size=page_size) == NAMES
    pages = len(NAMES) // page_size + 1
    assert spy.calls == ["_list"] * pages


async def test_the_keys_are_plain_sender_ids(store: TrackerStore) -> None:
    await fill(store)
    assert sorted(await store.keys()) == NAMES


async def test_a_summary_says_what_is_stored(storage: Storage) -> None:
    store, clock = storage.store(), Clock()
    clock.drive(store)
    await add(store, "alice", user(), user())
    clock.advance(10.25)
    tracker = await has(store, "alice")
    tracker.user_id = "account-1"
    tracker.update(user())
    await store.save(tracker)
    [summary] = await listed(store)
    assert summary.sender_id == "alice"
    assert summary.version == 3
    assert summary.created_at == START
    assert summary.updated_at == START + 10.25
    assert summary.user_id == "account-1"


async def test_a_listing_goes_on_from_a_cursor(storage: Storage) -> None:
    store = storage.store()
    await fill(store)
    everything = [summary.sender_id for summary in await listed(store)]
    for at, summary in enumerate(await listed(store)):
        rest = await listed(storage.store(), cursor=summary.cursor, page_size=5)
        assert [each.sender_id for each in rest] == everything[at + 1 :]


async def test_a_cursor_outlives_its_conversation(store: TrackerStore) -> None:
    await fill(store)
    summaries = await listed(store)
    for at in (0, 11, 22):
        await store.delete(summaries[at].sender_id)
        rest = await listed(store, cursor=summaries[at].cursor)
        assert [s.sender_id for s in rest] == [
            s.sender_id for s in summaries[at + 1 :] if await store.exists(s.sender_id)
        ]


async def test_only_those_of_a_user(store: TrackerStore) -> None:
    for name, user_id in (("a", "u1"), ("b", "u2"), ("c", "u1"), ("d", None)):
        tracker = DialogueStateTracker.from_events(name, [user()])
        tracker.user_id = user_id
        await store.save(tracker)
    assert await names_of(store, user_id="u1") == ["a", "c"]
    assert await names_of(store, user_id="u1", page_size=1) == ["a", "c"]
    assert await names_of(store, user_id="u2") == ["b"]
    assert await names_of(store, user_id="U1") == []
    assert await names_of(store, user_id="u1 ") == []
    assert await names_of(store) == ["a", "b", "c", "d"]
    assert (await has(store, "a")).user_id == "u1"


async def test_the_user_stays_until_another_is_named(store: TrackerStore) -> None:
    tracker = store.init_tracker("a")
    tracker.user_id = "u1"
    tracker.update(user())
    await store.save(tracker)
    await add(store, "a", user())
    assert await names_of(store, user_id="u1") == ["a"]
    tracker = await has(store, "a")
    tracker.user_id = "u2"
    tracker.update(user())
    await store.save(tracker)
    assert await names_of(store, user_id="u1") == []
    assert await names_of(store, user_id="u2") == ["a"]


async def test_only_those_of_a_time(storage: Storage) -> None:
    store, clock = storage.store(), Clock()
    clock.drive(store)
    for name in ("a", "b", "c", "d"):
        await add(store, name, user())
        clock.advance(10.5)
    await add(store, "a", user())  # updated last: at START + 42
    at = START + 10.5
    assert await names_of(store, updated_from=at) == ["a", "b", "c", "d"]
    assert await names_of(store, updated_from=at + 0.001) == ["a", "c", "d"]
    assert await names_of(store, updated_before=at) == []
    assert await names_of(store, updated_before=at + 0.001) == ["b"]
    between = {"updated_from": at, "updated_before": at + 21}
    assert await names_of(store, **between) == ["b", "c"]
    assert await names_of(store, **between, page_size=1) == ["b", "c"]
    assert await names_of(store, updated_from=math.inf) == []


async def test_those_that_stay_are_listed_once_while_others_come_and_go(
    storage: Storage,
) -> None:
    store, other = storage.store(), storage.store()
    staying = [f"stay-{n:02}" for n in range(20)]
    going = [f"{prefix}-{n:02}" for prefix in ("a", "stay", "z") for n in range(20, 40)]
    await fill(store, staying)
    await fill(store, going[::2])
    seen: list[str] = []
    at = 0
    async for summary in store.conversations(page_size=3):
        seen.append(summary.sender_id)
        if len(seen) % 2 and at < len(going):
            if at % 2:
                await add(other, going[at], user())
            else:
                await other.delete(going[at])
            at += 1
            await add(other, staying[at % 20], user())
    assert [name for name in seen if name in staying] == [
        name for name in seen if name.startswith("stay") and name in staying
    ]
    assert sorted(name for name in seen if name in staying) == staying
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("seed", range(3))
async def test_the_order_of_the_pages_is_that_of_the_cursors(
    storage: Storage, seed: int
) -> None:
    """Neither age nor the latest save may decide: they are not what a cursor holds."""
    store, other, clock = storage.store(), storage.store(), Clock()
    clock.drive(store)
    clock.drive(other)
    chance = random.Random(seed)
    names = chance.sample(NAMES, len(NAMES))
    for name in names:
        clock.advance(1)
        await add(store, name, user())
    seen: list[str] = []
    async for summary in store.conversations(page_size=3):
        seen.append(summary.sender_id)
        if len(seen) % 3 == 0:  # the next page is not fetched yet
            for name in chance.sample(NAMES, 4):
                clock.advance(1)
                await add(other, name, user())
    assert sorted(seen) == NAMES


async def test_those_that_stay_are_listed_once_beside_writers(
    storage: Storage,
) -> None:
    store, other = storage.store(), storage.store()
    await fill(store)
    stop = asyncio.Event()

    async def write() -> None:
        n = 0
        while not stop.is_set():
            await add(other, f"user-{n % 40:02}x", user())
            await add(other, NAMES[n % len(NAMES)], user())
            await other.delete(f"user-{n % 7:02}x")
            n += 1
            await asyncio.sleep(0)

    writer = asyncio.create_task(write())
    try:
        for _ in range(5):
            seen = [s.sender_id async for s in store.conversations(page_size=2)]
            assert sorted(name for name in seen if name in NAMES) == NAMES
            assert len(set(seen)) == len(seen)
    finally:
        stop.set()
        await writer


async def test_a_listing_that_is_left_in_the_middle(store: TrackerStore) -> None:
    await fill(store)
    for _ in range(30):
        async for _summary in store.conversations(page_size=1):
            break
    assert await names_of(store) == NAMES


@pytest.mark.parametrize("page_size", [0, -1])
async def test_a_page_holds_at_least_one(store: TrackerStore, page_size: int) -> None:
    with pytest.raises(errors.InvalidInputError):
        await listed(store, page_size=page_size)


@pytest.mark.parametrize("window", [None, 1])
async def test_a_user_alone_is_stored(store: TrackerStore, window: int | None) -> None:
    await add(store, "a", *turn(), *turn())
    tracker = await store.get_or_create_tracker("a", max_event_history=window)
    before = tracker.version
    tracker.user_id = "u1"
    await store.save(tracker)
    assert await names_of(store, user_id="u1") == ["a"]
    assert (await has(store, "a")).user_id == "u1"
    assert (await has_full(store, "a")).version == before
    assert state(await has(store, "a")) == state(await has_full(store, "a"))
    await add(store, "a", *turn("on"))
    assert len(said(await has_full(store, "a"))) == 3
    assert await names_of(store, user_id="u1") == ["a"]
