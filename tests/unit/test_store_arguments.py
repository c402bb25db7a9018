"""What the shared bodies refuse, and what they must not publish."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tracker_store_async import InMemoryTrackerStore, errors
from tracker_store_async.broker import EventBroker
from tracker_store_async.events import SessionStarted, UserUttered

if TYPE_CHECKING:
    from tracker_store_async.broker import EventMessage


class Recorder(EventBroker):
    """Keeps what is published."""

    def __init__(self) -> None:
        self.messages: list[EventMessage] = []

    async def publish(self, message: EventMessage) -> None:
        self.messages.append(message)


@pytest.mark.parametrize("append_action_listen", [True, False])
async def test_creating_what_exists_publishes_and_changes_nothing(
    append_action_listen: bool,
) -> None:
    broker = Recorder()
    store = InMemoryTrackerStore(event_broker=broker)
    first = await store.create_tracker("x")
    again = await store.create_tracker("x", append_action_listen)
    assert again == first
    assert again.version == 1
    assert len(broker.messages) == 1
    assert store.conflict_count == 0


@pytest.mark.parametrize("position", [1.5, "1", True])
async def test_a_conversation_is_cut_at_an_int(position: Any) -> None:
    store = InMemoryTrackerStore()
    tracker = await store.get_or_create_tracker("x")
    tracker.update_with_events([UserUttered("a"), SessionStarted()])
    await store.save(tracker)
    with pytest.raises(errors.InvalidInputError, match="must be an int"):
        await store.delete("x", position)


@pytest.mark.parametrize("options", [{"page_size": "5"}, {"page_size": 1.5}])
async def test_a_page_size_is_an_int(options: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidInputError, match="page_size must be"):
        [each async for each in InMemoryTrackerStore().conversations(**options)]


async def test_a_cursor_is_text() -> None:
    listing: Any = InMemoryTrackerStore().conversations
    with pytest.raises(errors.InvalidInputError, match="cursor must be"):
        [each async for each in listing(cursor=5)]
