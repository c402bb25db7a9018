"""Connections to MongoDB that are cut, freeze or are refused, through a proxy."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.proxy import FaultProxy
from tests.mongo_databases import EACH_DRIVER, mongo_database
from tests.servers import private_mongo
from tests.servers.mongo import find_server
from tests.sql_databases import NOW, append, ids, read
from tracker_store_async import MongoTrackerStore
from tracker_store_async.errors import StoreTimeoutError, StoreUnavailableError
from tracker_store_async.rows import Listing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.mongo_databases import MongoTarget
    from tests.servers import Servers

AN_EVENT = b"id-4"  # what an append sends


@pytest.fixture
def target(servers: Servers) -> Iterator[MongoTarget]:
    with mongo_database(servers) as found:
        yield found


@asynccontextmanager
async def proxied(
    target: MongoTarget, driver: str, **options: Any
) -> AsyncIterator[tuple[MongoTrackerStore, FaultProxy]]:
    """Yield a store behind a proxy, and three stored events."""
    server = target.server
    async with FaultProxy(server.host, server.port) as proxy:
        given = {
            "host": f"mongodb://{proxy.host}:{proxy.port}",
            "driver": driver,
            "connect_timeout_seconds": 2.0,
        }
        async with target.store(**(given | options)) as store:
            assert await store._append(append(0))
            assert len(ids(await store._read(read()))) == 3
            yield store, proxy


async def landed(store: MongoTrackerStore) -> int:
    """Return how many events are stored; the rows must be whole."""
    found = await store._read(read())
    assert found is not None
    assert ids(found) == [f"id-{number}" for number in range(found.version)]
    return found.version


@pytest.mark.parametrize("driver", EACH_DRIVER)
@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_cut_around_an_append(
    target: MongoTarget, driver: str, how: Any, when: Any
) -> None:
    async with proxied(target, driver) as (store, proxy):
        proxy.cut_request(AN_EVENT, when=when, how=how)
        try:
            # A replica set lets the driver repeat the write, exactly once.
            assert await store._append(append(3))
            count = 6
        except StoreUnavailableError:
            count = 6 if when == "after" else 3
        assert proxy.struck.is_set()
        assert await landed(store) == count
        assert await store._append(append(3)) is (count == 3)
        assert await landed(store) == 6


@pytest.mark.parametrize("driver", EACH_DRIVER)
async def test_cut_within_the_answer_to_a_read(
    target: MongoTarget, driver: str
) -> None:
    async with proxied(target, driver) as (store, proxy):
        for size_bytes in (1, 7, 40, 200):
            proxy.cut_reply_after(size_bytes)
            assert await landed(store) == 3  # a read is repeated by the driver
        proxy.cut()
        assert await landed(store) == 3


@pytest.mark.parametrize("driver", EACH_DRIVER)
async def test_server_that_goes_and_comes_back(
    target: MongoTarget, driver: str
) -> None:
    async with proxied(target, driver, connect_timeout_seconds=0.5) as (store, proxy):
        await asyncio.gather(*(store._read(read()) for _ in range(3)))
        await proxy.refuse()
        proxy.cut()
        for work in (
            store._append(append(3)),
            store._list(Listing(NOW, 5)),
            store._delete("x", None, NOW),
        ):
            started = time.monotonic()
            with pytest.raises(
                StoreUnavailableError, match=r"^mongodb at 127\.0\.0\.1"
            ):
                await work
            assert time.monotonic() - started < 5
        health = await store.health()
        assert not health.reachable
        await proxy.accept()
        async with asyncio.timeout(20):
            while not (await store.health()).reachable:
                pass
        results = await asyncio.gather(*(store._read(read()) for _ in range(6)))
        assert [len(ids(found)) for found in results] == [3] * 6
        assert await store._append(append(3))
        assert await landed(store) == 6


@pytest.mark.parametrize("driver", EACH_DRIVER)
async def test_server_that_says_nothing_any_more(
    target: MongoTarget, driver: str
) -> None:
    async with proxied(target, driver, command_timeout_seconds=0.4) as (store, proxy):
        proxy.freeze()
        started = time.monotonic()
        with pytest.raises(StoreTimeoutError, match="did not answer in time"):
            await store._read(read())
        with pytest.raises(StoreTimeoutError, match="did not answer in time"):
            await store._append(append(3))
        assert time.monotonic() - started < 5
        proxy.cut()
        proxy.unfreeze()
        async with asyncio.timeout(20):
            while True:
                try:
                    assert await landed(store) in (3, 6)
                    break
                except StoreUnavailableError:
                    continue


@pytest.mark.parametrize("driver", EACH_DRIVER)
async def test_server_that_does_not_let_anybody_in(
    target: MongoTarget, driver: str
) -> None:
    server = target.server
    async with FaultProxy(server.host, server.port) as proxy:
        proxy.freeze()
        store = target.store(
            host=f"mongodb://{proxy.host}:{proxy.port}",
            driver=driver,
            connect_timeout_seconds=0.4,
        )
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            await store.open()
        assert time.monotonic() - started < 5
        proxy.cut()


@pytest.mark.backend("mongo")
async def test_a_pool_that_is_used_up(target: MongoTarget) -> None:
    async with proxied(target, "pymongo", pool_size=1, pool_timeout_seconds=0.2) as (
        store,
        proxy,
    ):
        proxy.delay_seconds = 0.5
        results = await asyncio.gather(
            *(store._read(read()) for _ in range(3)), return_exceptions=True
        )
        failed = [result for result in results if isinstance(result, Exception)]
        assert failed
        assert all("raise pool_size" in str(error) for error in failed)
        assert all(isinstance(error, StoreTimeoutError) for error in failed)
        proxy.delay_seconds = 0.0
        assert await landed(store) == 3


@pytest.mark.backend("mongo")
@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_killed_server_comes_back_with_everything(driver: Any) -> None:
    if find_server() is None:
        pytest.skip("no server of our own to kill")
    with private_mongo() as private:
        host = private.server.url()
        async with MongoTrackerStore(
            host=host, driver=driver, connect_timeout_seconds=1.0
        ) as store:
            for version in range(0, 30, 3):
                assert await store._append(append(version))
            private.process.kill()
            with pytest.raises(StoreUnavailableError):
                await store._append(append(30))
            private.process.start()
            async with asyncio.timeout(20):
                while not (await store.health()).reachable:
                    pass
            assert await landed(store) == 30
            assert await store._append(append(30))
            assert await landed(store) == 33
