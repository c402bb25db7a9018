"""What events hold: copies, isolation, unknown types and fields, pydantic."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tracker_store_async.events import (
    ActionExecuted,
    ActionExecutionRejected,
    ActionReverted,
    ActiveLoop,
    AgentUttered,
    AllSlotsReset,
    BotUttered,
    ConversationPaused,
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
    base,
    decode_event,
    encode_event,
    event_from_dict,
)

NOON = datetime(2024, 3, 4, 12, tzinfo=UTC)

EXAMPLES: list[Event] = [
    UserUttered("hi", {"name": "greet"}, [{"entity": "who", "value": "you"}]),
    BotUttered("hello", {"buttons": [{"title": "yes"}]}, {"utter_action": "x"}),
    AgentUttered("a human speaks", {"agent": "bob"}),
    EntitiesAdded([{"entity": "dish", "value": "soup"}]),
    DefinePrevUserUtteredFeaturization(True),
    SlotSet("people", 4),
    SlotSet("people", [1, {"a": None}]),
    AllSlotsReset(),
    ActionExecuted("action_listen", "policy", 0.5),
    ActionExecutionRejected("form", "policy", 0.5),
    FollowupAction("action_next"),
    ActionReverted(),
    ActiveLoop("form"),
    LoopInterrupted(True),
    ReminderScheduled("intent", NOON, name="r"),
    ReminderCancelled("r", "intent", [{"entity": "dish"}]),
    StoryExported("stories.md"),
    SessionStarted(),
    Restarted(),
    ConversationPaused(metadata={"by": "bob"}),
    UnknownEvent({"event": "flow_started", "flow": {"id": "f"}, "timestamp": 5}),
]


def name_of(event: Event) -> str:
    return type(event).__name__


@pytest.mark.parametrize("event", EXAMPLES, ids=name_of)
def test_copies_are_equal_and_their_own(event: Event):
    before = event.as_dict()
    for other in (
        copy.copy(event),
        copy.deepcopy(event),
        pickle.loads(pickle.dumps(event)),
        event.model_copy(deep=True),
        decode_event(encode_event(event)),
        event_from_dict(before),
    ):
        assert type(other) is type(event)
        assert other == event
        assert other.as_dict() == before
        other.timestamp = 7.0
        other.metadata = {"new": 1}
        other.event_id = "id"
        changed = other.as_dict()
        assert changed["timestamp"] == 7.0
        assert changed["metadata"] == {"new": 1}
        assert changed["event_id"] == "id"
        assert event.as_dict() == before


def spoil(value: Any) -> None:
    """Change every list and dict within `value`."""
    children = value.values() if isinstance(value, dict) else value
    for child in list(children):
        if isinstance(child, dict | list):
            spoil(child)
    value.clear()


@pytest.mark.parametrize("event", EXAMPLES, ids=name_of)
def test_nothing_that_is_handed_out_or_taken_in_is_shared(event: Event):
    before = event.as_dict()
    spoil(event.as_dict())
    spoil(event.model_dump())
    assert event.as_dict() == before
    given = event.as_dict()
    loaded = event_from_dict(given)
    spoil(given)
    assert loaded.as_dict() == before


def test_unknown_fields_are_kept_after_rasas_and_can_be_read():
    row = {"new": {"a": 1}, "event": "slot", "name": "n", "timestamp": 1.5, "key": "k"}
    event = event_from_dict(row)
    assert isinstance(event, SlotSet)
    assert event.key == "n"
    assert event.model_extra == {"new": {"a": 1}, "key": "k"}
    assert event.new == {"a": 1}  # type: ignore[attr-defined]
    assert list(event.as_dict()) == [
        "event",
        "timestamp",
        "name",
        "value",
        "new",
        "key",
    ]
    event.event_id = "e"
    assert list(event.as_dict())[-1] == "event_id"
    event.name = "another"  # type: ignore[attr-defined]
    assert event.as_dict()["name"] == "n"


def test_event_id_is_what_the_event_carries():
    assert SlotSet("a").event_id is None
    for event_id in ("", None, 5, ["a"]):
        assert event_from_dict({"event": "x", "event_id": event_id}).event_id is None
    for type_name in ("slot", "restart", "flow_started"):
        event = event_from_dict({"event": type_name, "event_id": "e1"})
        assert event.event_id == "e1"
        assert event.as_dict()["event_id"] == "e1"


def test_unknown_event_shows_its_row():
    row = {"b": 1, "event": "flow_started", "metadata": {"m": 1}, "flow_id": "f"}
    event = event_from_dict(row)
    assert isinstance(event, UnknownEvent)
    assert event.type_name == "flow_started"
    assert event.timestamp is None
    assert event.metadata == {"m": 1}
    assert event.flow_id == "f"  # type: ignore[attr-defined]
    assert list(event.as_dict().items()) == list(row.items())
    event.metadata["n"] = 2
    assert event.as_dict()["metadata"] == {"m": 1, "n": 2}
    event.metadata = {}
    assert event.as_dict() == {**row, "metadata": {}}
    assert UnknownEvent({}).type_name == "unknown"
    assert UnknownEvent({}).as_dict() == {}
    assert UnknownEvent({"metadata": None, "timestamp": None}).as_dict() == {
        "metadata": None,
        "timestamp": None,
    }


def test_stored_name_is_the_name_in_the_json():
    for event in EXAMPLES:
        assert event.stored_name == event.as_dict().get("name")
    assert event_from_dict({"event": "x", "name": "n"}).stored_name == "n"


def test_from_parameters_default_is_for_unknown_types():
    class FlowStarted(Event):
        """A class of the application that is not found by its name."""

    event = Event.from_parameters({"event": "flow_started", "id": 1}, FlowStarted)
    assert type(event) is FlowStarted
    event = Event.from_parameters({"event": "slot", "name": "a"}, FlowStarted)
    assert type(event) is SlotSet


@pytest.fixture
def own_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget, after the test, the types that it adds."""
    for table in (base.EVENT_CLASSES, base.EVENT_BUILDERS):
        monkeypatch.setitem(table, "rated", None)
        monkeypatch.delitem(table, "rated")


@pytest.mark.usefixtures("own_types")
def test_an_application_can_add_a_type():
    class Rated(Event):
        type_name = "rated"
        stars: int

        def __init__(self, stars: int, timestamp: float | None = None) -> None:
            self._fill(timestamp, None, stars=stars)

        @staticmethod
        def _read(row: dict[str, Any]) -> dict[str, Any]:
            return {"stars": row.pop("stars")}

        def as_dict(self) -> dict[str, Any]:
            return {**super().as_dict(), "stars": self.stars}

    event = decode_event(encode_event(Rated(5)))
    assert type(event) is Rated
    assert event.stars == 5
    assert type(decode_event('{"event":"rated"}')) is UnknownEvent


def test_pydantic_reads_and_writes_rows():
    adapter = TypeAdapter(list[Event])
    rows = b'[{"event":"slot","timestamp":1,"name":"a","value":2},{"event":"flow"}]'
    slot, flow = adapter.validate_json(rows)
    assert isinstance(slot, SlotSet)
    assert isinstance(flow, UnknownEvent)
    assert adapter.dump_json([slot, flow]) == rows
    slot.value = float("nan")
    assert slot.model_dump_json() == encode_event(slot)
    assert SlotSet.model_validate(slot) is slot
    assert Event.model_validate(slot.model_dump()).as_dict()["name"] == "a"
    with pytest.raises(ValidationError) as raised:
        SlotSet.model_validate({"event": "bot", "text": "secret"})
    assert "secret" not in str(raised.value)
