"""What a save knows of the latest session: where it starts, and its channel."""

from __future__ import annotations

import copy
import json

import pytest

from tracker_store_async import InMemoryTrackerStore
from tracker_store_async.cursor import LogCursor, PendingEvent
from tracker_store_async.events import (
    ActionExecuted,
    BotUttered,
    Event,
    SessionStarted,
    UserUttered,
)
from tracker_store_async.unsaved import encode_batch


def with_channel(text: str, channel: str) -> UserUttered:
    return UserUttered(text, input_channel=channel)


class Begins(Event):
    """Says itself that a session begins."""

    @property
    def type_name(self) -> str:  # type: ignore[override]
        return "session_started"


ACTION = ActionExecuted("action_session_start")


@pytest.mark.parametrize(
    ("events", "start", "channel"),
    [
        ([with_channel("a", "x"), BotUttered("b")], 0, "x"),
        ([with_channel("a", "x"), with_channel("b", "y"), BotUttered("c")], 0, "y"),
        ([with_channel("a", "x"), SessionStarted()], 5, None),
        ([with_channel("a", "x"), ACTION, SessionStarted()], 5, None),
        ([SessionStarted(), with_channel("a", "x")], 4, "x"),
        ([with_channel("a", "x"), Begins(1.0), with_channel("b", "y")], 5, "y"),
        ([with_channel("a", "x"), Begins(1.0)], 5, None),
        ([BotUttered("a")], 0, "earlier"),
    ],
)
async def test_a_save_knows_the_session_and_its_channel(
    events: list[Event], start: int, channel: str | None
) -> None:
    async with InMemoryTrackerStore() as store:
        tracker = store.init_tracker("alice")
        tracker.update_with_events(
            [with_channel("hi", "earlier"), *[BotUttered("ho")] * 3]
        )
        await store.save(tracker)
        loaded = await store.retrieve_full_tracker("alice")
        for each in (tracker, loaded):
            assert each is not None
            other = copy.deepcopy(each)
            other.update_with_events(events)
            cursor = other._log
            batch = encode_batch(other)
            assert batch.session_start == start
            told = json.loads(batch.snapshot)["state"]["latest_input_channel"]
            assert told == channel
            cursor.confirm(batch.entries, 9, start, batch.message)
            assert (cursor.input_channel, cursor.pending) == (channel, [])


def test_only_what_is_still_pending_is_taken_for_stored() -> None:
    cursor = LogCursor()
    events = [with_channel(name, name) for name in "abc"]
    for event in events:
        cursor.record(event)
    entries = cursor.pending[:]
    cursor.pending[1] = PendingEvent(events[1])
    cursor.confirm(entries, 3, 0, events[2])
    assert [entry.event for entry in cursor.pending] == events[1:]
    assert cursor.input_channel == "a"
