"""SQLite: which connection a read goes to, and what is left out of it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from tests.sql_databases import append, ids, read, rows
from tracker_store_async import SQLTrackerStore, errors
from tracker_store_async.backends.sql.sqlite_lane import Lane
from tracker_store_async.backends.sql.sqlite_reading import SHORT_READ_ROWS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

MANY = SHORT_READ_ROWS + 1


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLTrackerStore]:
    async with SQLTrackerStore(dialect="sqlite", db=str(tmp_path / "a.db")) as store:
        yield store


@pytest.fixture
def used(store: SQLTrackerStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the connections that are used from now on."""
    run: Callable[..., Any] = Lane.run
    operations: Any = store._opened
    found: list[str] = []

    async def noted(lane: Any, *arguments: Any) -> Any:
        found.append("writer" if lane is operations._writer else "reader")
        return await run(lane, *arguments)

    monkeypatch.setattr(Lane, "run", noted)
    return found


async def test_a_short_read_goes_to_the_connection_that_writes(
    store: SQLTrackerStore, used: list[str]
) -> None:
    assert await store._append(append(0, MANY))
    used.clear()
    assert await store._read(read(sender_id="nobody")) is None
    assert ids(await store._read(read(last=3))) == ids_of(MANY)[-3:]
    assert used == ["writer", "writer"]


async def test_a_long_read_does_not_keep_a_save_waiting(
    store: SQLTrackerStore, used: list[str]
) -> None:
    assert await store._append(append(0, MANY))
    used.clear()
    assert ids(await store._read(read())) == ids_of(MANY)
    assert used == ["writer", "reader"]
    assert ids(await store._read(read())) == ids_of(MANY)
    assert used == ["writer", "reader", "reader"]  # it is known to be long
    assert await store._append(append(MANY))


async def test_a_read_does_not_wait_for_a_save(
    store: SQLTrackerStore, used: list[str]
) -> None:
    assert await store._append(append(0))
    used.clear()
    saving = asyncio.ensure_future(store._append(append(3)))
    await asyncio.sleep(0)
    await store._read(read())
    assert await saving
    assert used == ["writer", "reader"]
    assert len(ids(await store._read(read()))) == 6
    assert used.pop() == "writer"


async def test_a_read_does_not_wait_for_a_write_that_nobody_waits_for(
    store: SQLTrackerStore, used: list[str]
) -> None:
    assert await store._append(append(0))
    operations: Any = store._opened
    begun, go_on = threading.Event(), threading.Event()

    def work(_: Any) -> None:
        begun.set()
        go_on.wait(10)

    writing = asyncio.ensure_future(operations.write(work))
    await asyncio.to_thread(begun.wait, 10)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    used.clear()
    assert len(ids(await store._read(read()))) == 3
    assert used == ["reader"]
    go_on.set()
    assert await store._append(append(3))
    await store._read(read())
    assert used.pop() == "writer"


async def test_ids_that_nobody_looks_at_are_not_read(store: SQLTrackerStore) -> None:
    texts = ['{"event": "bot", "text": "Grüße"}', '{"event": "action"}']
    new = [row._replace(data=text) for row, text in zip(rows(2, 0), texts, strict=True)]
    assert await store._append(append(0, rows=new))
    found = await store._read(read(ids=False))
    assert found is not None
    assert list(found.rows) == [(None, texts[0].encode()), (None, texts[1])]
    assert ids(await store._read(read())) == ids_of(2)


def ids_of(count: int) -> list[str]:
    return [row.event_id for row in rows(count, 0)]


async def test_a_commit_that_fails_leaves_no_transaction_open(tmp_path: Path) -> None:
    """As where there is no write-ahead log, and somebody reads all the while."""
    url = f"sqlite+aiosqlite:///{tmp_path}/a.db"
    engine = create_async_engine(url, connect_args={"timeout": 0})
    async with SQLTrackerStore(engine=engine) as store:
        assert await store._append(append(0))
        with closing(sqlite3.connect(tmp_path / "a.db")) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM events").fetchone()
            with pytest.raises(errors.StoreUnavailableError):
                await store._append(append(3))
        assert len(ids(await store._read(read()))) == 3
        assert await store._append(append(3))
        assert len(ids(await store._read(read()))) == 6
    await engine.dispose()


async def test_only_so_many_are_remembered_for_being_long(
    store: SQLTrackerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker_store_async.backends.sql.sqlite.MOST_LONG", 2)
    operations: Any = store._opened
    for name in "abc":
        assert await store._append(append(0, MANY, sender_id=name))
        await store._read(read(sender_id=name))
    assert list(operations._long) == ["b", "c"]
