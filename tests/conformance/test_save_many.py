"""`save_many` saves each tracker all or nothing, and names those that it did not."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest

from tests.conformance.kit import SENDER, has, said, turn, update, user, version
from tracker_store_async import DialogueStateTracker, errors
from tracker_store_async import store as store_module

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore
    from tracker_store_async.rows import Append


def built(count: int) -> list[DialogueStateTracker]:
    return [
        DialogueStateTracker.from_events(f"user-{n}", turn(str(n)))
        for n in range(count)
    ]


async def test_all_are_saved(store: TrackerStore) -> None:
    count = store_module.SAVE_MANY_CONCURRENCY * 3
    await store.save_many(built(count))
    for n in range(count):
        assert said(await has(store, f"user-{n}")) == [str(n)]


async def test_none_is_fine(store: TrackerStore) -> None:
    await store.save_many([])
    await store.save_many(iter(()))


async def test_those_that_fail_do_not_stop_the_others(store: TrackerStore) -> None:
    await store.open()
    trackers = built(8)
    bad = user("secret")
    bad.metadata = {"x": {1, 2}}
    trackers[2].update(bad)
    append = store._append

    async def failing(request: Append) -> bool:
        if request.sender_id == "user-5":
            raise errors.StoreUnavailableError("the connection was lost")
        return await append(request)

    store._append = failing  # type: ignore[method-assign]
    with pytest.raises(errors.SaveManyError) as raised:
        await store.save_many(trackers)
    failures = raised.value.failures
    assert {name: type(error) for name, error in failures.items()} == {
        "user-2": errors.EventSerialisationError,
        "user-5": errors.StoreUnavailableError,
    }
    assert raised.value.total == 8
    assert "secret" not in str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    for n in range(8):
        assert await version(store, f"user-{n}") == (0 if n in (2, 5) else 4)


async def test_those_that_failed_can_be_saved_again(store: TrackerStore) -> None:
    await store.open()
    trackers = built(4)
    append, left = store._append, ["user-1", "user-3"]

    async def failing(request: Append) -> bool:
        landed = await append(request)
        if request.sender_id in left:
            left.remove(request.sender_id)
            raise errors.StoreUnavailableError("the answer was lost")
        return landed

    store._append = failing  # type: ignore[method-assign]
    with pytest.raises(errors.SaveManyError):
        await store.save_many(trackers)
    await store.save_many(trackers)
    for n in range(4):
        assert said(await has(store, f"user-{n}")) == [str(n)]


async def test_one_conversation_twice(storage: Storage) -> None:
    store = storage.store()
    await store.get_or_create_tracker("user")
    trackers = [await has(store, "user") for _ in range(3)]
    for n, tracker in enumerate(trackers):
        update(tracker, turn(str(n)))
    await store.save_many([*trackers, trackers[0]])
    assert sorted(map(str, said(await has(store, "user")))) == ["0", "1", "2"]


async def test_what_is_no_tracker_stops_all_of_them(store: TrackerStore) -> None:
    tracker = store.init_tracker(SENDER)
    tracker.update(user("hi"))
    with pytest.raises(errors.InvalidInputError, match="a tracker is expected"):
        await store.save_many([tracker, None])  # type: ignore[list-item]
    assert not await store.exists(SENDER)
