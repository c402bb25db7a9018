"""The state equals what the real Rasa 3.6.21 answered, for every golden conversation.

Rasa's stores answer differently only in where they start to read: then the tracker of
the events from there on gives exactly their answer. Where that is not our start, it
stands in `OTHER_STARTS`, and nothing else may.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from functools import cache
from typing import Any

import pytest

from tests import golden
from tracker_store_async.domain import Domain
from tracker_store_async.events import Event, decode_event, event_from_dict
from tracker_store_async.sessions import session_starts
from tracker_store_async.tracker import DialogueStateTracker, EventVerbosity

STORES = ("inmemory", "sqlite", "postgres", "redis", "mongo", "dynamo")
METHODS = ("retrieve", "retrieve_full_tracker")
VERBOSITIES = (
    EventVerbosity.ALL,
    EventVerbosity.AFTER_RESTART,
    EventVerbosity.APPLIED,
)
SENDER_IDS = golden.sender_ids()

# The first event that a store of Rasa reads, by conversation, where it is not ours.

STARTS_AFTER_THE_ACTION = {
    # SQL and MongoDB start at `session_started` and leave out the
    # `action_session_start` right before it.
    "user-0001": 1,
    "user-0002": 54,
    "user-0003": 31,
    "user-0004": 52,
    "user-0005": 1,
    "user-0006-all-events": 82,
    "user-0007-rich": 1,
    "user-0008-slots": 1,
    "user-0009-long": 1,
    "user-0012-custom-start": 1,
    "user-0014-soup": 97,
    "user-0015-soup": 73,
}
STARTS_AT_THE_ACTION_ALONE = {
    # In-memory and Redis start at every `action_session_start`, also one that no
    # `session_started` follows, and at nothing else.
    "user-0012-custom-start": 8,
    "user-0013-only-started": 0,
}
KEEPS_WHAT_WAS_RETRIEVED = {
    # In-memory overwrites a conversation with the session that was retrieved for the
    # turn: what came before it is lost.
    "user-0002": 53,
    "user-0003": 30,
    "user-0004": 51,
    "user-0006-all-events": 1,
    "user-0012-custom-start": 8,
    "user-0014-soup": 96,
    "user-0015-soup": 72,
}
STARTS_AT_THE_BEGINNING = {
    # DynamoDB returns every session, always.
    "user-0002": 0,
    "user-0003": 0,
    "user-0004": 0,
    "user-0006-all-events": 0,
    "user-0013-only-started": 0,
    "user-0014-soup": 0,
    "user-0015-soup": 0,
}
OTHER_STARTS: dict[tuple[str, str], dict[str, int]] = {
    ("retrieve", "inmemory"): STARTS_AT_THE_ACTION_ALONE,
    ("retrieve", "redis"): STARTS_AT_THE_ACTION_ALONE,
    ("retrieve", "sqlite"): STARTS_AFTER_THE_ACTION,
    ("retrieve", "postgres"): STARTS_AFTER_THE_ACTION,
    ("retrieve", "mongo"): STARTS_AFTER_THE_ACTION,
    ("retrieve", "dynamo"): STARTS_AT_THE_BEGINNING,
    ("retrieve_full_tracker", "inmemory"): KEEPS_WHAT_WAS_RETRIEVED,
}


@cache
def domain() -> Domain:
    return Domain.load(golden.path("domain.yml"))


@cache
def rows(sender_id: str) -> tuple[str, ...]:
    """Return the whole log of a conversation, as Rasa's SQL store wrote it."""
    path = golden.path("sqlite/rasa.db")
    query = "SELECT data FROM events WHERE sender_id = ? ORDER BY id"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return tuple(row[0] for row in connection.execute(query, (sender_id,)))


@cache
def answers() -> dict[str, Any]:
    loaded: dict[str, Any] = golden.load("answers")
    return loaded


def tracker_from(sender_id: str, start: int) -> DialogueStateTracker:
    tracker = DialogueStateTracker(sender_id, domain().slots)
    tracker.load_events([decode_event(row) for row in rows(sender_id)[start:]])
    return tracker


def our_start(sender_id: str, method: str) -> int:
    if method == "retrieve_full_tracker":
        return 0
    starts = session_starts([decode_event(row) for row in rows(sender_id)])
    return starts[-1] if starts else 0


def state_of(
    tracker: DialogueStateTracker, verbosity: EventVerbosity
) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(json.dumps(tracker.current_state(verbosity)))
    return state


def rasas_state(
    store: str, sender_id: str, method: str, verbosity: EventVerbosity
) -> dict[str, Any]:
    answer = answers()["answers"][store][sender_id][method][verbosity.name]
    state: dict[str, Any] = dict(answers()["states"][answer["state"]])
    state["events"] = answers()["events"][answer["events"]]
    return state


def comparable(value: Any, store: str) -> str:
    """Return text that is equal for equal answers: `1` is not `1.0`, `NaN` is `NaN`."""
    return json.dumps(_rounded(value) if store == "dynamo" else value, sort_keys=True)


def _rounded(value: Any) -> Any:
    """Do to numbers what Rasa's DynamoDB store does: floats of nine decimals."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return round(float(value), 9)


def rasas_start(store: str, sender_id: str, method: str) -> int:
    answer = answers()["answers"][store][sender_id][method]["ALL"]
    return len(rows(sender_id)) - len(answers()["events"][answer["events"]])


@pytest.mark.parametrize("sender_id", SENDER_IDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("store", STORES)
def test_state_and_events_are_rasas(store: str, method: str, sender_id: str) -> None:
    tracker = tracker_from(sender_id, rasas_start(store, sender_id, method))
    for verbosity in VERBOSITIES:
        ours = state_of(tracker, verbosity)
        theirs = rasas_state(store, sender_id, method, verbosity)
        assert comparable(ours, store) == comparable(theirs, store)
    none = {**theirs, "events": None}
    assert comparable(state_of(tracker, EventVerbosity.NONE), store) == comparable(
        none, store
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("store", STORES)
def test_rasa_starts_elsewhere_only_where_it_is_listed(store: str, method: str) -> None:
    found = {
        sender_id: rasas_start(store, sender_id, method)
        for sender_id in SENDER_IDS
        if rasas_start(store, sender_id, method) != our_start(sender_id, method)
    }
    listed = OTHER_STARTS.get((method, store), {})
    assert found == {key: listed[key] for key in listed if key in SENDER_IDS}


@pytest.mark.parametrize("sender_id", SENDER_IDS)
def test_the_start_never_changes_the_state(sender_id: str) -> None:
    """Wherever Rasa's stores start, the state without the events is the same."""
    whole = tracker_from(sender_id, 0).current_state()
    session = tracker_from(sender_id, our_start(sender_id, "retrieve")).current_state()
    assert comparable(session, "") == comparable(whole, "")


@pytest.mark.parametrize(
    "conversation",
    [each for each in golden.conversations() if each["turns"]],
    ids=lambda conversation: conversation["sender_id"],
)
def test_updating_turn_by_turn_gives_the_same(conversation: dict[str, Any]) -> None:
    inputs = golden.load("inputs")
    sender_id = conversation["sender_id"]
    tracker = DialogueStateTracker(sender_id, domain().slots)
    tracker.model_id = inputs["model_id"]
    tracker.assistant_id = inputs["assistant_id"]
    given: list[Event] = []
    for turn in conversation["turns"]:
        for fields in turn:
            given.append(event_from_dict(fields))
            tracker.update(given[-1], domain())
    assert tracker.unsaved_events == given
    assert tracker.version is None
    for verbosity in VERBOSITIES:
        ours = state_of(tracker, verbosity)
        theirs = rasas_state("sqlite", sender_id, "retrieve_full_tracker", verbosity)
        assert comparable(ours, "") == comparable(theirs, "")
