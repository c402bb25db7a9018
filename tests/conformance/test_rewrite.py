"""Other content in the same places: all of it, and nothing of the old is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import (
    SENDER,
    add,
    has,
    has_full,
    new_session,
    said,
    slot,
    state,
    turn,
    update,
    user,
    version,
)
from tracker_store_async import errors
from tracker_store_async.rows import Read, Rewrite
from tracker_store_async.serialization import derived_row

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore
    from tracker_store_async.rows import StoredConversation

SECRET = "xyzzy-secret"


async def whole(store: TrackerStore) -> StoredConversation:
    """Return everything that is stored."""
    found = await store._read(Read(SENDER, store._now(), 0))
    assert found is not None
    return found


async def rewritten(store: TrackerStore, new: str = "other", **changes: Any) -> Rewrite:
    """Return the request that replaces the secret everywhere."""
    found = await whole(store)
    texts = [d if isinstance(d, str) else d.decode() for _, d in found.rows]
    rows = [
        derived_row(event_id, text.replace(SECRET, new))
        for (event_id, _), text in zip(found.rows, texts, strict=True)
    ]
    snapshot = found.snapshot or b""
    snapshot = snapshot if isinstance(snapshot, str) else snapshot.decode()
    changed = {
        n for n, text in enumerate(texts, found.first_position) if SECRET in text
    }
    values: dict[str, Any] = {
        "sender_id": SENDER,
        "expected_version": found.version,
        "first_position": found.first_position,
        "created_at": found.created_at,
        "rows": rows,
        "changed": frozenset(changed),
        "snapshot": snapshot.replace(SECRET, new),
        "user_id": None,
        "now": store._now(),
    }
    return Rewrite(**(values | changes))


async def fill(store: TrackerStore, count: int = 3, size: int = 1) -> None:
    """Store two sessions, in several saves, with a user and secrets everywhere."""
    tracker = await store.get_or_create_tracker(SENDER, append_action_listen=False)
    tracker.user_id = SECRET
    update(tracker, [*new_session(), *turn(f"one {SECRET}")])
    await store.save(tracker)
    await add(store, SENDER, *new_session(), slot("a", SECRET))
    for n in range(count):
        await add(store, SENDER, *turn(f"{n} {SECRET} " + "x" * size))


async def test_the_new_content_is_there_in_the_old_places(store: TrackerStore) -> None:
    await fill(store)
    before = await whole(store)
    request = await rewritten(store, user_id="somebody")
    assert await store._rewrite(request)
    after = await whole(store)
    assert [(i, as_text(d)) for i, d in after.rows] == [
        (row.event_id, row.data) for row in request.rows
    ]
    assert (after.version, after.session_start) == (
        before.version,
        before.session_start,
    )
    assert (after.updated_at, after.expires_at) == (
        before.updated_at,
        before.expires_at,
    )
    assert after.user_id == "somebody"
    assert after.created_at == request.new_created_at > before.created_at
    assert as_text(after.snapshot) == request.snapshot
    assert (await has(store)).get_slot("a") == "other"
    listed = [s async for s in store.conversations(user_id="somebody")]
    assert [s.sender_id for s in listed] == [SENDER]
    assert [s async for s in store.conversations(user_id=SECRET)] == []


def as_text(data: str | bytes | None) -> str:
    return data.decode() if isinstance(data, bytes) else data or ""


@pytest.mark.parametrize("size", [1, 100_000])
async def test_nothing_of_the_old_content_is_left(storage: Storage, size: int) -> None:
    """Also where it is too much for one document, item or part."""
    store = storage.store(record_exp=1000)
    await fill(store, count=8, size=size)
    assert await store._rewrite(await rewritten(store))
    assert said(await has_full(store))[0] == "one other"
    await storage.close()
    assert SECRET not in storage.raw()
    store = storage.store(record_exp=1000)
    await add(store, SENDER, *turn("and on"))
    assert len(said(await has_full(store))) == 10
    await storage.close()
    raw = storage.raw()
    assert ("one other" in raw) is not storage.is_sealed
    assert SECRET not in raw


async def test_it_is_refused_if_something_else_is_stored(store: TrackerStore) -> None:
    await fill(store)
    request = await rewritten(store)
    await add(store, SENDER, user("in between"))
    assert not await store._rewrite(request)
    for changes in (
        {"created_at": request.created_at + 1},
        {"first_position": 1},
        {"sender_id": "nobody"},
    ):
        assert not await store._rewrite(await rewritten(store, **changes))
    assert said(await has_full(store))[0] == f"one {SECRET}"


async def test_without_changes_nothing_happens(store: TrackerStore) -> None:
    await fill(store)
    before = await whole(store)
    assert await store._rewrite(await rewritten(store, changed=frozenset()))
    assert await whole(store) == before


async def test_after_a_cut_only_what_is_left_is_rewritten(store: TrackerStore) -> None:
    await fill(store)
    assert await store.delete(SENDER, before_position=3)
    assert await store._rewrite(await rewritten(store))
    found = await whole(store)
    assert (found.first_position, len(found.rows)) == (3, found.version - 3)
    assert await store.delete(SENDER, before_position=6)
    assert said(await has_full(store)) == said(await has(store))


@pytest.mark.parametrize("is_whole", [False, True])
async def test_a_tracker_from_before_brings_nothing_back(
    storage: Storage, is_whole: bool
) -> None:
    """It holds the old state, which the next save would store."""
    store = storage.store()
    await fill(store)
    old = await (has_full if is_whole else has)(store)
    assert await store._rewrite(await rewritten(store))
    old.update(user("later"))
    await store.save(old)
    assert said(await has(store))[-1] == "later"
    assert old.get_slot("a") == "other"
    window = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert state(window) == state(await has(store))
    assert await version(store) == len(await _rows(store))
    await storage.close()
    assert SECRET not in storage.raw()


async def _rows(store: TrackerStore) -> list[Any]:
    return list((await whole(store)).rows)


async def test_a_tracker_from_before_is_refused_if_so_configured(
    storage: Storage,
) -> None:
    store = storage.store(on_conflict="raise")
    await fill(store)
    old = await has(store)
    assert await store._rewrite(await rewritten(store))
    old.update(user("later"))
    with pytest.raises(errors.ConcurrentSaveError):
        await store.save(old)


async def test_a_rewritten_conversation_is_deleted_whole(storage: Storage) -> None:
    store = storage.store()
    await fill(store)
    assert await store._rewrite(await rewritten(store, new="replaced-by-this"))
    assert await store.delete(SENDER)
    assert not await store.exists(SENDER)
    await storage.close()
    assert "replaced-by-this" not in storage.raw()
