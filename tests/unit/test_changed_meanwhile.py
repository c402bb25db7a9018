"""What a caller changes while a save is under way, or between two attempts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import (
    SENDER,
    LostAcknowledgement,
    action,
    add,
    bot,
    has,
    slot,
    stored_dicts,
    user,
)
from tracker_store_async import InMemoryTrackerStore, errors
from tracker_store_async.events import ActionReverted, event_from_dict
from tracker_store_async.rows import Read
from tracker_store_async.tracker import DialogueStateTracker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def store() -> AsyncIterator[InMemoryTrackerStore]:
    async with InMemoryTrackerStore() as store:
        yield store


class Held:
    """Holds the next append up until it is let go."""

    def __init__(self, store: InMemoryTrackerStore) -> None:
        self.begun, self.goes_on = asyncio.Event(), asyncio.Event()
        self._store, self._append = store, store._append
        store._append = self  # type: ignore[method-assign]

    async def __call__(self, request: Any) -> bool:
        self._store._append = self._append  # type: ignore[method-assign]
        self.begun.set()
        await self.goes_on.wait()
        return await self._append(request)


async def stored_user(store: InMemoryTrackerStore) -> str | None:
    found = await store._read(Read(SENDER, store._now(), start=None, last=0))
    assert found is not None
    return found.user_id


async def cart(store: InMemoryTrackerStore) -> tuple[Any, Any]:
    """Return the slot as it is loaded, and as the stored events give it."""
    again = DialogueStateTracker(SENDER, None)
    again.load_events([event_from_dict(e) for e in await stored_dicts(store)])
    return (await has(store)).get_slot("cart"), again.get_slot("cart")


async def test_a_user_who_is_named_during_a_save_is_stored_by_the_next(
    store: InMemoryTrackerStore,
) -> None:
    tracker = await store.create_tracker(SENDER)
    tracker.update(user())
    held = Held(store)
    saving = asyncio.create_task(store.save(tracker))
    await held.begun.wait()
    tracker.user_id = "bob"
    held.goes_on.set()
    await saving
    await store.save(tracker)
    assert await stored_user(store) == "bob"


async def test_a_user_who_is_named_after_a_lost_answer_is_stored(
    store: InMemoryTrackerStore,
) -> None:
    tracker = await store.create_tracker(SENDER)
    tracker.update(user())
    LostAcknowledgement(store)
    with pytest.raises(errors.StoreUnavailableError):
        await store.save(tracker)
    tracker.user_id = "bob"
    await store.save(tracker)
    await store.save(tracker)
    assert await stored_user(store) == "bob"


async def test_a_user_who_was_replaced_is_not_written_back_after_a_lost_answer(
    store: InMemoryTrackerStore,
) -> None:
    tracker = await store.create_tracker(SENDER)
    tracker.user_id = "alice"
    tracker.update(user())
    await store.save(tracker)
    tracker.update(bot())

    async def renamed() -> None:
        other = await has(store)
        other.user_id = "bob"
        await store.save(other)

    LostAcknowledgement(store, landed=renamed)
    with pytest.raises(errors.StoreUnavailableError):
        await store.save(tracker)
    await store.save(tracker)
    await store.save(tracker)
    assert await stored_user(store) == "bob"


async def test_a_value_that_is_changed_during_its_save_is_stored_as_it_was(
    store: InMemoryTrackerStore,
) -> None:
    tracker, value = await store.create_tracker(SENDER), ["x"]
    tracker.update(slot("cart", value))
    held = Held(store)
    saving = asyncio.create_task(store.save(tracker))
    await held.begun.wait()
    value.append("y")
    held.goes_on.set()
    await saving
    tracker.update(bot())
    await store.save(tracker)
    assert await cart(store) == (["x"], ["x"])


async def test_a_value_of_the_next_save_is_stored_as_it_is_then(
    store: InMemoryTrackerStore,
) -> None:
    tracker, value = await store.create_tracker(SENDER), ["x"]
    tracker.update(user())
    held = Held(store)
    saving = asyncio.create_task(store.save(tracker))
    await held.begun.wait()
    tracker.update(slot("cart", value))
    held.goes_on.set()
    await saving
    value.append("y")
    await store.save(tracker)
    assert await cart(store) == (["x", "y"], ["x", "y"])


async def test_a_value_that_is_changed_later_does_not_come_back_with_a_revert(
    store: InMemoryTrackerStore,
) -> None:
    tracker, value = await store.create_tracker(SENDER), ["x"]
    tracker.update(slot("cart", value))
    await store.save(tracker)
    value.append("y")
    tracker.update(action("x"))
    tracker.update(ActionReverted())
    await store.save(tracker)
    assert await cart(store) == (["x"], ["x"])


@pytest.mark.parametrize("has_more", [False, True])
async def test_a_value_that_is_changed_after_a_lost_answer_is_what_was_stored(
    store: InMemoryTrackerStore, has_more: bool
) -> None:
    tracker, value = await store.create_tracker(SENDER), ["x"]
    tracker.update(slot("cart", value))
    LostAcknowledgement(store)
    with pytest.raises(errors.StoreUnavailableError):
        await store.save(tracker)
    value.append("y")
    if has_more:
        tracker.update(bot())
    await store.save(tracker)
    tracker.update(user())
    await store.save(tracker)
    assert await cart(store) == (["x"], ["x"])
    assert tracker.get_slot("cart") == ["x"]


@pytest.mark.parametrize("max_event_history", [None, 1])
async def test_a_rebase_leaves_what_a_message_decides(
    max_event_history: int | None,
) -> None:
    async with InMemoryTrackerStore(max_event_history=max_event_history) as store:
        tracker = await store.create_tracker(SENDER)
        await add(store, SENDER, bot())
        tracker.update(user("hello"))
        assert tracker.latest_message is not None
        assert tracker.latest_message.use_text_for_featurization is True
        await store.save(tracker)
        for each in (tracker, await has(store)):
            assert each.latest_message is not None
            assert each.latest_message.use_text_for_featurization is True
