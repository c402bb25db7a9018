"""Closing while appends are under way leaves no connection on the server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests.sql_databases import database, params
from tracker_store_async.events import UserUttered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers
    from tests.sql_databases import Database

SAVES = 3
COUNT = {
    "postgresql": (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()"
    ),
    "mysql": (
        "SELECT count(*) FROM information_schema.processlist"
        " WHERE db = database() AND id <> connection_id()"
    ),
}


@pytest.fixture(params=params("postgresql", "mysql"))
def target(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[Database]:
    with database(request.param, servers, tmp_path) as found:
        yield found


async def connections(target: Database) -> int:
    """Return how many others are connected, once those that close have gone."""
    for _ in range(50):
        count = int((await target.arun(COUNT[target.dialect]))[0][0])
        if not count:
            break
        await asyncio.sleep(0.02)
    return count


async def test_what_is_in_use_is_closed_when_it_is_given_back(
    target: Database,
) -> None:
    store = target.store(pool_size=SAVES)
    trackers = [await store.get_or_create_tracker(f"s{n}") for n in range(SAVES)]
    past = create_async_engine(target.url, poolclass=NullPool)
    async with past.connect() as blocker:
        await blocker.execute(text("SELECT 1 FROM conversations FOR UPDATE"))
        for tracker in trackers:
            tracker.update(UserUttered("hi"))
        saves = [asyncio.create_task(store.save(tracker)) for tracker in trackers]
        await asyncio.sleep(0.2)  # they wait for the rows
        await store.close()
        assert not any(save.done() for save in saves)
        await blocker.rollback()
        await asyncio.gather(*saves)
    await past.dispose()
    assert await connections(target) == 0
    async with store:
        assert await store.retrieve("s0") == trackers[0]
