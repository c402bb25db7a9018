"""Events as an application makes and uses them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tracker_store_async import errors
from tracker_store_async import events as module
from tracker_store_async.events import (
    ActionExecuted,
    ActionExecutionRejected,
    ActiveLoop,
    AgentUttered,
    BotUttered,
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
    UserUttered,
    decode_event,
    deserialise_events,
    do_events_begin_with_session_start,
    encode_event,
    event_from_dict,
    split_events,
)

NOON = datetime(2024, 3, 4, 12, tzinfo=UTC)


def test_every_type_of_rasa_is_there():
    types = {
        "user": "UserUttered",
        "user_featurization": "DefinePrevUserUtteredFeaturization",
        "entities": "EntitiesAdded",
        "bot": "BotUttered",
        "slot": "SlotSet",
        "restart": "Restarted",
        "rewind": "UserUtteranceReverted",
        "reset_slots": "AllSlotsReset",
        "reminder": "ReminderScheduled",
        "cancel_reminder": "ReminderCancelled",
        "undo": "ActionReverted",
        "export": "StoryExported",
        "followup": "FollowupAction",
        "pause": "ConversationPaused",
        "resume": "ConversationResumed",
        "action": "ActionExecuted",
        "agent": "AgentUttered",
        "active_loop": "ActiveLoop",
        "form": "LegacyForm",
        "loop_interrupted": "LoopInterrupted",
        "form_validation": "LegacyFormValidation",
        "action_execution_rejected": "ActionExecutionRejected",
        "session_started": "SessionStarted",
    }
    for type_name, class_name in types.items():
        found = Event.resolve_by_type(type_name)
        assert found is getattr(module, class_name)
        assert found.type_name == type_name
    assert Event.resolve_by_type("flow_started") is UnknownEvent
    assert Event.resolve_by_type("flow_started", SlotSet) is SlotSet
    assert Event.resolve_by_type("topic") is None


def test_constructors_take_rasas_arguments_in_rasas_order():
    user = UserUttered(
        "text", {"name": "i"}, [{"a": 1}], {"x": 2}, 5.0, "rest", "id", {"m": 3}, False
    )
    assert (user.text, user.intent, user.entities) == (
        "text",
        {"name": "i"},
        [{"a": 1}],
    )
    assert (user.timestamp, user.input_channel, user.message_id) == (5.0, "rest", "id")
    assert (user.metadata, user.use_text_for_featurization) == ({"m": 3}, False)
    assert user.parse_data == {
        "intent": {"name": "i"},
        "entities": [{"a": 1}],
        "text": "text",
        "message_id": "id",
        "metadata": {"m": 3},
        "x": 2,
    }
    bot = BotUttered("text", {"d": 1}, {"m": 2}, 5.0)
    assert (bot.data, bot.metadata, bot.timestamp) == ({"d": 1}, {"m": 2}, 5.0)
    action = ActionExecuted("name", "policy", 0.5, 5.0, {"m": 1}, "text", True)
    assert (action.action_name, action.policy, action.confidence) == (
        "name",
        "policy",
        0.5,
    )
    assert (action.timestamp, action.metadata) == (5.0, {"m": 1})
    assert (action.action_text, action.hide_rule_turn) == ("text", True)
    assert action.unpredictable is False
    reminder = ReminderScheduled("i", NOON, [{"e": 1}], "name", False, 5.0, {"m": 1})
    assert (reminder.intent, reminder.trigger_date_time) == ("i", NOON)
    assert (reminder.entities, reminder.name) == ([{"e": 1}], "name")
    assert (reminder.kill_on_user_message, reminder.timestamp) == (False, 5.0)
    cancelled = ReminderCancelled("name", "i", [{"e": 1}], 5.0, {"m": 1})
    assert (cancelled.name, cancelled.intent, cancelled.timestamp) == ("name", "i", 5.0)
    rejected = ActionExecutionRejected("name", "policy", 0.5, 5.0, {"m": 1})
    assert (rejected.confidence, rejected.timestamp) == (0.5, 5.0)
    agent = AgentUttered("text", {"d": 1}, 5.0, {"m": 1})
    assert (agent.data, agent.timestamp, agent.metadata) == ({"d": 1}, 5.0, {"m": 1})
    slot = SlotSet("key", "value", 5.0, {"m": 1})
    assert (slot.key, slot.value, slot.timestamp) == ("key", "value", 5.0)
    for event in (
        EntitiesAdded([], 5.0, {"m": 1}),
        DefinePrevUserUtteredFeaturization(True, 5.0, {"m": 1}),
        FollowupAction("name", 5.0, {"m": 1}),
        ActiveLoop(None, 5.0, {"m": 1}),
        LoopInterrupted(True, 5.0, {"m": 1}),
        LegacyFormValidation(True, 5.0, {"m": 1}),
        StoryExported("path", 5.0, {"m": 1}),
        SessionStarted(5.0, {"m": 1}),
    ):
        assert (event.timestamp, event.metadata) == (5.0, {"m": 1})


def test_a_new_event_happens_now(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "time", lambda: 77.5)
    assert SlotSet("a").timestamp == 77.5
    assert SlotSet("a", timestamp=0).timestamp == 77.5
    assert SlotSet("a", timestamp=1).timestamp == 1
    assert UserUttered("a").as_dict()["timestamp"] == 77.5


def test_parse_data_given_wins_and_its_entities_are_a_copy():
    user = UserUttered("hi", {"name": "a"}, [{"entity": "x"}])
    user.entities.append({"entity": "y"})
    assert user.parse_data["entities"] == [{"entity": "x"}]
    other = UserUttered("hi", {"name": "a"}, parse_data={"intent": {"name": "b"}})
    assert other.intent_name == "a"
    assert other.parse_data["intent"] == {"name": "b"}


def test_loaded_entities_are_those_of_the_parse_data_if_there_are_any():
    row = UserUttered("hi", {"name": "a"}, [{"entity": "x"}]).as_dict()
    loaded = event_from_dict(row)
    assert isinstance(loaded, UserUttered)
    assert loaded.entities is loaded.parse_data["entities"]
    empty = event_from_dict(UserUttered("hi").as_dict())
    assert isinstance(empty, UserUttered)
    assert empty.entities is not empty.parse_data["entities"]


def test_user_uttered_helpers():
    retrieval = {"name": "faq", "full_retrieval_intent_name": "faq/hours"}
    user = UserUttered("when?", retrieval)
    assert user.intent_name == "faq"
    assert user.full_retrieval_intent_name == "faq/hours"
    assert UserUttered("x").full_retrieval_intent_name is None
    assert UserUttered.empty().is_empty()
    assert not user.is_empty()
    assert not UserUttered(entities=[{"entity": "x"}]).is_empty()
    external = UserUttered.create_external("remind", [{"entity": "x"}], "rest")
    assert external.text == "EXTERNAL: remind"
    assert external.intent == {"name": "remind"}
    assert external.entities == [{"entity": "x"}]
    assert external.metadata == {"is_external": True}
    assert external.input_channel == "rest"


@pytest.mark.parametrize(
    ("text", "intent", "given", "expected"),
    [
        ("hi", None, False, True),
        (None, {"name": "greet"}, True, False),
        ("hi", {"name": "greet"}, None, None),
        ("hi", {"name": "greet"}, True, True),
        (None, None, True, True),
    ],
)
def test_featurisation_is_decided_as_in_rasa(
    text: str | None, intent: Any, given: bool | None, expected: bool | None
):
    user = UserUttered(text, intent, use_text_for_featurization=given)
    assert user.use_text_for_featurization is expected
    user.use_text_for_featurization = not expected
    assert user.use_text_for_featurization is (not expected)
    assert "use_text_for_featurization" not in user.as_dict()


def test_bot_uttered_message():
    bot = BotUttered("hi", {"image": "i", "attachment": "i"}, {"channel": "c"}, 5.0)
    assert bot.message() == {
        "image": "i",
        "attachment": None,
        "text": "hi",
        "timestamp": 5.0,
        "channel": "c",
    }
    assert bot.data == {"image": "i", "attachment": "i"}
    assert BotUttered.empty().message()["text"] is None


def test_an_action_needs_a_name_or_a_text():
    with pytest.raises(errors.InvalidInputError, match="action_text"):
        ActionExecuted()
    assert ActionExecuted(action_text="hello").as_sub_state() == {
        "action_text": "hello"
    }
    assert ActionExecuted("a").as_sub_state() == {"action_name": "a"}


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: SlotSet("a", 1, None, ["secret"]), "metadata"),
        (lambda: UserUttered("secret", "greet"), "intent"),
        (lambda: UserUttered("secret", None, {"entity": "x"}), "entities"),
        (lambda: UserUttered("secret", parse_data=[]), "parse_data"),
        (lambda: BotUttered("secret", ["secret"]), "data"),
        (lambda: EntitiesAdded({"secret": 1}), "entities"),
        (lambda: ReminderScheduled("secret", "tomorrow"), "trigger_date_time"),
    ],
)
def test_what_could_not_be_read_again_is_refused(make: Any, argument: str):
    with pytest.raises(
        errors.InvalidInputError, match=f"^{argument} must be"
    ) as raised:
        make()
    assert "secret" not in str(raised.value)


def test_reminders_have_names_and_are_cancelled_by_them():
    one = ReminderScheduled("i", NOON, [{"entity": "x"}], name="one")
    assert ReminderScheduled("i", NOON).name != ReminderScheduled("i", NOON).name
    job = one.scheduled_job_name("user")
    assert job.endswith("]__sender_id:user")
    assert ReminderCancelled().cancels_job_with_name(job, "user")
    assert not ReminderCancelled().cancels_job_with_name(job, "someone")
    assert not ReminderCancelled().cancels_job_with_name("job", "user")
    for cancels in (
        ReminderCancelled("one"),
        ReminderCancelled(intent="i"),
        ReminderCancelled(entities=[{"entity": "x"}]),
        ReminderCancelled("one", "i", [{"entity": "x"}]),
    ):
        assert cancels.cancels_job_with_name(job, "user")
    for misses in (
        ReminderCancelled("two"),
        ReminderCancelled(intent="j"),
        ReminderCancelled(entities=[{"entity": "y"}]),
        ReminderCancelled("one", "j"),
    ):
        assert not misses.cancels_job_with_name(job, "user")


def test_what_rasa_forgets_to_write_is_written_where_it_is_set():
    assert StoryExported(timestamp=5).as_dict() == {"event": "export", "timestamp": 5}
    assert StoryExported("p", 5).as_dict()["path"] == "p"
    nothing = ReminderCancelled(timestamp=5).as_dict()
    assert nothing == {"event": "cancel_reminder", "timestamp": 5}
    event = decode_event(encode_event(ReminderCancelled("r", entities=[])))
    assert isinstance(event, ReminderCancelled)
    assert (event.name, event.intent, event.entities) == ("r", None, [])


def test_old_names_are_written_as_the_new_ones():
    form = LegacyForm("f", 5.0)
    assert form.as_dict() == {"event": "active_loop", "timestamp": 5.0, "name": "f"}
    assert form == ActiveLoop("f")
    assert ActiveLoop("f") == form
    validation = LegacyFormValidation(True, 5.0)
    assert validation.as_dict() == {
        "event": "loop_interrupted",
        "timestamp": 5.0,
        "is_interrupted": False,
    }
    assert validation == LoopInterrupted(False)
    assert form.fingerprint() != ActiveLoop("f", 5.0).fingerprint()


def test_deserialise_events_leaves_out_what_rasa_does():
    rows = [
        {"event": "slot", "name": "a", "value": 1},
        {"name": "no type"},
        {"event": "topic", "topic": "x"},
        {"event": "flow_started"},
    ]
    assert [type(event).__name__ for event in deserialise_events(rows)] == [
        "SlotSet",
        "UnknownEvent",
    ]


def test_split_events():
    start = ActionExecuted("action_session_start")
    listen = ActionExecuted("action_listen")
    a, b = SlotSet("a"), SlotSet("b")
    events = [a, start, b, listen, start]
    condition = {"action_name": "action_session_start"}
    split = split_events(events, ActionExecuted, condition)
    assert split == [[a], [start, b, listen], [start]]
    split = split_events(events, ActionExecuted, condition, False)
    assert split == [[a], [b, listen]]
    assert split_events(events, ActionExecuted) == [[a], [start, b], [listen], [start]]
    assert split_events([a, b], Restarted) == [[a, b]]
    assert split_events([], Restarted) == []


def test_do_events_begin_with_session_start():
    start, started = ActionExecuted("action_session_start"), SessionStarted()
    assert do_events_begin_with_session_start([start, started, SlotSet("a")])
    assert not do_events_begin_with_session_start([start])
    assert not do_events_begin_with_session_start([started, start])
    listen = ActionExecuted("action_listen")
    assert not do_events_begin_with_session_start([listen, started])


def test_fingerprint_ignores_the_time_alone():
    assert SlotSet("a", 1, 1.0).fingerprint() == SlotSet("a", 1, 2.0).fingerprint()
    assert SlotSet("a", 1).fingerprint() != SlotSet("a", 2).fingerprint()
