"""An append that landed although its answer was lost is recognised and not repeated."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.conformance.kit import (
    SENDER,
    FailingBroker,
    LostAcknowledgement,
    Spy,
    action,
    add,
    dicts,
    has,
    has_full,
    held,
    new_session,
    replayed,
    said,
    slot,
    stamp,
    state,
    stored_dicts,
    stored_ids,
    turn,
    update,
    user,
)
from tracker_store_async import DialogueStateTracker, errors
from tracker_store_async.events import UserUtteranceReverted

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore

LOST = errors.StoreUnavailableError


async def test_a_retry_stores_nothing_again(store: TrackerStore) -> None:
    await add(store, SENDER, *turn("first"))
    tracker = await has(store)
    update(tracker, turn("second"))
    LostAcknowledgement(store)
    with pytest.raises(LOST):
        await store.save(tracker)
    spy = Spy(store)
    await store.save(tracker)
    assert spy.calls == ["_append", "_read"]
    assert said(await has(store)) == ["first", "second"]
    assert store.conflict_count == 0


async def test_the_tracker_goes_on_after_the_retry(store: TrackerStore) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    LostAcknowledgement(store)
    tracker.update(user("one"))
    with pytest.raises(LOST):
        await store.save(tracker)
    await store.save(tracker)
    tracker.update(user("two"))
    spy = Spy(store)
    await store.save(tracker)
    assert spy.calls == ["_append"]
    assert said(await has(store)) == ["one", "two"]


async def test_a_new_conversation(store: TrackerStore) -> None:
    LostAcknowledgement(store)
    with pytest.raises(LOST):
        await store.get_or_create_tracker(SENDER)
    tracker = await store.get_or_create_tracker(SENDER)
    assert len(tracker.events) == 1
    assert len(await stored_ids(store)) == 1


async def test_a_tracker_built_by_hand(store: TrackerStore) -> None:
    events = [*new_session(), *turn("one")]
    tracker = DialogueStateTracker.from_events(SENDER, events)
    LostAcknowledgement(store)
    with pytest.raises(LOST):
        await store.save(tracker)
    await store.save(tracker)
    await store.save(DialogueStateTracker.from_events(SENDER, events))
    assert await stored_dicts(store) == dicts(events)


async def test_a_retry_with_more_than_had_landed(store: TrackerStore) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    tracker.update(user("one"))
    LostAcknowledgement(store)
    with pytest.raises(LOST):
        await store.save(tracker)
    update(tracker, [user("two"), slot("a", 1)])
    await store.save(tracker)
    assert said(await has(store)) == ["one", "two"]
    assert tracker.version == 4
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert state(window) == state(await has(store))
    assert store.conflict_count == 0


@pytest.mark.parametrize("landed", [1, 2, 3])
async def test_a_session_start_that_had_landed(
    store: TrackerStore, landed: int
) -> None:
    await add(store, SENDER, user("old"))
    tracker = await has(store)
    latest = [*new_session(), user("new")]
    update(tracker, latest[:landed])
    LostAcknowledgement(store)
    with pytest.raises(LOST):
        await store.save(tracker)
    update(tracker, latest[landed:])
    await store.save(tracker)
    assert held(await has(store)) == dicts(latest)
    tracker.update(more := user("more"))
    await store.save(tracker)
    assert held(await has(store)) == dicts([*latest, more])
    assert said(await has_full(store)) == ["old", "new", "more"]


async def test_others_appended_behind_what_had_landed(storage: Storage) -> None:
    store = storage.store()

    async def others() -> None:
        await add(storage.store(), SENDER, *turn("theirs"))

    tracker = await store.get_or_create_tracker(SENDER)
    update(tracker, turn("mine"))
    LostAcknowledgement(store, landed=others)
    with pytest.raises(LOST):
        await store.save(tracker)
    await store.save(tracker)
    assert said(await has(store)) == ["mine", "theirs"]
    update(tracker, turn("mine again"))
    await store.save(tracker)
    assert said(await has(store)) == ["mine", "theirs", "mine again"]
    assert said(tracker) == ["mine", "theirs", "mine again"]
    assert state(tracker) == state(await has(store))


async def test_others_appended_and_the_retry_holds_more(storage: Storage) -> None:
    store = storage.store()

    async def others() -> None:
        await add(storage.store(), SENDER, *new_session(), user("theirs"))

    tracker = await store.get_or_create_tracker(SENDER)
    tracker.update(user("mine"))
    LostAcknowledgement(store, landed=others)
    with pytest.raises(LOST):
        await store.save(tracker)
    tracker.update(user("more"))
    await store.save(tracker)
    assert said(await has(store)) == ["theirs", "more"]
    assert said(await has_full(store)) == ["mine", "theirs", "more"]
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert state(window) == state(await has(store))


async def test_a_rebased_append_whose_answer_was_lost(storage: Storage) -> None:
    store = storage.store()
    tracker = await store.get_or_create_tracker(SENDER)
    await add(storage.store(), SENDER, user("theirs"))
    tracker.update(user("mine"))
    LostAcknowledgement(store)
    with pytest.raises(LOST):
        await store.save(tracker)
    await add(storage.store(), SENDER, user("theirs again"))
    await store.save(tracker)
    assert said(await has(store)) == ["theirs", "mine", "theirs again"]
    tracker.update(user("on"))
    await store.save(tracker)
    assert said(tracker) == ["theirs", "mine", "theirs again", "on"]
    assert said(await has(store)) == said(tracker)


async def test_a_retry_of_an_older_copy_finds_what_was_rebased(
    storage: Storage,
) -> None:
    store = storage.store()
    tracker = await store.get_or_create_tracker(SENDER)
    tracker.update(user("mine"))
    copy = tracker.copy()
    await add(storage.store(), SENDER, user("theirs"))
    await store.save(tracker)
    await store.save(copy)
    assert said(await has(store)) == ["theirs", "mine"]
    copy.update(user("on"))
    await store.save(copy)
    assert said(await has(store)) == ["theirs", "mine", "on"]
    assert said(copy) == ["theirs", "mine", "on"]


@pytest.mark.parametrize("policy", ["rebase", "raise"])
async def test_under_either_policy(storage: Storage, policy: str) -> None:
    store = storage.store(on_conflict=policy)
    tracker = await store.get_or_create_tracker(SENDER)
    tracker.update(user("mine"))
    LostAcknowledgement(store)
    with pytest.raises(LOST):
        await store.save(tracker)
    await store.save(tracker)
    assert said(await has(store)) == ["mine"]
    assert store.conflict_count == 0


async def test_a_retry_from_a_copy(store: TrackerStore) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    tracker.update(user("mine"))
    LostAcknowledgement(store)
    with pytest.raises(LOST):
        await store.save(tracker)
    copy = tracker.copy()
    await store.save(copy)
    await store.save(tracker)
    assert said(await has(store)) == ["mine"]


async def test_a_reload_instead_of_a_retry(store: TrackerStore) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    tracker.update(user("mine"))
    LostAcknowledgement(store)
    with pytest.raises(LOST):
        await store.save(tracker)
    fresh = await has(store)
    assert said(fresh) == ["mine"]
    await store.save(fresh)
    await store.save(tracker)
    assert said(await has(store)) == ["mine"]


async def test_a_retry_through_another_store_object(storage: Storage) -> None:
    store = storage.store()
    tracker = await store.get_or_create_tracker(SENDER)
    tracker.update(user("mine"))
    LostAcknowledgement(store)
    with pytest.raises(LOST):
        await store.save(tracker)
    await storage.store().save(tracker)
    assert said(await has(store)) == ["mine"]


async def test_the_answer_is_lost_several_times(store: TrackerStore) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    LostAcknowledgement(store, times=3)
    texts = ["one", "two", "three"]
    for text in texts:
        tracker.update(user(text))
        with pytest.raises(LOST):
            await store.save(tracker)
    await store.save(tracker)
    assert said(await has(store)) == texts
    assert held(tracker) == held(await has(store))


async def test_a_cancelled_save_that_had_landed(store: TrackerStore) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    tracker.update(user("mine"))
    LostAcknowledgement(store, error=asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await store.save(tracker)
    await store.save(tracker)
    assert said(await has(store)) == ["mine"]


async def test_a_save_that_did_not_land_is_repeated(store: TrackerStore) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    tracker.update(user("mine"))
    append = store._append

    async def unreachable(request: object) -> bool:
        raise LOST("nobody is there")

    store._append = unreachable  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(LOST):
            await store.save(tracker)
    store._append = append  # type: ignore[method-assign]
    assert said(await has(store)) == []
    await store.save(tracker)
    assert said(await has(store)) == ["mine"]


async def test_carried_ids_are_recognised_too(store: TrackerStore) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    for n in range(3):
        event = user(str(n))
        event.event_id = f"id-{n}"
        tracker.update(event)
    LostAcknowledgement(store)
    with pytest.raises(LOST):
        await store.save(tracker)
    await store.save(tracker)
    assert (await stored_ids(store))[1:] == ["id-0", "id-1", "id-2"]


async def test_nothing_is_published_again(storage: Storage) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker)
    tracker = await store.get_or_create_tracker(SENDER)
    update(tracker, turn("mine"))
    LostAcknowledgement(store)
    with pytest.raises(LOST):
        await store.save(tracker)
    tracker.update(user("more"))
    await store.save(tracker)
    assert broker.ids == await stored_ids(store)


async def test_the_window_knows_what_had_landed(store: TrackerStore) -> None:
    events = [slot("a", 1), *turn("one"), action()]
    await add(store, SENDER, *events)
    tracker = await store.get_or_create_tracker(SENDER, max_event_history=2)
    mine = [slot("b", 2), slot("c", 3), slot("d", 4)]
    update(tracker, mine)
    LostAcknowledgement(store)
    with pytest.raises(LOST):
        await store.save(tracker)
    tracker.update(more := slot("e", 5))
    await store.save(tracker)
    expected = state(replayed([*events, *mine, more]))
    assert state(tracker) == expected
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert state(window) == expected


async def test_a_rewind_in_a_window_after_the_answer_was_lost(
    store: TrackerStore,
) -> None:
    events = [*new_session(), *turn("one"), slot("a", 1)]
    await add(store, SENDER, *events)
    tracker = await store.get_or_create_tracker(SENDER, max_event_history=2)
    mine = turn("mine")
    update(tracker, mine)
    LostAcknowledgement(store)
    with pytest.raises(LOST):
        await store.save(tracker)
    tracker.update(rewind := UserUtteranceReverted(timestamp=stamp()))
    await store.save(tracker)
    expected = [*events, *mine, rewind]
    assert await stored_dicts(store) == dicts(expected)
    assert state(tracker) == state(replayed(expected))


async def test_a_copy_is_found_in_a_conversation_that_was_begun_again(
    store: TrackerStore,
) -> None:
    await add(store, SENDER, *turn("old"))
    tracker = await has(store)
    tracker.update(user("mine"))
    copy = tracker.copy()
    await store.delete(SENDER)
    await store.save(copy)
    await store.save(tracker)
    assert said(await has(store)) == ["mine"]


async def test_what_had_landed_was_erased_up_to_a_session_in_it(
    store: TrackerStore,
) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    latest = [*new_session(), user("new")]
    update(tracker, [user("old"), *latest])
    LostAcknowledgement(store)
    with pytest.raises(LOST):
        await store.save(tracker)
    assert await store.delete(SENDER, before_position=2)
    await store.save(tracker)
    assert await stored_dicts(store) == dicts(latest)
    tracker.update(user("on"))
    await store.save(tracker)
    assert said(await has_full(store)) == ["new", "on"]
