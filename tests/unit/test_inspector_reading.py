"""The state at any event is that of a replay, and comes from bounded reads."""

from __future__ import annotations

import asyncio
import threading
from json import loads
from typing import TYPE_CHECKING, Any

from hypothesis import example, given, settings

from tests.conformance.kit import SENDER, START, add, new_session, slot, turn, user
from tests.histories import Row, domain, events_of, histories, state_of, updated
from tracker_store_async import DialogueStateTracker, InMemoryTrackerStore
from tracker_store_async.events import (
    ActionExecuted,
    SessionStarted,
    UserUtteranceReverted,
    event_from_dict,
)
from tracker_store_async.ops.inspector import reading
from tracker_store_async.ops.inspector.reading import EVENTS_PER_TURN, Reader
from tracker_store_async.rows import Read

if TYPE_CHECKING:
    import pytest


async def stored(rows: list[Row], pieces: int = 1) -> InMemoryTrackerStore:
    """Return a store that has a history, saved in pieces."""
    store = InMemoryTrackerStore(domain())
    tracker = await store.get_or_create_tracker("random", append_action_listen=False)
    events = events_of(rows)
    size = max(1, len(events) // pieces)
    for first in range(0, len(events), size):
        for event in events[first : first + size]:
            tracker.update(event)
        await store.save(tracker)
    return store


def told(tracker: Any) -> Row:
    """Return the state, but what is said of the last event that is held."""
    return {
        **state_of(tracker),
        "latest_event_time": None,
        "latest_input_channel": None,
    }


@settings(max_examples=40)
@given(histories())
@example(
    [
        {"event": "action", "name": "action_listen", "timestamp": 1000.0},
        {
            "event": "user",
            "parse_data": {"text": "t", "entities": [{"entity": "a"}]},
            "timestamp": 1001.0,
        },
        {"event": "entities", "entities": [{"entity": "b"}], "timestamp": 1002.0},
    ]
)
def test_the_state_at_each_event_is_that_of_a_replay(history: list[Row]) -> None:
    async def check() -> None:
        store = await stored(history)
        # A message that is saved together with what adds entities to it has them.
        found_rows = await store._read(Read("random", START, start=0))
        rows = (
            [] if found_rows is None else [loads(text) for _, text in found_rows.rows]
        )
        reader = Reader(store)
        former = updated([]).current_slot_values()
        for position in range(len(rows)):
            found = await reader.state_at("random", position)
            assert found is not None
            before, tracker = found
            expected = updated(rows[: position + 1])
            assert told(tracker) == told(expected)
            assert before == former
            former = expected.current_slot_values()
        page = await reader.last_page("random", 3)
        if page is not None and page.events:
            latest = await reader.state_after("random", page)
            assert told(latest) == told(updated(rows))

    asyncio.run(check())


class Counting(InMemoryTrackerStore):
    """Notes what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[tuple[int | None, int | None]] = []

    async def _read(self, read: Any) -> Any:
        self.read.append((read.start, read.limit))
        return await super()._read(read)


async def test_it_goes_back_to_where_the_session_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "CHUNK_EVENTS", 10)
    store = Counting()
    await add(store, SENDER, *[slot("n", n) for n in range(100)])
    await add(store, SENDER, *new_session(), *[slot("m", n) for n in range(15)])
    store.read.clear()
    found = await Reader(store).state_at(SENDER, 112)
    assert found is not None
    assert found[0] == {"m": 9}
    assert found[1].current_slot_values() == {"m": 10}
    assert store.read == [(103, 10), (93, 10)]
    # What is taken back may depend on loops of earlier sessions.
    await add(store, SENDER, event_from_dict({"event": "undo", "timestamp": START}))
    store.read.clear()
    await Reader(store).state_at(SENDER, 117)
    assert store.read[-1][0] == 0


async def test_positions_stay_where_the_beginning_was_erased() -> None:
    store = InMemoryTrackerStore()
    await add(store, SENDER, *turn(), slot("n", 1), *new_session(), slot("n", 2))
    assert await store.delete(SENDER, before_position=5)
    reader = Reader(store)
    page = await reader.page(SENDER, 0)
    assert page is not None
    assert (page.first, page.end, page.before) == (5, 8, None)
    whole = await reader.last_page(SENDER)
    assert whole is not None
    assert (whole.first, whole.before) == (5, None)
    found = await reader.state_at(SENDER, 7)
    assert found is not None
    assert found[1].get_slot("n") == 2
    assert await reader.state_at(SENDER, 3) is None
    assert await reader.state_at(SENDER, 8) is None


async def test_what_rasa_wrote_has_no_snapshot_and_a_state_all_the_same() -> None:
    store = InMemoryTrackerStore()
    events = [ActionExecuted("action_session_start"), SessionStarted(), slot("n", 3)]
    await add(store, SENDER, *events)
    store._conversations[SENDER].snapshot = None
    page = await Reader(store).last_page(SENDER)
    assert page is not None
    tracker = await Reader(store).state_after(SENDER, page)
    assert tracker is not None
    assert tracker.current_slot_values() == {"n": 3}


async def test_a_page_knows_the_event_before_it() -> None:
    store = InMemoryTrackerStore()
    await add(store, SENDER, *[slot("n", n) for n in range(10)])
    reader = Reader(store)
    for start in range(11):
        page = await reader.page(SENDER, start, 4)
        assert page is not None
        values = [event["value"] for event in page.events if event is not None]
        assert values == list(range(start, min(10, start + 4)))
        before = None if page.before is None else page.before["value"]
        assert before == (start - 1 if start else None)
        assert page.is_last is (start + 4 >= 10)
    last = await reader.last_page(SENDER, 4)
    assert last is not None
    assert (last.first, last.end, last.before["value"]) == (6, 10, 5)  # type: ignore[index]
    assert await reader.page("nobody", 0) is None


async def test_a_long_replay_leaves_the_loop_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One event that takes back others has the whole log replayed in one pass."""
    threads = []
    load = DialogueStateTracker.load_events

    def noted(self: DialogueStateTracker, events: Any) -> None:
        threads.append((len(events), threading.get_ident()))
        load(self, events)

    store = InMemoryTrackerStore()
    await add(store, SENDER, user(), UserUtteranceReverted(), *[user()] * 200)
    monkeypatch.setattr(DialogueStateTracker, "load_events", noted)
    assert await Reader(store).state_at(SENDER, 201) is not None
    here = threading.get_ident()
    assert max(count for count, _ in threads) == 201
    assert max(count for count, thread in threads if thread == here) <= EVENTS_PER_TURN
