"""Callers cancelled at any moment: the pool stays whole, and so does the log."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.pool import AsyncAdaptedQueuePool

from tests.faults.proxy import FaultProxy
from tests.sql_databases import (
    ALL,
    NOW,
    ReusedDatabases,
    append,
    database,
    ids,
    params,
    read,
)
from tracker_store_async.rows import Listing
from tracker_store_async.settling import settled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.servers import Servers
    from tests.sql_databases import Database
    from tracker_store_async.backends.sql import SQLTrackerStore

STEPS = 40
"""Moments at which an operation is cancelled, spread over its usual duration."""


@pytest.fixture(scope="module")
def databases(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ReusedDatabases]:
    found = ReusedDatabases(servers, tmp_path_factory.mktemp("databases"))
    yield found
    found.close()


@pytest.fixture(params=ALL)
async def target(
    request: pytest.FixtureRequest, databases: ReusedDatabases
) -> Database:
    return await databases.get(request.param)


def one_connection(target: Database) -> dict[str, Any]:
    if target.dialect == "sqlite":
        return {}
    return {"pool_size": 1, "pool_timeout_seconds": 5.0}


async def cancelled_at(
    operation: Callable[[], Awaitable[Any]], delay_seconds: float, turns: int
) -> bool:
    """Run an operation, cancel it, and return whether it had ended before."""
    task = asyncio.ensure_future(operation())
    if delay_seconds:
        await asyncio.sleep(delay_seconds)
    for _ in range(turns):
        await asyncio.sleep(0)
    was_done = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return was_done


async def moments(operation: Callable[[], Awaitable[Any]]) -> list[tuple[float, int]]:
    """Return delays that are spread over the time that the operation takes."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    await operation()
    duration = max(loop.time() - started, 0.001)
    early = [(0.0, turns) for turns in range(12)]
    return early + [(duration * 1.5 * step / STEPS, 0) for step in range(STEPS)]


async def check_whole(store: SQLTrackerStore) -> int:
    """Check that the rows are whole; return how many there are."""
    found = await store._read(read())
    if found is None:
        return 0
    assert ids(found) == [f"id-{number}" for number in range(found.version)]
    return found.version


async def test_cancelled_append(
    target: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with target.store(**one_connection(target)) as store:
        assert await store._append(append(0))
        delays = await moments(lambda: store._append(append(0, sender_id="to time it")))
        version, stored = 3, 0
        for delay_seconds, turns in delays:
            at = version

            async def run(at: int = at) -> None:
                await store._append(append(at))

            await cancelled_at(run, delay_seconds, turns)
            version = await check_whole(store)
            assert version in (at, at + 3)
            stored += version - at
            if version == at:
                # A write that is still on its way may land now, or this one does.
                await store._append(append(at))
                version = await check_whole(store)
                assert version == at + 3
        assert stored > 0
        check_pool(store)
    check_log(caplog)


@pytest.mark.parametrize("what", ["read", "list", "delete", "create", "health"])
async def test_other_operations_cancelled(
    target: Database, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with target.store(**one_connection(target)) as store:
        assert await store._append(append(0))
        number = 0

        async def create() -> None:
            nonlocal number
            number += 1
            await store._append(append(0, sender_id=f"s{number}"))

        async def delete() -> None:
            await store._delete(f"s{number}", None, NOW)
            await create()

        operations: dict[str, Callable[[], Awaitable[Any]]] = {
            "read": lambda: store._read(read()),
            "list": lambda: store._list(Listing(NOW, 5)),
            "health": store.health,
            "create": create,
            "delete": delete,
        }
        for delay_seconds, turns in await moments(operations[what]):
            await cancelled_at(operations[what], delay_seconds, turns)
        assert await check_whole(store) == 3
        for summary in await store._list(Listing(NOW, 1000)):
            found = await store._read(read(sender_id=summary.sender_id))
            assert len(ids(found)) == 3
        check_pool(store)
    check_log(caplog)


def check_log(caplog: pytest.LogCaptureFixture) -> None:
    """Check that neither the pool nor the loop found anything lost."""
    gc.collect()
    names = ("sqlalchemy", "asyncio")
    assert [one for one in caplog.records if one.name.startswith(names)] == []


def check_pool(store: SQLTrackerStore) -> None:
    """Check that no connection is missing."""
    pool: Any = store._engine.pool  # type: ignore[union-attr]
    if isinstance(pool, AsyncAdaptedQueuePool):
        operations: Any = store._operations
        assert pool.checkedout() == operations.idle_count


async def test_many_cancelled_at_once(target: Database) -> None:
    options = one_connection(target)
    if options:
        options["pool_size"] = 3
    chance = random.Random(5)
    async with target.store(**options) as store:

        async def write(number: int) -> None:
            async with asyncio.timeout(chance.uniform(0, 0.1)):
                await store._append(append(0, sender_id=f"s{number}"))

        results = await asyncio.gather(
            *(write(number) for number in range(150)), return_exceptions=True
        )
        assert all(
            result is None or isinstance(result, TimeoutError) for result in results
        )
        await asyncio.sleep(0.1)
        for number, result in enumerate(results):
            found = await store._read(read(sender_id=f"s{number}"))
            assert (result is None) <= (found is not None)
            assert found is None or len(ids(found)) == 3
        check_pool(store)


@pytest.mark.parametrize("key", params("sqlite", "postgresql", "mysql"))
async def test_cancelled_opening(
    key: str, servers: Servers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with database(key, servers, tmp_path) as target:
        store = target.store()
        for turns in range(0, 60, 3):
            await cancelled_at(store.open, 0.0, turns)
            await store.close()
            store = target.store()
        for delay_seconds in (0.001, 0.005, 0.01, 0.02, 0.05):
            await cancelled_at(store.open, delay_seconds, 0)
        async with store:
            assert await store._append(append(0))
    check_log(caplog)


@pytest.mark.backend("mysql")
async def test_transaction_is_settled_and_its_connection_kept(
    servers: Servers, tmp_path: Path
) -> None:
    with database("mysql", servers, tmp_path) as target:
        server = target.options
        async with (
            FaultProxy(server["host"], server["port"]) as proxy,
            target.store(host=proxy.host, port=proxy.port, pool_size=1) as store,
        ):
            assert await store._append(append(0))
            connections = proxy.connections
            proxy.delay_seconds = 0.03
            task = asyncio.create_task(store._append(append(3)))
            await asyncio.sleep(0.045)  # between the UPDATE and the COMMIT
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            stored = await target.arun("SELECT count(*) FROM events")
            assert stored == [(6,)]
            assert await check_whole(store) == 6
            assert proxy.connections == connections


# -- settling --------------------------------------------------------------------------


async def test_what_was_begun_ends_before_the_cancellation_goes_on() -> None:
    done = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        done.append(1)

    task = asyncio.create_task(settled(work()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]


async def test_it_waits_for_a_bounded_time() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(1)

    task = asyncio.create_task(settled(work(), seconds=0.05))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [1]


async def test_a_second_cancellation_does_not_wait() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.1)
        ended.set()

    task = asyncio.create_task(settled(work()))
    for _ in range(2):
        await asyncio.sleep(0.01)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ended.is_set()
    await asyncio.wait_for(ended.wait(), 5)


async def test_its_result_and_its_error_pass() -> None:
    async def work(fail: bool) -> int:
        if fail:
            raise LookupError
        return 7

    assert await settled(work(fail=False)) == 7
    with pytest.raises(LookupError):
        await settled(work(fail=True))
