"""The state of a save takes over the texts of its events."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from benchmarks import workload
from tracker_store_async import DialogueStateTracker, errors
from tracker_store_async.encoded_events import EncodedEvents
from tracker_store_async.events import (
    ActiveLoop,
    BotUttered,
    EntitiesAdded,
    Event,
    FollowupAction,
    SlotSet,
    UserUttered,
    event_from_dict,
)
from tracker_store_async.serialization import encode_row, encode_snapshot
from tracker_store_async.slots import AnySlot, AnySlotDict
from tracker_store_async.unsaved import encode_batch, session_state

if TYPE_CHECKING:
    from collections.abc import Callable

ENTITY = {"entity": "x", "value": "y"}


@pytest.mark.parametrize(
    "events",
    [
        [event_from_dict(fields) for fields in workload.turn(1)],
        [UserUttered("hi"), EntitiesAdded([ENTITY]), BotUttered("ho")],
        [UserUttered("hi", entities=[ENTITY], use_text_for_featurization=True)],
        [UserUttered("\ud800 hi"), BotUttered("ho \ud800")],
        [UserUttered.empty(), BotUttered.empty()],
        [UserUttered(None, intent={"name": "greet"}), BotUttered(None, {"a": 1})],
        [SlotSet("a", 'x"1"'), BotUttered("ho"), UserUttered("hi"), BotUttered("hu")],
    ],
)
def test_the_state_is_as_if_it_were_encoded_on_its_own(events: list[Event]) -> None:
    tracker = DialogueStateTracker("alice")
    for event in events:
        tracker.update(event)
    for most_rows in (None, 1):  # the others are encoded later
        batch = encode_batch(tracker, most_rows=most_rows)
        state = session_state(tracker, batch.session_start)
        alone = encode_snapshot(state, len(events), batch.session_start)
        assert batch.snapshot == alone


def test_nothing_stands_for_an_event_that_writes_itself_in_another_way() -> None:
    class Odd(BotUttered):
        def as_dict(self) -> dict[str, object]:
            return {"event": "bot"}

    odd, plain = Odd("hi"), BotUttered("hi")
    texts = EncodedEvents([odd, plain])
    assert texts.stand_in(odd) is None
    assert texts.stand_in(BotUttered("hi")) is None
    stand_in = texts.stand_in(plain)
    found = texts.put_into(f'["{stand_in}", "{stand_in}x"]', ["[]", "{}", "0"])
    assert found == f'[{{}}, "{stand_in}x"]'


def test_a_row_has_the_columns_that_its_json_has() -> None:
    fields = {"event": "other", "name": "a", "parse_data": {"intent": {"name": "b"}}}
    row = encode_row(event_from_dict(fields), "1")
    assert (row.action_name, row.intent_name) == ("a", "b")


def test_a_slot_that_comes_into_being_is_like_any_other() -> None:
    assert vars(AnySlotDict()["a"]) == vars(AnySlot("a"))


class Named(Event):
    """Has the name of its type from itself."""

    @property
    def type_name(self) -> str:  # type: ignore[override]
        return "named"


class Further(SlotSet):
    """Writes more than its table says."""

    def _fields(self) -> dict[str, object]:
        return {**super()._fields(), "more": 1}


class Written(BotUttered):
    """Writes itself in another way altogether."""

    def as_dict(self) -> dict[str, object]:
        return {"event": "bot", "text": "else"}


EVENTS = [
    *(event_from_dict(fields) for fields in workload.turn(1)),
    event_from_dict({"event": "slot", "name": "a", "value": [1], "more": {"b": 2}}),
    event_from_dict({"event": "odd", "timestamp": "yesterday", "name": None}),
    event_from_dict({"event": "action", "name": "x", "timestamp": [1]}),
    BotUttered("hi", {"a": [1]}, {"b": {}}),
    ActiveLoop(None),
    FollowupAction("x", timestamp=1),
    Named(1.0),
    Further("a", 1, 2.0, {"a": 1}),
    Written("hi"),
]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_written_as_it_says_itself(event: Event) -> None:
    tracker = DialogueStateTracker("alice")
    tracker.update(event)
    (row,) = encode_batch(tracker).rows
    assert json.loads(row.data) == event.as_dict()
    assert list(json.loads(row.data)) == list(event.as_dict())
    assert row == encode_row(event, row.event_id)


def at_attribute(event: SlotSet, value: object) -> None:
    event.value = value


def at_metadata(event: SlotSet, value: object) -> None:
    event.metadata = {"a": [value]}


def at_timestamp(event: SlotSet, value: object) -> None:
    event.timestamp = value  # type: ignore[assignment]


def at_extra(event: SlotSet, value: object) -> None:
    event.note = value  # type: ignore[attr-defined]


@pytest.mark.parametrize("put", [at_attribute, at_metadata, at_timestamp, at_extra])
@pytest.mark.parametrize("value", [{1}, datetime(2020, 1, 1, tzinfo=UTC), b"x"])
def test_what_json_cannot_hold_is_found_wherever_it_is(
    put: Callable[[SlotSet, object], None], value: object
) -> None:
    tracker = DialogueStateTracker("alice")
    event = SlotSet("a", 1)
    put(event, value)
    tracker.update(event)
    with pytest.raises(errors.EventSerialisationError, match="cannot be written"):
        encode_batch(tracker)
