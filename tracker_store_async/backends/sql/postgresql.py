"""PostgreSQL: one statement and one round trip to append, and one to read.

Both go through the asyncpg connection below SQLAlchemy's pool, in autocommit: there is
no BEGIN, COMMIT, ROLLBACK or ping around them. Whatever is rare (delete, list, the
schema) uses SQLAlchemy Core, and so does everything with another driver.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert

from tracker_store_async.backends.sql.checkout import Checkout
from tracker_store_async.backends.sql.core import (
    CONTENTION_ATTEMPTS,
    CoreOperations,
)
from tracker_store_async.backends.sql.errors import is_contended
from tracker_store_async.backends.sql.lost import dropping_lost, has_outlived_login
from tracker_store_async.backends.sql.paging import check_whole, page_end
from tracker_store_async.backends.sql.postgresql_bulk import Bulk
from tracker_store_async.backends.sql.postgresql_statements import Statements
from tracker_store_async.rows import RawRows, StoredConversation
from tracker_store_async.settling import settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from tracker_store_async.backends.sql.schema import Tables
    from tracker_store_async.rows import Append, Read, StoredRow

T = TypeVar("T")

_READ_ONLY = "25006"

_row_of = itemgetter(2, 0)
_text_of = itemgetter(0)


def _row_without_id(raw: Any) -> StoredRow:
    return None, raw[0]


class PostgresqlOperations(CoreOperations):
    """PostgreSQL with any asyncio driver that SQLAlchemy knows."""

    async def _insert_header(
        self, conn: AsyncConnection, values: dict[str, Any]
    ) -> bool:
        # An error would end the transaction here. The row tells, not the number of
        # rows: with psycopg that is -1 here, inserted or not.
        table = self.tables.conversations
        statement = insert(table).values(values).on_conflict_do_nothing()
        found = await conn.execute(statement.returning(table.c.version))
        return found.first() is not None

    async def server_version(self) -> str:
        """Ask the server for its version: one round trip."""
        async with self._reading() as conn:
            return str((await conn.execute(text("SHOW server_version"))).scalar())


class AsyncpgOperations(PostgresqlOperations):
    """PostgreSQL with asyncpg.

    Args:
        engine: A connected engine.
        tables: The layout on it.
        keep_connections: Whether connections stay at hand between two statements; see
            `Checkout`.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        tables: Tables,
        *,
        keep_connections: bool = False,
    ) -> None:
        super().__init__(engine, tables)
        self._checkout = Checkout(engine, keep=keep_connections)
        self._statements = Statements(engine, tables)
        self._bulk = Bulk(engine, tables)

    async def append(self, append: Append) -> bool:
        """Store everything if the version is the expected one; False if it is not."""
        if append.origin is not None:
            return await super().append(append)
        sql, arguments = self._statements.append(append)
        if await self._fetch(sql, arguments):
            return True
        # Rare: an expired conversation may stand in the way of a new one.
        return not append.expected_version and await super().append(append)

    async def append_many(self, appends: Sequence[Append]) -> list[bool] | None:
        """Append to several conversations: one transaction for each number of events.

        In the order of the ids, so that two who do so do not wait for each other. Those
        of a copy go in one transaction, with COPY: that is faster for many events, and
        slower for saves (a third, for 64 of six events), since it is five round trips.
        """
        if all(append.origin is not None for append in appends):
            stored = await settled(
                self._on_driver(lambda driver: self._bulk.append(driver, appends))
            )
        elif any(append.origin is not None for append in appends):
            return None
        else:
            stored = await self._save_many(appends)
        # Rare: an expired conversation may stand in the way of a new one.
        return [
            append.sender_id in stored
            or (not append.expected_version and await self.append(append))
            for append in appends
        ]

    async def _save_many(self, appends: Sequence[Append]) -> set[str]:
        """Return the ids of the conversations that were appended to."""
        by_sql: dict[str, list[list[Any]]] = {}
        for append in sorted(appends, key=lambda each: each.sender_id):
            sql, arguments = self._statements.append(append)
            by_sql.setdefault(sql, []).append(arguments)
        stored: set[str] = set()
        for sql, calls in by_sql.items():
            found = await self._on_driver(_fetching_many(sql, calls))
            stored.update(row[0] for row in found)
        return stored

    async def read(self, read: Read) -> StoredConversation | None:
        """Return header and rows as of one moment, or None."""
        found = await self._fetch(*self._statements.read(read))
        if not found:
            return None
        if found[0][1] is None:
            return await super().read(read)  # its first row is missing: say which
        return _conversation_of(read, found)

    async def read_many(self, reads: Sequence[Read]) -> list[StoredConversation | None]:
        """Do several reads as of one moment, in two statements."""
        if any(read.start is None or read.last for read in reads):
            return [await self.read(read) for read in reads]
        return await self._on_driver(lambda driver: self._bulk.read(driver, reads))

    async def _on_driver(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Do several statements on one connection of the driver."""
        pooled = await self._checkout.take()
        driver: Any = pooled.driver_connection
        try:
            found = await work(driver)
        except BaseException as error:
            # A single statement is done on the server wholly or not at all.
            if not isinstance(error, Exception):
                self._checkout.abandon(pooled)
            elif (
                _is_sound(driver, error)
                and not driver.is_in_transaction()
                and not (
                    self.renews_login
                    and has_outlived_login(pooled, error, self.engine.pool)
                )
            ):
                await self._checkout.give_back(pooled)
            else:
                self._checkout.drop(pooled)
            raise
        await self._checkout.give_back(pooled)
        return found

    async def _fetch(self, sql: str, arguments: Sequence[Any]) -> Sequence[Any]:
        for attempt in range(CONTENTION_ATTEMPTS):
            try:
                return await self._fetch_once(sql, arguments)
            except Exception as error:
                if attempt == CONTENTION_ATTEMPTS - 1 or not is_contended(error):
                    raise
                await asyncio.sleep(0.005 * 2**attempt)
        raise AssertionError  # the last attempt returned or raised

    async def _fetch_once(self, sql: str, arguments: Sequence[Any]) -> Sequence[Any]:
        return await self._on_driver(lambda driver: driver.fetch(sql, *arguments))

    async def close(self) -> None:
        """Give the connections back to the pool."""
        await self._checkout.close()

    @property
    def idle_count(self) -> int:
        """Number of connections that count as taken from the pool but are unused."""
        return self._checkout.idle_count

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection of SQLAlchemy's."""
        async with (
            self._checkout.connection() as conn,
            dropping_lost(conn, renews_login=self.renews_login),
        ):
            yield conn

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        async with self.connection() as conn:
            # asyncpg's own mode: setting and resetting it costs no round trip.
            yield await conn.execution_options(isolation_level="AUTOCOMMIT")


def _fetching_many(
    sql: str, calls: Sequence[Sequence[Any]]
) -> Callable[[Any], Awaitable[Sequence[Any]]]:
    """Return what runs a statement several times, in one transaction of its own."""
    return lambda driver: driver.fetchmany(sql, calls)


def _is_sound(driver: Any, error: Exception) -> bool:
    """Whether the server refused a statement, and the connection is as good as ever.

    One that is read-only may be so for as long as it lives, whatever a new one is.
    """
    state = getattr(error, "sqlstate", None)
    return state not in (None, _READ_ONLY) and not driver.is_closed()


def _conversation_of(read: Read, found: Sequence[Any]) -> StoredConversation:
    header = found[0][1]
    version, first = header[0], header[7]
    # Without events there is one row, for the header.
    raw = found if first < version else []
    rows = RawRows(raw, _row_of if read.ids else _row_without_id, _text_of)
    check_whole(read.sender_id, first, page_end(read, first, version), len(rows))
    return StoredConversation(*(*header[:7], first, rows))
