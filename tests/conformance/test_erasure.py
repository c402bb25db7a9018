"""What is deleted is gone: no trace is left, and positions stay what they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.kit import (
    SENDER,
    add,
    dicts,
    has,
    has_full,
    held,
    new_session,
    replayed,
    said,
    slot,
    state,
    stored,
    stored_dicts,
    turn,
    update,
    user,
    version,
)
from tracker_store_async import errors

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore
    from tracker_store_async.events import Event

SECRET = "xyzzy-secret"


def three_sessions() -> tuple[list[Event], list[Event], list[Event]]:
    """Return sessions of 7, 7 and 7 events; the first two hold the secret."""
    first = [*new_session(), *turn(f"one {SECRET}"), slot("a", SECRET)]
    second = [*new_session(), *turn(f"two {SECRET}"), slot(SECRET, 2)]
    third = [*new_session(), *turn("three"), slot("c", 3)]
    return first, second, third


async def test_a_deleted_conversation_is_gone(store: TrackerStore) -> None:
    await add(store, SENDER, *turn())
    await add(store, "bob", *turn("bob"))
    assert await store.delete(SENDER)
    assert await store.retrieve(SENDER) is None
    assert await store.retrieve_full_tracker(SENDER) is None
    assert not await store.exists(SENDER)
    assert list(await store.keys()) == ["bob"]
    assert not await store.delete(SENDER)
    assert said(await has(store, "bob")) == ["bob"]


async def test_a_deleted_conversation_leaves_no_trace(storage: Storage) -> None:
    store = storage.store(record_exp=1000)
    sender_id = f"sender {SECRET}"
    tracker = store.init_tracker(sender_id)
    tracker.user_id = f"user {SECRET}"
    event = user(SECRET, intent={"name": SECRET}, metadata={"x": SECRET})
    event.event_id = f"id {SECRET}"
    update(tracker, [*new_session(), event, slot(SECRET, SECRET)])
    await store.save(tracker)
    await add(store, "bob", *turn("bob"))
    await store.delete(sender_id)
    await storage.close()
    raw = storage.raw()
    assert "bob" in raw
    assert SECRET not in raw


async def test_after_deletion_it_starts_from_nothing(store: TrackerStore) -> None:
    await add(store, SENDER, slot("a", 1), *turn("old"))
    await store.delete(SENDER)
    created = await store.get_or_create_tracker(SENDER)
    assert (created.version, len(created.events)) == (1, 1)
    assert created.get_slot("a") is None
    update(created, turn("new"))
    await store.save(created)
    assert said(await has_full(store)) == ["new"]


async def test_an_old_tracker_saves_only_what_is_new(store: TrackerStore) -> None:
    await add(store, SENDER, slot("a", 1), *turn("old"))
    tracker = await has(store)
    await store.delete(SENDER)
    tracker.update(user("new"))
    await store.save(tracker)
    assert said(await has_full(store)) == ["new"]
    assert await version(store) == 1
    assert (await has(store)).get_slot("a") is None
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert window.get_slot("a") is None
    assert tracker.version == 1
    assert said(tracker) == ["new"]


async def test_an_old_tracker_is_refused_if_so_configured(storage: Storage) -> None:
    store = storage.store(on_conflict="raise")
    await add(store, SENDER, *turn("old"))
    tracker = await has(store)
    await store.delete(SENDER)
    tracker.update(user("new"))
    with pytest.raises(errors.ConcurrentSaveError) as raised:
        await store.save(tracker)
    assert raised.value.stored_version == 0
    assert not await store.exists(SENDER)


async def test_an_old_tracker_without_changes_brings_nothing_back(
    store: TrackerStore,
) -> None:
    await add(store, SENDER, *turn("old"))
    tracker = await has(store)
    await store.delete(SENDER)
    await store.save(tracker)
    assert not await store.exists(SENDER)


@pytest.mark.parametrize("before", [1, 7, 10, 14])
async def test_earlier_sessions_can_be_cut_off(
    store: TrackerStore, before: int
) -> None:
    first, second, third = three_sessions()
    everything = [*first, *second, *third]
    await add(store, SENDER, *everything)
    assert await store.delete(SENDER, before_position=before)
    assert await stored_dicts(store) == dicts(everything[before:])
    assert await version(store) == 21
    assert held(await has_full(store)) == dicts(everything[before:])
    assert held(await has(store)) == dicts(third)
    assert state(await has(store)) == state(replayed(third))


async def test_what_was_cut_off_leaves_no_trace(storage: Storage) -> None:
    store = storage.store()
    first, second, third = three_sessions()
    for session in (first, second, third):
        await add(store, SENDER, *session)
    await store.delete(SENDER, before_position=14)
    await storage.close()
    raw = storage.raw()
    assert "three" in raw
    assert SECRET not in raw


async def test_saving_goes_on_after_a_cut(store: TrackerStore) -> None:
    first, second, third = three_sessions()
    await add(store, SENDER, *first, *second, *third)
    before, before_full = await has(store), await has_full(store)
    await store.delete(SENDER, before_position=14)
    before.update(user("with the tracker from before"))
    await store.save(before)
    await add(store, SENDER, user("with a new one"))
    full = await has_full(store)
    full.update(user("with a full one"))
    await store.save(full)
    before_full.update(user("with a full one from before"))
    await store.save(before_full)
    expected = [
        "three",
        "with the tracker from before",
        "with a new one",
        "with a full one",
        "with a full one from before",
    ]
    assert said(await has(store)) == expected
    assert said(await has_full(store)) == expected
    assert await version(store) == 25
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert state(window) == state(await has(store))


async def test_a_session_that_starts_after_a_cut(store: TrackerStore) -> None:
    first, second, third = three_sessions()
    await add(store, SENDER, *first, *second)
    assert await store.delete(SENDER, before_position=7)
    await add(store, SENDER, *third)
    assert held(await has(store)) == dicts(third)
    assert held(await has_full(store)) == dicts([*second, *third])
    assert await store.delete(SENDER, before_position=14)
    assert held(await has_full(store)) == dicts(third)


async def test_a_cut_tells_whether_there_was_anything(store: TrackerStore) -> None:
    assert not await store.delete(SENDER, before_position=5)
    first, second, third = three_sessions()
    await add(store, SENDER, *first, *second, *third)
    assert not await store.delete(SENDER, before_position=0)
    assert await store.delete(SENDER, before_position=7)
    assert not await store.delete(SENDER, before_position=7)
    assert not await store.delete(SENDER, before_position=3)
    assert await store.delete(SENDER, before_position=8)


@pytest.mark.parametrize("before", [-1, 15, 21, 22, 1000])
async def test_the_latest_session_is_not_cut(store: TrackerStore, before: int) -> None:
    first, second, third = three_sessions()
    await add(store, SENDER, *first, *second, *third)
    with pytest.raises(errors.InvalidInputError):
        await store.delete(SENDER, before_position=before)
    assert await version(store) == 21
    assert len(await stored(store)) == 21


@pytest.mark.parametrize("before", [15, 20, 21, 22, 1000])
async def test_the_storage_itself_refuses_a_cut_into_the_latest_session(
    store: TrackerStore, before: int
) -> None:
    """A session may begin between the check and the cut: so the cut checks too."""
    first, second, third = three_sessions()
    everything = [*first, *second, *third]
    await add(store, SENDER, *everything)
    assert not await store._delete(SENDER, before, store._now())
    assert await stored_dicts(store) == dicts(everything)
    assert await store._delete(SENDER, 14, store._now())
    assert not await store._delete(SENDER, before, store._now())
    assert await stored_dicts(store) == dicts(third)
    assert await version(store) == 21


async def test_a_cut_conversation_is_listed_and_deleted(store: TrackerStore) -> None:
    first, second, third = three_sessions()
    await add(store, SENDER, *first, *second, *third)
    await store.delete(SENDER, before_position=14)
    [summary] = [each async for each in store.conversations()]
    assert (summary.sender_id, summary.version) == (SENDER, 21)
    assert await store.delete(SENDER)
    assert not await store.exists(SENDER)


async def test_a_conflict_after_a_cut(store: TrackerStore) -> None:
    first, second, third = three_sessions()
    await add(store, SENDER, *first, *second, *third)
    mine, mine_full = await has(store), await has_full(store)
    await add(store, SENDER, user("theirs"))
    await store.delete(SENDER, before_position=14)
    mine.update(user("mine"))
    await store.save(mine)
    mine_full.update(user("mine too"))
    await store.save(mine_full)
    assert said(await has(store)) == ["three", "theirs", "mine", "mine too"]
    assert said(mine_full) == said(await has(store))


async def test_only_the_version_that_is_meant_is_deleted(store: TrackerStore) -> None:
    await add(store, SENDER, *turn("first"))
    await add(store, SENDER, *turn("second"))
    for other in (0, 4, 9):
        assert not await store._delete(SENDER, None, store._now(), other)
    assert said(await has_full(store)) == ["first", "second"]
    assert list(await store.keys()) == [SENDER]
    await add(store, SENDER, *turn("third"))
    assert not await store._delete(SENDER, None, store._now(), 8)
    assert await store._delete(SENDER, None, store._now(), 12)
    assert not await store.exists(SENDER)
    assert list(await store.keys()) == []
    assert not await store._delete("nobody", None, store._now(), 0)
