"""The outbox of the SQL store: two small tables beside the conversations."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import (
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    exists,
    func,
    inspect,
    literal_column,
    or_,
    select,
)
from sqlalchemy.exc import IntegrityError

from tracker_store_async.backends.sql.layout import schema_lock
from tracker_store_async.backends.sql.schema import (
    _id_column,
    _key_type,
    _long_text,
    _mysql_options,
)
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.relay import LONGEST_LEASE_SECONDS, Outbox
from tracker_store_async.rows import OutboxEntry, OutboxItem
from tracker_store_async.settling import settled

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection, Dialect
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from tracker_store_async.backends.sql.connector import Connector
    from tracker_store_async.backends.sql.opening import Operations
    from tracker_store_async.rows import Append, Rewrite


class OutboxTables(NamedTuple):
    """The messages, and which relay has them."""

    metadata: MetaData
    messages: Table
    lease: Table


def build_outbox(dialect: Dialect, schema: str | None) -> OutboxTables:
    """Return the tables as this database needs them."""
    metadata, options = MetaData(schema=schema), _mysql_options(dialect)
    messages = Table(
        "outbox",
        metadata,
        _id_column(dialect),
        Column("sender_id", _key_type(dialect), nullable=False),
        Column("position", Integer, nullable=False),
        Column("message_id", _long_text(), nullable=False),
        Column("body", _long_text(), nullable=False),
        Index("ix_outbox_sender_id", "sender_id", "position"),  # to erase by
        sqlite_autoincrement=True,  # a key is never used again
        **options,
    )
    lease = Table(
        "outbox_lease",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("owner", String(64), nullable=False),
        Column("expires_at", Double, nullable=False),
        **options,
    )
    return OutboxTables(metadata, messages, lease)


def outbox_values(append: Append) -> list[dict[str, Any]]:
    """Return the rows that an append adds to the outbox."""
    return [
        {"sender_id": append.sender_id, **entry._asdict()} for entry in append.outbox
    ]


def rewritten_bodies(rewrite: Rewrite, waiting: Iterable[int]) -> list[dict[str, Any]]:
    """Return what the messages of a conversation say once it is rewritten.

    Args:
        rewrite: What is put in the place of what is stored.
        waiting: Positions of the events that are not published yet.
    """
    values = []
    for position in waiting:
        row = rewrite.rows[position - rewrite.first_position]
        body = {"sender_id": rewrite.sender_id, **json.loads(row.data)}
        if rewrite.user_id is not None:
            body.setdefault("user_id", rewrite.user_id)
        values.append(
            {
                "sender_id": rewrite.sender_id,
                "position": position,
                "body": json.dumps(body),
            }
        )
    return values


async def find_messages(
    connection: AsyncConnection, schema: str | None
) -> Table | None:
    """Return the table of the messages where there is an outbox, or None."""
    # `outbox` alone might be somebody else's.
    if await missing_tables(connection, schema):
        return None
    return build_outbox(connection.dialect, schema).messages


async def missing_tables(
    connection: AsyncConnection, schema: str | None
) -> list[Table]:
    """Return the tables of an outbox that are not there."""
    tables = build_outbox(connection.dialect, schema)

    def look(sync: Connection) -> list[Table]:
        has_table = inspect(sync).has_table
        wanted = (tables.messages, tables.lease)
        return [each for each in wanted if not has_table(each.name, schema=schema)]

    return await connection.run_sync(look)


async def create_outbox(engine: AsyncEngine, schema: str | None) -> None:
    """Create the tables of an outbox that are missing."""
    tables = build_outbox(engine.dialect, schema)
    async with schema_lock(engine) as connection:
        await connection.run_sync(tables.metadata.create_all)


def check_outbox(connector: Connector) -> bool:
    """Check that there can be an outbox, and return that there can.

    Raises:
        ConfigurationError: The database cannot have one.
    """
    if connector.dialect == "oracle":
        raise ConfigurationError(
            "`outbox` works with dialects sqlite, postgresql, mysql and mariadb only"
        )
    if connector.dialect == "sqlite" and connector.is_in_memory():
        raise ConfigurationError("`outbox` needs an SQLite file: name it in `db`")
    return True


_NOW = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "extract(epoch from clock_timestamp())::float8",
    "mysql": "timestampdiff(microsecond, '1970-01-01', utc_timestamp(6)) / 1e6",
}
"""The database's own clock, in seconds since the epoch."""


def database_time(dialect: str) -> ColumnElement[float]:
    """Return the expression for the time that the database has."""
    name = "mysql" if dialect == "mariadb" else dialect
    return literal_column(f"({_NOW[name]})", Double)


class SqlOutbox(Outbox):
    """The outbox in a database.

    Args:
        operations: The primitives of the open store, whose connections are used.
        schema: Schema that holds the tables, or None for the connection's own.
        timeout_seconds: Longest time that one operation may take.
    """

    def __init__(
        self, operations: Operations, schema: str | None, timeout_seconds: float
    ) -> None:
        self._operations = operations
        self._engine = operations.engine
        self._tables = build_outbox(self._engine.dialect, schema)
        self._timeout_seconds = timeout_seconds

    @property
    def messages(self) -> Table:
        """The table that an append adds to."""
        return self._tables.messages

    async def create(self, *, create_tables: bool) -> None:
        """Make sure that the lease is there.

        Args:
            create_tables: Whether missing tables are created first.
        """
        if create_tables:
            await create_outbox(self._engine, self._tables.metadata.schema)
        lease = self._tables.lease
        with suppress(IntegrityError):  # it is there
            await self._execute(
                lease.insert().values(id=1, owner="", expires_at=0.0), commit=True
            )

    async def lease(self, owner: str, seconds: float) -> bool:
        """Return whether the outbox belongs to this relay alone for so long."""
        lease, now = self._tables.lease, database_time(self._engine.dialect.name)
        is_free = or_(
            lease.c.owner == owner,
            lease.c.expires_at <= now,
            # No lease is that long: the database's clock has been set back since.
            lease.c.expires_at > now + LONGEST_LEASE_SECONDS,
        )
        values = {"owner": owner, "expires_at": now + seconds}
        statement = lease.update().where(lease.c.id == 1, is_free).values(values)
        return bool((await self._execute(statement, commit=True)).rowcount)

    async def release(self, owner: str) -> None:
        """Let another relay have it at once."""
        lease = self._tables.lease
        statement = lease.update().where(lease.c.owner == owner)
        await self._execute(statement.values(expires_at=0.0), commit=True)

    async def read(
        self, limit: int, leave_out: Collection[str] = (), after: Any = None
    ) -> Sequence[OutboxItem]:
        """Return the oldest items.

        A conversation's are in order of their keys, since its appends wait for each
        other; those of others may show up later with a smaller key.
        """
        table = self._tables.messages
        statement = select(table).order_by(table.c.id).limit(limit)
        if leave_out:
            statement = statement.where(table.c.sender_id.not_in(leave_out))
        if after is not None:
            # What is left of a conversation that waits further in front waits, too.
            earlier = table.alias()
            in_front = exists().where(
                earlier.c.sender_id == table.c.sender_id, earlier.c.id <= after
            )
            statement = statement.where(table.c.id > after, ~in_front)
        found = await self._execute(statement)
        return [
            OutboxItem(
                row.id,
                row.sender_id,
                OutboxEntry(row.message_id, row.position, row.body),
                place=row.id,
            )
            for row in found.all()
        ]

    async def remove(self, items: Sequence[OutboxItem]) -> None:
        """Remove items that are published."""
        table = self._tables.messages
        keys = [item.key for item in items]
        await self._execute(table.delete().where(table.c.id.in_(keys)), commit=True)

    async def count(self, limit: int) -> int:
        """Return how many messages wait, or the limit if more."""
        some = select(self._tables.messages.c.id).limit(limit).subquery()
        found = await self._execute(select(func.count()).select_from(some))
        return int(found.scalar_one())

    async def _execute(self, statement: Any, *, commit: bool = False) -> Any:
        async def run() -> Any:
            async with self._operations.connection() as connection:
                result: Any = await connection.execute(statement)
                if commit:
                    await connection.commit()
                    return result
                kept = result.freeze()()
                await connection.rollback()
                return kept

        async with asyncio.timeout(self._timeout_seconds):
            return await settled(run())
