"""The latest session is what `retrieve` returns; it starts where we once decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    turn,
    update,
    user,
)
from tracker_store_async.events import SessionStarted, event_from_dict
from tracker_store_async.rows import Read

if TYPE_CHECKING:
    from tracker_store_async import TrackerStore
    from tracker_store_async.events import Event


def started() -> SessionStarted:
    return SessionStarted(timestamp=stamp())


def start_action() -> Event:
    return action("action_session_start")


async def session_start(store: TrackerStore) -> int:
    found = await store._read(Read(SENDER, store._now(), last=0))
    assert found is not None
    return found.session_start


async def test_a_session_starts_at_its_action(store: TrackerStore) -> None:
    latest = [*new_session(), *turn("new")]
    await add(store, SENDER, *new_session(), *turn("old"), *latest)
    assert held(await has(store)) == dicts(latest)
    assert await session_start(store) == 6


async def test_a_session_without_the_action_starts_at_session_started(
    store: TrackerStore,
) -> None:
    latest = [started(), *turn("new")]
    await add(store, SENDER, *turn("old"), *latest)
    assert held(await has(store)) == dicts(latest)


async def test_an_action_that_does_not_stand_right_before_is_not_part_of_it(
    store: TrackerStore,
) -> None:
    latest = [started(), *turn("new")]
    await add(store, SENDER, *turn("old"), start_action(), slot("a", 1), *latest)
    assert held(await has(store)) == dicts(latest)


async def test_the_action_alone_starts_no_session(store: TrackerStore) -> None:
    first = [*new_session(), *turn("old")]
    rest = [start_action(), *turn("new")]
    await add(store, SENDER, *first)
    await add(store, SENDER, *rest)
    assert held(await has(store)) == dicts([*first, *rest])


async def test_only_the_last_of_two_actions_belongs_to_the_session(
    store: TrackerStore,
) -> None:
    latest = [start_action(), started(), user("new")]
    await add(store, SENDER, user("old"), start_action(), *latest)
    assert held(await has(store)) == dicts(latest)


@pytest.mark.parametrize("reload", [True, False], ids=["reloaded", "same tracker"])
async def test_a_start_split_over_two_saves_is_one_start(
    store: TrackerStore, reload: bool
) -> None:
    latest = [start_action(), started(), user("new")]
    tracker = await store.get_or_create_tracker(SENDER)
    update(tracker, [user("old"), latest[0]])
    await store.save(tracker)
    if reload:
        tracker = await has(store)
    update(tracker, latest[1:])
    await store.save(tracker)
    assert held(await has(store)) == dicts(latest)


async def test_a_start_split_over_saves_is_found_by_a_window_too(
    store: TrackerStore,
) -> None:
    latest = [start_action(), started(), user("new")]
    await add(store, SENDER, user("old"), latest[0])
    tracker = await store.get_or_create_tracker(SENDER, max_event_history=1)
    update(tracker, latest[1:])
    await store.save(tracker)
    assert held(await has(store)) == dicts(latest)


async def test_two_session_starts_in_a_row(store: TrackerStore) -> None:
    latest = [started()]
    await add(store, SENDER, user("old"), *new_session(), *latest)
    assert held(await has(store)) == dicts(latest)


async def test_without_any_session_everything_is_the_latest(
    store: TrackerStore,
) -> None:
    events = [*turn("one"), *turn("two")]
    await add(store, SENDER, *events)
    assert held(await has(store)) == dicts(events)
    assert held(await has_full(store)) == dicts(events)


async def test_the_full_tracker_holds_every_session(store: TrackerStore) -> None:
    everything: list[Event] = []
    for n in range(4):
        session = [*new_session(), *turn(str(n)), slot("n", n)]
        await add(store, SENDER, *session)
        everything += session
        assert said(await has(store)) == [str(n)]
    assert held(await has_full(store)) == dicts(everything)
    assert held(await store.get_or_create_full_tracker(SENDER)) == dicts(everything)


async def test_the_state_is_that_of_a_replay(store: TrackerStore) -> None:
    old = [*new_session(), *turn("old"), slot("kept", 1), slot("changed", 1)]
    new = [*new_session(), slot("changed", 2), user("new", input_channel="web")]
    await add(store, SENDER, *old)
    await add(store, SENDER, *new)
    assert state(await has(store)) == state(replayed(new))
    assert state(await has_full(store)) == state(replayed([*old, *new]))
    assert (await has(store)).get_slot("kept") is None


async def test_saving_a_full_tracker_keeps_the_session(store: TrackerStore) -> None:
    await add(store, SENDER, *new_session(), *turn("old"), *new_session())
    full = await has_full(store)
    full.update(user("new"))
    spy = Spy(store)
    await store.save(full)
    assert spy.calls == ["_append"]
    assert said(await has(store)) == ["new"]
    assert said(await has_full(store)) == ["old", "new"]


async def test_a_full_tracker_that_starts_a_session(store: TrackerStore) -> None:
    await add(store, SENDER, *new_session(), *turn("old"), slot("a", 1))
    full = await has_full(store)
    latest = [*new_session(), user("new"), slot("b", 2)]
    update(full, latest)
    await store.save(full)
    update(full, [user("newer")])
    await store.save(full)
    assert said(await has(store)) == ["new", "newer"]
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert state(window) == state(await has(store))


@pytest.mark.parametrize("metadata", ["odd", [1], 5])
async def test_a_session_starts_whatever_its_rows_hold_besides(
    store: TrackerStore, metadata: object
) -> None:
    """Rasa takes them for what their type says, too."""
    rows = [{**event.as_dict(), "metadata": metadata} for event in new_session()]
    latest = [*map(event_from_dict, rows), user("new"), slot("b", 2)]
    await add(store, SENDER, *turn("old"), slot("a", 1), *latest)
    assert await session_start(store) == 5
    found = await has(store)
    assert held(found) == dicts(latest)
    assert held(found)[:2] == rows
    assert (found.get_slot("a"), found.get_slot("b")) == (None, 2)
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    full = await has_full(store)
    assert state(window) == state(found) == state(full) == state(replayed(latest))
    full.update(slot("c", 3))
    await store.save(full)
    assert state(await has(store)) == state(full)
