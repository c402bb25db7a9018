"""The conversations of a user in Redis: found without looking at the others."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.sql_databases import NOW, append
from tests.unit.test_redis_index import storage  # noqa: F401
from tracker_store_async.backends.redis.keys import Keys, digest_of
from tracker_store_async.rows import Read, Rewrite

if TYPE_CHECKING:
    import pytest

    from tests.unit.test_redis_index import RedisStorage
    from tracker_store_async import TrackerStore
    from tracker_store_async.rows import Append


def of(sender_id: str, user_id: str | None, version: int = 0, **more: Any) -> Append:
    return replace(append(version, sender_id=sender_id, **more), user_id=user_id)


async def theirs(store: TrackerStore, user_id: str, **more: Any) -> list[str]:
    found = store.conversations(user_id=user_id, **more)
    return [summary.sender_id async for summary in found]


def members(storage: RedisStorage, user_id: str) -> list[bytes]:  # noqa: F811
    key = Keys(storage.prefix).of_user(digest_of(user_id))
    found: list[bytes] = storage.client.zrange(key, 0, -1)
    return found


def traces(storage: RedisStorage, sender_id: str) -> list[str]:  # noqa: F811
    return [line for line in storage.raw().splitlines() if sender_id in line]


USER = "user {ü} 1"


async def test_nobody_elses_conversation_is_looked_at(
    storage: RedisStorage,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with storage.store() as store:
        for n in range(40):
            user = USER if n % 8 == 0 else f"user-{n % 3}" if n % 2 else None
            assert await store._append(of(f"c{n:02}", user))
        index = store._opened.index  # type: ignore[attr-defined]
        looked_at: list[str] = []
        heads = index._heads

        async def watched(ids: list[str]) -> Any:
            looked_at.extend(ids)
            return await heads(ids)

        monkeypatch.setattr(index, "_heads", watched)
        expected = [f"c{n:02}" for n in range(0, 40, 8)]
        assert await theirs(store, USER) == expected == looked_at
        assert await theirs(store, USER, page_size=2) == expected
        for at, sender_id in enumerate(expected):
            rest = await theirs(store, USER, cursor=sender_id)
            assert rest == expected[at + 1 :]
        assert await theirs(store, USER, updated_from=NOW + 9e9) == []
        assert await theirs(store, "nobody") == []


async def test_it_follows_every_change(storage: RedisStorage) -> None:  # noqa: F811
    async with storage.store() as store:
        first = of("alice", "one")
        assert await store._append(first)
        version = first.new_version
        assert await store._append(of("alice", None, version))
        assert await theirs(store, "one") == ["alice"]
        assert await store._append(of("alice", "two", 2 * version))
        assert (members(storage, "one"), await theirs(store, "one")) == ([], [])
        assert await theirs(store, "two") == ["alice"]
        # one that is refused changes nothing
        assert not await store._append(of("alice", "three", 1))
        assert await theirs(store, "three") == []
        assert await theirs(store, "two") == ["alice"]
        for user in ("hash", None):
            assert await store._rewrite(await rewritten(store, "alice", user))
            assert members(storage, "two") == []
            assert await theirs(store, "hash") == (["alice"] if user else [])
        assert members(storage, "hash") == []
        assert await store._append(of("alice", "four", 3 * version))
        assert await store._delete("alice", None, NOW)
        assert members(storage, "four") == []
        assert traces(storage, "alice") == []


async def rewritten(store: TrackerStore, sender_id: str, user: str | None) -> Rewrite:
    found = await store._read(Read(sender_id, NOW, 0))
    assert found is not None
    rows = append(0, sender_id=sender_id).rows
    rows = [*rows, *rows, *rows][: found.version]
    return Rewrite(
        *(sender_id, found.version, 0, found.created_at, rows, frozenset([0]), "{}"),
        *(user, NOW),
    )


async def test_what_has_expired_is_forgotten(
    storage: RedisStorage,  # noqa: F811
) -> None:
    async with storage.store() as store:
        assert await store._append(of("gone", USER, expires_at=NOW + 0.01))
        assert await store._append(of("stays", USER, expires_at=NOW + 3600))
        assert await store._append(of("swept", "other", expires_at=NOW + 0.01))
        deadline = time.monotonic() + 10
        while any(b"gone}:head" in k or b"swept}:head" in k for k in storage.keys()):  # noqa: SIM118
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
        store._now = lambda: NOW  # type: ignore[method-assign]
        assert await theirs(store, USER) == ["stays"]
        assert members(storage, USER) == [b"stays"]
        index = store._opened.index  # type: ignore[attr-defined]
        await index.forget("swept")
        await index.forget("gone")
        assert members(storage, "other") == []
        assert traces(storage, "swept") == traces(storage, "gone") == []


async def test_what_version_1_stored_is_found_after_the_upgrade(
    storage: RedisStorage,  # noqa: F811
) -> None:
    async with storage.store() as store:
        for n in range(30):
            assert await store._append(of(f"c{n:02}", f"user-{n % 3}"))
    await storage.close()
    for key in storage.keys():  # noqa: SIM118  as version 1 left it
        if b":users" in key or b"trackers:user:" in key:
            storage.client.delete(key)
    storage.client.set(Keys(storage.prefix).layout, "1")
    for _ in range(2):
        upgraded = storage.store()
        upgraded._upgrades_layout = True
        async with upgraded:
            expected = [f"c{n:02}" for n in range(0, 30, 3)]
            assert await theirs(upgraded, "user-0") == expected
    assert storage.client.get(Keys(storage.prefix).layout) == b"2"


async def test_a_batch_names_users_too(storage: RedisStorage) -> None:  # noqa: F811
    async with storage.store() as store:
        users = {"a": USER, "b": None, "c": USER, "d": "other"}
        begun = [of(name, user) for name, user in users.items()]
        assert await store._append_many(begun) == [True] * 4
        assert await theirs(store, USER) == ["a", "c"]
        later = [of("a", "other", 3), of("b", USER, 3), of("c", None, 3)]
        assert await store._append_many(later) == [True] * 3
        assert await theirs(store, USER) == ["b", "c"]
        assert await theirs(store, "other") == ["a", "d"]
