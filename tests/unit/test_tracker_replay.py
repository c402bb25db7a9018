"""Loading many events at once: the same result as one by one, and one pass."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings

from tests.histories import (
    Row,
    domain,
    events_of,
    everything_of,
    histories,
    loaded,
    state_of,
    updated,
)
from tracker_store_async.applied import kind_of
from tracker_store_async.errors import InvalidInputError
from tracker_store_async.events import (
    ActionExecuted,
    ActionReverted,
    Event,
    SlotSet,
    UserUtteranceReverted,
    UserUttered,
)
from tracker_store_async.tracker import DialogueStateTracker

LISTEN = {"event": "action", "name": "action_listen"}


def message(text: str) -> Row:
    return {"event": "user", "text": text, "parse_data": {"text": text}}


def entities(value: int) -> Row:
    return {"event": "entities", "entities": [{"entity": "a", "value": value}]}


def decided(text: bool) -> Row:
    return {"event": "user_featurization", "use_text_for_featurization": text}


def action(name: str) -> Row:
    return {"event": "action", "name": name}


def loop(name: str | None) -> Row:
    return {"event": "active_loop", "name": name}


UNDO = {"event": "undo"}
REJECTED = {"event": "action_execution_rejected", "name": "f"}
SPOKEN = {"event": "action", "name": None, "action_text": "Hello!"}

CHANGED_ONLY_BY_A_REPLAY = [
    # `f` goes on, which takes the second message back: the next replay changes the
    # first one instead, and the replay after that leaves it so.
    *(loop("f"), LISTEN, message("1"), action("f"), LISTEN, message("2"), action("f")),
    *(LISTEN, entities(1), decided(False), action("x"), UNDO, UNDO),
]
CHANGED_AFTER_ANOTHER_WAS_TAKEN_BACK = [
    *(loop("f"), LISTEN, message("1"), action("f"), LISTEN, message("2"), entities(9)),
    *(action("x"), UNDO, action("f"), LISTEN, entities(1), action("x"), UNDO, UNDO),
]
DECIDED_AGAIN_AND_TAKEN_BACK = [
    *(LISTEN, message("1"), decided(False), LISTEN, decided(True), action("x")),
    *(UNDO, UNDO, UNDO),
]
LOOP_KNOWN_LATE = [
    # What ran twice turns out to be a loop.
    *(LISTEN, message("1"), action("f"), LISTEN, message("2"), entities(1)),
    *(decided(False), action("f"), UNDO, action("f"), loop("f"), UNDO, UNDO),
]
LOOP_THAT_LISTENS = [
    *(loop("action_listen"), message("1"), LISTEN, message("2"), entities(1), LISTEN),
    *(action("x"), UNDO, UNDO),
]
LOOP_REJECTED = [loop("f"), action("f"), message("1"), REJECTED, action("f")]
LOOP_ANSWERED_BY_TEXT = [
    # Only a named action makes it an unhappy path, and only right after the message.
    *(loop("f"), action("f"), message("1"), SPOKEN, action("x"), action("f")),
]


def timed(rows: list[Row]) -> list[Row]:
    return [{**row, "timestamp": 1.0 + index} for index, row in enumerate(rows)]


@given(histories())
@settings(max_examples=300, deadline=None)
@example(timed(CHANGED_ONLY_BY_A_REPLAY))
@example(timed(CHANGED_AFTER_ANOTHER_WAS_TAKEN_BACK))
@example(timed(DECIDED_AGAIN_AND_TAKEN_BACK))
@example(timed(LOOP_KNOWN_LATE))
@example(timed(LOOP_THAT_LISTENS))
def test_loading_at_once_is_updating_one_by_one(rows: list[Row]) -> None:
    assert everything_of(loaded(rows)) == everything_of(updated(rows))


@given(histories(), histories(max_size=10))
@settings(max_examples=100, deadline=None)
def test_loading_in_two_parts_gives_the_same(first: list[Row], rest: list[Row]) -> None:
    tracker = loaded(first)
    tracker.load_events(events_of(rest))
    assert everything_of(tracker) == everything_of(updated([*first, *rest]))


def reference(events: list[Any]) -> list[Any]:
    """Compute what counts in the plainest way, from the rules in `applied.py`."""
    loops = {event.name for event in events if kind_of(event) == "loop" and event.name}
    applied: list[Any] = []
    for event in events:
        kind = kind_of(event)
        if kind in ("restart", "session"):
            applied = []
        elif kind in ("undo", "rewind"):
            for wanted in ("user", "action")[kind == "undo" :]:
                while applied and kind_of(applied.pop()) != wanted:
                    pass
        elif kind == "action" and goes_on(event, loops, applied):
            run = last_run(event, applied)
            taken = ("action", "user", "featurisation")
            kept = [each for each in applied[run:] if kind_of(each) not in taken]
            applied = applied[:run] + kept
        else:
            applied.append(event)
    return applied


def last_run(event: Any, applied: list[Any]) -> int:
    """Return the place after the latest run of the same action."""
    runs = [
        place
        for place, each in enumerate(applied, 1)
        if kind_of(each) == "action" and each.action_name == event.action_name
    ]
    return runs[-1]


def goes_on(event: Any, loops: set[str], applied: list[Any]) -> bool:
    """Whether it is a loop that ran before, without an unhappy path since."""
    answer = None
    for each in reversed(applied) if event.action_name in loops else ():
        kind = kind_of(each)
        if kind == "loop" and each.name is None:
            return False
        if kind == "rejection" and each.action_name == event.action_name:
            return False
        if kind == "user" and answer not in (None, event.action_name):
            return False
        if kind == "action":
            if each.action_name == event.action_name:
                return True
            answer = each.action_name
    return False


@given(histories())
@settings(max_examples=300, deadline=None)
@example(timed(LOOP_REJECTED))
@example(timed(LOOP_ANSWERED_BY_TEXT))
def test_applied_events_are_what_the_plain_rules_give(rows: list[Row]) -> None:
    tracker = loaded(rows)
    expected = reference(list(tracker.events))
    assert [id(event) for event in tracker.applied_events()] == list(map(id, expected))


class CountingTracker(DialogueStateTracker):
    """Counts how often an event sets a slot."""

    count = 0

    def _set_slot(self, key: str, value: Any) -> None:
        type(self).count += 1
        super()._set_slot(key, value)


def test_reverts_cost_one_pass() -> None:
    CountingTracker.count = 0
    turn = [ActionExecuted("action_listen"), UserUttered("hi"), SlotSet("name", "a")]
    history: list[Event] = [*turn * 100]
    for number in range(300):
        revert = UserUtteranceReverted() if number % 2 else ActionReverted()
        history += [*turn, SlotSet("dishes", number), revert]
    tracker = CountingTracker("random", domain().slots)
    tracker.load_events(history)
    assert CountingTracker.count <= sum(isinstance(e, SlotSet) for e in history)


def test_slots_that_a_long_loop_has_set_stay() -> None:
    history: list[Event] = events_of([loop("f"), action("f")])
    for number in range(500):
        history += [ActionExecuted("action_listen"), UserUttered("hi")]
        history += [SlotSet("name", number), ActionExecuted("f")]
    tracker = DialogueStateTracker("random", domain().slots)
    tracker.load_events(history)
    assert len(tracker.applied_events()) == 502


def test_loaded_events_are_saved_already() -> None:
    tracker = loaded([message("1")])
    assert (tracker.unsaved_events, tracker.version) == ([], None)
    tracker.update(SlotSet("name", "x"))
    assert tracker.unsaved_events == [SlotSet("name", "x")]


def test_from_events_counts_all_as_unsaved() -> None:
    events = events_of([message("1"), UNDO])
    tracker = DialogueStateTracker.from_events("random", events, domain().slots)
    assert [id(event) for event in tracker.unsaved_events] == list(map(id, events))
    assert tracker.version is None
    with pytest.raises(InvalidInputError, match="updated with events, not with str"):
        DialogueStateTracker.from_events("random", ["hi"])  # type: ignore[list-item]


def test_from_dict_is_from_events() -> None:
    rows = timed([message("1"), {"event": "slot", "name": "name", "value": 3}])
    tracker = DialogueStateTracker.from_dict("random", rows, domain().slots)
    assert state_of(tracker) == state_of(updated(rows))
