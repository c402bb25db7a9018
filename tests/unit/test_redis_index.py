"""The index of conversations: what the server has expired does not stay in it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.conformance.backends import RedisStorage, redis_storage
from tests.sql_databases import NOW, append
from tracker_store_async import errors
from tracker_store_async.backends.redis.keys import SHARDS, Keys

pytest.importorskip("redis", reason="the extra redis is not installed")

from tracker_store_async.backends.redis import operations
from tracker_store_async.backends.redis.scripts import Script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers


@pytest.fixture(
    params=[
        pytest.param(
            ("redis", "standalone"), marks=pytest.mark.backend("redis"), id="redis"
        ),
        pytest.param(
            ("redis_cluster", "cluster"),
            marks=pytest.mark.backend("redis_cluster"),
            id="cluster",
        ),
    ]
)
def storage(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[RedisStorage]:
    with redis_storage(servers, tmp_path, *request.param) as storage:
        yield cast(RedisStorage, storage)


def indexed(storage: RedisStorage) -> int:
    """Return how many ids the index holds."""
    keys = Keys(storage.prefix)
    client: Any = storage.client
    return sum(client.zcard(keys.shard(number)) for number in range(SHARDS))


async def test_a_batch_on_a_server_that_does_not_know_the_script(
    storage: RedisStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = Script(f"{operations.APPEND.text}\n-- {storage.prefix}")
    monkeypatch.setattr(operations, "APPEND", fresh)
    async with storage.store() as store:
        alone = cast(Any, store)._opened.append
        monkeypatch.setattr(cast(Any, store)._opened, "append", None)
        begun = [append(0, sender_id=f"a{n}") for n in range(9)]
        assert await store._append_many(begun) == [True] * 9
        assert indexed(storage) == 9
        monkeypatch.setattr(cast(Any, store)._opened, "append", alone)
        assert await store._append_many(begun) == [False] * 9


async def test_a_batch_that_gets_no_answer(
    storage: RedisStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with storage.store() as store:
        commands: Any = cast(Any, store)._opened.commands

        async def lost(*_: Any, **__: Any) -> Any:
            raise ConnectionError

        monkeypatch.setattr(commands, "_pipeline", lost)
        begun = [append(0, sender_id=f"a{n}") for n in range(3)]
        answers = await store._append_many(begun)
        if commands.is_cluster:  # a node that is away is not the others' fault
            assert answers == [True] * 3
        else:
            assert {*map(type, answers)} == {errors.StoreUnavailableError}


async def test_ids_of_what_has_expired_are_swept_away(
    storage: RedisStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "SWEEP_ODDS", 0.0)
    soon, later = NOW + 0.02, NOW + 3600.0
    async with storage.store() as store:
        for n in range(60):
            assert await store._append(append(0, sender_id=f"a{n}", expires_at=soon))
        deadline = time.monotonic() + 10
        while b":head" in b"".join(RedisStorage.keys(storage)):
            assert time.monotonic() < deadline
        assert indexed(storage) == 60
        monkeypatch.setattr(operations, "SWEEP_ODDS", 1.0)
        for n in range(12 * SHARDS):
            assert await store._append(append(0, sender_id=f"b{n}", expires_at=later))
        assert indexed(storage) - 12 * SHARDS < 10
        assert len(list(await store.keys())) == 0  # by the clock of today
        for n in range(12 * SHARDS):
            assert await store._append(append(3, sender_id=f"b{n}", expires_at=later))
