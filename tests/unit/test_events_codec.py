"""Events to text and back: exact, whatever they hold, and fast."""

from __future__ import annotations

import json
import math
import sys
from collections import OrderedDict
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracker_store_async import errors
from tracker_store_async.events import (
    ActiveLoop,
    BotUttered,
    Event,
    LoopInterrupted,
    SlotSet,
    UnknownEvent,
    UserUttered,
    decode_event,
    encode_event,
    encode_json,
    event_from_dict,
)
from tracker_store_async.events.base import EVENT_CLASSES

any_text = st.text(st.characters(codec=None), max_size=20)
lone = any_text.filter(lambda text: text == json.loads(json.dumps(text)))
"""Any text but halves of a surrogate pair side by side: JSON has one text for both."""

atoms = st.none() | st.booleans() | st.integers() | st.floats() | lone
values = st.recursive(
    atoms, lambda inner: st.lists(inner) | st.dictionaries(lone, inner), max_leaves=20
)
FIELDS = [
    *("timestamp", "metadata", "name", "value", "text", "data", "parse_data", "key"),
    *("entities", "intent", "policy", "confidence", "action_text", "hide_rule_turn"),
    *("message_id", "input_channel", "is_interrupted", "path", "kill_on_user_msg"),
    *("use_text_for_featurization", "action_name"),
]
rows = st.dictionaries(lone | st.sampled_from(FIELDS), values)
types = st.sampled_from([*EVENT_CLASSES, "flow_started", "topic"])


def exact(value: Any) -> str:
    """Return text that tells 1 from 1.0, -0.0 from 0.0, and knows NaN from itself."""
    return repr(value)


@given(values, st.floats() | st.integers())
@example("\ud800", 1)
@example({"\udfff": "\0"}, 1.0)
@example([2**64, -(2**200), 1e22, 1e16, 5e-324, -0.0, math.inf, -math.inf, math.nan], 5)
def test_what_is_stored_comes_back_exactly(value: Any, timestamp: float):
    event = SlotSet("key", value, timestamp, {"value": value})
    text = encode_event(event)
    assert "\0" not in text
    for data in (text, text.encode("utf-8")):
        again = decode_event(data)
        assert exact(again.as_dict()) == exact(event.as_dict())
    assert exact(event_from_dict(event.as_dict()).as_dict()) == exact(event.as_dict())
    assert exact(json.loads(text)) == exact(event.as_dict())


def follows_rasas_rule(type_name: str, name: str, value: Any) -> bool:
    """Whether Rasa's rules for what is missing decide about the field."""
    if value is None:
        return True
    of_type = ["timestamp", "metadata", *(["data"] if type_name == "bot" else [])]
    return not value and name in of_type


@given(types, rows)
@example("user", {"parse_data": {"intent": {}, "more": 1}, "intent": 5, "entities": 6})
@example("slot", {"name": "a", "key": "b", "value": 1.0, "event_id": "c"})
@example("bot", {"data": {"a": 1}, "metadata": {"b": 2}, "text": "\ud800"})
@example("cancel_reminder", {"name": "a", "intent": "b", "entities": []})
@example("export", {"path": 5})
def test_no_row_loses_a_field(type_name: str, fields: dict[str, Any]):
    row = {"event": type_name, **fields}
    event = decode_event(json.dumps(row))
    written = event.as_dict()
    if isinstance(event, UnknownEvent):
        assert exact(written) == exact(row)
    for name, value in fields.items():
        if not follows_rasas_rule(type_name, name, value):
            kept = written[name]
            if isinstance(event, UserUttered) and name == "parse_data":
                kept = {key: kept[key] for key in value}
            assert exact(kept) == exact(value)
    again = decode_event(encode_event(event))
    assert type(again) is type(event)
    assert exact(again.as_dict()) == exact(written)


@given(values)
def test_any_object_is_an_event(value: Any):
    text = json.dumps(value)
    if isinstance(value, dict):
        event = decode_event(text)
        assert exact(event.as_dict()) == exact(event_from_dict(value).as_dict())
    else:
        with pytest.raises(ValueError):
            decode_event(text)


@pytest.mark.parametrize(
    "data",
    ["", "x", "[]", "null", "1", '"a"', "{", '{"a":1}{', b"\xff", "[" * 10**5, b"[]"],
    ids=lambda data: repr(data[:10]),
)
def test_what_is_no_json_object_is_refused(data: str | bytes):
    with pytest.raises(ValueError):
        decode_event(data)


ODD_ROWS: list[dict[str, Any]] = [
    {},
    {"event": None},
    {"event": 5, "timestamp": "then"},
    {"event": ["slot"]},
    {"event": {"a": 1}},
    {"event": "slot", "name": [5], "value": 1},
    {"event": "slot", "name": "a", "metadata": "text"},
    {"event": "slot", "name": "a", "metadata": [1]},
    {"event": "action"},
    {"event": "action", "name": ["a"]},
    {"event": "followup", "name": {"a": 1}},
    {"event": "active_loop", "name": []},
    {"event": "user", "text": "hi"},
    {"event": "user", "text": "hi", "parse_data": None},
    {"event": "user", "text": "hi", "parse_data": {"intent": "greet"}},
    {"event": "user", "text": "hi", "parse_data": {"entities": "none"}},
    {"event": "bot", "text": "hi", "data": "none"},
    {"event": "bot", "text": "hi", "data": [1]},
    {"event": "entities", "entities": {"a": 1}},
    {"event": "reminder", "intent": "a"},
    {"event": "reminder", "date_time": "tomorrow"},
    {"event": "reminder", "date_time": 5},
    {"event": "form_validation", "validate": "yes"},
    {"event": "form_validation", "validate": True, "is_interrupted": True},
    {"event": "restart", "metadata": 5},
]


@pytest.mark.parametrize("row", ODD_ROWS, ids=str)
def test_a_row_that_no_class_fits_is_kept_as_it_is(row: dict[str, Any]):
    for event in (decode_event(json.dumps(row)), event_from_dict(row)):
        assert type(event) is UnknownEvent
        assert list(event.as_dict().items()) == list(row.items())
        assert json.loads(encode_event(event)) == row
        assert event == event_from_dict(row)
        assert hash(event) == hash(event_from_dict(row))


@pytest.mark.parametrize(
    "row",
    [
        {"event": "slot", "timestamp": "then", "name": "a", "value": 1},
        {"event": "slot", "timestamp": True, "name": "a", "value": 1},
        {"event": "slot", "timestamp": 1, "name": 5, "value": 1},
        {"event": "followup", "timestamp": 1, "name": None},
        {"event": "slot", "timestamp": [1], "name": None, "value": 1},
        {"event": "bot", "timestamp": 1, "text": 5, "data": {}, "metadata": {}},
        {"event": "agent", "timestamp": 1, "text": [], "data": 1},
        {"event": "session_started", "timestamp": {"a": 1}},
        {"event": "session_started", "timestamp": 1, "metadata": "odd"},
        {"event": "session_started", "timestamp": 1, "metadata": [1]},
        {
            "event": "user",
            "timestamp": 1,
            "text": 5,
            "parse_data": {
                "intent": None,
                "entities": [5, "a"],
                "text": None,
                "message_id": None,
                "metadata": None,
            },
            "input_channel": [],
            "message_id": {},
            "metadata": {},
        },
    ],
    ids=lambda row: row["event"],
)
def test_a_row_with_odd_values_keeps_its_class_and_its_values(row: dict[str, Any]):
    event = decode_event(json.dumps(row))
    assert type(event) is EVENT_CLASSES[row["event"]]
    assert exact(event.as_dict()) == exact(row)
    assert str(event)
    assert event == event_from_dict(row)
    assert hash(event) == hash(event_from_dict(row))


OURS = [
    name
    for name, cls in EVENT_CLASSES.items()
    if cls.__module__.startswith("tracker_store_async.events.")
]


@pytest.mark.parametrize("nothing", [None, [], "", 0, False], ids=repr)
@pytest.mark.parametrize("type_name", OURS)
def test_metadata_that_is_nothing_is_empty(type_name: str, nothing: Any):
    """`metadata or {}`, as in Rasa's `Event.__init__`: other languages send `[]`."""
    fields = {"event": type_name, "metadata": nothing}
    if type_name == "user":
        fields["parse_data"] = {}
    elif type_name == "action":
        fields["name"] = "a"
    elif type_name == "reminder":
        fields["date_time"] = "2024-03-04T12:00:00"
    for event in (decode_event(json.dumps(fields)), event_from_dict(fields)):
        assert type(event) in (EVENT_CLASSES[type_name], ActiveLoop, LoopInterrupted)
        assert event.metadata == {}
        if isinstance(event, UserUttered):
            assert event.parse_data["metadata"] == {}


@pytest.mark.parametrize("nothing", [None, [], "", 0, False], ids=repr)
def test_data_of_the_bot_that_is_nothing_is_empty(nothing: Any):
    """`data or {}`, as in Rasa's `BotUttered.__init__`."""
    event = event_from_dict({"event": "bot", "text": "hi", "data": nothing})
    assert isinstance(event, BotUttered)
    assert event.as_dict()["data"] == {}


def test_the_order_of_keys_does_not_matter():
    row = UserUttered("hi", {"name": "greet"}, timestamp=5.0).as_dict()
    row["parse_data"] = dict(reversed(row["parse_data"].items()))
    event = decode_event(json.dumps(dict(reversed(row.items()))))
    expected = UserUttered("hi", {"name": "greet"}, timestamp=5.0)
    assert json.dumps(event.as_dict()) == json.dumps(expected.as_dict())


def test_nan_and_infinities_are_written_as_python_writes_them():
    event = SlotSet("a", [math.nan, math.inf, -math.inf], 1)
    assert '"value":[NaN,Infinity,-Infinity]' in encode_event(event)
    event.value.append("\ud800")
    assert '"value":[NaN,Infinity,-Infinity,"\\ud800"]' in encode_event(event)


def test_text_is_escaped_only_where_it_must_be():
    assert "é😀" in encode_event(BotUttered("é😀"))
    assert '"\\u0000"' in encode_event(BotUttered("\0"))
    assert '"\\ud800\\u00e9"' in encode_event(BotUttered("\ud800é"))


class Named(StrEnum):
    """Text that is not just text."""

    A = "a"


def test_what_pythons_json_converts_is_converted():
    value = {1: (1, 2), None: OrderedDict(a=Named.A), 1.5: True}
    event = decode_event(encode_event(SlotSet("a", value)))
    assert isinstance(event, SlotSet)
    assert event.value == {"1": [1, 2], "null": {"a": "a"}, "1.5": True}


class Secret:
    def __repr__(self) -> str:
        return "secret"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (datetime(2024, 1, 1, tzinfo=UTC), "data.x: a value of type datetime"),
        ({"secret"}, "data.x: a value of type set"),
        (b"secret", "data.x: a value of type bytes"),
        (Decimal("1.5"), "data.x: a value of type Decimal"),
        (uuid4(), "data.x: a value of type UUID"),
        (Secret(), "data.x: a value of type Secret"),
        ([1, {"b": [2, Secret()]}], "data.x[1].b[1]: a value of type Secret"),
        ({"b": {("secret",): 1}}, "data.x.b: a key of type tuple"),
        ([10**4300], "data.x[0]: an integer of more than 4300 digits"),
        ([-(10**4300)], "data.x[0]: an integer of more than 4300 digits"),
    ],
    ids=lambda case: type(case).__name__,
)
def test_what_json_cannot_hold_is_named_but_not_shown(value: Any, told: str):
    event = BotUttered("secret", {"y": 1, "x": value}, {"z": "secret"})
    with pytest.raises(errors.EventSerialisationError) as raised:
        encode_event(event)
    assert told in str(raised.value)
    assert "'bot'" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_the_error_names_what_was_to_be_encoded():
    expected = r"^the state cannot be written as JSON: x\[1\]: a value of type set;"
    with pytest.raises(errors.EventSerialisationError, match=expected):
        encode_json({"x": [1, {"secret"}]}, "the state")


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def test_nesting_is_bounded_by_what_can_be_read_again():
    event = decode_event(encode_event(SlotSet("a", nested(490))))
    assert exact(event.as_dict()["value"]) == exact(nested(490))
    with pytest.raises(errors.EventSerialisationError, match="500 levels"):
        encode_event(SlotSet("a", nested(500)))
    with pytest.raises(errors.EventSerialisationError, match="nested"):
        encode_event(SlotSet("a", nested(sys.getrecursionlimit())))
    itself: list[Any] = [1]
    itself.append(itself)
    with pytest.raises(errors.EventSerialisationError, match="contains itself"):
        encode_event(SlotSet("a", itself))
    shared = [1]
    assert encode_json([shared, shared], "x") == "[[1],[1]]"


def test_long_digits_are_fine_in_text():
    digits = "1" * 5000
    event = decode_event(encode_event(BotUttered(digits)))
    assert event.as_dict()["text"] == digits
    event = decode_event(encode_event(SlotSet("a", 10**4300 - 1)))
    assert event.as_dict()["value"] == 10**4300 - 1


def test_decoding_calls_no_constructor(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a constructor was called")

    texts = [json.dumps({"event": "slot", "name": "a", "value": 1, "timestamp": 1})]
    texts += [encode_event(UserUttered("hi")), encode_event(BotUttered("hi"))]
    texts += ['{"event":"action","name":"a"}', '{"event":"restart"}']
    for event_class in (Event, *EVENT_CLASSES.values()):
        monkeypatch.setattr(event_class, "__init__", refuse)
    for text in texts:
        assert decode_event(text).as_dict()["event"] == json.loads(text)["event"]


def test_decoding_a_common_row_never_needs_the_careful_way(
    monkeypatch: pytest.MonkeyPatch,
):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the fast way did not do")

    user = UserUttered("hi é", {"name": "a"}, [{"entity": "e"}], metadata={"m": [1]})
    events = [user, BotUttered("hi"), SlotSet("a", {"b": 1.5}), UnknownEvent({"a": 1})]
    monkeypatch.setattr("tracker_store_async.events.codec._decode_with_care", refuse)
    monkeypatch.setattr("tracker_store_async.events.codec.encode_with_care", refuse)
    for event in events:
        assert decode_event(encode_event(event)) == event


def test_a_class_that_overrides_as_dict_is_stored_as_it_says():
    class Starred(SlotSet):
        """A slot that says more of itself."""

        def as_dict(self) -> dict[str, Any]:
            return {**super().as_dict(), "stars": 5}

    assert json.loads(encode_event(Starred("a", 1)))["stars"] == 5


@pytest.mark.parametrize("text", ["\ud83d\ude00", "\ud83d\ude00 and \ud83d", "\ud83d"])
def test_what_is_read_back_is_written_alike(text: str) -> None:
    once = encode_event(UserUttered(text))
    assert encode_event(decode_event(once)) == once
