"""Connections that are cut, freeze or are refused, through a proxy."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from tests.faults.proxy import FaultProxy
from tests.sql_databases import NOW, SENDER, append, database, ids, params, read
from tracker_store_async.errors import StoreTimeoutError, StoreUnavailableError
from tracker_store_async.rows import Listing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.servers import Servers
    from tests.sql_databases import Database
    from tracker_store_async.backends.sql import SQLTrackerStore


@pytest.fixture(params=params("postgresql", "mysql", "pgbouncer"))
def target(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[Database]:
    with database(request.param, servers, tmp_path) as found:
        yield found


@asynccontextmanager
async def proxied(
    target: Database, **options: Any
) -> AsyncIterator[tuple[SQLTrackerStore, FaultProxy]]:
    """Yield a store with one connection through a proxy, and three stored events."""
    server = target.options
    async with (
        FaultProxy(server["host"], server["port"]) as proxy,
        target.store(
            **{"host": proxy.host, "port": proxy.port, "pool_size": 1, **options}
        ) as store,
    ):
        assert await store._append(append(0))
        assert len(ids(await store._read(read()))) == 3
        yield store, proxy


async def landed(store: SQLTrackerStore) -> int:
    """Return how many events are stored; the rows must be whole."""
    found = await store._read(read())
    assert found is not None
    assert ids(found) == [f"id-{number}" for number in range(found.version)]
    return found.version


async def read_until_it_fails(store: SQLTrackerStore) -> None:
    for _ in range(5):  # the first answers may be within the budget
        await store._read(read())


AN_EVENT = b"id-4"  # what an append sends


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_cut_before_the_append_reaches_the_server(
    target: Database, how: Any
) -> None:
    async with proxied(target) as (store, proxy):
        proxy.cut_request(AN_EVENT, when="before", how=how)
        with pytest.raises(StoreUnavailableError):
            await store._append(append(3))
        assert proxy.struck.is_set()
        assert await landed(store) == 3
        assert await store._append(append(3))
        assert await landed(store) == 6


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_cut_after_the_append_was_done(target: Database, how: Any) -> None:
    async with proxied(target) as (store, proxy):
        words = AN_EVENT if target.dialect == "postgresql" else b"COMMIT"
        proxy.cut_request(words, when="after", how=how)
        with pytest.raises(StoreUnavailableError):
            await store._append(append(3))
        assert proxy.struck.is_set()
        assert await landed(store) == 6  # it had landed, and whole
        assert not await store._append(append(3))
        assert await landed(store) == 6


async def test_cut_within_the_answer_to_a_read(target: Database) -> None:
    async with proxied(target) as (store, proxy):
        for size_bytes in (1, 7, 40, 200, 400):
            proxy.cut_reply_after(size_bytes)
            with pytest.raises(StoreUnavailableError):
                await read_until_it_fails(store)
            assert await landed(store) == 3


async def test_cut_while_idle(target: Database) -> None:
    async with proxied(target) as (store, proxy):
        proxy.cut()
        await asyncio.sleep(0.05)
        if target.dialect == "postgresql":
            assert await landed(store) == 3  # it has been noticed
        else:
            with pytest.raises(StoreUnavailableError):
                await store._read(read())
        assert await store._append(append(3))
        assert await landed(store) == 6


async def test_server_that_goes_and_comes_back(target: Database) -> None:
    async with proxied(target, pool_size=3) as (store, proxy):
        await asyncio.gather(*(store._read(read()) for _ in range(3)))
        await proxy.refuse()
        proxy.cut()
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                await store._append(append(3))
            with pytest.raises(StoreUnavailableError):
                await store._list(Listing(NOW, 5))
            health = await store.health()
            assert not health.reachable
        await proxy.accept()
        results = await asyncio.gather(
            *(store._read(read()) for _ in range(6)), return_exceptions=True
        )
        if target.dialect == "postgresql":
            assert [len(ids(found)) for found in results] == [3] * 6  # type: ignore[arg-type]
        assert await store._append(append(3))
        assert await landed(store) == 6


async def test_server_that_says_nothing_any_more(target: Database) -> None:
    async with proxied(target, command_timeout_seconds=0.3) as (store, proxy):
        proxy.freeze()
        started = time.monotonic()
        with pytest.raises(StoreTimeoutError):
            await store._read(read())
        assert time.monotonic() - started < 5
        proxy.cut()
        proxy.unfreeze()
        assert await landed(store) == 3


async def test_server_that_does_not_let_anybody_in(target: Database) -> None:
    server = target.options
    async with FaultProxy(server["host"], server["port"]) as proxy:
        proxy.freeze()
        store = target.store(
            host=proxy.host, port=proxy.port, connect_timeout_seconds=0.3
        )
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            await store.open()
        assert time.monotonic() - started < 5
        proxy.cut()


async def test_waiting_for_connections_that_never_come(target: Database) -> None:
    async with proxied(target, connect_timeout_seconds=0.5, pool_size=2) as (
        store,
        proxy,
    ):
        await proxy.refuse()
        proxy.cut()
        await asyncio.sleep(0.05)
        started = time.monotonic()
        results = await asyncio.gather(
            *(store._read(read()) for _ in range(12)), return_exceptions=True
        )
        assert all(isinstance(result, StoreUnavailableError) for result in results)
        assert time.monotonic() - started < 10
        await proxy.accept()
        assert await landed(store) == 3


LOCK = "SELECT 1 FROM conversations FOR UPDATE"


@pytest.mark.parametrize("key", params("postgresql", "mysql"))
@pytest.mark.parametrize("operation", ["append", "delete"])
async def test_a_held_lock_costs_little_more_than_the_timeout(
    key: str, servers: Servers, tmp_path: Path, operation: str
) -> None:
    with database(key, servers, tmp_path) as target:
        engine = create_async_engine(target.url)
        async with target.store(command_timeout_seconds=1, pool_size=1) as store:
            assert await store._append(append(0))
            async with engine.begin() as other:
                await other.exec_driver_sql(LOCK)
                started = time.monotonic()
                blocked = (
                    store._append(append(3))
                    if operation == "append"
                    else store._delete(SENDER, None, NOW)
                )
                with pytest.raises(StoreTimeoutError):
                    await blocked
                assert time.monotonic() - started < 2.0
            # asyncpg's cancellation may lose the race against the lock's release
            assert await landed(store) in (3, 6)
        await engine.dispose()
