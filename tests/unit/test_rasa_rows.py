"""A list of events that Rasa stored, as the beginning of a log."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tracker_store_async.errors import TrackerDeserialisationError
from tracker_store_async.events import event_from_dict
from tracker_store_async.rasa_rows import (
    conversation_from_rasa,
    latest_session_start,
    slice_of,
)
from tracker_store_async.rows import Read
from tracker_store_async.sessions import session_starts

USER = {"event": "user", "timestamp": 1.5, "text": "hi \ud800"}
STARTED = {"event": "session_started", "timestamp": 2}
START_ACTION = {"event": "action", "name": "action_session_start", "timestamp": 1.0}
LISTEN = {"event": "action", "name": "action_listen", "timestamp": float("nan")}


@pytest.mark.parametrize(
    "events",
    [
        [USER],
        [STARTED],
        [START_ACTION, STARTED, LISTEN, USER],
        [START_ACTION, STARTED, USER, START_ACTION, STARTED, LISTEN],
        [USER, STARTED, START_ACTION, LISTEN],
        [START_ACTION, LISTEN, STARTED, USER],
        [STARTED, STARTED],
    ],
)
def test_sessions_start_where_the_one_rule_says(events: list[dict[str, Any]]) -> None:
    starts = session_starts([event_from_dict(dict(fields)) for fields in events])
    assert latest_session_start(events) == max(starts, default=0)


def test_rows_hold_what_rasa_stored() -> None:
    events = [START_ACTION, STARTED, USER]
    found = conversation_from_rasa("alice", events)
    assert found is not None
    assert [json.loads(data) for _, data in found.rows] == events
    assert {event_id for event_id, _ in found.rows} == {None}
    assert (found.version, found.session_start, found.snapshot) == (3, 0, None)
    assert (found.created_at, found.updated_at) == (1.0, 2)


def test_what_is_no_time_is_left_out() -> None:
    odd = [LISTEN, {"event": "x", "timestamp": True}, {"event": "y", "timestamp": "z"}]
    found = conversation_from_rasa("alice", [*odd, USER])
    assert found is not None
    assert (found.created_at, found.updated_at) == (1.5, 1.5)
    without = conversation_from_rasa("alice", odd)
    assert without is not None
    assert (without.created_at, without.updated_at) == (0.0, 0.0)


@pytest.mark.parametrize("events", [None, {}, "text", ["text"], [USER, None]])
def test_what_is_no_list_of_events_is_refused(events: Any) -> None:
    with pytest.raises(TrackerDeserialisationError, match="'alice'"):
        conversation_from_rasa("alice", events)


def test_nothing_is_nothing() -> None:
    assert conversation_from_rasa("alice", []) is None


@pytest.mark.parametrize(
    ("start", "last", "first"),
    [(None, None, 1), (0, None, 0), (2, None, 2), (9, None, 4), (None, 2, 2)],
)
def test_a_read_gets_its_part(start: int | None, last: int | None, first: int) -> None:
    events = [USER, START_ACTION, STARTED, LISTEN]
    found = conversation_from_rasa("alice", events)
    assert found is not None
    part = slice_of(found, Read("alice", 0.0, start, last))
    assert part.first_position == first
    assert len(part.rows) == 4 - first
    assert part.version == 4


def test_a_read_of_the_header_has_no_rows() -> None:
    found = conversation_from_rasa("alice", [USER, STARTED])
    assert found is not None
    part = slice_of(found, Read("alice", 0.0, None, 0))
    assert (part.rows, part.first_position) == ([], 2)
