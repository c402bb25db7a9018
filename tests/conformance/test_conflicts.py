"""When somebody else appended: nothing is lost, and the policy decides what happens."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.conformance.kit import (
    SENDER,
    FailingBroker,
    action,
    add,
    bot,
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
    version,
)
from tracker_store_async import errors
from tracker_store_async.events import (
    EntitiesAdded,
    UserUtteranceReverted,
    event_from_dict,
)

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore
    from tracker_store_async.events import UserUttered


async def test_rebase_appends_after_theirs(storage: Storage) -> None:
    mine, theirs = storage.store(), storage.store()
    await add(mine, SENDER, *turn("first"))
    tracker = await has(mine)
    await add(theirs, SENDER, *turn("theirs"))
    update(tracker, turn("mine"))
    await mine.save(tracker)
    assert said(await has(theirs)) == ["first", "theirs", "mine"]
    assert await version(mine) == 12


async def test_rebase_brings_the_tracker_up_to_date(store: TrackerStore) -> None:
    first, theirs = [*new_session(), slot("a", 1)], [slot("a", 2), slot("b", 1)]
    mine = [slot("b", 2), user("mine")]
    await add(store, SENDER, *first)
    tracker = await has(store)
    await add(store, SENDER, *theirs)
    update(tracker, mine)
    await store.save(tracker)
    expected = [*first, *theirs, *mine]
    assert held(tracker) == dicts(expected)
    assert state(tracker) == state(replayed(expected))
    assert state(tracker) == state(await has(store))
    assert tracker.version == 7
    tracker.update(user("on"))
    await store.save(tracker)
    assert said(await has(store)) == ["mine", "on"]
    assert store.conflict_count == 1


@pytest.mark.parametrize("size", [1, 2, 100])
async def test_rebase_keeps_the_state_right_in_a_window(
    store: TrackerStore, size: int
) -> None:
    first, theirs = [*new_session(), slot("a", 1)], [slot("a", 2), *turn("theirs")]
    mine = [slot("b", 2), user("mine")]
    await add(store, SENDER, *first)
    tracker = await store.get_or_create_tracker(SENDER, max_event_history=size)
    await add(store, SENDER, *theirs)
    update(tracker, mine)
    await store.save(tracker)
    expected = [*first, *theirs, *mine]
    assert held(tracker) == dicts(expected[-size:])
    assert state(tracker) == state(replayed(expected))
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert state(window) == state(replayed(expected))


async def test_rebase_onto_a_session_that_they_started(store: TrackerStore) -> None:
    await add(store, SENDER, *new_session(), slot("a", 1), user("old"))
    tracker = await has(store)
    theirs = [*new_session(), user("theirs")]
    await add(store, SENDER, *theirs)
    mine = [slot("b", 1), user("mine")]
    update(tracker, mine)
    await store.save(tracker)
    assert held(tracker) == dicts([*theirs, *mine])
    assert held(await has(store)) == dicts([*theirs, *mine])
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert state(window) == state(replayed([*theirs, *mine]))


async def test_rebase_of_a_session_that_i_start(store: TrackerStore) -> None:
    await add(store, SENDER, *new_session(), user("old"))
    tracker = await has(store)
    await add(store, SENDER, user("theirs"))
    mine = [*new_session(), user("mine")]
    update(tracker, mine)
    await store.save(tracker)
    assert held(await has(store)) == dicts(mine)
    assert said(await has_full(store)) == ["old", "theirs", "mine"]


async def test_rebase_of_session_started_onto_their_session_action(
    store: TrackerStore,
) -> None:
    await add(store, SENDER, user("old"))
    tracker = await has(store)
    their_action = action("action_session_start")
    await add(store, SENDER, their_action)
    mine = new_session()[1:]
    update(tracker, mine)
    await store.save(tracker)
    assert held(await has(store)) == dicts([their_action, *mine])


async def test_rebase_of_a_full_tracker_keeps_every_session(
    store: TrackerStore,
) -> None:
    await add(store, SENDER, *new_session(), user("one"), *new_session(), user("two"))
    full = await has_full(store)
    await add(store, SENDER, *new_session(), user("theirs"))
    full.update(user("mine"))
    await store.save(full)
    assert said(full) == ["one", "two", "theirs", "mine"]
    assert said(await has(store)) == ["theirs", "mine"]


async def test_rebase_stores_what_it_would_have_stored(storage: Storage) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker)
    await add(store, SENDER, action())
    for entities in ([], [{"entity": "city", "value": "Rome"}]):
        broker.messages.clear()
        tracker = await has(store)
        await add(storage.store(), SENDER, action())
        message = user("four", entities=entities)
        added = EntitiesAdded([{"entity": "n", "value": 4}], timestamp=stamp())
        expected = dicts([message, added])
        update(tracker, [message, added])
        await store.save(tracker)
        assert (await stored_dicts(store))[-2:] == expected
        assert broker.bodies == [{"sender_id": SENDER, **fields} for fields in expected]


async def test_raise_leaves_the_conversation_as_it_is(storage: Storage) -> None:
    store = storage.store(on_conflict="raise")
    await add(store, SENDER, user("first"))
    tracker = await has(store)
    await add(store, SENDER, user("theirs"))
    tracker.update(user("mine"))
    for _ in range(2):
        with pytest.raises(errors.ConcurrentSaveError) as raised:
            await store.save(tracker)
        assert raised.value.sender_id == SENDER
        assert raised.value.expected_version == 1
        assert raised.value.stored_version == 2
    assert said(await has(store)) == ["first", "theirs"]
    assert store.conflict_count == 2
    assert said(tracker) == ["first", "mine"]


async def test_after_raise_the_change_can_be_repeated(storage: Storage) -> None:
    store = storage.store(on_conflict="raise")
    tracker = await store.get_or_create_tracker(SENDER)
    await add(store, SENDER, user("theirs"))
    tracker.update(user("mine"))
    with pytest.raises(errors.ConcurrentSaveError):
        await store.save(tracker)
    fresh = await has(store)
    update(fresh, tracker.unsaved_events)
    await store.save(fresh)
    assert said(await has(store)) == ["theirs", "mine"]


async def test_a_conflict_is_logged_without_what_was_said(
    store: TrackerStore, caplog: pytest.LogCaptureFixture
) -> None:
    await add(store, SENDER, user("first secret"))
    tracker = await has(store)
    await add(store, SENDER, user("their secret"))
    tracker.update(user("my secret"))
    with caplog.at_level(logging.DEBUG, logger="tracker_store_async"):
        await store.save(tracker)
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert SENDER in warnings[0].getMessage()
    assert "secret" not in caplog.text


async def test_several_trackers_of_one_conversation(store: TrackerStore) -> None:
    await store.get_or_create_tracker(SENDER)
    trackers = [await has(store) for _ in range(5)]
    for n, tracker in enumerate(trackers):
        tracker.update(user(f"{n}"))
        await store.save(tracker)
    for n, tracker in enumerate(trackers):
        tracker.update(user(f"{n}b"))
        await store.save(tracker)
    expected = [f"{n}" for n in range(5)] + [f"{n}b" for n in range(5)]
    assert said(await has(store)) == expected
    ids = await stored_ids(store)
    assert len(set(ids)) == len(ids) == 11


async def test_a_tracker_that_only_reads_never_conflicts(store: TrackerStore) -> None:
    await add(store, SENDER, user("first"))
    tracker = await has(store)
    await add(store, SENDER, user("theirs"))
    await store.save(tracker)
    assert said(tracker) == ["first"]
    assert store.conflict_count == 0


@pytest.mark.parametrize("policy", ["rebase", "raise"])
async def test_a_rewind_in_a_window_hides_no_conflict(
    storage: Storage, policy: str
) -> None:
    store = storage.store(on_conflict=policy)
    first, theirs = [*new_session(), *turn("first")], turn("theirs")
    await add(store, SENDER, *first)
    tracker = await store.get_or_create_tracker(SENDER, max_event_history=1)
    await add(store, SENDER, *theirs)
    rewind = UserUtteranceReverted(timestamp=stamp())
    tracker.update(rewind)
    if policy == "raise":
        with pytest.raises(errors.ConcurrentSaveError):
            await store.save(tracker)
        assert await stored_dicts(store) == dicts([*first, *theirs])
        return
    await store.save(tracker)
    assert store.conflict_count == 1
    assert state(tracker) == state(replayed([*first, *theirs, rewind]))


async def test_entities_do_not_stay_where_they_do_not_belong(
    store: TrackerStore,
) -> None:
    await add(store, SENDER, action())
    tracker = await has(store)
    theirs = [action("utter_x")]
    await add(store, SENDER, *theirs)
    # counts as long as `action_listen` is the latest action, which it is not for them
    entities = EntitiesAdded([{"entity": "n", "value": 4}], timestamp=stamp())
    update(tracker, [user("four"), entities])
    await store.save(tracker)
    stored_events = [event_from_dict(each) for each in await stored_dicts(store)]
    assert state(tracker) == state(replayed(stored_events))


def carrying(event_id: str, text: str) -> UserUttered:
    event = user(text)
    event.event_id = event_id
    return event


async def test_an_id_that_somebody_else_has_stored_is_a_repeat_alone(
    storage: Storage,
) -> None:
    mine, theirs = storage.store(), storage.store()
    await add(mine, SENDER, action())
    tracker = await has(mine)
    await add(theirs, SENDER, carrying("from upstream", "hi"))
    update(tracker, [slot("a", 1), action("x"), carrying("from upstream", "hi"), bot()])
    await mine.save(tracker)
    types = ["action", "user", "slot", "action", "bot"]
    stored = await has_full(theirs)
    assert [event.type_name for event in stored.events] == types
    assert [event.type_name for event in tracker.events] == types
    assert tracker.get_slot("a") == 1
    assert not tracker.unsaved_events


async def test_an_id_that_somebody_else_has_stored_is_a_conflict(
    storage: Storage,
) -> None:
    mine, theirs = storage.store(on_conflict="raise"), storage.store()
    await add(theirs, SENDER, action())
    tracker = await has(mine)
    await add(theirs, SENDER, carrying("from upstream", "hi"))
    update(tracker, [slot("a", 1), carrying("from upstream", "hi")])
    with pytest.raises(errors.ConcurrentSaveError):
        await mine.save(tracker)
    assert len(tracker.unsaved_events) == 2
    assert await version(theirs) == 2
