"""The SQL event broker: Rasa's table `events`, several rows with one statement."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Integer, MetaData, String, Table, Text, inspect
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.exc import DBAPIError

from tracker_store_async import errors
from tracker_store_async.backends.sql import engine as engines
from tracker_store_async.backends.sql import errors as error_table
from tracker_store_async.backends.sql.connector import Connector
from tracker_store_async.backends.sql.engine import ConnectionOptions
from tracker_store_async.backends.sql.packets import literal_bytes, statement_room
from tracker_store_async.brokers.connected import (
    DEFAULT_TIMEOUT_SECONDS,
    ConnectedBroker,
)
from tracker_store_async.brokers.envelope import encode_body, environment
from tracker_store_async.brokers.grouping import GroupWriter
from tracker_store_async.rows import MAX_SENDER_ID_LENGTH
from tracker_store_async.settling import settled
from tracker_store_async.translation import redacted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from tracker_store_async.backends.sql.engine import SslMode
    from tracker_store_async.broker import EventMessage

TABLE = "events"
RASA_COLUMNS = ("id", "sender_id", "data")
ROWS_PER_STATEMENT = 1000
"""Most rows of one statement: SQLite bounds the number of parameters."""

_NOT_MENDED = {
    error_table.Kind.ACCESS,
    error_table.Kind.FILE_ACCESS,
    error_table.Kind.TLS,
    error_table.Kind.NO_DATABASE,
}
"""What another attempt to connect would meet again."""

Row = dict[str, Any]


@dataclass(slots=True)
class _Link:
    """One connection, and whoever waits for its next statement.

    Attributes:
        room_bytes: What the texts of one row may take in a statement, if it is bounded.
    """

    engine: AsyncEngine
    connection: AsyncConnection
    table: Table
    room_bytes: int | None = None
    is_alive: bool = True
    writer: GroupWriter[Row] | None = None


class SQLEventBroker(ConnectedBroker[_Link, Row]):
    """Inserts events into a table, as Rasa does.

    The table is Rasa's `events` (`id`, `sender_id`, `data`). One that is created here
    also has `message_id`, `position`, `type` and `environment`, and a consumer can drop
    repeats by the first; one that Rasa created is used as it is. The rows of one save
    are inserted in one round trip, together with those of other saves that wait. A
    conversation's rows are in order of `id`.

    Args:
        dialect: `sqlite`, `postgresql`, `mysql` or `mariadb`.
        host: Host name, `host:port`, or a whole database URL.
        port: Port; None is the usual one.
        db: Name of the database; with SQLite the file.
        username: Name to log in with.
        password: Password to log in with.
        ssl_mode: What TLS has to prove, by PostgreSQL's names.
        ssl_ca_certs: File with the certificates to check the server against.
        ssl_certfile: File with the client's certificate.
        ssl_keyfile: File with the client's private key.
        timeout_seconds: Longest time that one publish takes, reconnecting included.
        connection_attempts: Attempts to connect before `open` gives up.
        retry_delay_in_seconds: Longest pause between two attempts.

    Raises:
        ConfigurationError: An option is wrong or does not apply to the dialect.
    """

    def __init__(
        self,
        dialect: str = "sqlite",
        host: str | None = None,
        port: int | str | None = None,
        db: str | None = "events.db",
        username: str | None = None,
        password: str | None = None,
        *,
        ssl_mode: SslMode | None = None,
        ssl_ca_certs: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        connection_attempts: int = 20,
        retry_delay_in_seconds: float = 5.0,
    ) -> None:
        options = ConnectionOptions(
            connect_timeout_seconds=timeout_seconds,
            ssl_mode=ssl_mode,
            ssl_ca_certs=ssl_ca_certs,
            ssl_certfile=ssl_certfile,
            ssl_keyfile=ssl_keyfile,
        )
        url = engines.get_db_url(dialect, host, port, db, username, password)
        self._connector = Connector(url, options)
        super().__init__(
            "the event table",
            self._connector.where,
            timeout_seconds,
            connection_attempts,
            retry_delay_in_seconds,
        )

    async def _connect(self) -> _Link:
        made: list[_Link] = []

        async def connect() -> _Link:
            made.append(await self._connect_whole())
            return made[0]

        try:
            # SQLAlchemy loses the connection of a caller who is cancelled meanwhile.
            return await settled(connect(), seconds=1.0)
        except asyncio.CancelledError:
            for link in made:  # made all the same, and nobody gets it
                await self._disconnect(link)
            raise

    async def _connect_whole(self) -> _Link:
        engine = await self._connector.connect()
        raw: AsyncConnection | None = None
        try:
            raw = await engine.connect()
            connection = await raw.execution_options(isolation_level="AUTOCOMMIT")
            table = await connection.run_sync(_find_or_create)
            room_bytes = await statement_room(connection)
        except BaseException:
            if raw is not None:
                with suppress(DBAPIError, OSError):  # it may be lost
                    await raw.close()
            await engine.dispose()
            raise
        link = _Link(engine, connection, table, room_bytes)

        async def write(rows: list[Row]) -> None:
            await self._insert(link, rows)

        link.writer = GroupWriter(write)
        return link

    async def _disconnect(self, link: _Link) -> None:
        link.is_alive = False
        if link.writer is not None:
            await link.writer.close()
        try:
            await link.connection.close()
        except (DBAPIError, OSError):  # it is lost anyway
            await link.connection.invalidate()
        await link.engine.dispose()

    def _is_alive(self, link: _Link) -> bool:
        return link.is_alive and not link.connection.closed

    def _prepare(self, message: EventMessage) -> Row:
        return {
            "sender_id": message.sender_id,
            "data": encode_body(message).decode("ascii"),
            "message_id": message.message_id,
            "position": message.position,
            "type": message.type_name,
            "environment": environment(),
        }

    def _check(self, link: _Link, batch: Sequence[Row]) -> None:
        """Refuse as a whole what holds an event that MySQL would hang up on."""
        room = link.room_bytes
        if room is None:
            return
        for row in batch:
            texts = [value for value in row.values() if isinstance(value, str)]
            size_bytes = literal_bytes(texts, room)
            if size_bytes > room:
                raise errors.BrokerRefusedError(
                    f"an event of {size_bytes} bytes is larger than {self._where} "
                    f"takes in a statement ({room} bytes): raise max_allowed_packet "
                    "there"
                )

    async def _send(self, link: _Link, batch: Sequence[Row]) -> int:
        assert link.writer is not None  # noqa: S101 - set before it is handed out
        try:
            await link.writer.put(batch)
        except ConnectionError:
            return 0
        return len(batch)

    async def _insert(self, link: _Link, rows: list[Row]) -> None:
        """Insert rows; a lost connection is a `ConnectionError`.

        Raises:
            PublishError: The database refused them.
        """
        names = link.table.c.keys()
        values = [{name: row[name] for name in names if name != "id"} for row in rows]
        try:
            await self._execute(link, values)
        except Exception as error:  # noqa: BLE001  drivers raise anything
            problem = self._explain(error)
            if isinstance(problem, errors.BrokerUnavailableError):
                link.is_alive = False
                self._problem = problem
                raise ConnectionError from redacted(error, error_table)
            raise problem from redacted(error, error_table)

    async def _execute(self, link: _Link, values: list[Row]) -> None:
        insert = link.table.insert()
        if self._connector.dialect != "sqlite":
            # Prepared once, and sent with all rows at once: by asyncpg as one
            # transaction, by MySQL's driver as one statement.
            await link.connection.execute(insert, values)
            return
        # SQLite would commit each row of such a batch.
        for at in range(0, len(values), ROWS_PER_STATEMENT):
            chunk = values[at : at + ROWS_PER_STATEMENT]
            await link.connection.execute(insert.values(chunk))

    def _explain(self, error: Exception) -> errors.PublishError:
        ours = error_table.translate(error, self._where)
        if error_table.kind_of(error) in _NOT_MENDED:
            return errors.BrokerAccessError(str(ours))
        if isinstance(ours, errors.StoreDataError | errors.SchemaError):
            return errors.BrokerRefusedError(str(ours))
        text = str(ours) if ours is not None else f"{self._where} cannot be reached"
        return errors.BrokerUnavailableError(text)


def _find_or_create(connection: Connection) -> Table:
    """Return the table, with the columns that it has."""
    ours = _table(connection, ())
    inspector = inspect(connection)
    if not inspector.has_table(TABLE):
        try:
            ours.metadata.create_all(connection)
        except DBAPIError:
            # Another process was faster: each database says so in its own words.
            if not inspect(connection).has_table(TABLE):
                raise
    present = {column["name"] for column in inspect(connection).get_columns(TABLE)}
    lacking = set(RASA_COLUMNS) - present
    if lacking or "type_name" in present:
        raise errors.BrokerAccessError(
            f"the database has another table {TABLE!r}, such as a tracker store's: "
            "name another 'db' for the event broker"
        )
    return _table(connection, set(ours.c.keys()) - present)


def _table(connection: Connection, without: Sequence[str] | set[str]) -> Table:
    text = Text().with_variant(LONGTEXT(), "mysql", "mariadb")
    columns: list[Column[Any]] = [
        Column("id", Integer, primary_key=True),
        Column("sender_id", String(MAX_SENDER_ID_LENGTH)),
        Column("data", text),
        Column("message_id", Text),
        Column("position", Integer),
        Column("type", Text),
        Column("environment", Text),
    ]
    options: dict[str, Any] = {}
    if connection.dialect.name in ("mysql", "mariadb"):
        options = {f"{connection.dialect.name}_charset": "utf8mb4"}
    kept = [column for column in columns if column.name not in without]
    return Table(TABLE, MetaData(), *kept, **options)
