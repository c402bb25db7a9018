"""The audit trail as a table of an SQL database."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Column, MetaData, Table, Text, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from tracker_store_async.auditing.chain import Chain, Head, head_of
from tracker_store_async.auditing.sinks import Sink
from tracker_store_async.errors import AuditError
from tracker_store_async.side_database import (
    SideTable,
    answering,
    connect,
    create_table,
    explain,
    parse_url,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

OPTION = "audit.url"
MAX_ATTEMPTS = 50
LONGEST_PAUSE_SECONDS = 0.02
PAGE_ROWS = 1000

TABLE = Table(
    "audit_trail",
    MetaData(),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("record", Text, nullable=False),
)


class SQLSink(Sink):
    """A table `audit_trail`, which any number of processes share.

    Two that append the same number do not both succeed: the slower one tries again.

    Args:
        url: SQLAlchemy's URL of the database with an asyncio driver.
        chain: Links the records.

    Raises:
        ConfigurationError: It is no such URL.
    """

    name = "sql"

    def __init__(self, url: str, chain: Chain) -> None:
        super().__init__(chain)
        self._url = parse_url(url, OPTION, "sqlite+aiosqlite:///audit.db")
        self._engine: AsyncEngine | None = None

    async def open(self) -> None:
        """Connect, and create the table where there is none."""
        self._engine = connect(self._url)
        try:
            async with answering():
                await create_table(self._engine, TABLE)
                async with self._engine.connect() as connection:
                    self.head = await self._last(connection)
        except (SQLAlchemyError, OSError) as error:
            await self.close()
            raise self._failed(error) from error
        except AuditError:
            await self.close()
            raise

    def side_table(self) -> SideTable:
        """Return the table, for whoever looks after the tables."""
        return SideTable("audit trail", OPTION, self._url, TABLE, AuditError)

    async def close(self) -> None:
        """Disconnect."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    async def write(self, records: Sequence[dict[str, Any]]) -> None:
        """Append records in one transaction."""
        for attempt in range(MAX_ATTEMPTS):
            try:
                async with answering():
                    await self._write(records)
                return
            except IntegrityError as error:  # another process was faster
                if attempt == MAX_ATTEMPTS - 1:
                    raise self._failed(error) from error
                await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))  # noqa: S311
            except (SQLAlchemyError, OSError) as error:
                raise self._failed(error) from error

    async def _write(self, records: Sequence[dict[str, Any]]) -> None:
        assert self._engine is not None  # noqa: S101 - the store has opened it
        async with self._engine.begin() as connection:
            head = await self._last(connection)
            lines = self._linked(records, head)
            rows = [
                {"seq": head.seq + number, "record": line}
                for number, line in enumerate(lines, 1)
            ]
            await connection.execute(insert(TABLE), rows)

    async def _last(self, connection: AsyncConnection) -> Head:
        newest = select(TABLE.c.record).order_by(TABLE.c.seq.desc()).limit(1)
        found = (await connection.execute(newest)).scalar()
        try:
            return head_of(None if found is None else json.loads(found))
        except (ValueError, KeyError, TypeError) as error:
            raise AuditError(
                "the last row of the audit trail is no record: rename the table, and "
                "find out who has changed it"
            ) from error

    async def read(self) -> AsyncGenerator[str]:
        """Yield the records, by number; some of them are in memory at a time.

        Raises:
            AuditError: They cannot be read.
        """
        try:
            async with aclosing(self._read()) as records:
                async for record in records:
                    yield record
        except (SQLAlchemyError, OSError) as error:
            raise self._failed(error) from error

    async def _read(self) -> AsyncGenerator[str]:
        assert self._engine is not None  # noqa: S101 - the caller has opened it
        last = None  # whatever somebody has put before the first one is read too
        async with self._engine.connect() as connection:
            while True:
                page = select(TABLE).order_by(TABLE.c.seq).limit(PAGE_ROWS)
                if last is not None:
                    page = page.where(TABLE.c.seq > last)
                rows = (await connection.execute(page)).all()
                if not rows:
                    return
                for row in rows:
                    yield row.record
                last = rows[-1].seq

    def _failed(self, error: Exception) -> AuditError:
        return AuditError(explain(error, OPTION, self._url))
