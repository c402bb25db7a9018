"""With `record_exp` a conversation expires so many seconds after its latest save."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import (
    SENDER,
    Clock,
    LostAcknowledgement,
    Meeting,
    add,
    has,
    has_full,
    new_session,
    said,
    slot,
    stored_dicts,
    turn,
    update,
    user,
    version,
)
from tracker_store_async import errors
from tracker_store_async.rows import Read

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore

LIFE_SECONDS = 60.0


def mortal(storage: Storage, clock: Clock, **options: Any) -> TrackerStore:
    """Return a store whose conversations live for a minute of the clock."""
    store = storage.store(record_exp=LIFE_SECONDS, **options)
    clock.drive(store)
    return store


async def test_an_expired_conversation_does_not_exist(storage: Storage) -> None:
    clock = Clock()
    store = mortal(storage, clock)
    await add(store, SENDER, *turn())
    clock.advance(LIFE_SECONDS - 0.001)
    assert await store.exists(SENDER)
    assert said(await has(store)) == ["hi"]
    assert list(await store.keys()) == [SENDER]
    clock.advance(0.001)
    assert not await store.exists(SENDER)
    assert await store.retrieve(SENDER) is None
    assert await store.retrieve_full_tracker(SENDER) is None
    assert list(await store.keys()) == []
    assert not await store.delete(SENDER)


async def test_every_save_extends_it(storage: Storage) -> None:
    clock = Clock()
    store = mortal(storage, clock)
    tracker = await store.get_or_create_tracker(SENDER)
    for n in range(5):
        clock.advance(LIFE_SECONDS * 0.75)
        tracker.update(user(str(n)))
        await store.save(tracker)
        found = await store._read(Read(SENDER, clock(), last=0))
        assert found is not None
        assert found.expires_at == clock() + LIFE_SECONDS
    assert said(await has(store)) == ["0", "1", "2", "3", "4"]


async def test_a_read_does_not_extend_it(storage: Storage) -> None:
    clock = Clock()
    store = mortal(storage, clock)
    await add(store, SENDER, user())
    clock.advance(LIFE_SECONDS * 0.75)
    tracker = await has(store)
    await store.save(tracker)
    await store.exists(SENDER)
    clock.advance(LIFE_SECONDS * 0.75)
    assert not await store.exists(SENDER)


async def test_after_expiry_it_starts_from_nothing(storage: Storage) -> None:
    clock = Clock()
    store = mortal(storage, clock)
    await add(store, SENDER, slot("a", 1), *new_session(), *turn("old"), slot("b", 1))
    clock.advance(LIFE_SECONDS)
    created = await store.get_or_create_tracker(SENDER)
    assert created.version == 1
    assert created.get_slot("b") is None
    update(created, turn("new"))
    await store.save(created)
    assert said(await has_full(store)) == ["new"]
    assert await version(store) == 5
    [summary] = [each async for each in store.conversations()]
    assert summary.created_at == clock()


async def test_an_old_tracker_saves_only_what_is_new(storage: Storage) -> None:
    clock = Clock()
    store = mortal(storage, clock)
    await add(store, SENDER, slot("a", 1), *turn("old"))
    tracker = await has(store)
    clock.advance(LIFE_SECONDS)
    new = turn("new")
    update(tracker, new)
    await store.save(tracker)
    assert await stored_dicts(store) == [event.as_dict() for event in new]
    assert (await has(store)).get_slot("a") is None
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert window.get_slot("a") is None


async def test_an_old_tracker_is_refused_if_so_configured(storage: Storage) -> None:
    clock = Clock()
    store = mortal(storage, clock, on_conflict="raise")
    await add(store, SENDER, *turn("old"))
    tracker = await has(store)
    clock.advance(LIFE_SECONDS)
    tracker.update(user("new"))
    with pytest.raises(errors.ConcurrentSaveError):
        await store.save(tracker)
    assert not await store.exists(SENDER)


async def test_what_expired_is_overwritten_without_a_trace(storage: Storage) -> None:
    clock = Clock()
    store = mortal(storage, clock)
    tracker = store.init_tracker(SENDER)
    tracker.user_id = "the xyzzy user"
    update(tracker, [user("xyzzy"), *new_session(), slot("xyzzy", "xyzzy")])
    await store.save(tracker)
    clock.advance(LIFE_SECONDS)
    await add(store, SENDER, user("new"))
    await storage.close()
    raw = storage.raw()
    assert "new" in raw
    assert "xyzzy" not in raw


async def test_what_expired_is_deleted_without_a_trace(storage: Storage) -> None:
    clock = Clock()
    store = mortal(storage, clock)
    await add(store, SENDER, user("xyzzy"))
    clock.advance(LIFE_SECONDS)
    assert not await store.delete(SENDER)
    await storage.close()
    assert "xyzzy" not in storage.raw()


@pytest.mark.parametrize("before", [1, 2])
async def test_what_expired_is_not_there_to_be_cut(
    storage: Storage, before: int
) -> None:
    clock = Clock()
    store = mortal(storage, clock)
    await add(store, SENDER, user("a"), user("b"), *new_session(), user("c"))
    clock.advance(LIFE_SECONDS - 0.001)
    assert await store._delete(SENDER, 1, clock())
    clock.advance(0.001)
    assert not await store._delete(SENDER, before, clock())
    assert not await store.exists(SENDER)


async def test_many_writers_begin_again_at_once(storage: Storage) -> None:
    clock = Clock()
    await add(mortal(storage, clock), SENDER, *turn("old"))
    clock.advance(LIFE_SECONDS)
    stores = [mortal(storage, clock) for _ in range(8)]
    Meeting(stores, len(stores))
    await asyncio.gather(
        *(add(store, SENDER, *turn(f"{n}")) for n, store in enumerate(stores))
    )
    texts = said(await has_full(stores[0]))
    assert sorted(map(str, texts)) == [str(n) for n in range(len(stores))]
    assert await version(stores[0]) == 4 * len(stores)


async def test_each_conversation_expires_alone(storage: Storage) -> None:
    clock = Clock()
    store = mortal(storage, clock)
    for name in ("a", "b", "c", "d"):
        await add(store, name, user())
        clock.advance(LIFE_SECONDS / 4)
    assert sorted(await store.keys()) == ["b", "c", "d"]
    await add(store, "b", user())
    clock.advance(LIFE_SECONDS / 2)
    assert sorted(await store.keys()) == ["b", "d"]
    pages = [s.sender_id async for s in store.conversations(page_size=1)]
    assert sorted(pages) == ["b", "d"]


async def test_without_record_exp_nothing_expires(storage: Storage) -> None:
    store, clock = storage.store(), Clock()
    clock.drive(store)
    await add(store, SENDER, user())
    clock.advance(1e10)
    assert await store.exists(SENDER)


async def test_the_latest_save_decides(storage: Storage) -> None:
    clock = Clock()
    mortal_store, store = mortal(storage, clock), storage.store()
    clock.drive(store)
    await add(mortal_store, "kept", user())
    await add(store, "kept", user())
    await add(store, "mortal", user())
    await add(mortal_store, "mortal", user())
    clock.advance(LIFE_SECONDS)
    assert list(await store.keys()) == ["kept"]
    assert list(await mortal_store.keys()) == ["kept"]


async def test_a_lost_answer_is_found_before_expiry(storage: Storage) -> None:
    clock = Clock()
    store = mortal(storage, clock)
    tracker = await store.get_or_create_tracker(SENDER)
    tracker.update(user("mine"))
    LostAcknowledgement(store)
    with pytest.raises(errors.StoreUnavailableError):
        await store.save(tracker)
    clock.advance(LIFE_SECONDS - 1)
    await store.save(tracker)
    assert said(await has(store)) == ["mine"]
