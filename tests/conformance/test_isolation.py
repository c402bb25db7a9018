"""What a store returned, or was given, is the caller's: changing it harms nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import (
    SENDER,
    FailingBroker,
    add,
    bot,
    has,
    has_full,
    held,
    slot,
    state,
    stored,
    stored_dicts,
    user,
)
from tracker_store_async.events import BotUttered, SlotSet, UserUttered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conformance.backends import Storage
    from tracker_store_async import DialogueStateTracker, TrackerStore


def nested() -> dict[str, Any]:
    return {"list": [1, {"deep": [2]}], "text": "as it was"}


def events() -> list[Any]:
    message = user("as it was", intent={"name": "x", "more": nested()})
    message.metadata = nested()
    answer = bot("as it was")
    answer.data["custom"] = nested()
    return [message, slot("s", nested()), answer]


def spoil(value: Any) -> None:
    """Change everything that can be changed in a value."""
    if isinstance(value, dict):
        for inner in list(value.values()):
            spoil(inner)
        value["spoilt"] = True
    elif isinstance(value, list):
        for inner in value:
            spoil(inner)
        value.append("spoilt")


def spoil_tracker(tracker: DialogueStateTracker) -> None:
    """Change a tracker in every way but through `update`."""
    for event in tracker.events:
        spoil(event.metadata)
        if isinstance(event, UserUttered):
            spoil(event.parse_data)
            event.text = "spoilt"
        if isinstance(event, BotUttered):
            spoil(event.data)
        if isinstance(event, SlotSet):
            spoil(event.value)
        event.timestamp = 1.0
    for value in tracker.slots.values():
        spoil(value.value)
        value.value = "spoilt"
    spoil(tracker.current_state())
    tracker.events.clear()
    tracker.latest_message = None
    tracker.trigger_followup_action("spoilt")


LOADS: dict[str, Callable[[TrackerStore], Awaitable[DialogueStateTracker]]] = {
    "retrieve": has,
    "retrieve_full_tracker": has_full,
    "get_or_create_tracker": lambda store: store.get_or_create_tracker(SENDER),
    "a window": lambda store: store.get_or_create_tracker(SENDER, max_event_history=1),
    "get_or_create_full_tracker": lambda s: s.get_or_create_full_tracker(SENDER),
}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
async def test_changing_what_was_loaded_changes_no_other(
    store: TrackerStore, load: Callable[[TrackerStore], Awaitable[DialogueStateTracker]]
) -> None:
    await add(store, SENDER, *events())
    rows = await stored(store)
    other = await load(store)
    seen, held_before = state(other), held(other)
    spoil_tracker(await load(store))
    assert await stored(store) == rows
    assert (state(other), held(other)) == (seen, held_before)
    fresh = await load(store)
    assert (state(fresh), held(fresh)) == (seen, held_before)


async def test_changing_what_was_saved_changes_nothing_stored(
    store: TrackerStore,
) -> None:
    given = events()
    await add(store, SENDER, *given)
    rows = await stored(store)
    seen = state(await has(store))
    for event in given:
        spoil(event.metadata)
        spoil(event.shared_dict())
    assert await stored(store) == rows
    assert state(await has(store)) == seen
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert state(window) == seen


async def test_a_saved_tracker_can_be_spoilt(store: TrackerStore) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    for event in events():
        tracker.update(event)
    await store.save(tracker)
    rows, seen = await stored(store), state(await has(store))
    spoil_tracker(tracker)
    assert await stored(store) == rows
    assert state(await has(store)) == seen


async def test_a_slot_that_is_changed_in_place_is_not_saved(
    store: TrackerStore,
) -> None:
    await add(store, SENDER, slot("s", nested()))
    tracker = await has(store)
    spoil(tracker.get_slot("s"))
    tracker.update(user("more"))
    await store.save(tracker)
    spoil(tracker.get_slot("s"))
    tracker.update(user("still more"))
    await store.save(tracker)
    assert (await has(store)).get_slot("s") == nested()
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert window.get_slot("s") == nested()


async def test_a_slot_that_is_changed_before_the_save_is_saved_so(
    store: TrackerStore,
) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    tracker.update(slot("s", ["a"]))
    tracker.get_slot("s").append("b")
    tracker.update(user("more"))
    await store.save(tracker)
    assert (await has(store)).get_slot("s") == ["a", "b"]
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert window.get_slot("s") == ["a", "b"]


async def test_what_was_published_shares_nothing_with_the_tracker(
    storage: Storage,
) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker)
    tracker = await store.get_or_create_tracker(SENDER, append_action_listen=False)
    for event in events():
        tracker.update(event)
    await store.stream_events(tracker)
    expected = [event.as_dict() for event in tracker.events]
    for body in broker.bodies:
        spoil(body)
    assert held(tracker) == expected
    await store.save(tracker)
    assert await stored_dicts(store) == expected


async def test_two_conversations_may_share_an_event(store: TrackerStore) -> None:
    shared = slot("s", nested())
    for sender_id in ("a", "b"):
        await add(store, sender_id, shared)
    spoil((await has(store, "a")).get_slot("s"))
    assert (await has(store, "b")).get_slot("s") == nested()
