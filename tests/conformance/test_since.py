"""`retrieve(since=tracker)` gives what `retrieve` gives, and reads what is new."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import (
    SENDER,
    add,
    has,
    has_full,
    held,
    new_session,
    said,
    slot,
    state,
    turn,
    update,
    user,
)
from tracker_store_async import errors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.conformance.backends import Storage
    from tracker_store_async import DialogueStateTracker, TrackerStore
    from tracker_store_async.events import Event

STEPS: dict[str, Iterable[Event]] = {
    "nothing": (),
    "a turn": turn("two"),
    "a session": [*new_session(), *turn("two")],
    "two sessions": [*new_session(), *turn("two"), *new_session(), slot("s", 2)],
    "many turns": [event for n in range(5) for event in turn(f"more {n}")],
}


def both(tracker: DialogueStateTracker | None) -> tuple[Any, ...]:
    assert tracker is not None
    return held(tracker), state(tracker), tracker.version, tracker.is_truncated


@pytest.mark.parametrize("bound", [None, 6])
async def test_it_is_what_retrieve_gives(storage: Storage, bound: int | None) -> None:
    store, other = storage.store(max_event_history=bound), storage.store()
    for name, events in STEPS.items():
        await add(other, name, *turn("one"), slot("s", 1))
        tracker, touched = await has(store, name), await has(store, name)
        list(touched.events)
        full = await has_full(store, name)
        await add(other, name, *events)
        assert await store.retrieve(name, since=touched) is touched
        assert both(touched) == both(await has(store, name))
        assert await store.retrieve(name, since=tracker) is tracker
        update(tracker, turn("mine"))
        await store.save(tracker)
        await store.retrieve(name, since=tracker)
        assert both(tracker) == both(await has(store, name))
        assert await store.retrieve(name, since=full) is full
        assert both(full) == both(await has_full(store, name))


async def test_only_what_is_new_is_read(store: TrackerStore) -> None:
    await add(store, SENDER, *turn("one"))
    tracker = await has(store)
    await add(store, SENDER, *turn("two"))
    read, counts = store._read, []

    async def counted(request: Any) -> Any:
        found = await read(request)
        counts.append(len(found.rows) if found is not None else None)
        return found

    store._read = counted  # type: ignore[method-assign]
    await store.retrieve(SENDER, since=tracker)
    if store._tells_logs_apart and store._lazy_events:
        assert counts == [1 + len(turn())]  # and the last one that it holds


async def test_another_log_of_the_same_name(storage: Storage) -> None:
    store, other = storage.store(), storage.store()
    await add(other, SENDER, *turn("one"), slot("s", 1))
    tracker = await has(store)
    before = both(tracker)
    await other.delete(SENDER)
    assert await store.retrieve(SENDER, since=tracker) is None
    assert both(tracker) == before
    await add(other, SENDER, *turn("new"), *turn("newer"))
    assert await store.retrieve(SENDER, since=tracker) is tracker
    assert both(tracker) == both(await has(store))
    assert "one" not in said(tracker)


async def test_what_was_cut_off_is_gone(store: TrackerStore) -> None:
    await add(store, SENDER, *turn("one"), *new_session(), *turn("two"))
    full, latest = await has_full(store), await has(store)
    await store.delete(SENDER, before_position=latest._log.session_start)
    await store.retrieve(SENDER, since=full)
    await store.retrieve(SENDER, since=latest)
    assert both(full) == both(await has_full(store))
    assert both(latest) == both(await has(store))
    assert "one" not in said(full)


async def test_it_can_be_updated_and_saved(store: TrackerStore) -> None:
    await add(store, SENDER, *turn("one"))
    tracker = await has(store)
    await add(store, SENDER, *turn("two"))
    await store.retrieve(SENDER, since=tracker)
    update(tracker, turn("three"))
    await store.save(tracker)
    assert store.conflict_count == 0
    assert held(await has(store)) == held(tracker)


async def test_copies_of_a_tracker(store: TrackerStore) -> None:
    await add(store, SENDER, *turn("one"))
    tracker = await has(store)
    copies = [
        tracker.copy(),
        copy.deepcopy(tracker),
        pickle.loads(pickle.dumps(tracker)),
    ]
    await add(store, SENDER, *turn("two"))
    for each in copies:
        assert await store.retrieve(SENDER, since=each) is each
        assert both(each) == both(await has(store))


async def test_what_cannot_be_brought_up_to_date_is_refused(storage: Storage) -> None:
    store, other = storage.store(), storage.store()
    await add(store, SENDER, *turn("one"))
    tracker = await has(store)
    for since, words in (
        ("x", "a tracker is expected"),
        (store.init_tracker(SENDER), "never loaded"),
        (await has(other), "another store"),
    ):
        with pytest.raises(errors.InvalidInputError, match=words):
            await store.retrieve(SENDER, since=since)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidInputError, match="not of 'bob'"):
        await store.retrieve("bob", since=tracker)
    tracker.update(user("secret"))
    with pytest.raises(errors.InvalidInputError, match="1 unsaved") as raised:
        await store.retrieve(SENDER, since=tracker)
    assert "secret" not in str(raised.value)
    assert len(tracker.unsaved_events) == 1
