"""What the tables take, and the statements that make them take less."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from tracker_store_async.backends.sql.sqlite import SqliteOperations
from tracker_store_async.rows import Upkeep

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from tracker_store_async.backends.sql.opening import Operations
    from tracker_store_async.backends.sql.schema import Tables

SQLITE_STEPS = ("VACUUM", "REINDEX", "ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)")

NOTES = {
    "sqlite": "VACUUM writes the whole file anew: it needs as much room again, and "
    "others wait until it is done",
    "postgresql": "VACUUM and REINDEX CONCURRENTLY let others read and write; rows "
    "that were erased or rewritten are gone from the table's file once VACUUM is done, "
    "and from the write-ahead log and its archive when these are recycled",
    "mysql": "OPTIMIZE TABLE copies each table: others read and write meanwhile, but "
    "it needs as much room again",
}


async def sql_upkeep(operations: Operations, tables: Tables, *, apply: bool) -> Upkeep:
    """Report on the tables; with `apply`, first run the statements.

    Args:
        operations: An open database.
        tables: Its layout.
        apply: Whether to run them.
    """
    if isinstance(operations, SqliteOperations):
        if apply:
            await operations.write(_optimise_sqlite)
        size_bytes = await operations.write(_sqlite_size)
        return Upkeep(size_bytes, SQLITE_STEPS, [NOTES["sqlite"]])
    async with _autocommit(operations) as conn:
        name = "mysql" if conn.dialect.name == "mariadb" else conn.dialect.name
        steps = _statements(conn, tables, name)
        if apply:
            for step in steps:
                # MySQL answers with rows; that it is done is all that is asked.
                (await conn.exec_driver_sql(step)).close()
        size = await _size(conn, tables, name)
    return Upkeep(size, steps, [NOTES[name]] if name in NOTES else [])


def _optimise_sqlite(conn: sqlite3.Connection) -> None:
    for statement in SQLITE_STEPS:
        conn.execute(statement).fetchall()


def _sqlite_size(conn: sqlite3.Connection) -> int:
    [pages] = conn.execute("PRAGMA page_count").fetchone()
    [size] = conn.execute("PRAGMA page_size").fetchone()
    return int(pages * size)


@asynccontextmanager
async def _autocommit(operations: Any) -> AsyncIterator[AsyncConnection]:
    async with operations.connection() as raw:
        yield await raw.execution_options(isolation_level="AUTOCOMMIT")


def _statements(conn: AsyncConnection, tables: Tables, name: str) -> list[str]:
    prepared = conn.dialect.identifier_preparer
    names = [prepared.format_table(t) for t in (tables.events, tables.conversations)]
    if name == "postgresql":
        vacuum = [f"VACUUM (ANALYZE) {table}" for table in names]
        return vacuum + [f"REINDEX TABLE CONCURRENTLY {table}" for table in names]
    if name == "mysql":
        return [f"{verb} TABLE {', '.join(names)}" for verb in ("OPTIMIZE", "ANALYZE")]
    return [f"ANALYZE TABLE {table} COMPUTE STATISTICS" for table in names]


async def _size(conn: AsyncConnection, tables: Tables, name: str) -> int | None:
    if name == "postgresql":
        prepared = conn.dialect.identifier_preparer
        found = 0
        for table in (tables.events, tables.conversations):
            asked = text("SELECT pg_total_relation_size(CAST(:t AS regclass))")
            answer = await conn.execute(asked, {"t": prepared.format_table(table)})
            found += int(answer.scalar_one())
        return found
    if name == "mysql":
        asked = text(
            "SELECT sum(data_length + index_length) FROM information_schema.tables "
            "WHERE table_schema = database() AND table_name IN (:a, :b)"
        )
        names = {"a": tables.events.name, "b": tables.conversations.name}
        return int((await conn.execute(asked, names)).scalar_one() or 0)
    return None
