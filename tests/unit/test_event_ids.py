"""An id that an event carries is used only if every database and broker can take it."""

from __future__ import annotations

import pytest

from tracker_store_async import InMemoryTrackerStore
from tracker_store_async.events import UserUttered


@pytest.mark.parametrize("event_id", ["a\0b", "\ud800", "a\nb", "i" * 256])
async def test_an_unusable_id_is_replaced_and_kept_as_a_field(event_id: str) -> None:
    store = InMemoryTrackerStore()
    tracker = await store.get_or_create_tracker("x")
    event = UserUttered("hi")
    event.event_id = event_id
    tracker.update(event)
    await store.save(tracker)
    stored_id, _ = store._conversations["x"].rows[1]
    assert stored_id not in (None, event_id)
    found = await store.retrieve("x")
    assert found is not None
    assert found.events[1].as_dict()["event_id"] == event_id


@pytest.mark.parametrize("event_id", ["e", "Zo\u00eb \N{WINKING FACE} '%", "i" * 255])
async def test_any_other_id_is_the_one_that_is_stored(event_id: str) -> None:
    store = InMemoryTrackerStore()
    tracker = await store.get_or_create_tracker("x")
    event = UserUttered("hi")
    event.event_id = event_id
    tracker.update(event)
    await store.save(tracker)
    assert store._conversations["x"].rows[1][0] == event_id
