"""Encryption at rest beside what moves, keeps, caches and brings up to date."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("cryptography")

from tests.conformance.backends import MemoryStorage, SQLiteStorage
from tests.conformance.kit import (
    SENDER,
    add,
    has,
    has_full,
    held,
    new_session,
    said,
    slot,
    state,
    turn,
    user,
)
from tests.moving.kit import contents
from tracker_store_async import (
    CachedTrackerStore,
    InMemoryTrackerStore,
    create_tracker_store,
    errors,
)
from tracker_store_async.encryption.keyring import generate_key
from tracker_store_async.keeping import anonymise, prune
from tracker_store_async.keeping.pruning import Retention
from tracker_store_async.keeping.rules import rules_from
from tracker_store_async.moving import backup, migrate, restore
from tracker_store_async.rows import Read
from tracker_store_async.wrappers.encrypted import EncryptedTrackerStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tracker_store_async import TrackerStore
    from tracker_store_async.rows import Append

PLANTED = "xyzzy-planted"
KEYS, OTHER_KEYS = {"a": generate_key()}, {"b": generate_key()}
RULES = rules_from(
    {
        "rules": [
            {"text": "user", "pattern": PLANTED, "action": "replace", "with": "gone"},
            {"slots": [PLANTED], "action": "replace", "with": "gone"},
        ]
    }
)


@pytest.fixture(params=["memory", "sqlite"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    in_memory = request.param == "memory"
    storage = MemoryStorage() if in_memory else SQLiteStorage(tmp_path)
    yield storage
    await storage.close()


def sealed(storage: Any, **options: Any) -> EncryptedTrackerStore:
    """Return a new store object on a storage, behind encryption."""
    store = EncryptedTrackerStore(storage._make(), KEYS, **options)
    storage._stores.append(store)
    return store


async def raw_rows(store: TrackerStore) -> list[Any]:
    await store.open()
    found = await store._read(Read(SENDER, 0.0, 0))
    assert found is not None
    return [data for _, data in found.rows]


async def told(store: TrackerStore) -> None:
    await add(store, SENDER, *turn("earlier-text"))
    await add(store, SENDER, *turn(f"I am {PLANTED}"), slot(PLANTED, PLANTED))


# -- anonymising -----------------------------------------------------------------------


async def test_what_is_anonymised_is_sealed_and_the_old_is_nowhere(
    storage: Any,
) -> None:
    store = sealed(storage)
    await told(store)
    before = await raw_rows(storage.store())
    done = [each.events async for each in anonymise(store, RULES)]
    assert done == [3]
    for reader in (store, sealed(storage, plaintext="refuse")):
        tracker = await has_full(reader, SENDER)
        assert said(tracker) == ["earlier-text", "I am gone"]
        assert tracker.get_slot(PLANTED) == "gone"
    after = await raw_rows(storage.store())
    changed = [old for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) >= 2
    await add(store, SENDER, *turn("and on"))
    await storage.close()
    raw = storage.raw()
    assert PLANTED not in raw
    assert "gone" not in raw
    assert not any(old.strip('"') in raw for old in changed)


async def test_a_plain_conversation_is_sealed_as_a_whole(storage: Any) -> None:
    plain = storage.store()
    await told(plain)
    await plain.close()
    store = sealed(storage)
    assert [each.events async for each in anonymise(store, RULES)] == [3]
    strict = sealed(storage, plaintext="refuse")
    assert said(await has_full(strict, SENDER)) == ["earlier-text", "I am gone"]
    await storage.close()
    assert PLANTED not in storage.raw()
    assert "earlier-text" not in storage.raw()


async def test_those_who_loaded_it_before_are_told_it_is_another_log(
    storage: Any,
) -> None:
    one, other = sealed(storage), sealed(storage)
    await told(one)
    tracker = await has(other, SENDER)
    assert [each.events async for each in anonymise(one, RULES)] == [3]
    tracker.update(user("later"))
    await other.save(tracker)
    by_hand = one.init_tracker(SENDER)
    by_hand.update(user("by hand"))
    await one.save(by_hand)
    now = await has_full(other, SENDER)
    assert said(now) == ["earlier-text", "I am gone", "later", "by hand"]
    assert now.get_slot(PLANTED) == "gone"


async def test_a_save_after_it_reads_nothing(storage: Any) -> None:
    one, other = sealed(storage), sealed(storage)
    await told(one)
    assert await has(other, SENDER)
    assert [each.events async for each in anonymise(one, RULES)] == [3]
    tracker = await has(other, SENDER)
    tracker.update(user("later"))

    async def unasked(read: Read) -> Any:
        raise AssertionError(read)

    other._wrapped._read = unasked  # type: ignore[method-assign]
    await other.save(tracker)


async def test_a_rewrite_that_is_refused_leaves_no_key_behind(tmp_path: Path) -> None:
    storage = MemoryStorage()
    await told(storage.store())
    store = sealed(storage, data_keys=f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}")
    await store.open()
    requests: list[Any] = []
    inner = store._wrapped
    rewriting = inner._rewrite

    async def overtaken(rewrite: Any) -> bool:
        requests.append(rewrite)
        if len(requests) == 1:
            await add(storage.store(), SENDER, *turn("meanwhile"))
        return await rewriting(rewrite)

    inner._rewrite = overtaken  # type: ignore[method-assign]
    assert [each.events async for each in anonymise(store, RULES)] == [3]
    assert len(requests) == 2
    await storage.close()
    assert count_of_keys(tmp_path) == 1


def count_of_keys(directory: Path) -> int:
    connection = sqlite3.connect(directory / "keys.db")
    (count,) = connection.execute(
        "SELECT count(*) FROM conversation_data_keys"
    ).fetchone()
    connection.close()
    return int(count)


# -- pruning ---------------------------------------------------------------------------


async def test_pruning_keeps_what_was_saved_meanwhile_readable(
    tmp_path: Path,
) -> None:
    storage = MemoryStorage()
    store = sealed(storage, data_keys=f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}")
    await told(store)
    found = await store._read(Read(SENDER, 0.0, last=0))
    assert found is not None
    await add(store, SENDER, *turn("meanwhile"))
    assert not await store._delete(SENDER, None, store._now(), found.version)
    assert said(await has(store))[-1] == "meanwhile"
    assert count_of_keys(tmp_path) == 1
    found = await store._read(Read(SENDER, 0.0, last=0))
    assert found is not None
    assert await store._delete(SENDER, None, store._now(), found.version)
    assert count_of_keys(tmp_path) == 0
    await storage.close()


async def test_deleting_what_has_expired_erases_its_key(
    storage: Any, tmp_path: Path
) -> None:
    store = sealed(storage, data_keys=f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}")
    store.record_exp = 10
    await told(store)
    assert count_of_keys(tmp_path) == 1
    later = store._now() + 11
    store._wrapped._now = lambda: later  # type: ignore[method-assign]
    assert not await store.exists(SENDER)
    await store.delete(SENDER)
    assert count_of_keys(tmp_path) == 0


async def test_old_sessions_are_pruned_and_the_rest_opens(storage: Any) -> None:
    store = sealed(storage)
    for text in ("one", "two", "three"):
        await add(store, SENDER, *new_session(), *turn(text))
    keeping = Retention(keep_last_sessions=1)
    assert [each async for each in prune(store, keeping)]
    assert said(await has_full(sealed(storage), SENDER)) == ["three"]


# -- moving ----------------------------------------------------------------------------


@pytest.mark.parametrize("page_events", [3, 1000])
async def test_plain_to_sealed_to_other_keys_and_back(
    storage: Any, page_events: int
) -> None:
    source = InMemoryTrackerStore()
    for name in ("alice", "bob"):
        for text in ("one", PLANTED):
            await add(source, name, *new_session(), *turn(text), slot("a", text))
    first, second, back = sealed(storage), MemoryStorage(), InMemoryTrackerStore()
    other = EncryptedTrackerStore(second.store(), OTHER_KEYS)
    for one, two in ((source, first), (first, other), (other, back)):
        report = await migrate(one, two, page_events=page_events, check=True)
        assert (report.copied, report.verified, report.is_complete) == (2, True, True)
        assert await contents(two) == await contents(source)
    await add(first, "alice", *turn("and on"))
    assert said(await has_full(first, "alice")) == ["one", PLANTED, "and on"]
    await storage.close()
    assert PLANTED not in storage.raw()
    assert PLANTED not in second.raw()


async def test_a_copy_that_was_cut_off_goes_on(storage: Any) -> None:
    source = InMemoryTrackerStore()
    await told(source)
    target = sealed(storage)
    await target.open()
    inner, pages = target._wrapped, 0
    appending = inner._append

    async def away(append: Append) -> bool:
        nonlocal pages
        pages += 1
        if pages == 2:
            raise errors.StoreUnavailableError("away")
        return await appending(append)

    inner._append = away  # type: ignore[method-assign]
    with pytest.raises(errors.StoreUnavailableError):
        await migrate(source, target, page_events=2)
    half = await target._read(Read(SENDER, 0.0, 0))
    assert half is not None
    assert (half.version, half.snapshot) == (2, None)
    report = await migrate(source, sealed(storage), page_events=2, check=True)
    assert report.is_complete
    assert await contents(target) == await contents(source)


async def test_a_backup_of_a_sealed_store_is_restored_into_a_sealed_one(
    tmp_path: Path,
) -> None:
    one, two = MemoryStorage(), MemoryStorage()
    await told(sealed(one))
    await backup(sealed(one), tmp_path / "all.jsonl.gz")
    assert (await restore(tmp_path / "all.jsonl.gz", sealed(two))).is_complete
    assert await contents(sealed(two)) == await contents(sealed(one))
    assert PLANTED not in two.raw()


async def test_a_copier_is_not_given_columns_that_say_nothing(tmp_path: Path) -> None:
    storage = SQLiteStorage(tmp_path)
    store = sealed(storage)
    await told(store)
    found = await store._read(Read(SENDER, 0.0, start=0, limit=2, columns=True))
    assert found is not None
    assert [len(row) for row in found.rows] == [2, 2]
    await storage.close()


# -- caches, and trackers brought up to date -------------------------------------------


async def test_a_cache_stands_around_it_or_is_read_past(storage: Any) -> None:
    cached = CachedTrackerStore(sealed(storage))
    await told(cached)
    before = await has(cached, SENDER)
    await add(sealed(storage), SENDER, *turn("another process"))
    assert said(await has(cached, SENDER)) == [*said(before), "another process"]
    assert PLANTED not in storage.raw()
    within = EncryptedTrackerStore(CachedTrackerStore(storage._make()), KEYS)
    for text in ("a", "b"):
        await add(within, SENDER, *turn(text))
        assert said(await has(within, SENDER))[-1] == text
    assert PLANTED not in storage.raw()
    await within.close()
    await cached.close()


@pytest.mark.parametrize("bound", [None, 3])
async def test_a_tracker_is_brought_up_to_date(storage: Any, bound: int | None) -> None:
    store, other = sealed(storage), sealed(storage)
    store.max_event_history = bound
    await told(store)
    tracker = await has(store, SENDER)
    reads: list[Read] = []
    reading = store._wrapped._read

    async def noted(read: Read) -> Any:
        reads.append(read)
        return await reading(read)

    store._wrapped._read = noted  # type: ignore[method-assign]
    await add(other, SENDER, *turn("a"), user("since then"))
    assert await store.retrieve(SENDER, since=tracker) is tracker
    assert len(reads) == 1
    assert reads[0].start
    assert state(tracker) == state(await has(store, SENDER))
    assert "since then" in str(held(tracker))


async def test_a_row_that_was_changed_is_named_by_its_position() -> None:
    storage = MemoryStorage()
    store = sealed(storage)
    await told(store)
    tracker = await has(store, SENDER)
    await add(store, SENDER, *turn("since then"))
    last = len(storage._shared[0][SENDER].rows) - 1
    event_id, data = storage._shared[0][SENDER].rows[last]
    storage._shared[0][SENDER].rows[last] = (event_id, f'{data[:-9]}AAAAAAA="')
    for reading in (
        store.retrieve(SENDER),
        store.retrieve(SENDER, since=tracker),
        sealed(storage).get_or_create_tracker(SENDER, max_event_history=1),
    ):
        with pytest.raises(errors.CorruptEventError) as caught:
            await reading
        assert caught.value.position == last


# -- many, and the outbox --------------------------------------------------------------


async def test_many_are_sealed_each_with_its_own_key(storage: Any) -> None:
    store = sealed(storage)
    trackers = [store.init_tracker(f"user {n}") for n in range(5)]
    for tracker in trackers:
        tracker.update(user(PLANTED))
    await store.save_many(trackers)
    for tracker in trackers:
        assert said(await has(sealed(storage), tracker.sender_id)) == [PLANTED]
    await storage.close()
    assert PLANTED not in storage.raw()


def test_an_outbox_would_hold_plain_messages(tmp_path: Path) -> None:
    section = {"type": "sql", "db": str(tmp_path / "db"), "encryption": {"keys": KEYS}}
    assert not create_tracker_store(section).outbox
    with pytest.raises(errors.ConfigurationError, match="has an outbox"):
        create_tracker_store({**section, "outbox": True})


async def test_a_sealed_header_without_a_state_is_resealed() -> None:
    """As it stands in a copy that was cut off."""
    storage = MemoryStorage()
    store = sealed(storage)
    await told(store)
    both = {**OTHER_KEYS, **KEYS}
    found = await store._read(Read(SENDER, 0.0, 0))
    assert found is not None
    await store.delete(SENDER)
    source = InMemoryTrackerStore()
    await told(source)
    part = await source._read(Read(SENDER, 0.0, start=0, limit=2))
    assert part is not None
    from tracker_store_async.moving.copying import append_of, new_rows

    rows = new_rows(replace(part, snapshot=None), 0)
    append = append_of(SENDER, part, rows, expected_version=0, now=store._now())
    assert await store._append(replace(append, snapshot=None))
    rotated = EncryptedTrackerStore(storage._make(), both)
    assert await rotated.reseal(SENDER)
    only_new = EncryptedTrackerStore(storage._make(), OTHER_KEYS)
    half = await only_new._read(Read(SENDER, 0.0, 0))
    assert half is not None
    assert half.snapshot is None
    assert len(half.rows) == 2
