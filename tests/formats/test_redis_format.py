"""What is stored in Redis, pinned to the byte and read with the raw driver."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tracker_store_async import RedisTrackerStore, errors
from tracker_store_async.rows import Append, NewRow, Read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import RedisServer

NOW = 1_700_000_000.123456
DAY = 86_400
U1 = "c5ea71554c774daf7fab320fc3476afc0617eb00"  # SHA-1 of "u1"


@pytest.fixture
def prefix(redis_server: RedisServer) -> Iterator[str]:
    name = f"test{uuid4().hex[:12]}"
    yield name
    with redis_server.client() as client:
        for key in client.scan_iter(match=f"*{name}*", count=1000):
            client.delete(key)


@pytest.fixture
def raw(redis_server: RedisServer) -> Iterator[Any]:
    with redis_server.client() as client:
        yield client


def store_on(server: RedisServer, prefix: str, **options: Any) -> RedisTrackerStore:
    return RedisTrackerStore(
        host=server.host, port=server.port, key_prefix=prefix, **options
    )


def append_of(version: int, **given: Any) -> Append:
    rows = [
        NewRow("id-é", '{"event":"user","text":"hé"}', "user", NOW, None, None),
        NewRow("plain", '{"event":"bot"}', "bot", None, None, None),
    ]
    fields = {"session_start": 0, "snapshot": '{"a":1}', "now": NOW} | given
    return Append("alice", version, rows, **fields)


async def test_the_keys_and_their_bytes(
    redis_server: RedisServer, prefix: str, raw: Any
) -> None:
    async with store_on(redis_server, prefix) as store:
        assert await store._append(append_of(0, expires_at=NOW + DAY, user_id="u1"))
    tag = f"{{{prefix}:tracker:alice}}"
    assert sorted(raw.scan_iter(match=f"*{prefix}*", count=1000)) == sorted(
        key.encode()
        for key in (
            f"{tag}:head",
            f"{tag}:rows",
            f"{{{prefix}:trackers:13}}",
            f"{{{prefix}:trackers:13}}:users",
            f"{{{prefix}:trackers:user:{U1}}}",
            f"{prefix}:trackers:layout",
        )
    )
    assert raw.hgetall(f"{tag}:head") == {
        b"version": b"2",
        b"first": b"0",
        b"session_start": b"0",
        b"created_at": b"1700000000.123456",
        b"updated_at": b"1700000000.123456",
        b"expires_at": b"1700086400.123456",
        b"user_id": b"u1",
        b"snapshot": b'{"a":1}',
    }
    assert raw.lrange(f"{tag}:rows", 0, -1) == [
        b'"id-\\u00e9"\n{"event":"user","text":"h\xc3\xa9"}',
        b'plain\n{"event":"bot"}',
    ]
    assert raw.zrange(f"{{{prefix}:trackers:13}}", 0, -1, withscores=True) == [
        (b"alice", 0.0)
    ]
    assert raw.hgetall(f"{{{prefix}:trackers:13}}:users") == {b"alice": U1.encode()}
    of_user = raw.zrange(f"{{{prefix}:trackers:user:{U1}}}", 0, -1, withscores=True)
    assert of_user == [(b"alice", 0.0)]
    assert raw.get(f"{prefix}:trackers:layout") == b"2"
    for key in (f"{tag}:head", f"{tag}:rows"):
        assert 0 < raw.ttl(key) <= DAY


async def test_an_append_without_expiry_takes_it_away(
    redis_server: RedisServer, prefix: str, raw: Any
) -> None:
    async with store_on(redis_server, prefix) as store:
        assert await store._append(append_of(0, expires_at=NOW + DAY))
        assert await store._append(append_of(2))
    for kind in ("head", "rows"):
        assert raw.ttl(f"{{{prefix}:tracker:alice}}:{kind}") == -1


async def test_more_rows_than_lua_can_unpack(
    redis_server: RedisServer, prefix: str
) -> None:
    rows = [NewRow(f"id-{n}", "{}", "user", None, None, None) for n in range(20_000)]
    async with store_on(redis_server, prefix) as store:
        assert await store._append(Append("alice", 0, rows, 0, "{}", NOW))
        found = await store._read(Read("alice", NOW, start=19_998))
        assert found is not None
        assert found.rows == [("id-19998", b"{}"), ("id-19999", b"{}")]


async def test_a_newer_layout_is_refused(
    redis_server: RedisServer, prefix: str, raw: Any
) -> None:
    raw.set(f"{prefix}:trackers:layout", "3")
    store = store_on(redis_server, prefix)
    with pytest.raises(errors.SchemaTooNewError, match="version 3 of the layout"):
        await store.open()


async def test_rows_that_somebody_removed_are_missed(
    redis_server: RedisServer, prefix: str, raw: Any
) -> None:
    async with store_on(redis_server, prefix) as store:
        assert await store._append(append_of(0))
        raw.rpop(f"{{{prefix}:tracker:alice}}:rows")
        with pytest.raises(errors.CorruptEventError, match="1 are stored"):
            await store._read(Read("alice", NOW, start=0))


async def test_a_key_of_another_kind_is_named_as_such(
    redis_server: RedisServer, prefix: str, raw: Any
) -> None:
    raw.set(f"{{{prefix}:tracker:alice}}:head", json.dumps("xyzzy"))
    async with store_on(redis_server, prefix) as store:
        with pytest.raises(errors.StoreDataError, match="another kind") as raised:
            await store._read(Read("alice", NOW))
    assert "xyzzy" not in str(raised.value)
