"""What is published is the text that is stored, encoded once."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import golden
from tests.conformance.kit import SENDER, FailingBroker, turn
from tests.histories import events_of
from tracker_store_async import InMemoryTrackerStore
from tracker_store_async.broker import EventMessage
from tracker_store_async.brokers.envelope import encode_body, headers_of
from tracker_store_async.events import (
    ActionExecuted,
    Event,
    SlotSet,
    UserUttered,
    event_from_dict,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
FIELDS = st.dictionaries(
    st.text() | st.sampled_from(["sender_id", "user_id", "name", "timestamp"]), VALUES
)


async def published(
    events: list[Event], sender_id: str = SENDER, user_id: str | None = None
) -> tuple[list[EventMessage], list[str]]:
    """Return the messages of events, and what is stored of them."""
    broker = FailingBroker()
    store = InMemoryTrackerStore(event_broker=broker)
    tracker = store.init_tracker(sender_id)
    tracker.user_id = user_id
    for event in events:
        tracker.update(event)
    await store.save(tracker)
    rows = store._conversations[sender_id].rows if events else []
    return broker.messages, [str(data) for _, data in rows]


def body_of(event: Event, sender_id: str, user_id: str | None) -> str:
    """Return Rasa's message."""
    body = {"sender_id": sender_id, **event.as_dict()}
    if user_id is not None:
        body.setdefault("user_id", user_id)
    return json.dumps(body)


def check(messages: list[EventMessage], expected: list[str]) -> None:
    for message, text in zip(messages, expected, strict=True):
        encoded = encode_body(message)
        assert encoded.isascii()
        found: Any = json.loads(encoded, object_pairs_hook=list)
        assert repr(found) == repr(json.loads(text, object_pairs_hook=list))
        assert json.dumps(message.body) == json.dumps(json.loads(text))
        assert message.type_name == str(json.loads(text).get("event"))
        assert headers_of(message)["type"] == message.type_name


@settings(max_examples=60)
@given(
    st.lists(FIELDS, max_size=4),
    st.sampled_from(["alice", "żółć 🙂", '"\\']),
    st.sampled_from([None, "user-7", "ü"]),
)
def test_any_event_is_rasas_message(
    rows: list[dict[str, Any]], sender_id: str, user_id: str | None
) -> None:
    events: list[Event] = [event_from_dict({"event": "own", **each}) for each in rows]
    events += [SlotSet("x", value) for each in rows for value in each.values()]
    expected = [body_of(each, sender_id, user_id) for each in events]
    messages, _ = asyncio.run(published(events, sender_id, user_id))
    check(messages, expected)


async def test_golden_messages() -> None:
    for conversation in golden.conversations():
        for rows in conversation["turns"]:
            expected = [body_of(each, SENDER, None) for each in events_of(rows)]
            messages, _ = await published(events_of(rows))
            check(messages, expected)


@pytest.mark.parametrize("text", ["hello", "żółć 🙂 \0 '\"\\ \ud83d", ""])
async def test_the_text_is_the_one_that_is_stored(text: str) -> None:
    event = UserUttered(text, metadata={"n": [math.inf, -0.0, 1e300, 2**70, text]})
    (message,), (stored,) = await published([event], user_id="ü")
    encoded = encode_body(message).decode()
    begin, end = '{"sender_id":"alice",', ',"user_id":"\\u00fc"}'
    assert encoded.startswith(begin)
    assert encoded.endswith(end)
    rest = "{" + encoded[len(begin) : -len(end)] + "}"
    assert json.loads(rest) == json.loads(stored)
    if stored.isascii():
        assert rest == stored


async def test_an_event_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def shared_dict(self: Event) -> dict[str, Any]:
        nonlocal count
        count += 1
        return original(self)

    original = Event.shared_dict
    monkeypatch.setattr(Event, "shared_dict", shared_dict)
    tracker = (store := InMemoryTrackerStore()).init_tracker(SENDER)
    tracker.update_with_events([SlotSet("x", n) for n in range(5)])
    await store.save(tracker)
    alone, count = count, 0
    messages, _ = await published([SlotSet("x", n) for n in range(5)])
    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", None)
    bodies = [encode_body(message) for message in messages]
    names = [headers_of(message)["type"] for message in messages]
    monkeypatch.setattr(json, "dumps", dumps)
    assert count == alone
    assert [json.loads(body)["value"] for body in bodies] == [0, 1, 2, 3, 4]
    assert names == ["slot"] * 5


async def test_what_is_changed_later_is_not_published() -> None:
    broker = FailingBroker()
    broker.is_down = True
    store = InMemoryTrackerStore(event_broker=broker, on_publish_error="best_effort")
    tracker = store.init_tracker(SENDER)
    tracker.update(event := UserUttered("before"))
    await store.save(tracker)
    event.text = "after"
    broker.is_down = False
    await store.close()
    assert [json.loads(encode_body(each))["text"] for each in broker.messages] == [
        "before"
    ]


async def test_it_is_a_message_like_any_other() -> None:
    messages, _ = await published(turn())
    for message in messages:
        plain = EventMessage(
            message.message_id, message.sender_id, message.position, message.body
        )
        assert repr(message).replace("Encoded", "Event") == repr(plain)
        for other in (copy.copy(message), pickle.loads(pickle.dumps(message))):
            assert other.body == message.body
            assert json.loads(encode_body(other)) == message.body
            assert other.message_id == message.message_id
        with pytest.raises(AttributeError):
            message.position = 7  # type: ignore[misc]


async def test_an_event_of_another_kind() -> None:
    class Own(ActionExecuted):
        def as_dict(self) -> dict[str, Any]:
            return {"event": "own", "user_id": "its own", "sender_id": "its own"}

    (message, other), _ = await published(
        [Own("x"), event_from_dict({"event": "own"})], user_id="u"
    )
    assert message.body == {
        "sender_id": "its own",
        "event": "own",
        "user_id": "its own",
    }
    assert json.loads(encode_body(message)) == message.body
    assert other.body["user_id"] == "u"
