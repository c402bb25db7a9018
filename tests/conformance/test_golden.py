"""Conversations that the real Rasa stored, stored here: the answers are Rasa's."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from tests import golden
from tests.conformance.kit import FailingBroker, stored_dicts, stored_ids
from tests.unit.test_golden_answers import (
    STORES,
    VERBOSITIES,
    comparable,
    domain,
    our_start,
    rasas_start,
    rasas_state,
    state_of,
)
from tracker_store_async.events import UserUttered, event_from_dict

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import DialogueStateTracker, TrackerStore
    from tracker_store_async.events import Event

CONVERSATIONS = {each["sender_id"]: each for each in golden.conversations()}
RASAS_LISTEN_TIME = 1699999999.5  # of an `action_listen` that Rasa made itself

each_conversation = pytest.mark.parametrize(
    "conversation", CONVERSATIONS.values(), ids=CONVERSATIONS
)


@cache
def published_by_rasa(sender_id: str) -> tuple[dict[str, Any], ...]:
    messages = golden.load("broker/sqlite")
    return tuple(each for each in messages if each["sender_id"] == sender_id)


def as_rasa_made_it(fields: dict[str, Any]) -> Event:
    """Return an event that was not read from JSON.

    A message that was read shares its entities with its parse data, so that entities
    added later are stored with it; one that the assistant made does not.
    """
    event = event_from_dict(fields)
    if isinstance(event, UserUttered):
        event.entities = list(event.entities)
    return event


async def talk(store: TrackerStore, conversation: dict[str, Any]) -> None:
    """Have a conversation turn by turn, as Rasa had it."""
    inputs = golden.load("inputs")
    for turn in conversation["turns"] or [[]]:
        tracker = await store.get_or_create_tracker(
            conversation["sender_id"],
            append_action_listen=conversation["append_action_listen"],
        )
        tracker.model_id = inputs["model_id"]
        tracker.assistant_id = inputs["assistant_id"]
        for fields in turn:
            tracker.update(as_rasa_made_it(fields), domain())
        await store.save(tracker)


async def read(
    store: TrackerStore, method: str, sender_id: str
) -> DialogueStateTracker:
    tracker: DialogueStateTracker = await getattr(store, method)(sender_id)
    return tracker


@each_conversation
async def test_answers_and_messages_are_rasas(
    storage: Storage, conversation: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = FailingBroker()
    store = storage.store(domain=domain(), event_broker=broker)
    sender_id = conversation["sender_id"]
    await store.open()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: RASAS_LISTEN_TIME)
        await talk(store, conversation)

    expected = published_by_rasa(sender_id)
    assert comparable(broker.bodies, "") == comparable(list(expected), "")
    assert broker.ids == await stored_ids(store, sender_id)
    bodies = [
        {"sender_id": sender_id, **d} for d in await stored_dicts(store, sender_id)
    ]
    assert comparable(bodies, "") == comparable(broker.bodies, "")

    fresh = storage.store(domain=domain())
    for method in ("retrieve", "retrieve_full_tracker"):
        start = our_start(sender_id, method)
        tracker = await read(fresh, method, sender_id)
        alike = [s for s in STORES if rasas_start(s, sender_id, method) == start]
        assert alike
        for rasas_store in alike:
            for verbosity in VERBOSITIES:
                theirs = rasas_state(rasas_store, sender_id, method, verbosity)
                ours = state_of(tracker, verbosity)
                assert comparable(ours, rasas_store) == comparable(theirs, rasas_store)


@each_conversation
@pytest.mark.parametrize("size", [1, 10])
async def test_the_state_of_a_window_is_rasas(
    storage: Storage, conversation: dict[str, Any], size: int
) -> None:
    store = storage.store(domain=domain(), max_event_history=size)
    sender_id = conversation["sender_id"]
    await talk(store, conversation)
    window = await read(store, "retrieve", sender_id)
    exact = await read(storage.store(domain=domain()), "retrieve", sender_id)
    assert comparable(window.current_state(), "") == comparable(
        exact.current_state(), ""
    )
    assert [event.as_dict() for event in window.events] == [
        event.as_dict() for event in exact.events
    ][-size:]
