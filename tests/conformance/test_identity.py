"""Which log is which: begun again, another store's, several tasks, equal ids."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import TYPE_CHECKING

import pytest

from tests.conformance.kit import (
    SENDER,
    action,
    add,
    has,
    has_full,
    said,
    slot,
    stored_dicts,
    stored_ids,
    user,
    version,
)
from tracker_store_async import DialogueStateTracker, InMemoryTrackerStore, errors
from tracker_store_async.events import event_from_dict

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore
    from tracker_store_async.rows import Read, StoredConversation


async def test_a_conversation_begun_again_is_another_one(storage: Storage) -> None:
    store = storage.store()
    await add(store, SENDER, slot("secret", "erased"))
    old = await has(store)
    await store.delete(SENDER)
    await add(store, SENDER, slot("other", 1))
    assert await version(store) == old.version
    old.update(user("mine"))
    await store.save(old)
    assert [each["event"] for each in await stored_dicts(store)] == ["slot", "user"]
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert window.current_slot_values() == {"other": 1}
    assert old.current_slot_values() == {"other": 1}
    assert store.conflict_count == 1


async def test_a_conversation_begun_again_is_a_conflict(storage: Storage) -> None:
    store = storage.store(on_conflict="raise")
    await add(store, SENDER, user("old"))
    old = await has(store)
    await store.delete(SENDER)
    await add(store, SENDER, user("new"))
    old.update(user("mine"))
    with pytest.raises(errors.ConcurrentSaveError):
        await store.save(old)
    assert said(await has(store)) == ["new"]


async def test_two_tasks_may_save_one_tracker(storage: Storage) -> None:
    store = storage.store()
    await add(store, SENDER, user("first"))
    tracker = await has(store)
    await add(storage.store(), SENDER, user("theirs"))  # both saves meet a conflict
    tracker.update(user("mine"))
    one = asyncio.create_task(store.save(tracker))
    await asyncio.sleep(0)
    tracker.update(user("later"))
    await asyncio.gather(one, store.save(tracker), store.save(tracker))
    assert said(await has(store)) == ["first", "theirs", "mine", "later"]
    assert said(tracker) == ["first", "theirs", "mine", "later"]
    assert tracker.unsaved_events == []


async def test_a_save_waits_for_one_of_the_same_tracker(storage: Storage) -> None:
    """The slower one, back from its read, must not build on what is gone by then."""
    store = storage.store()
    await add(store, SENDER, user("first"))
    tracker = await has(store)
    await add(storage.store(), SENDER, user("theirs"))
    tracker.update(user("mine"))
    read, gate = store._read, asyncio.Event()
    held: set[asyncio.Task[None] | None] = set()
    slow: asyncio.Task[None] | None = None
    reads = 0

    async def slow_read(request: Read) -> StoredConversation | None:
        nonlocal reads
        if asyncio.current_task() is slow:
            reads += 1
            if reads == 2:  # the first finds the conflict, the second reloads
                held.add(slow)
                await gate.wait()
        return await read(request)

    store._read = slow_read  # type: ignore[method-assign]
    slow = asyncio.create_task(store.save(tracker))
    while slow not in held:
        await asyncio.sleep(0.001)
    other = asyncio.create_task(store.save(tracker))
    await asyncio.sleep(0.05)
    tracker.update(user("later"))
    gate.set()
    await asyncio.gather(slow, other)
    await store.save(tracker)
    assert said(await has(store)) == ["first", "theirs", "mine", "later"]
    assert said(tracker) == ["first", "theirs", "mine", "later"]


async def test_events_that_carry_one_id_are_each_stored(store: TrackerStore) -> None:
    tracker = await store.get_or_create_tracker(SENDER, append_action_listen=False)
    for text in ("one", "two"):
        fields = {**user(text).as_dict(), "event_id": "same"}
        tracker.update(event_from_dict(fields))
        await asyncio.gather(store.save(tracker), store.save(tracker))
    assert said(await has(store)) == ["one", "two"]
    assert await stored_ids(store) == ["same", "same"]


async def test_a_tracker_of_another_store_is_copied(storage: Storage) -> None:
    from tracker_store_async import InMemoryTrackerStore

    async with InMemoryTrackerStore() as origin:
        await add(origin, SENDER, user("one"), slot("a", 1))
        await add(origin, SENDER, user("two"))
        tracker = await has_full(origin)
        tracker.update(user("three"))
        store = storage.store()
        await store.save(tracker)
        assert said(await has(store)) == ["one", "two", "three"]
        await store.save(tracker)
        tracker.update(user("four"))
        await store.save(tracker)
        assert said(await has(store)) == ["one", "two", "three", "four"]
        assert said(await has(origin)) == ["one", "two"]


async def test_a_tracker_of_another_store_object_goes_on(storage: Storage) -> None:
    await add(storage.store(), SENDER, user("one"), action())
    tracker = await has(storage.store())
    tracker.update(user("two"))
    await storage.store().save(tracker)
    tracker.update(user("three"))
    await storage.store().save(tracker)
    assert said(await has(storage.store())) == ["one", "two", "three"]


async def test_equal_trackers_built_by_hand_at_once_are_stored_once(
    storage: Storage,
) -> None:
    fields = [user("one").as_dict(), user("two").as_dict()]
    trackers = [DialogueStateTracker.from_dict(SENDER, fields) for _ in range(5)]
    await asyncio.gather(*(storage.store().save(tracker) for tracker in trackers))
    assert said(await has(storage.store())) == ["one", "two"]


@pytest.mark.parametrize("user_id", ["", "u" * 256, "a\0b", "\ud800", 5])
async def test_a_user_id_that_cannot_be_stored_is_refused(
    store: TrackerStore, user_id: object
) -> None:
    tracker = await store.get_or_create_tracker(SENDER, append_action_listen=False)
    tracker.update(user("mine"))
    tracker.user_id = user_id  # type: ignore[assignment]
    with pytest.raises(errors.InvalidInputError, match="user id"):
        await store.save(tracker)
    assert not await store.exists(SENDER)


async def test_one_tracker_saved_into_two_stores_at_once(storage: Storage) -> None:
    store, other = storage.store(), InMemoryTrackerStore()
    tracker = await store.get_or_create_tracker(SENDER, append_action_listen=False)
    tracker.update(user("one"))
    await asyncio.gather(store.save(tracker), other.save(tracker))
    tracker.update(user("two"))
    await asyncio.gather(other.save(tracker), store.save(tracker))
    for each in (store, other):
        assert said(await has(each)) == ["one", "two"]
    await other.close()


async def test_a_tracker_that_gets_another_name_is_another_conversation(
    store: TrackerStore,
) -> None:
    await add(store, SENDER, user("one"))
    tracker = await has(store)
    tracker.sender_id = "another"
    tracker.update(user("two"))
    await store.save(tracker)
    assert said(await has(store, "another")) == ["one", "two"]
    assert said(await has(store)) == ["one"]
    assert store.conflict_count == 0


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
async def test_a_tracker_goes_on_as_a_copy(storage: Storage, way: str) -> None:
    store = storage.store()
    await add(store, SENDER, user("one"))
    tracker = await has(store)
    tracker.update(user("two"))
    if way == "pickle":
        copied = pickle.loads(pickle.dumps(tracker))
    else:
        copied = copy.deepcopy(tracker)
    assert copied == tracker
    assert copied.version == 1
    await store.save(tracker)
    await store.save(copied)  # its events carry the same ids: they are stored already
    copied.update(user("three"))
    await store.save(copied)
    assert said(await has(store)) == ["one", "two", "three"]
    assert store.conflict_count == 0
    assert said(tracker) == ["one", "two"]
