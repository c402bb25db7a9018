"""What Rasa's users do with a tracker."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from tests.histories import domain, loaded
from tracker_store_async.domain import Domain
from tracker_store_async.errors import InvalidInputError
from tracker_store_async.events import (
    ActionExecuted,
    ActionExecutionRejected,
    ActionReverted,
    ActiveLoop,
    AllSlotsReset,
    BotUttered,
    ConversationPaused,
    ConversationResumed,
    FollowupAction,
    LoopInterrupted,
    Restarted,
    SessionStarted,
    SlotSet,
    UserUtteranceReverted,
    UserUttered,
)
from tracker_store_async.state import _warn_of_unknown_slot
from tracker_store_async.tracker import (
    DialogueStateTracker,
    EventVerbosity,
    TrackerActiveLoop,
    TrackerEventDiffEngine,
)


def tracker_with(*events: Any) -> DialogueStateTracker:
    return DialogueStateTracker.from_events("me", events, domain().slots)


def test_a_new_tracker() -> None:
    assert DialogueStateTracker("me", domain().slots).current_state() == {
        "sender_id": "me",
        "slots": {
            "name": None,
            "dishes": None,
            "budget": 0.5,
            "tags": [],
            "requested_slot": None,
            "session_started_metadata": None,
        },
        "latest_message": {
            "intent": {},
            "entities": [],
            "text": None,
            "message_id": None,
            "metadata": {},
        },
        "latest_event_time": None,
        "followup_action": "action_listen",
        "paused": False,
        "events": None,
        "latest_input_channel": None,
        "active_loop": {},
        "latest_action": {},
        "latest_action_name": None,
    }


def test_update_keeps_the_event_and_changes_the_state() -> None:
    tracker = DialogueStateTracker("me", domain().slots)
    event = SlotSet("name", "x")
    tracker.update(event, domain())
    assert tracker.events[0] is event
    assert tracker.unsaved_events == [event]
    assert tracker.get_slot("name") == "x"
    assert repr(tracker) == "<DialogueStateTracker('me', 1 events)>"


@pytest.mark.parametrize("event", [None, {"event": "slot"}, "slot", SlotSet])
def test_what_is_no_event_is_refused(event: Any) -> None:
    tracker = DialogueStateTracker("me")
    with pytest.raises(InvalidInputError, match="updated with events"):
        tracker.update(event)
    with pytest.raises(InvalidInputError, match="updated with events"):
        tracker.update_with_events([event])
    assert list(tracker.events) == []
    assert tracker.unsaved_events == []


def test_ids_are_added_to_the_metadata_of_new_events() -> None:
    tracker = DialogueStateTracker("me")
    tracker.model_id, tracker.assistant_id = "model", "assistant"
    tracker.update(UserUttered("hi", metadata={"model_id": "given"}))
    tracker.update(ActionExecuted("action_listen"))
    assert [event.metadata for event in tracker.events] == [
        {"model_id": "given", "assistant_id": "assistant"},
        {"model_id": "model", "assistant_id": "assistant"},
    ]
    # what was understood of the message is not changed (Rasa)
    assert tracker.current_state()["latest_message"]["metadata"] == {
        "model_id": "given"
    }


def test_several_events_get_the_current_time() -> None:
    tracker = DialogueStateTracker("me")
    tracker.update_with_events([BotUttered("a", timestamp=1.0)], domain())
    assert tracker.events[0].timestamp == pytest.approx(time.time(), abs=60)
    tracker.update_with_events([BotUttered("a", timestamp=1.0)], None, False)
    assert tracker.events[1].timestamp == 1.0


def test_slots_of_a_domain() -> None:
    tracker = tracker_with(SlotSet("dishes", "pizza"), SlotSet("budget", "much"))
    assert tracker.get_slot("dishes") == ["pizza"]
    assert tracker.get_slot("budget") == "much"
    assert tracker.slots["dishes"].has_been_set
    tracker.update(AllSlotsReset())
    assert tracker.get_slot("dishes") is None
    assert tracker.get_slot("budget") == 0.5
    assert not tracker.slots["dishes"].has_been_set


def test_a_slot_that_the_domain_lacks_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _warn_of_unknown_slot.cache_clear()
    for _ in range(3):
        tracker = tracker_with(SlotSet("nobody_knows", "secret"))
    assert caplog.text.count("'nobody_knows'") == 1
    assert "secret" not in caplog.text
    with caplog.at_level(logging.INFO):
        assert tracker.get_slot("nobody_knows") is None
    assert "does not exist" in caplog.text
    assert "nobody_knows" not in tracker.current_slot_values()


def test_without_a_domain_every_slot_exists() -> None:
    tracker = DialogueStateTracker("me")
    tracker.update(SlotSet("anything", {"a": 1}))
    assert tracker.get_slot("anything") == {"a": 1}
    assert tracker.get_slot("never_set") is None
    assert tracker.current_slot_values() == {"anything": {"a": 1}}
    tracker.update(Restarted())
    assert tracker.current_slot_values() == {}
    tracker.slots["new"].value = 3
    assert tracker.get_slot("new") == 3


def test_from_events_takes_the_slots_of_a_domain() -> None:
    tracker = DialogueStateTracker.from_events("me", [], domain=domain())
    assert "budget" in tracker.current_slot_values()
    tracker = DialogueStateTracker.from_events("me", [], [], domain=domain())
    assert tracker.current_slot_values() == {}


def test_pause_followup_and_restart() -> None:
    tracker = tracker_with(FollowupAction("utter_x"))
    assert tracker.followup_action == "utter_x"
    tracker.update(ActionExecuted("utter_x"))
    assert tracker.followup_action is None
    tracker.update(ConversationPaused())
    assert tracker.is_paused()
    tracker.update(ConversationResumed())
    assert not tracker.is_paused()
    tracker.update(SlotSet("name", "x"))
    tracker.update(ConversationPaused())
    tracker.update(Restarted())
    assert not tracker.is_paused()
    assert tracker.followup_action == "action_session_start"
    assert tracker.get_slot("name") is None
    assert tracker.latest_action == {}
    tracker.update(SessionStarted())
    assert tracker.followup_action == "action_listen"


def test_loops() -> None:
    tracker = tracker_with(UserUttered("hi"), ActiveLoop("f"))
    assert tracker.active_loop_name == "f"
    assert tracker.active_loop is not None
    message = tracker.active_loop.trigger_message
    assert message is not None
    assert message["text"] == "hi"
    tracker.update(LoopInterrupted(True))
    assert tracker.is_active_loop_interrupted
    tracker.update(ActionExecutionRejected("g"))
    assert not tracker.is_active_loop_rejected
    tracker.update(ActionExecutionRejected("f"))
    assert tracker.is_active_loop_rejected
    tracker.update(ActionExecuted("utter_x"))
    assert not tracker.is_active_loop_interrupted
    assert tracker.is_active_loop_rejected
    tracker.update(ActionExecuted("f"))
    assert not tracker.is_active_loop_rejected
    tracker.update(ActiveLoop(None))
    assert tracker.active_loop is None
    assert not tracker.is_active_loop_rejected
    assert not tracker.is_active_loop_interrupted
    tracker.update(ActiveLoop("should_not_be_set"))
    assert tracker.active_loop == TrackerActiveLoop(
        "should_not_be_set", False, False, message
    )
    assert tracker.active_loop_name is None


def test_the_loop_in_the_state_is_a_copy() -> None:
    tracker = tracker_with(UserUttered("hi"), ActiveLoop("f"))
    state = tracker.current_state()
    state["active_loop"]["trigger_message"]["text"] = "changed"
    state["latest_message"]["entities"].append("changed")
    assert "changed" not in str(tracker.current_state())


def test_rewind_and_undo() -> None:
    tracker = tracker_with(
        SlotSet("name", "before"),
        ActionExecuted("action_listen"),
        UserUttered("one"),
        ActionExecuted("utter_x"),
        SlotSet("name", "after"),
    )
    tracker.update(ActionReverted())
    assert tracker.get_slot("name") == "before"
    assert tracker.latest_message is not None
    assert tracker.latest_message.text == "one"
    tracker.update(UserUtteranceReverted())
    assert tracker.latest_message.text is None
    assert [event.type_name for event in tracker.applied_events()] == ["slot"]
    assert len(tracker.events) == 7


def test_events_after_a_restart() -> None:
    tracker = tracker_with(BotUttered("1"), Restarted(), BotUttered("2"))
    assert tracker.idx_after_latest_restart() == 2
    assert tracker.events_after_latest_restart() == [BotUttered("2")]
    told = tracker.current_state(EventVerbosity.AFTER_RESTART)["events"]
    assert [event["text"] for event in told] == ["2"]
    assert tracker_with(BotUttered("1")).idx_after_latest_restart() == 0


def test_entity_values() -> None:
    entities = [
        {"entity": "city", "value": "Rome"},
        {"entity": "city", "value": "Oslo", "role": "to"},
        {"entity": "city", "value": "Bern", "role": "to", "group": "1"},
    ]
    tracker = tracker_with(UserUttered("x", entities=entities))
    assert list(tracker.get_latest_entity_values("city")) == ["Rome"]
    assert list(tracker.get_latest_entity_values("city", "to")) == ["Oslo"]
    assert list(tracker.get_latest_entity_values("city", "to", "1")) == ["Bern"]
    assert list(tracker.get_latest_entity_values("dish")) == []
    tracker.latest_message = None
    assert list(tracker.get_latest_entity_values("city")) == []
    assert tracker.current_state()["latest_message"] is None


def test_the_last_event_of_a_type() -> None:
    tracker = tracker_with(
        ActionExecuted("action_listen"),
        UserUttered("1"),
        ActionExecuted("utter_a"),
        BotUttered("a"),
        ActionExecuted("utter_b"),
        ActionExecuted("action_listen"),
        UserUttered("2"),
        UserUtteranceReverted(),
    )
    assert tracker.get_last_event_for(UserUttered) is tracker.events[1]
    everything = EventVerbosity.ALL
    last = tracker.get_last_event_for(UserUttered, event_verbosity=everything)
    assert last is tracker.events[6]
    assert tracker.get_last_event_for(UserUttered, skip=1) is None
    assert tracker.get_last_event_for(ActionExecuted) is tracker.events[4]
    found = tracker.get_last_event_for(ActionExecuted, ["utter_b"])
    assert found is tracker.events[2]
    found = tracker.get_last_event_for((BotUttered, UserUttered))
    assert found is tracker.events[3]
    assert tracker.last_executed_action_has("utter_b")
    assert tracker.last_executed_action_has("utter_a", skip=1)
    assert not tracker.last_executed_action_has("utter_a")
    nothing = EventVerbosity.NONE
    assert tracker.get_last_event_for(UserUttered, event_verbosity=nothing) is None


def test_the_latest_channel_is_that_of_the_latest_message() -> None:
    tracker = tracker_with(UserUttered("a", input_channel="rest"), BotUttered("b"))
    assert tracker.get_latest_input_channel() == "rest"
    tracker.update(UserUttered("c"))
    assert tracker.get_latest_input_channel() is None


def test_text_actions_have_their_text_as_name() -> None:
    tracker = tracker_with(ActionExecuted(action_text="Hello!"))
    assert tracker.latest_action == {"action_text": "Hello!"}
    assert tracker.latest_action_name == "Hello!"
    tracker.latest_action = None
    assert tracker.latest_action_name is None


def test_event_difference() -> None:
    older, newer = loaded([{"event": "bot"}]), loaded([{"event": "bot"}] * 3)
    difference = TrackerEventDiffEngine.event_difference
    assert len(difference(older, newer)) == 2
    assert len(difference(None, newer)) == 3
    assert difference(newer, older) == []


def test_a_tracker_of_an_empty_domain() -> None:
    tracker = DialogueStateTracker("me", Domain.empty().slots)
    assert tracker.current_slot_values() == {"session_started_metadata": None}
