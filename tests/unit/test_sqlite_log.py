"""SQLite: the write-ahead log gets its usual size before it needs it."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from tests.sql_databases import append, ids, read
from tracker_store_async import SQLTrackerStore
from tracker_store_async.backends.sql.sqlite import SAVES_BEFORE_LOG
from tracker_store_async.backends.sql.sqlite_log import LOG_BYTES, grow_log

if TYPE_CHECKING:
    from pathlib import Path


def length_of(file: Path) -> int:
    return file.with_name(f"{file.name}-wal").stat().st_size


async def test_after_some_saves_the_log_is_as_long_as_it_gets(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    async with SQLTrackerStore(dialect="sqlite", db=str(file)) as store:
        for number in range(SAVES_BEFORE_LOG - 1):
            assert await store._append(append(3 * number))
        assert length_of(file) < LOG_BYTES
        assert await store._append(append(3 * (SAVES_BEFORE_LOG - 1)))
        length = length_of(file)
        assert LOG_BYTES <= length < 2 * LOG_BYTES
        for number in range(SAVES_BEFORE_LOG, 60):
            assert await store._append(append(3 * number))
        assert length_of(file) == length
        assert len(ids(await store._read(read()))) == 180
        with closing(sqlite3.connect(file)) as other:
            assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            names = {
                name for (name,) in other.execute("SELECT name FROM sqlite_master")
            }
            assert "growing_log" not in names
    assert file.stat().st_size < 200_000
    async with SQLTrackerStore(dialect="sqlite", db=str(file)) as store:
        assert len(ids(await store._read(read()))) == 180


async def test_who_only_reads_leaves_the_log_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    async with SQLTrackerStore(dialect="sqlite", db=str(file)) as store:
        assert await store._append(append(0))
        for _ in range(3 * SAVES_BEFORE_LOG):
            await store._read(read())
        assert length_of(file) < LOG_BYTES


async def test_an_engine_of_yours_keeps_its_log(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
    async with engine.connect() as connection:
        await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    async with SQLTrackerStore(engine=engine) as store:
        for number in range(2 * SAVES_BEFORE_LOG):
            assert await store._append(append(3 * number))
        assert length_of(file) < LOG_BYTES
    await engine.dispose()


@pytest.mark.parametrize("cached", [10, -2000])
def test_what_it_sets_is_as_before(tmp_path: Path, cached: int) -> None:
    file = tmp_path / "a.db"
    with closing(sqlite3.connect(file, timeout=3, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA cache_size = {cached}")
        connection.execute("CREATE TABLE a (b)")
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            grow_log(connection)  # not now
            assert time.monotonic() - started < 2
            assert length_of(file) < LOG_BYTES
            other.execute("ROLLBACK")
        grow_log(connection)
        assert length_of(file) >= LOG_BYTES
        assert not connection.in_transaction
        [[found]] = connection.execute("PRAGMA cache_size").fetchall()
        [[busy_ms]] = connection.execute("PRAGMA busy_timeout").fetchall()
        assert (found, busy_ms) == (cached, 3000)


def test_a_database_in_memory_has_no_log() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        grow_log(connection)
        assert not connection.in_transaction
