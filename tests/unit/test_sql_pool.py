"""Few connections and many who want one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.sql_databases import NOW, append, database, ids, params, read
from tracker_store_async import errors
from tracker_store_async.brokers.recording import RecordingBroker
from tracker_store_async.events import UserUttered
from tracker_store_async.rows import Listing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers
    from tests.sql_databases import Database


@pytest.fixture(params=params("postgresql", "mysql"))
def target(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[Database]:
    with database(request.param, servers, tmp_path) as found:
        yield found


async def test_who_goes_on_and_on_lets_others_in(target: Database) -> None:
    async with target.store(pool_size=1, max_overflow=0) as store:
        await store._append(append(0))
        order: list[str] = []

        async def often(name: str) -> None:
            for _ in range(10):
                await store._read(read())
                order.append(name)

        await asyncio.gather(*(often(name) for name in "abc"))
        assert order == list("abc") * 10


async def test_who_gives_up_waiting_leaves_no_hole(target: Database) -> None:
    async with target.store(pool_size=1, max_overflow=0) as store:
        await store._append(append(0))
        for delay_seconds in (0, 0, 0.0001, 0.001, 0.002, 0.005):
            waiting = [asyncio.ensure_future(store._read(read())) for _ in range(5)]
            await asyncio.sleep(delay_seconds)
            for task in waiting[::2]:
                task.cancel()
            found = await asyncio.gather(*waiting, return_exceptions=True)
            assert [len(ids(each)) for each in found[1::2]] == [3, 3]  # type: ignore[arg-type]
        assert len(ids(await store._read(read()))) == 3


async def test_too_long_a_wait_leaves_no_hole(target: Database) -> None:
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout_seconds": 0.1}
    async with target.store(**options) as store:
        await store._append(append(0))
        operations: Any = store._operations
        async with operations.connection():
            found = await asyncio.gather(
                *(store._list(Listing(NOW, 5)) for _ in range(3)),
                *(store._read(read()) for _ in range(3)),
                return_exceptions=True,
            )
            assert {type(each) for each in found} == {errors.StoreTimeoutError}
            assert "pool_size" in str(found[0])
        assert len(ids(await store._read(read()))) == 3


async def test_relay_of_the_outbox_gets_the_one_connection(target: Database) -> None:
    broker = RecordingBroker()
    options = {"pool_size": 1, "max_overflow": 0, "outbox": True}
    async with target.store(**options, event_broker=broker) as store:
        tracker = await store.get_or_create_tracker("alice")
        tracker.update(UserUttered("hi"))
        await store.save(tracker)
        async with asyncio.timeout(5):
            while len(broker.messages) < len(tracker.events):
                await store.retrieve("alice")  # the connection lies at hand again
                await asyncio.sleep(0.01)


async def test_maintenance_gets_the_one_connection(target: Database) -> None:
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout_seconds": 1}
    async with target.store(**options) as store:
        await store._append(append(0))
        assert len(ids(await store._read(read()))) == 3
        await store._upkeep(apply=True)
