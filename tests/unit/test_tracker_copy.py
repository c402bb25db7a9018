"""Copies of a tracker: what they carry, and that neither changes the other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from tests.histories import (
    Row,
    domain,
    events_of,
    everything_of,
    histories,
    loaded,
    updated,
)
from tracker_store_async.dialogue import Dialogue
from tracker_store_async.errors import InvalidInputError
from tracker_store_async.events import (
    ActionExecuted,
    ActiveLoop,
    EntitiesAdded,
    LoopInterrupted,
    Restarted,
    SlotSet,
    UserUtteranceReverted,
    UserUttered,
)
from tracker_store_async.tracker import (
    DialogueStateTracker,
    EventVerbosity,
    get_trackers_for_conversation_sessions,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TALK: list[Row] = [
    {"event": "action", "name": "action_listen", "timestamp": 1.0},
    {
        "event": "user",
        "text": "hi",
        "parse_data": {"entities": [{"entity": "a", "value": 1}]},
        "timestamp": 2.0,
    },
    {"event": "active_loop", "name": "f", "timestamp": 3.0},
    {"event": "slot", "name": "dishes", "value": ["pizza"], "timestamp": 4.0},
]


def of_dialogue(tracker: DialogueStateTracker) -> DialogueStateTracker:
    other = DialogueStateTracker("random", domain().slots)
    other.recreate_from_dialogue(tracker.as_dialogue())
    return other


COPIES: list[Callable[[DialogueStateTracker], DialogueStateTracker]] = [
    DialogueStateTracker.copy,
    lambda tracker: tracker.travel_back_in_time(float("inf")),
    lambda tracker: get_trackers_for_conversation_sessions(tracker)[0],
    of_dialogue,
]


def all_of(tracker: DialogueStateTracker) -> str:
    return json.dumps([everything_of(tracker), tracker.state_snapshot()])


@pytest.mark.parametrize("copied", COPIES)
def test_neither_changes_the_other(
    copied: Callable[[DialogueStateTracker], DialogueStateTracker],
) -> None:
    tracker = updated(TALK)
    other = copied(tracker)
    before = all_of(tracker)
    assert all_of(other) == before
    for changed, untouched in ((other, tracker), (tracker, copied(tracker))):
        changed.update(EntitiesAdded([{"entity": "b", "value": 2}]))
        changed.update(LoopInterrupted(True))
        changed.update(SlotSet("dishes", "pasta"))
        changed.update(ActiveLoop("g"))
        assert all_of(untouched) == before
        message = changed.events[1].as_dict()
        assert len(message["parse_data"]["entities"]) == 2


def test_a_message_that_reverts_bring_back_is_not_shared_either() -> None:
    """The loop keeps the parse data of a message that is not the latest any more."""
    tracker = updated(TALK)
    tracker.update(ActionExecuted("action_listen"))
    tracker.update(UserUttered("more"))
    other = tracker.copy()
    expected = everything_of(other)
    tracker.update(UserUtteranceReverted())
    tracker.update(ActionExecuted("action_listen"))
    tracker.update(EntitiesAdded([{"entity": "late"}]))
    assert "late" in json.dumps(everything_of(tracker))
    assert everything_of(other) == expected


@given(histories(), histories(max_size=10))
@settings(max_examples=100, deadline=None)
def test_a_copy_goes_on_as_the_original_does(rows: list[Row], more: list[Row]) -> None:
    tracker = updated(rows)
    other = tracker.copy()
    assert everything_of(other) == everything_of(tracker)
    for ours, theirs in zip(events_of(more), events_of(more), strict=True):
        tracker.update(theirs)
        other.update(ours)
    assert everything_of(other) == everything_of(tracker)


def test_a_copy_carries_its_place_in_the_log_and_its_names() -> None:
    tracker = loaded(TALK)
    tracker._log.version = 4
    tracker.model_id, tracker.assistant_id, tracker.user_id = "m", "a", "u"
    tracker.update(UserUttered("new"))
    other = tracker.copy()
    assert (other.version, len(other.unsaved_events)) == (4, 1)
    assert other.unsaved_events[0] is other.events[-1]
    assert other.unsaved_events[0] is not tracker.events[-1]
    assert (other.model_id, other.assistant_id, other.user_id) == ("m", "a", "u")
    other.update(SlotSet("name", "x"))
    assert len(tracker.unsaved_events) == 1


def test_a_copy_without_a_domain_still_accepts_every_slot() -> None:
    tracker = DialogueStateTracker("random", None)
    tracker.update(SlotSet("a", [1]))
    other = tracker.copy()
    other.update(SlotSet("b", 2))
    assert other.current_slot_values() == {"a": [1], "b": 2}
    assert tracker.current_slot_values() == {"a": [1]}


def test_init_copy_has_the_same_slots_and_nothing_else() -> None:
    tracker = DialogueStateTracker("random", domain().slots, 5, "a file")
    tracker.update(SlotSet("dishes", ["pizza"]))
    other = tracker.init_copy()
    assert list(other.events) == []
    assert other.get_slot("dishes") is None
    assert (other.sender_id, other.max_event_history) == ("random", 5)
    assert other.sender_source == "a file"
    assert (other.version, other.unsaved_events) == (None, [])


def test_a_value_that_the_domain_shares_is_not_changed() -> None:
    one, two = loaded([]), loaded([])
    one.get_slot("tags").append("mine")
    assert two.get_slot("tags") == []
    one.update(Restarted())
    assert one.get_slot("tags") == []


def test_travelling_back_counts_nothing_as_saved() -> None:
    tracker = loaded(TALK)
    tracker._log.version = 4
    back = tracker.travel_back_in_time(2.0)
    assert [event.timestamp for event in back.events] == [1.0, 2.0]
    assert (back.version, len(back.unsaved_events)) == (None, 2)
    assert back.active_loop is None
    assert list(tracker.travel_back_in_time(0.5).events) == []


def test_travelling_back_stops_at_the_first_later_event() -> None:
    times = [1.0, 5.0, 2.0]
    rows: list[Row] = [{"event": "bot", "timestamp": time} for time in times]
    rows.insert(1, {"event": "somebody_elses", "timestamp": "yesterday"})
    back = loaded(rows).travel_back_in_time(3.0)
    assert [event.timestamp for event in back.events] == [1.0, "yesterday"]


def test_travelling_back_in_a_window_is_a_guess() -> None:
    tracker = loaded(TALK, max_event_history=2)
    back = tracker.travel_back_in_time(3.0)
    assert [event.type_name for event in back.events] == ["active_loop"]
    assert back.is_truncated
    assert back.state_needs_reload


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ("", []),
        ("bbb", ["bbb"]),
        ("asb", ["asb"]),
        ("basbsb", ["b", "asb", "sb"]),
        ("bab", ["bab"]),
        ("ssa", ["s", "sa"]),
        ("aas", ["a", "as"]),
    ],
)
def test_sessions_are_split_by_our_rule(rows: str, parts: list[str]) -> None:
    kinds: dict[str, Row] = {
        "a": {"event": "action", "name": "action_session_start"},
        "s": {"event": "session_started"},
        "b": {"event": "bot"},
    }
    tracker = loaded([kinds[letter] for letter in rows])
    letters = {"action": "a", "session_started": "s", "bot": "b"}
    found = get_trackers_for_conversation_sessions(tracker)
    assert [
        "".join(letters[event.type_name] for event in part.events) for part in found
    ] == parts
    assert all(part.sender_id == "random" for part in found)


def test_a_dialogue_survives_being_plain_data() -> None:
    tracker = updated(TALK)
    plain = json.loads(json.dumps(tracker.as_dialogue().as_dict()))
    assert plain["name"] == "random"
    other = DialogueStateTracker("random", domain().slots)
    other.recreate_from_dialogue(Dialogue.from_parameters(plain))
    assert everything_of(other) == everything_of(tracker)
    assert other == tracker
    assert len(other.unsaved_events) == len(TALK)
    assert repr(tracker.as_dialogue()) == "<Dialogue of 4 events>"


def test_a_dialogue_gives_the_state_it_came_from() -> None:
    tracker = updated([*TALK, {"event": "restart"}])
    assert tracker.followup_action == "action_session_start"
    assert of_dialogue(tracker).followup_action == "action_session_start"


def test_what_is_no_dialogue_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"expected a Dialogue, not dict"):
        loaded([]).recreate_from_dialogue({"events": []})  # type: ignore[arg-type]


def test_equality_is_sender_id_and_events() -> None:
    assert updated(TALK) == loaded(TALK)
    assert updated(TALK) != updated(TALK[:2])
    assert DialogueStateTracker("a") != DialogueStateTracker("b")
    assert DialogueStateTracker("a") != "a"
    assert DialogueStateTracker("a") == DialogueStateTracker("a", domain().slots)
    with pytest.raises(TypeError, match="unhashable"):
        hash(DialogueStateTracker("a"))


def test_states_can_be_told_in_every_verbosity_after_copying() -> None:
    other = updated(TALK).copy()
    for verbosity in EventVerbosity:
        assert other.current_state(verbosity)["sender_id"] == "random"


def test_a_row_without_a_type_survives_a_round_trip() -> None:
    rows = [{"name": "no type"}, {"event": "topic"}, {"event": "flow", "x": [1]}]
    tracker = DialogueStateTracker("a")
    tracker.load_events(events_of(rows))
    listed = tracker.current_state(EventVerbosity.ALL)["events"]
    for other in (
        DialogueStateTracker.from_dict("a", listed),
        DialogueStateTracker.from_events(
            "a", Dialogue.from_parameters(tracker.as_dialogue().as_dict()).events
        ),
    ):
        assert [event.as_dict() for event in other.events] == listed
