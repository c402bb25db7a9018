"""A conversation may be as long as it likes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conformance.kit import (
    SENDER,
    Spy,
    add,
    dicts,
    has,
    has_full,
    held,
    new_session,
    said,
    slot,
    state,
    stored_dicts,
    stored_ids,
    turn,
    update,
    user,
    version,
)

if TYPE_CHECKING:
    from tracker_store_async import TrackerStore
    from tracker_store_async.events import Event

LENGTH = 10_000


async def test_ten_thousand_events_in_one_session(store: TrackerStore) -> None:
    events: list[Event] = [slot("set before everything", 1)]
    events += [user(str(n)) for n in range(LENGTH - 1)]
    await add(store, SENDER, *events)
    assert await version(store) == LENGTH
    full = await has_full(store)
    assert held(full) == dicts(events)
    assert held(await has(store)) == dicts(events)

    tracker = await store.get_or_create_tracker(SENDER, max_event_history=10)
    assert held(tracker) == dicts(events[-10:])
    assert tracker.get_slot("set before everything") == 1
    update(tracker, turn("and on"))
    spy = Spy(store)
    await store.save(tracker)
    assert spy.calls == ["_append"]
    window = await store.get_or_create_tracker(SENDER, max_event_history=10)
    assert held(window) == dicts([*events, *tracker.events])[-10:]
    assert window.get_slot("set before everything") == 1
    ids = await stored_ids(store)
    assert len(set(ids)) == len(ids) == LENGTH + 4


async def test_a_hundred_sessions_of_a_hundred_events(store: TrackerStore) -> None:
    everything: list[Event] = []
    for n in range(100):
        session = [*new_session(), *(user(f"{n}/{i}") for i in range(98))]
        await add(store, SENDER, *session)
        everything += session
    assert await stored_dicts(store) == dicts(everything)
    latest = await has(store)
    assert held(latest) == dicts(everything[-100:])
    assert held(await has_full(store)) == dicts(everything)
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert state(window) == state(latest)
    assert await store.delete(SENDER, before_position=9_900)
    assert said(await has_full(store)) == said(latest)
    assert await version(store) == LENGTH
