"""Events against what the real Rasa 3.6.21 read and wrote."""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
import uuid
from typing import Any

import pytest

from tests import golden
from tracker_store_async.events import (
    Event,
    UnknownEvent,
    decode_event,
    encode_event,
    event_from_dict,
)

STORES = ("inmemory", "sqlite", "postgres", "redis", "mongo", "dynamo")
CASES = golden.load("deserialise")
REFUSED = [case["in"] for case in CASES if not case.get("class")]
READ = [case for case in CASES if case.get("class")]


def ordered(fields: dict[str, Any]) -> str:
    """Return text that differs if a value, its type or the order of keys differs."""
    return json.dumps(fields)


@pytest.fixture
def rasas_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make up times and ids as they were made up when the data was written."""
    monkeypatch.setattr(time, "time", lambda: 1000000000.0)
    monkeypatch.setattr(uuid, "uuid1", lambda: uuid.UUID(int=1))


def test_golden_cases_are_all_there():
    assert len(CASES) == 306
    assert len(REFUSED) + len(READ) == 306
    assert len(REFUSED) > 50


@pytest.mark.usefixtures("rasas_clock")
@pytest.mark.parametrize("case", READ, ids=lambda case: case["class"])
def test_what_rasa_reads_is_read_alike(case: dict[str, Any]):
    expected = dict(case["out"])
    if "extra" in case["in"]:
        expected["extra"] = case["in"]["extra"]  # Rasa drops unknown fields, we do not
    for event in (
        decode_event(json.dumps(case["in"])),
        event_from_dict(case["in"]),
        Event.from_parameters(case["in"]),
    ):
        assert event is not None
        assert type(event).__name__ == case["class"]
        assert ordered(event.as_dict()) == ordered(expected)


@pytest.mark.parametrize("fields", REFUSED, ids=lambda fields: str(fields.get("event")))
def test_what_rasa_refuses_is_kept_untouched(fields: dict[str, Any]):
    for event in (decode_event(json.dumps(fields)), event_from_dict(fields)):
        assert type(event) is UnknownEvent
        assert ordered(event.as_dict()) == ordered(fields)
        assert json.loads(encode_event(event)) == fields


def test_from_parameters_is_none_where_it_is_in_rasa():
    nothing = [
        case["in"] for case in CASES if "error" not in case and not case["class"]
    ]
    assert len(nothing) > 50
    assert {fields.get("event") for fields in nothing} == {None, "topic"}
    assert [Event.from_parameters(fields) for fields in nothing] == [None] * len(
        nothing
    )


def given_events() -> list[dict[str, Any]]:
    turns = [conversation["turns"] for conversation in golden.conversations()]
    return list(itertools.chain.from_iterable(itertools.chain.from_iterable(turns)))


def test_every_given_event_keeps_its_json():
    events = given_events()
    assert len(events) > 150
    for fields in events:
        event = decode_event(json.dumps(fields))
        assert type(event) is not UnknownEvent
        assert ordered(event.as_dict()) == ordered(fields)
        again = decode_event(encode_event(event))
        assert type(again) is type(event)
        assert ordered(again.as_dict()) == ordered(fields)


@pytest.mark.parametrize("store", STORES)
def test_every_published_message_is_the_events_json(store: str):
    messages = golden.load(f"broker/{store}")
    assert len(messages) > 150
    for message in messages:
        del message["sender_id"]
        event = event_from_dict(message)
        assert type(event) is not UnknownEvent
        assert ordered(event.as_dict()) == ordered(message)


def test_every_row_of_rasas_database_is_read():
    database = golden.path("sqlite/rasa.db")
    connection = sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)
    rows = connection.execute("SELECT type_name, action_name, data FROM events")
    count = 0
    for type_name, action_name, data in rows:
        event = decode_event(data)
        assert type(event) is not UnknownEvent
        assert event.type_name == json.loads(data)["event"]
        # The column says `form` where the data, and so the event, says `active_loop`.
        if type_name not in ("form", "form_validation"):
            assert event.type_name == type_name
        assert event.stored_name == action_name
        assert ordered(event.as_dict()) == ordered(json.loads(data))
        count += 1
    connection.close()
    assert count > 150
