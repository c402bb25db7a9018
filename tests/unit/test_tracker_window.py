"""Trackers that hold only the last events: their state is right, or they say so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.histories import (
    Row,
    domain,
    events_of,
    histories,
    loaded,
    state_of,
    updated,
)
from tracker_store_async.errors import InvalidInputError
from tracker_store_async.events import (
    ActionExecuted,
    ActionReverted,
    BotUttered,
    Event,
    Restarted,
    SessionStarted,
    SlotSet,
    UserUtteranceReverted,
    UserUttered,
)
from tracker_store_async.tracker import DialogueStateTracker

windows = st.integers(0, 12)


def with_window(
    rows: list[Row], window: int, *, max_event_history: int | None = None
) -> DialogueStateTracker:
    """Return a tracker as a store retrieves it: the last events and the snapshot."""
    snapshot = json.loads(json.dumps(updated(rows).state_snapshot()))
    tracker = DialogueStateTracker("random", domain().slots, max_event_history)
    last = events_of(rows)[len(rows) - min(window, len(rows)) :]
    tracker.load_events(last, snapshot=snapshot, truncated=window < len(rows))
    return tracker


@given(histories(reverting=False), windows)
@settings(max_examples=200, deadline=None)
def test_the_state_counts_what_the_window_dropped(rows: list[Row], window: int) -> None:
    whole, last = updated(rows), updated(rows, max_event_history=window)
    assert {**state_of(last), "latest_event_time": None} == {
        **state_of(whole),
        "latest_event_time": None,
    }
    assert list(last.events) == list(whole.events)[len(rows) - len(last.events) :]
    assert len(last.events) == min(window, len(rows))
    assert last.is_truncated is (len(rows) > window)
    assert not last.state_needs_reload


@given(histories(), windows)
@settings(max_examples=200, deadline=None)
def test_loading_into_a_window_is_exact_in_spite_of_reverts(
    rows: list[Row], window: int
) -> None:
    last = loaded(rows, max_event_history=window)
    assert {**state_of(last), "latest_event_time": None} == {
        **state_of(updated(rows)),
        "latest_event_time": None,
    }
    assert last.is_truncated is (len(rows) > window)
    assert not last.state_needs_reload


@given(histories(), histories(reverting=False, max_size=20), windows)
@settings(max_examples=200, deadline=None)
def test_a_retrieved_window_goes_on_as_the_whole_does(
    rows: list[Row], more: list[Row], window: int
) -> None:
    whole, last = updated(rows), with_window(rows, window)
    for ours, theirs in zip(events_of(more), events_of(more), strict=True):
        whole.update(theirs)
        last.update(ours)
        assert state_of(last) == state_of(whole)
    assert not last.state_needs_reload


@given(
    histories(), histories(), st.sampled_from(("restart", "session_started")), windows
)
@settings(max_examples=200, deadline=None)
def test_a_reset_makes_the_state_exact(
    rows: list[Row], more: list[Row], reset: str, window: int
) -> None:
    more = [{"event": reset, "timestamp": 2000.0}, *more]
    whole, last = updated(rows), with_window(rows, window)
    last.update(UserUtteranceReverted())
    assert last.state_needs_reload is (window < len(rows)) or _resets(last)
    for ours, theirs in zip(events_of(more), events_of(more), strict=True):
        whole.update(theirs)
        last.update(ours)
        assert state_of(last)["slots"] == state_of(whole)["slots"]
        assert not last.state_needs_reload
    channel = last.get_latest_input_channel()
    assert {**state_of(last), "latest_input_channel": channel} == {
        **state_of(whole),
        "latest_input_channel": channel,
    }


def _resets(tracker: DialogueStateTracker) -> bool:
    return any(isinstance(e, Restarted | SessionStarted) for e in tracker.events)


@given(histories(resetting=False), windows)
@settings(max_examples=100, deadline=None)
def test_a_revert_says_that_the_state_is_a_guess(rows: list[Row], window: int) -> None:
    assume(window < len(rows))
    for event in (ActionReverted(), UserUtteranceReverted()):
        last = with_window(rows, window)
        last.update(event)
        assert last.state_needs_reload
        last.update(SlotSet("name", "x"))
        assert last.state_needs_reload
        assert last.copy().state_needs_reload


@given(histories(), windows)
@settings(max_examples=300, deadline=None)
def test_the_state_is_right_or_known_to_be_a_guess(
    rows: list[Row], window: int
) -> None:
    whole = DialogueStateTracker("random", domain().slots)
    last = DialogueStateTracker("random", domain().slots, max_event_history=window)
    for ours, theirs in zip(events_of(rows), events_of(rows), strict=True):
        whole.update(theirs)
        last.update(ours)
        assert last.state_needs_reload or {
            **state_of(last),
            "latest_event_time": whole.events[-1].timestamp,
        } == state_of(whole)


LOOP_BEFORE_THE_WINDOW: list[Row] = [
    *({"event": "action", "name": "x"}, {"event": "active_loop", "name": "f"}),
    *({"event": "undo"}, {"event": "restart"}),
    *({"event": "action", "name": "f"}, {"event": "user", "text": "1"}),
    {"event": "action", "name": "f"},
]


@pytest.mark.parametrize(
    "windowed",
    [
        updated(LOOP_BEFORE_THE_WINDOW, max_event_history=5),
        loaded(LOOP_BEFORE_THE_WINDOW, max_event_history=5),
        with_window(LOOP_BEFORE_THE_WINDOW, 4),
    ],
)
def test_a_loop_activated_before_the_window_is_still_a_loop(
    windowed: DialogueStateTracker,
) -> None:
    whole = updated(LOOP_BEFORE_THE_WINDOW)
    whole.update(ActionReverted(timestamp=9.0))
    windowed.update(ActionReverted(timestamp=9.0))
    assert whole.latest_action == {}, "`f` went on, so its two runs count as one"
    assert state_of(windowed)["latest_action"] == {}
    assert not windowed.state_needs_reload


TURN: list[Event] = [ActionExecuted("action_listen"), UserUttered("hi")]


def test_the_guess_is_right_for_what_was_done_since_loading() -> None:
    rows: list[Row] = [
        {"event": "slot", "name": "name", "value": "before"},
        *({"event": "bot", "text": str(number)} for number in range(20)),
    ]
    tracker = with_window(rows, 5)
    for event in (*TURN, SlotSet("name", "after"), UserUtteranceReverted()):
        tracker.update(event)
    assert tracker.get_slot("name") == "before"
    assert tracker.state_needs_reload


def test_nothing_set_is_forgotten_when_the_window_moves_on() -> None:
    tracker = DialogueStateTracker("random", domain().slots, max_event_history=4)
    for number in range(50):
        tracker.update(SlotSet("name", number))
        tracker.update(SlotSet("dishes", [number]))
    for _ in range(3):
        tracker.update(BotUttered("hi"))
    tracker.update(UserUtteranceReverted())
    assert tracker.get_slot("dishes") == [49]
    assert isinstance(tracker.get_slot("name"), int)


def test_the_channel_outlives_its_message() -> None:
    tracker = DialogueStateTracker("random", None, max_event_history=2)
    tracker.update(UserUttered("hi", input_channel="rest"))
    for _ in range(5):
        tracker.update(BotUttered("hi"))
        assert tracker.get_latest_input_channel() == "rest"
    tracker.update(UserUttered("hi"))
    assert tracker.get_latest_input_channel() is None


def test_adopting_repairs_the_state_and_keeps_what_is_unsaved() -> None:
    rows: list[Row] = [
        *({"event": "slot", "name": "name", "value": n} for n in range(5)),
        {"event": "action", "name": "action_listen"},
        {"event": "user", "text": "1", "parse_data": {}, "input_channel": "rest"},
        {"event": "slot", "name": "name", "value": "reverted"},
        *({"event": "bot", "text": str(n)} for n in range(5)),
    ]
    tracker = with_window(rows, 3, max_event_history=3)
    tracker.user_id = "kept"
    tracker.update(UserUtteranceReverted())
    assert tracker.get_slot("name") == "reverted"
    fresh = loaded(rows)
    fresh.user_id = "other"
    fresh.update(tracker.unsaved_events[0])
    tracker.adopt(fresh, max_event_history=tracker.max_event_history)
    assert tracker.get_slot("name") == 4
    assert not tracker.state_needs_reload
    assert tracker.is_truncated
    assert [event.type_name for event in tracker.events] == ["bot", "bot", "rewind"]
    assert [event.type_name for event in tracker.unsaved_events] == ["rewind"]
    assert tracker.get_latest_input_channel() == "rest"
    assert tracker.user_id == "kept"
    tracker.update(ActionReverted())
    assert tracker.state_needs_reload
    assert tracker.get_slot("name") == 4


def test_adopting_without_a_window_holds_everything() -> None:
    tracker = DialogueStateTracker("random", None, max_event_history=1)
    tracker.adopt(loaded([{"event": "bot"}] * 3), max_event_history=None)
    assert (len(tracker.events), tracker.is_truncated) == (3, False)
    assert tracker.max_event_history is None


@pytest.mark.parametrize("limit", [-1, -100])
def test_a_negative_window_is_refused(limit: int) -> None:
    with pytest.raises(InvalidInputError, match="max_event_history must be 0 or more"):
        DialogueStateTracker("random", None, max_event_history=limit)


def test_updating_a_full_window_copies_no_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracker = DialogueStateTracker("random", None, max_event_history=100)
    taken: list[Any] = []
    monkeypatch.setattr(
        DialogueStateTracker,
        "state_snapshot",
        lambda self: taken.append(self) or {"latest_input_channel": None},
    )
    for number in range(1000):
        tracker.update(SlotSet("name", number))
    assert len(taken) == 9, "the known state is refreshed once for each window"
