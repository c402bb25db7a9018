"""What each event asks of the tracker that it is applied to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tracker_store_async.events import (
    ActionExecuted,
    ActionExecutionRejected,
    ActionReverted,
    ActiveLoop,
    AgentUttered,
    AllSlotsReset,
    BotUttered,
    ConversationPaused,
    ConversationResumed,
    DefinePrevUserUtteredFeaturization,
    EntitiesAdded,
    Event,
    FollowupAction,
    LegacyForm,
    LegacyFormValidation,
    LoopInterrupted,
    ReminderCancelled,
    ReminderScheduled,
    Restarted,
    SessionStarted,
    SlotSet,
    StoryExported,
    UnknownEvent,
    UserUtteranceReverted,
    UserUttered,
    event_from_dict,
)

NOON = datetime(2024, 3, 4, 12, tzinfo=UTC)


class RecordingTracker:
    """Notes, in order, what is called and set."""

    def __init__(self, latest_action_name: str | None = "action_listen") -> None:
        self.__dict__["calls"] = []
        self.__dict__["latest_action_name"] = latest_action_name
        self.__dict__["latest_message"] = UserUttered.empty()

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.__dict__["calls"].append((name, *arguments))

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__["calls"].append((name, value))


def applied(event: Event) -> list[tuple[Any, ...]]:
    tracker = RecordingTracker()
    event.apply_to(tracker)
    calls: list[tuple[Any, ...]] = tracker.__dict__["calls"]
    return calls


USER = UserUttered("hi")
BOT = BotUttered("hello")


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (USER, [("latest_message", USER), ("clear_followup_action",)]),
        (BOT, [("latest_bot_utterance", BOT)]),
        (AgentUttered("hello"), []),
        (SlotSet("a", 1), [("_set_slot", "a", 1)]),
        (AllSlotsReset(), [("_reset_slots",)]),
        (SessionStarted(), [("_begin_session",)]),
        (
            Restarted(),
            [("_reset",), ("trigger_followup_action", "action_session_start")],
        ),
        (UserUtteranceReverted(), [("_reset",), ("replay_events",)]),
        (ActionReverted(), [("_reset",), ("replay_events",)]),
        (ConversationPaused(), [("_paused", True)]),
        (ConversationResumed(), [("_paused", False)]),
        (
            ActionExecuted("a"),
            [("set_latest_action", {"action_name": "a"}), ("clear_followup_action",)],
        ),
        (
            ActionExecuted(None, action_text="t"),
            [("set_latest_action", {"action_text": "t"}), ("clear_followup_action",)],
        ),
        (ActionExecutionRejected("a"), [("reject_action", "a")]),
        (FollowupAction("a"), [("trigger_followup_action", "a")]),
        (ActiveLoop("a"), [("change_loop_to", "a")]),
        (ActiveLoop(None), [("change_loop_to", None)]),
        (LegacyForm("a"), [("change_loop_to", "a")]),
        (LoopInterrupted(True), [("interrupt_loop", True)]),
        (LegacyFormValidation(True), [("interrupt_loop", False)]),
        (ReminderScheduled("i", NOON), []),
        (ReminderCancelled(), []),
        (StoryExported("path"), []),
        (UnknownEvent({"event": "slot"}), []),
        (event_from_dict({"event": "user", "text": "hi"}), []),
    ],
    ids=lambda case: type(case).__name__,
)
def test_apply_to_does_what_it_does_in_rasa(event: Event, expected: list[Any]):
    assert applied(event) == expected


@pytest.mark.parametrize("event", [USER, BOT], ids=lambda event: event.type_name)
def test_the_tracker_gets_the_event_itself(event: Event):
    assert applied(event)[0][1] is event


SOUP = {"entity": "dish", "value": "soup"}


def test_entities_are_added_once_to_the_message_the_bot_listened_to():
    tracker = RecordingTracker()
    tracker.latest_message.entities.append(SOUP)
    EntitiesAdded([SOUP, {"entity": "time"}]).apply_to(tracker)
    assert tracker.latest_message.entities == [SOUP, {"entity": "time"}]
    event_from_dict({"event": "entities", "entities": None}).apply_to(tracker)
    assert len(tracker.latest_message.entities) == 2
    assert tracker.calls == []


def test_featurisation_is_told_to_the_message_the_bot_listened_to():
    tracker = RecordingTracker()
    DefinePrevUserUtteredFeaturization(True).apply_to(tracker)
    assert tracker.latest_message.use_text_for_featurization is True


@pytest.mark.parametrize("action", [None, "utter_greet"])
def test_nothing_reaches_a_message_that_was_answered(action: str | None):
    tracker = RecordingTracker(action)
    EntitiesAdded([SOUP]).apply_to(tracker)
    DefinePrevUserUtteredFeaturization(True).apply_to(tracker)
    assert tracker.latest_message.entities == []
    assert tracker.latest_message.use_text_for_featurization is None
