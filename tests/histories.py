"""Random histories for property tests: rows that repeat a few names in odd orders."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tracker_store_async.domain import Domain
from tracker_store_async.events import event_from_dict
from tracker_store_async.tracker import DialogueStateTracker, EventVerbosity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracker_store_async.events import Event

Row = dict[str, Any]

REVERTING = ("rewind", "undo")
RESETTING = ("restart", "session_started")


@cache
def rasas_histories() -> dict[str, Any]:
    """Return what the real Rasa made of random histories (`make_histories.py`)."""
    packed = (Path(__file__).parent / "data" / "histories.json.gz").read_bytes()
    loaded: dict[str, Any] = json.loads(gzip.decompress(packed))
    return loaded


@cache
def domain() -> Domain:
    """Return the domain that the rows of `histories` fit, with one slot missing."""
    return Domain.from_dict(rasas_histories()["domain"])


def events_of(rows: Iterable[Row]) -> list[Event]:
    """Return new event objects for the rows."""
    return [event_from_dict(row) for row in rows]


def updated(
    rows: Iterable[Row], max_event_history: int | None = None
) -> DialogueStateTracker:
    """Return a tracker that was given the events one by one."""
    tracker = DialogueStateTracker("random", domain().slots, max_event_history)
    for event in events_of(rows):
        tracker.update(event)
    return tracker


def loaded(
    rows: Iterable[Row], max_event_history: int | None = None
) -> DialogueStateTracker:
    """Return a tracker that was given all events at once."""
    tracker = DialogueStateTracker("random", domain().slots, max_event_history)
    tracker.load_events(events_of(rows))
    return tracker


def state_of(
    tracker: DialogueStateTracker, verbosity: EventVerbosity = EventVerbosity.NONE
) -> Row:
    """Return the state as plain JSON data."""
    state: Row = json.loads(json.dumps(tracker.current_state(verbosity)))
    return state


def everything_of(tracker: DialogueStateTracker) -> Row:
    """Return the state, the events and what events have changed on messages."""
    changed = [
        (event.entities, event.use_text_for_featurization)
        for event in (*tracker.events, tracker.latest_message)
        if event is not None and event.type_name == "user"
    ]
    return {
        "states": {each.name: state_of(tracker, each) for each in EventVerbosity},
        "messages": json.loads(json.dumps(changed)),
    }


def _row(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries({"event": st.just(kind), **fields})


_names = st.sampled_from(("f", "g"))
_entities = st.lists(
    st.fixed_dictionaries(
        {"entity": st.sampled_from("ab"), "value": st.integers(0, 2) | st.none()}
    ),
    max_size=2,
)
_message = _row(
    "user",
    text=st.sampled_from((None, "", "hi", "bye")),
    parse_data=st.fixed_dictionaries(
        {"text": st.just("t")},
        optional={
            "intent": st.sampled_from(({}, {"name": "greet"})),
            "entities": _entities,
        },
    ),
    input_channel=st.sampled_from((None, "rest", "cmdline")),
    message_id=st.none(),
    metadata=st.just({}),
)
_action = _row(
    "action",
    name=st.sampled_from(("action_listen", "action_listen", "f", "g", "utter_x")),
    policy=st.none(),
    confidence=st.none(),
)
_spoken = _row(
    "action", name=st.none(), action_text=st.sampled_from(("action_listen", "Hello!"))
)
_slot = _row(
    "slot",
    name=st.sampled_from(("name", "dishes", "tags", "budget", "unknown")),
    value=st.sampled_from((None, 1, 1.5, "x", ["l"], {"a": [True]}, float("inf"))),
)
_rare = (
    _row("active_loop", name=st.sampled_from(("f", "f", "g", None, "action_listen"))),
    _row("action_execution_rejected", name=_names),
    _row("loop_interrupted", is_interrupted=st.booleans()),
    _row("entities", entities=_entities),
    _row("user_featurization", use_text_for_featurization=st.booleans()),
    _row("bot", text=st.sampled_from((None, "a", "b")), data=st.just({"k": None})),
    _row("followup", name=_names),
    *(_row(kind) for kind in ("reset_slots", "pause", "resume", "unknown_type")),
)
_reverting = tuple(_row(kind) for kind in REVERTING)
_resetting = tuple(_row(kind) for kind in RESETTING)


def histories(
    *, reverting: bool = True, resetting: bool = True, max_size: int = 40
) -> st.SearchStrategy[list[Row]]:
    """Return histories with ascending timestamps.

    Args:
        reverting: Whether they hold events that revert others.
        resetting: Whether they hold restarts and session starts.
        max_size: Most rows in one.
    """
    kinds = [_message, _message, _action, _action, _action, _spoken, _slot, *_rare]
    if reverting:
        kinds += [*_reverting, *_reverting]
    if resetting:
        kinds += _resetting
    return st.lists(st.one_of(kinds), max_size=max_size).map(_timed)


def _timed(rows: list[Row]) -> list[Row]:
    return [{**row, "timestamp": 1000.0 + index} for index, row in enumerate(rows)]
