"""Redis whose name passes to another server, while the old one becomes a replica.

So it is where a managed service, or a proxy, fails over: connections stay open.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.brokers.kit import message
from tests.faults.proxy import FaultProxy
from tests.servers import private_redis
from tests.sql_databases import append, ids, read
from tracker_store_async import RedisTrackerStore, errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.servers.redis import PrivateRedis

pytestmark = pytest.mark.backend("redis")


class Place:
    """A name that belongs to the first of two servers."""

    def __init__(self, proxy: FaultProxy, *servers: PrivateRedis) -> None:
        self.proxy = proxy
        self._servers = [each.server for each in servers]

    async def pass_over(self) -> None:
        """Have the second server be the master, and the first one its replica."""
        await asyncio.to_thread(self._swap)
        self.proxy._target = (self._servers[1].host, self._servers[1].port)

    def _swap(self) -> None:
        old, new = self._servers
        with old.client() as first, new.client() as second:
            second.replicaof(old.host, old.port)
            while second.info("replication")["master_link_status"] != "up":
                pass
            first.wait(1, 5000)
            second.replicaof("NO", "ONE")
            first.replicaof(new.host, new.port)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    with private_redis() as old, private_redis() as new:
        server = old.server
        async with FaultProxy(server.host, server.port) as proxy:
            yield Place(proxy, old, new)


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[RedisTrackerStore]:
    async with RedisTrackerStore(host=place.proxy.host, port=place.proxy.port) as store:
        yield store


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_store_leaves_a_server_that_became_a_replica(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, keeps: bool
) -> None:
    if not keeps:  # as with an older redis-py
        clients = "tracker_store_async.backends.redis.client.IS_POSSIBLE"
        monkeypatch.setattr(clients, False)
    async with opened(place) as store:
        assert await store._append(append(0))
        await asyncio.gather(*(store._read(read()) for _ in range(8)))
        await place.pass_over()
        with pytest.raises(errors.StoreUnavailableError, match="replica"):
            await store._append(append(3))
        assert await store._append(append(3))
        # no connection to the replica is left, which would read what was true once
        found = await asyncio.gather(*(store._read(read()) for _ in range(8)))
        assert [len(ids(each)) for each in found] == [6] * 8


async def test_a_broker_leaves_a_server_that_became_a_replica(place: Place) -> None:
    from tracker_store_async.brokers.redis import RedisEventBroker

    stream = uuid.uuid4().hex
    given: dict[str, Any] = {"stream": stream, "timeout_seconds": 5}
    broker = RedisEventBroker(place.proxy.host, place.proxy.port, **given)
    await broker.publish(message("alice", 0))
    await place.pass_over()
    with suppress(errors.BrokerUnavailableError):
        await broker.publish(message("alice", 1))
    await broker.publish(message("alice", 1))
    await broker.close()


OLD = (
    "Error running script (call to f_6a2ad36c79fbd1e2f7c4a0b1f2c52a5b1f4e8f1d): "
    "@user_script:5: @user_script: 5: -{} "
)
"""How Redis 6 tells what became of a command of a script."""


def as_redis_6_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from redis._parsers.base import BaseParser
    from redis.exceptions import ReadOnlyError, ResponseError

    parse_error = BaseParser.parse_error

    def wrapped(response: str) -> Exception:
        found = parse_error(response)
        if not isinstance(found, ReadOnlyError):
            return found
        return ResponseError(f"{OLD.format('READONLY')}{found}. ")

    monkeypatch.setattr(BaseParser, "parse_error", staticmethod(wrapped))


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_store_leaves_an_older_server_too(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, keeps: bool
) -> None:
    as_redis_6_says_it(monkeypatch)
    await test_a_store_leaves_a_server_that_became_a_replica(
        place, monkeypatch, keeps=keeps
    )


async def test_a_broker_leaves_an_older_server_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_redis_6_says_it(monkeypatch)
    await test_a_broker_leaves_a_server_that_became_a_replica(place)


@pytest.mark.parametrize(
    ("code", "ours", "published"),
    [
        ("READONLY", errors.StoreUnavailableError, errors.BrokerUnavailableError),
        ("OOM", errors.StoreUnavailableError, errors.BrokerUnavailableError),
        ("NOPERM", errors.StoreAccessError, errors.BrokerAccessError),
        ("WRONGTYPE", errors.StoreDataError, errors.BrokerRefusedError),
    ],
)
def test_what_an_older_server_says_of_a_script(
    code: str, ours: type[Exception], published: type[Exception]
) -> None:
    from redis.exceptions import ResponseError

    from tracker_store_async.backends.redis.errors import translate
    from tracker_store_async.brokers.redis import RedisEventBroker

    said = ResponseError(f"{OLD.format(code)}what it says")
    found = translate(said, "redis at here")
    assert type(found) is ours
    assert f"({code})" in str(found)
    told = RedisEventBroker()._explain_reply(said)
    assert type(told) is published
    assert "what it says" not in str(told)
