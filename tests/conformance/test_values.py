"""Whatever an event holds survives, exactly; what JSON cannot hold is refused whole."""

from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import (
    SENDER,
    FailingBroker,
    Spy,
    add,
    dicts,
    has,
    held,
    replayed,
    said,
    slot,
    state,
    stored,
    turn,
    user,
    version,
)
from tracker_store_async import errors
from tracker_store_async.events import UnknownEvent, event_from_dict
from tracker_store_async.rows import Append, NewRow

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = {"a": [value]}
    return value


VALUES: dict[str, Any] = {
    "lone surrogate": "a\ud800b",
    "surrogates the wrong way round": "\udc00\ud800",
    "NUL": "a\0b",
    "escaped NUL": "a\\u0000b",
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "more than 64 bits": 2**64 + 1,
    "far more than 64 bits": -(10**400),
    "one": 1,
    "one point zero": 1.0,
    "minus zero": -0.0,
    "true": True,
    "a float with 17 digits": 0.1 + 0.2,
    "the smallest float": 5e-324,
    "the largest float": 1.7976931348623157e308,
    "null": None,
    "empty text": "",
    "empty object": {},
    "empty list": [],
    "text with control characters": "".join(map(chr, range(1, 32))) + "\x7f\x85\u2028",
    "text with quotes": "'\"`\\;--/**/%_",
    "emoji": "👩‍👩‍👧 😀 e\u0301 \U0010ffff",
    "keys": {"": 1, "a.b": 2, "$set": 3, "\0": 4, "é": 5, "\ud800": 6, "event": 7},
    "order of keys": {"z": 1, "a": 2, "m": 3},
    "100 levels": deep(50),
    "mixed list": [1, 1.0, True, None, "1", [1], {"1": 1}],
}


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON, types and order of keys included."""
    return json.dumps(one) == json.dumps(other)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_a_value_survives(store: TrackerStore, value: Any) -> None:
    message = user("hi", intent={"name": "x", "value": value})
    message.metadata = {"value": value}
    events = [slot("s", value), message]
    expected = dicts(events)
    await add(store, SENDER, *events)
    found = await has(store)
    assert same(held(found), expected)
    assert same(found.get_slot("s"), value)
    full = await store.retrieve_full_tracker(SENDER)
    assert same(held(full), expected)
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert same(window.get_slot("s"), value)
    assert same(state(window), state(replayed(events)))


TEXTS = ("lone surrogate", "NUL", "text with control characters", "emoji", "empty text")


@pytest.mark.parametrize("name", TEXTS)
async def test_text_survives_wherever_it_stands(store: TrackerStore, name: str) -> None:
    text = VALUES[name]
    events = [
        user(text, intent={"name": text}, input_channel=text, message_id=text),
        slot(text or "x", text),
        event_from_dict({"event": "action", "name": text, "timestamp": 5.0}),
        event_from_dict({"event": text or "x", "name": text, text: text}),
    ]
    expected = dicts(events)
    await add(store, SENDER, *events)
    assert same(held(await has(store)), expected)


async def test_a_megabyte_of_text_survives(store: TrackerStore) -> None:
    text = "0123456789 é😀 " * 80_000
    await add(store, SENDER, user(text), slot("s", text))
    found = await has(store)
    assert found.latest_message is not None
    assert found.latest_message.text == text
    assert found.get_slot("s") == text
    assert said(found) == [text]  # the event, which the state is not
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert window.get_slot("s") == text


ROWS: dict[str, dict[str, Any]] = {
    "an unknown type": {"event": "flow_started", "timestamp": 3.5, "flow_id": "x"},
    "an unknown type without a timestamp": {"event": "routing_session_ended"},
    "unknown fields": {
        "event": "slot",
        "timestamp": 1.0,
        "name": "s",
        "value": 1,
        "filled_by": {"x": [1, 1.0]},
    },
    "a type with another shape": {"event": "user", "timestamp": 1, "parse_data": 7},
    "no type": {"timestamp": 1.0, "what": "ever"},
    "a type that is no text": {"event": 5, "timestamp": 1.0},
    "nothing": {},
    "an odd timestamp": {"event": "slot", "name": "s", "timestamp": "yesterday"},
    "a huge timestamp": {"event": "x", "timestamp": 10**400},
    "an endless timestamp": {"event": "x", "timestamp": math.inf},
    "the topic of old versions": {"event": "topic", "topic": "x", "timestamp": 2.0},
    "a very long type": {"event": "x" * 1000, "timestamp": 1.0},
    "very long names": {
        "event": "action",
        "name": "x" * 1000,
        "timestamp": 1.0,
        "policy": None,
        "confidence": None,
        "action_text": None,
        "hide_rule_turn": False,
    },
    "null everywhere": {"event": "user", "timestamp": None, "text": None},
    "parse data of another shape": {
        "event": "user",
        "timestamp": 1.0,
        "parse_data": {"intent": {"name": {"a": 1}}, "entities": [1, "x"]},
    },
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_a_row_of_any_shape_loads_and_goes_on(
    store: TrackerStore, row: dict[str, Any]
) -> None:
    await store.open()
    data = json.dumps(row)
    append = Append(
        SENDER, 0, [NewRow("id", data, "x", None, None, None)], 0, "{}", store._now()
    )
    assert await store._append(append)
    tracker = await has(store)
    assert len(tracker.events) == 1
    tracker.update(user("more"))
    await store.save(tracker)
    assert (await stored(store))[0] == ("id", data)
    assert len((await has(store)).events) == 2


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_an_event_of_any_shape_is_stored_as_it_is(
    store: TrackerStore, row: dict[str, Any]
) -> None:
    event = event_from_dict(row)
    expected = event.as_dict()
    await add(store, SENDER, event, *turn())
    [(_, data), *_] = await stored(store)
    assert same(json.loads(data), expected)
    assert await version(store) == 5


async def test_an_unknown_event_keeps_its_fields(store: TrackerStore) -> None:
    fields = {"event": "flow_started", "timestamp": 3.5, "flow_id": "x", "more": {}}
    await add(store, SENDER, event_from_dict(fields))
    [event] = (await has(store)).events
    assert isinstance(event, UnknownEvent)
    assert event.as_dict() == fields


async def test_text_that_is_not_json_says_where_it_stands(store: TrackerStore) -> None:
    await store.open()
    rows = [
        NewRow("a", '{"event": "x"}', "x", None, None, None),
        NewRow("b", "not json: secret", "x", None, None, None),
    ]
    assert await store._append(Append(SENDER, 0, rows, 0, "{}", store._now()))
    for load in (store.retrieve, store.retrieve_full_tracker):
        with pytest.raises(errors.CorruptEventError) as raised:
            await load(SENDER)
        assert raised.value.position == 1
        assert raised.value.sender_id == SENDER
        assert "secret" not in str(raised.value)
    assert await store.delete(SENDER)


class Unknowable:
    def __repr__(self) -> str:
        return "secret"


NOT_JSON: dict[str, Any] = {
    "datetime": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    "set": {1, 2},
    "bytes": b"x",
    "object": Unknowable(),
    "Decimal": Decimal("1.5"),
    "a key that is no text": {("a", 1): 2},
    "deep inside": {"a": [{"b": {1, 2}}]},
}


def cycle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


NOT_JSON["a list that holds itself"] = cycle()
NOT_JSON["a hundred thousand levels"] = deep(50_000)


@pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON)
async def test_what_json_cannot_hold_is_refused_whole(
    storage: Storage, value: Any
) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker)
    await add(store, SENDER, user("first"))
    before, published = await stored(store), list(broker.messages)
    tracker = await has(store)
    tracker.update(user("fine"))
    tracker.update(slot("s"))
    tracker.events[-1].value = value  # type: ignore[attr-defined]
    spy = Spy(store)
    with pytest.raises(errors.EventSerialisationError) as raised:
        await store.save(tracker)
    assert "secret" not in str(raised.value)
    assert "_append" not in spy.calls
    assert broker.messages == published
    assert await stored(store) == before


async def test_after_a_refusal_the_event_can_be_mended(store: TrackerStore) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    event = slot("s", 1)
    event.value = {1, 2}
    tracker.update(event)
    with pytest.raises(errors.EventSerialisationError):
        await store.save(tracker)
    event.value = [1, 2]
    tracker.update(slot("s", [1, 2]))
    await store.save(tracker)
    assert (await has(store)).get_slot("s") == [1, 2]
