"""Wrapped data keys in an SQL database of their own, apart from the conversations.

What is erased here is gone from every copy of a conversation, its backups included:
nobody can unwrap a key that no longer exists. So this database wants a backup that
forgets sooner than the conversations' own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import Column, MetaData, String, Table, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from tracker_store_async.errors import StoreUnavailableError
from tracker_store_async.settling import settled
from tracker_store_async.side_database import (
    SideTable,
    answering,
    connect,
    create_table,
    explain,
    parse_url,
)

if TYPE_CHECKING:
    from sqlalchemy import Executable
    from sqlalchemy.ext.asyncio import AsyncEngine

OPTION = "encryption.data_keys"

TABLE = Table(
    "conversation_data_keys",
    MetaData(),
    Column("key_id", String(32), primary_key=True),
    Column("wrapped", String(512), nullable=False),
)


class SQLDataKeys:
    """Keeps wrapped data keys by a random id.

    Args:
        url: SQLAlchemy's URL of the database with an asyncio driver, such as
            `sqlite+aiosqlite:///keys.db` or `postgresql+asyncpg://user@host/keys`.

    Raises:
        ConfigurationError: It is no such URL.
    """

    def __init__(self, url: str) -> None:
        self._url = parse_url(url, OPTION, "sqlite+aiosqlite:///keys.db")
        self._engine: AsyncEngine | None = None

    async def open(self) -> None:
        """Connect, and create the table where there is none."""
        self._engine = connect(self._url)
        try:
            # A driver that is cancelled half-way leaks its connection.
            await settled(self._create_table(self._engine))
        except BaseException:
            await settled(self.close())
            raise

    async def _create_table(self, engine: AsyncEngine) -> None:
        try:
            async with answering():
                await create_table(engine, TABLE)
        except (SQLAlchemyError, OSError) as error:
            raise self._unavailable(error) from error

    def side_table(self) -> SideTable:
        """Return the table, for whoever looks after the tables."""
        return SideTable("data keys", OPTION, self._url, TABLE, StoreUnavailableError)

    async def close(self) -> None:
        """Disconnect."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    async def add(self, wrapped: str) -> str:
        """Keep a wrapped key; return its new id."""
        key_id = uuid4().hex
        await self._run(insert(TABLE).values(key_id=key_id, wrapped=wrapped))
        return key_id

    async def get(self, key_id: str) -> str | None:
        """Return a wrapped key, or None if it was erased."""
        found, _ = await self._run(
            select(TABLE.c.wrapped).where(TABLE.c.key_id == key_id)
        )
        return found

    async def rewrap(self, key_id: str, wrapped: str, prefix: str) -> bool:
        """Replace a wrapped key unless it begins with a prefix; return whether."""
        # Compared here: to LIKE, and to some collations, `V1` is `v1`.
        if (await self.get(key_id) or prefix).startswith(prefix):
            return False
        statement = update(TABLE).where(TABLE.c.key_id == key_id)
        _, count = await self._run(statement.values(wrapped=wrapped))
        return bool(count)

    async def erase(self, key_id: str) -> None:
        """Forget a key; whatever it sealed cannot be read any more."""
        await self._run(delete(TABLE).where(TABLE.c.key_id == key_id))

    async def _run(self, statement: Executable) -> tuple[str | None, int]:
        return await settled(self._execute(statement))

    async def _execute(self, statement: Executable) -> tuple[str | None, int]:
        assert self._engine is not None  # noqa: S101 - the store has opened it
        try:
            async with answering(), self._engine.begin() as connection:
                result = await connection.execute(statement)
                found = result.scalar_one_or_none() if result.returns_rows else None
                return found, result.rowcount
        except (SQLAlchemyError, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StoreUnavailableError:
        return StoreUnavailableError(explain(error, OPTION, self._url))
