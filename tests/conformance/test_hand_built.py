"""Trackers built by hand are compared with what is stored, once; nothing is doubled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import (
    SENDER,
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
    version,
)
from tracker_store_async import (
    DialogueStateTracker,
    EventVerbosity,
    InMemoryTrackerStore,
    errors,
)
from tracker_store_async.events import EntitiesAdded, UserUttered, event_from_dict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore
    from tracker_store_async.events import Event


def built(events: Iterable[Event], sender_id: str = SENDER) -> DialogueStateTracker:
    """Return a tracker that knows nothing of any store, with events of its own."""
    own = [event_from_dict(event.as_dict()) for event in events]
    return DialogueStateTracker.from_events(sender_id, own)


async def test_nothing_is_stored_yet(store: TrackerStore) -> None:
    events = [*new_session(), *turn()]
    await store.save(built(events))
    assert await stored_dicts(store) == dicts(events)
    assert held(await has(store)) == dicts(events)


async def test_it_holds_exactly_what_is_stored(store: TrackerStore) -> None:
    events = [*new_session(), *turn()]
    await add(store, SENDER, *events)
    ids = await stored_ids(store)
    await store.save(built(events))
    assert await stored_ids(store) == ids


async def test_it_holds_more_than_is_stored(store: TrackerStore) -> None:
    events = [*new_session(), *turn("one"), *turn("two")]
    await add(store, SENDER, *events[:6])
    await store.save(built(events))
    assert await stored_dicts(store) == dicts(events)


async def test_it_holds_less_than_is_stored(store: TrackerStore) -> None:
    events = [*new_session(), *turn("one"), *turn("two")]
    await add(store, SENDER, *events)
    await store.save(built(events[:6]))
    assert await stored_dicts(store) == dicts(events)


async def test_it_holds_the_end_of_what_is_stored_and_more(
    store: TrackerStore,
) -> None:
    events = [*new_session(), *turn("one"), slot("a", 1), *turn("two")]
    more = turn("three")
    await add(store, SENDER, *events)
    tracker = built([*events[-3:], *more])
    await store.save(tracker)
    assert await stored_dicts(store) == dicts([*events, *more])
    assert tracker.get_slot("a") == 1
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert state(window) == state(replayed([*events, *more]))


async def test_it_holds_only_the_end_of_what_is_stored(store: TrackerStore) -> None:
    events = [*new_session(), *turn("one"), *turn("two")]
    await add(store, SENDER, *events)
    await store.save(built(events[-3:]))
    assert await stored_dicts(store) == dicts(events)


async def test_it_holds_several_sessions_that_are_stored(store: TrackerStore) -> None:
    events = [*new_session(), *turn("one"), *new_session(), *turn("two")]
    more = [*turn("three"), *new_session(), *turn("four")]
    await add(store, SENDER, *events)
    await store.save(built([*events, *more]))
    assert await stored_dicts(store) == dicts([*events, *more])
    assert said(await has(store)) == ["four"]


async def test_it_holds_several_sessions_and_nothing_is_stored(
    store: TrackerStore,
) -> None:
    events = [*new_session(), *turn("one"), slot("a", 1), *new_session(), user("two")]
    await store.save(built(events))
    assert held(await has(store)) == dicts(events[-3:])
    assert held(await has_full(store)) == dicts(events)
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert state(window) == state(replayed(events[-3:]))


async def test_it_holds_earlier_sessions_and_has_gone_another_way(
    store: TrackerStore,
) -> None:
    common = [*new_session(), *turn("one"), *new_session(), *turn("two")]
    theirs, mine = turn("theirs"), turn("mine")
    await add(store, SENDER, *common, *theirs)
    await store.save(built([*common, *mine]))
    assert await stored_dicts(store) == dicts([*common, *theirs, *mine])


async def test_it_holds_what_is_stored_before_a_session_that_they_started(
    store: TrackerStore,
) -> None:
    common = [*new_session(), *turn("one"), *new_session(), *turn("two")]
    theirs, mine = [*new_session(), *turn("theirs")], turn("mine")
    await add(store, SENDER, *common, *theirs)
    await store.save(built(common))
    assert await stored_dicts(store) == dicts([*common, *theirs])
    tracker = built([*common[6:], *mine])
    await store.save(tracker)
    assert await stored_dicts(store) == dicts([*common, *theirs, *mine])
    assert state(tracker) == state(replayed([*theirs, *mine]))


async def test_it_holds_an_earlier_session_whose_channel_is_of_no_concern(
    store: TrackerStore,
) -> None:
    old = [*new_session(), user("old", input_channel="old channel")]
    new, more = [*new_session(), slot("a", 1)], slot("b", 2)
    await add(store, SENDER, *old, *new)
    await store.save(built([*old, *new, more]))
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert state(window) == state(replayed([*new, more]))


async def test_it_holds_only_the_latest_stored_session(store: TrackerStore) -> None:
    old, latest = [*new_session(), *turn("old")], [*new_session(), *turn("new")]
    await add(store, SENDER, *old, *latest)
    await store.save(built([*latest, user("more")]))
    assert said(await has_full(store)) == ["old", "new", "more"]


async def test_it_is_empty(store: TrackerStore) -> None:
    await store.save(built([]))
    assert not await store.exists(SENDER)
    await add(store, SENDER, *turn())
    await store.save(built([]))
    assert await version(store) == 4


async def test_it_has_gone_another_way(store: TrackerStore) -> None:
    common, theirs, mine = turn("common"), turn("theirs"), turn("mine")
    await add(store, SENDER, *common, *theirs)
    tracker = built([*common, *mine])
    await store.save(tracker)
    assert said(await has(store)) == ["common", "theirs", "mine"]
    assert said(tracker) == ["common", "theirs", "mine"]
    assert store.conflict_count == 1


async def test_it_has_nothing_in_common_with_what_is_stored(
    store: TrackerStore,
) -> None:
    await add(store, SENDER, *turn("theirs"))
    await store.save(built(turn("mine")))
    assert said(await has(store)) == ["theirs", "mine"]


async def test_going_another_way_is_refused_if_so_configured(storage: Storage) -> None:
    store = storage.store(on_conflict="raise")
    await add(store, SENDER, *turn("theirs"))
    tracker = built(turn("mine"))
    with pytest.raises(errors.ConcurrentSaveError):
        await store.save(tracker)
    assert said(await has(store)) == ["theirs"]
    await storage.store(on_conflict="rebase").save(tracker)
    assert said(await has(store)) == ["theirs", "mine"]


async def test_it_is_compared_once(store: TrackerStore) -> None:
    tracker = built(turn("one"))
    spy = Spy(store)
    await store.save(tracker)
    assert spy.calls == ["_read", "_append"]
    update(tracker, turn("two"))
    await store.save(tracker)
    await store.save(tracker)
    assert spy.calls == ["_read", "_append", "_append"]
    assert said(await has(store)) == ["one", "two"]


async def test_two_processes_save_the_same(storage: Storage) -> None:
    events = [*new_session(), *turn("one")]
    for _ in range(2):
        await storage.store().save(built(events))
    assert await stored_dicts(storage.store()) == dicts(events)


async def test_two_processes_go_on_with_the_same(storage: Storage) -> None:
    events = [*new_session(), *turn("one")]
    mine, theirs = built(events), built(events)
    my_store, their_store = storage.store(), storage.store()
    await my_store.save(mine)
    await their_store.save(theirs)
    mine.update(user("mine"))
    theirs.update(user("theirs"))
    await my_store.save(mine)
    await their_store.save(theirs)
    assert said(await has(my_store)) == ["one", "mine", "theirs"]
    assert said(theirs) == ["one", "mine", "theirs"]


async def test_an_older_one_goes_on(store: TrackerStore) -> None:
    events = [*turn("one"), *turn("two")]
    await add(store, SENDER, *events)
    older = built(events[:4])
    await store.save(older)
    assert said(older) == ["one"]
    older.update(user("three"))
    await store.save(older)
    assert said(await has(store)) == ["one", "two", "three"]
    assert said(older) == ["one", "two", "three"]


async def test_one_made_by_the_store_is_no_different(store: TrackerStore) -> None:
    await add(store, SENDER, *turn("one"))
    tracker = store.init_tracker(SENDER)
    tracker.update(user("two"))
    await store.save(tracker)
    assert said(await has(store)) == ["one", "two"]


async def test_equal_events_at_different_times_are_different_events(
    store: TrackerStore,
) -> None:
    events = [user("yes"), user("yes")]
    await add(store, SENDER, events[0])
    await store.save(built(events))
    assert await stored_dicts(store) == dicts(events)


async def test_the_same_event_twice_is_stored_twice(store: TrackerStore) -> None:
    event = user("yes")
    await store.save(built([event, event]))
    assert said(await has(store)) == ["yes", "yes"]
    await store.save(built([event, event, event]))
    assert said(await has(store)) == ["yes", "yes", "yes"]


async def test_values_that_json_knows_in_two_ways_are_recognised(
    store: TrackerStore,
) -> None:
    events = [
        slot("a", {"z": 1, "a": [1.0, float("inf")], "text": "\ud800 \0 é"}),
        slot("b", 10**30),
        slot("nan", float("nan")),
        event_from_dict({"event": "flow_started", "timestamp": 3, "flow_id": "x"}),
    ]
    await add(store, SENDER, *events)
    await store.save(built(events))
    assert await version(store) == 4


async def test_entities_that_are_added_later_do_not_make_it_another(
    store: TrackerStore,
) -> None:
    entity = {"entity": "number", "value": 4}
    for entities in ([], [{"entity": "city", "value": "Rome"}]):
        events = [
            action(),
            user("four", entities=entities),
            EntitiesAdded([entity], timestamp=stamp()),
            user("more"),
        ]
        sender_id = f"{len(entities)}"
        await add(store, sender_id, *events)
        before = await stored_dicts(store, sender_id)
        await store.save(built(events, sender_id))
        found = await has(store, sender_id)
        await store.save(DialogueStateTracker.from_events(sender_id, found.events))
        assert await stored_dicts(store, sender_id) == before


async def test_a_copy_is_saved_like_the_original(store: TrackerStore) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    tracker.update(user("one"))
    copy = tracker.copy()
    await store.save(tracker)
    await store.save(copy)
    assert said(await has(store)) == ["one"]
    copy.update(user("two"))
    await store.save(copy)
    assert said(await has(store)) == ["one", "two"]
    assert store.conflict_count == 0


async def test_an_earlier_state_of_a_tracker_stores_nothing(
    store: TrackerStore,
) -> None:
    events = [*turn("one"), *turn("two")]
    await add(store, SENDER, *events)
    earlier = (await has(store)).travel_back_in_time(events[3].timestamp)
    assert said(earlier) == ["one"]
    await store.save(earlier)
    assert await stored_dicts(store) == dicts(events)


async def test_an_earlier_state_that_goes_on_is_appended(store: TrackerStore) -> None:
    events = [*turn("one"), *turn("two")]
    await add(store, SENDER, *events)
    earlier = (await has(store)).travel_back_in_time(events[3].timestamp)
    earlier.update(user("three"))
    await store.save(earlier)
    assert said(await has(store)) == ["one", "two", "three"]


async def test_an_earlier_state_of_a_window_is_no_different(
    store: TrackerStore,
) -> None:
    events = [slot("a", 1), *turn("one"), *turn("two")]
    await add(store, SENDER, *events)
    window = await store.get_or_create_tracker(SENDER, max_event_history=4)
    earlier = window.travel_back_in_time(events[-3].timestamp)
    await store.save(earlier)
    assert await stored_dicts(store) == dicts(events)
    more = user("three")
    earlier.update(more)
    await store.save(earlier)
    assert await stored_dicts(store) == dicts([*events, more])
    assert state(earlier) == state(replayed([*events, more]))


def to_paris() -> UserUttered:
    return user("to Paris", entities=[{"entity": "city", "value": "Paris"}])


@pytest.mark.parametrize("policy", ["rebase", "raise"])
async def test_entities_added_to_a_stored_message_do_not_double_it(
    storage: Storage, policy: Any
) -> None:
    store = storage.store(on_conflict=policy)
    await add(store, SENDER, action(), to_paris())
    listed = (await has(store)).current_state(EventVerbosity.ALL)["events"]
    tracker = DialogueStateTracker.from_dict(SENDER, listed)
    tracker.update(EntitiesAdded([{"entity": "n", "value": 1}], timestamp=stamp()))
    await store.save(tracker)
    kinds = [fields["event"] for fields in await stored_dicts(store)]
    assert kinds == ["action", "user", "entities"]
    # and again, from what the state says of the message by now
    listed = (await has(store)).current_state(EventVerbosity.ALL)["events"]
    assert len(listed[1]["parse_data"]["entities"]) == 2
    again = DialogueStateTracker.from_dict(SENDER, listed)
    again.update(user("more"))
    await store.save(again)
    kinds = [fields["event"] for fields in await stored_dicts(store)]
    assert kinds == ["action", "user", "entities", "user"]
    assert store.conflict_count == 0


async def test_a_tracker_saved_into_two_stores_in_turn_doubles_nothing(
    storage: Storage,
) -> None:
    store, other = storage.store(), InMemoryTrackerStore()
    tracker = DialogueStateTracker(SENDER)
    for n in range(3):
        tracker.update(action())
        tracker.update(to_paris())
        for target in (store, other):
            await target.save(tracker)
        tracker.update(EntitiesAdded([{"entity": "n", "value": n}], timestamp=stamp()))
        for target in (store, other):
            await target.save(tracker)
            kinds = [fields["event"] for fields in await stored_dicts(target)]
            assert kinds == ["action", "user", "entities"] * (n + 1)
    await other.close()
