"""How an application makes and reads events, for mypy to check; it is never run.

An error that mypy has to report carries a `type: ignore` with its code: mypy complains
where it reports none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, assert_type

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
    decode_event,
    deserialise_events,
    encode_event,
    event_from_dict,
    split_events,
)

NOON = datetime(2024, 3, 4, 12, tzinfo=UTC)


def make() -> list[Event]:
    """Every class, with its arguments by position as Rasa takes them."""
    return [
        UserUttered("hi"),
        UserUttered(None),
        UserUttered("hi", {"name": "greet"}, [{"entity": "x"}], {"text": "hi"}, 1.5),
        UserUttered("hi", None, None, None, None, "rest", "id", {"a": 1}, True),
        BotUttered("x", {"buttons": []}),
        BotUttered("x", None, {"utter_action": "y"}, 1.5),
        AgentUttered("x", ["anything"], 1.5, {"a": 1}),
        EntitiesAdded([{"entity": "x"}], 1.5),
        DefinePrevUserUtteredFeaturization(True, 1.5),
        SlotSet("people", 4),
        SlotSet("people"),
        SlotSet("people", None, 1, {"a": 1}),
        AllSlotsReset(),
        AllSlotsReset(1.5, {"a": 1}),
        ActionExecuted("action_listen"),
        ActionExecuted("x", "policy", 0.5, 1.5, {"a": 1}, None, True),
        ActionExecuted(action_text="x"),
        ActionExecutionRejected("x", "policy", 0.5, 1.5, {"a": 1}),
        ActionReverted(1.5),
        FollowupAction("x", 1.5),
        ActiveLoop(None, 1.5),
        LegacyForm("x", 1.5),
        LoopInterrupted(True, 1.5),
        LegacyFormValidation(True, 1.5),
        ReminderScheduled("x", NOON, [{"entity": "x"}], "name", False, 1.5),
        ReminderCancelled("name", "x", [{"entity": "x"}], 1.5),
        StoryExported("path", 1.5),
        SessionStarted(),
        SessionStarted(1.5, {"a": 1}),
        Restarted(1.5),
        UserUtteranceReverted(1.5),
        ConversationPaused(1.5),
        ConversationResumed(1.5),
        UnknownEvent({"event": "flow_started"}),
    ]


def refused() -> None:
    """What mypy has to find."""
    UserUttered(5)  # type: ignore[arg-type]
    UserUttered(txt="hi")  # type: ignore[call-arg]
    BotUttered("x", ["buttons"])  # type: ignore[arg-type]
    SlotSet()  # type: ignore[call-arg]
    SlotSet(4, "people")  # type: ignore[arg-type]
    ActionExecuted(["x"])  # type: ignore[arg-type]
    ActiveLoop()  # type: ignore[call-arg]
    SessionStarted("now")  # type: ignore[arg-type]
    ReminderScheduled("x", "tomorrow")  # type: ignore[arg-type]
    decode_event(5)  # type: ignore[arg-type]
    encode_event({"event": "slot"})  # type: ignore[arg-type]


def read(
    user: UserUttered, bot: BotUttered, slot: SlotSet, act: ActionExecuted
) -> None:
    """The types of the attributes."""
    assert_type(user.text, str | None)
    assert_type(user.intent_name, str | None)
    assert_type(user.entities, list[dict[str, Any]])
    assert_type(user.use_text_for_featurization, bool | None)
    assert_type(user.timestamp, float)
    assert_type(user.metadata, dict[str, Any])
    assert_type(bot.data, dict[str, Any])
    assert_type(bot.message(), dict[str, Any])
    assert_type(slot.key, str)
    assert_type(act.action_name, str | None)
    assert_type(act.confidence, float | None)
    assert_type(act.as_dict(), dict[str, Any])
    assert_type(act.event_id, str | None)
    assert_type(UserUttered.type_name, str)
    assert_type(decode_event(b"{}"), Event)
    assert_type(encode_event(user), str)
    assert_type(event_from_dict({}), Event)
    assert_type(Event.from_parameters({}), Event | None)
    assert_type(deserialise_events([{}]), list[Event])
    assert_type(split_events([user], UserUttered), list[list[Event]])
