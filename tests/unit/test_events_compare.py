"""How events compare, and how they read as text."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

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
    LoopInterrupted,
    ReminderCancelled,
    ReminderScheduled,
    Restarted,
    SessionStarted,
    SlotSet,
    StoryExported,
    UnknownEvent,
    UserUttered,
)

NOON = datetime(2024, 3, 4, 12, tzinfo=UTC)
ROLE = {"entity": "e", "value": "v", "role": "r"}

EQUAL: list[tuple[Event, Event]] = [
    (UserUttered("a", timestamp=1), UserUttered("a", timestamp=2)),
    (UserUttered("a", metadata={"x": 1}), UserUttered("a", message_id="b")),
    # Rasa compares the keys of entities only.
    (UserUttered("a", entities=[{"e": 1}]), UserUttered("a", entities=[{"e": 2}])),
    (BotUttered("a", {"x": None}), BotUttered("a")),
    (AgentUttered("a", {"x": 1}), AgentUttered("a", {"x": 1}, 5.0)),
    (SlotSet("a", [1], 1), SlotSet("a", [1], 2)),
    (SlotSet("a", 1), SlotSet("a", 1.0)),
    (ActionExecuted("a", "p"), ActionExecuted("a", "q", 0.5)),
    (ActionExecuted("a", metadata={"x": None}), ActionExecuted("a")),
    (Restarted(1), Restarted(2, {"x": 1})),
    (ActionExecutionRejected("a", "p"), ActionExecutionRejected("a", "q")),
    (ReminderScheduled("i", NOON, name="n"), ReminderScheduled("j", NOON, name="n")),
    (ReminderCancelled("n", timestamp=1), ReminderCancelled("n", timestamp=2)),
    (StoryExported("p", 1), StoryExported("p", 2)),
    (LoopInterrupted(True, 1), LoopInterrupted(True, 2)),
]

UNEQUAL: list[tuple[Event, object]] = [
    (UserUttered("a"), UserUttered("b")),
    (UserUttered("a"), UserUttered("a", {"name": "i"})),
    (UserUttered("a", entities=[{"e": 1}]), UserUttered("a", entities=[{"f": 1}])),
    (BotUttered("a"), BotUttered("b")),
    (BotUttered("a"), BotUttered("a", {"x": 1})),
    (BotUttered("a"), BotUttered("a", None, {"x": 1})),
    (AgentUttered("a"), BotUttered("a")),
    (AgentUttered("a"), AgentUttered("a", 1)),
    (SlotSet("a", 1), SlotSet("b", 1)),
    (SlotSet("a", 1), SlotSet("a", 2)),
    (ActionExecuted("a"), ActionExecuted("a", metadata={"x": 1})),
    (ActionExecuted("a"), ActionExecuted("a", action_text="t")),
    (Restarted(), SessionStarted()),
    (ActiveLoop("a"), ActiveLoop(None)),
    (LoopInterrupted(True), LoopInterrupted(False)),
    (FollowupAction("a"), FollowupAction("b")),
    (EntitiesAdded([{"a": 1}]), EntitiesAdded([{"a": 2}])),
    (StoryExported("p"), StoryExported()),
    (ReminderCancelled("a"), ReminderCancelled()),
    (ReminderScheduled("i", NOON, name="n"), ReminderScheduled("i", NOON, name="m")),
    (UnknownEvent({"event": "a"}), UnknownEvent({"event": "a", "b": 1})),
    (SlotSet("a"), "a"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_events_share_their_hash(one: Event, other: Event):
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(("one", "other"), UNEQUAL)
def test_unequal_events(one: Event, other: object):
    assert one != other


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            UserUttered(
                "hi", {"name": "i"}, [{"entity": "e", "value": "v", "role": "r"}]
            ),
            "UserUttered(text: hi, intent: i, entities: v (Type: e, Role: r, "
            "Group: None), use_text_for_featurization: None)",
        ),
        (
            UserUttered("hi"),
            "UserUttered(text: hi, intent: None, use_text_for_featurization: True)",
        ),
        (
            BotUttered("hi", {"a": 1}),
            'BotUttered(text: hi, data: {"a": 1}, metadata: {})',
        ),
        (AgentUttered("hi", 1), "AgentUttered(text: hi, data: 1)"),
        (SlotSet("a", 1), "SlotSet()"),
        (ActionExecuted("a"), "a"),
        (ActionExecuted(action_text="said"), "None"),
        (ActionExecuted("", action_text="said"), "said"),
        (ActionExecuted(""), "None"),
        (Restarted(), "Restarted()"),
        (EntitiesAdded([{"entity": "e"}]), "EntitiesAdded(['e'])"),
        (ActiveLoop("a"), "Loop(a)"),
        (LoopInterrupted(True), "LoopInterrupted(True)"),
        (FollowupAction("a"), "FollowupAction(action: a)"),
        (
            ActionExecutionRejected("a", "p", 0.5),
            "ActionExecutionRejected(action: a, policy: p, confidence: 0.5)",
        ),
        (
            DefinePrevUserUtteredFeaturization(False),
            "DefinePrevUserUtteredFeaturization(False)",
        ),
        (
            ReminderCancelled("n"),
            "ReminderCancelled(name: n, intent: None, entities: None)",
        ),
        (
            ReminderScheduled("i", NOON, name="n"),
            "ReminderScheduled(intent: i, trigger_date: 2024-03-04 12:00:00+00:00, "
            "entities: None, name: n)",
        ),
        (UnknownEvent({"event": "flow"}), "UnknownEvent(flow)"),
    ],
)
def test_str_is_rasas(event: Event, expected: str):
    assert str(event) == expected


def test_repr_shows_nothing_that_was_said():
    secret = "my password is 1234"
    for event in (
        UserUttered(secret, {"name": "i"}, [{"value": secret}], metadata={"s": secret}),
        BotUttered(secret, {"s": secret}),
        AgentUttered(secret, secret),
        SlotSet("a", secret),
        UnknownEvent({"event": "x", "s": secret}),
    ):
        assert secret not in repr(event)
        assert type(event).__name__ in repr(event)
