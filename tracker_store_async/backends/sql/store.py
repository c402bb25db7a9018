"""`SQLTrackerStore`: options, opening and closing; the work is in the other files."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.pool import AsyncAdaptedQueuePool

from tracker_store_async.backends.sql import engine as engines
from tracker_store_async.backends.sql import errors as error_table
from tracker_store_async.backends.sql.connector import Connector, OwnEngine
from tracker_store_async.backends.sql.core import CoreOperations
from tracker_store_async.backends.sql.engine import ConnectionOptions
from tracker_store_async.backends.sql.maintenance import sql_upkeep
from tracker_store_async.backends.sql.opening import (
    ensure_layout,
    is_rasas,
    operations_for,
)
from tracker_store_async.backends.sql.outbox import (
    SqlOutbox,
    check_outbox,
    find_messages,
)
from tracker_store_async.backends.sql.rasa import RasaOperations
from tracker_store_async.backends.sql.schema import build_tables
from tracker_store_async.backends.sql.schema_of_store import SchemaOfStore
from tracker_store_async.credentials import text_or_source
from tracker_store_async.deadlines import Deadlines
from tracker_store_async.errors import (
    ConfigurationError,
    StoreClosedError,
    StoreUnavailableError,
)
from tracker_store_async.rows import Health
from tracker_store_async.serialization import SerializedTrackerAsText
from tracker_store_async.settling import settled
from tracker_store_async.store import TrackerStore
from tracker_store_async.translation import Translated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from sqlalchemy import Table
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tracker_store_async.backends.sql.engine import SslMode
    from tracker_store_async.backends.sql.opening import Operations
    from tracker_store_async.backends.sql.schema import Tables
    from tracker_store_async.broker import EventBroker
    from tracker_store_async.credentials import PasswordSource
    from tracker_store_async.domain import Domain
    from tracker_store_async.options import OnConflict, OnPublishError
    from tracker_store_async.relay import Outbox
    from tracker_store_async.rows import (
        Append,
        ConversationSummary,
        Listing,
        NewRow,
        Read,
        Rewrite,
        StoredConversation,
        Upkeep,
    )

T = TypeVar("T")


class SQLTrackerStore(SchemaOfStore, TrackerStore, SerializedTrackerAsText):
    """Keeps conversations in SQLite, PostgreSQL, MySQL, MariaDB or Oracle.

    The tables are Rasa's `events`, with positions and event ids, and `conversations`.
    A database that Rasa wrote is recognised, and upgraded only when told to.

    With PostgreSQL, and unless `engine` is given, `schema`, `pool_size` and
    `max_overflow` that are None are taken from Rasa's environment variables
    `POSTGRESQL_SCHEMA`, `SQL_POOL_SIZE` and `SQL_MAX_OVERFLOW`.

    Args:
        domain: Gives new trackers their slots.
        dialect: `sqlite`, `postgresql`, `mysql`, `mariadb` or `oracle`. A driver after
            a `+` is accepted; the asyncio driver of the dialect is used in its place.
        host: Host name, `host:port`, directory of a unix socket, or a whole URL.
        port: Port; None is the usual one.
        db: Name of the database; with SQLite the file, or `:memory:`.
        username: Name to log in with.
        password: Password to log in with; or a function, sync or async, that returns
            the one of now. It is called for each new connection, so that a rotated
            secret, or a token that expires, is survived. A sync one runs in a thread.
        event_broker: Gets every event before it is stored, or None.
        login_db: Database to connect to first, to create `db` (PostgreSQL only).
        query: Further options for the driver.
        schema: Schema that holds the tables (PostgreSQL only).
        pool_size: Connections that are kept open; None is 20. SQLite has no pool.
        max_overflow: Connections that may be opened beyond `pool_size`; None is 0.
        pool_recycle_seconds: Age at which a connection is replaced; None is never.
        pool_pre_ping: Whether a connection is tried out, at the cost of a round trip,
            before each use. With asyncpg one that the server closed is noticed anyway.
        pool_timeout_seconds: Longest wait for a free connection; None is 30.
        connect_timeout_seconds: Longest time to connect, and with SQLite to wait for
            another process that writes; None is 10.
        command_timeout_seconds: Longest time that one operation may take; None is 60.
            A transaction under way then has two more seconds to end. PostgreSQL and
            MySQL are told to wait no longer for a lock (MySQL counts whole seconds), so
            that it usually ends at once; not with `engine` or `pgbouncer`.
        ssl_mode: What TLS has to prove: `disable`, `require` (encryption alone),
            `verify-ca` or `verify-full` (the host name as well). None is `verify-full`
            where `ssl_ca_certs` is given, and else what the driver does.
        ssl_ca_certs: File with the certificates that the server is checked against;
            None takes the system's.
        ssl_certfile: File with the client's certificate.
        ssl_keyfile: File with the client's private key, which is not encrypted.
        pgbouncer: Whether PgBouncer stands before the server: no prepared statement
            outlives its transaction (PostgreSQL only).
        auto_upgrade: Whether Rasa's layout is upgraded on opening.
        create_tables: Whether missing tables are created on opening.
        engine: An engine of your own in place of all that says where and how to
            connect. It is never disposed of here; give it `hide_parameters=True`.
        password_file: File that holds the password, in place of `password`; it is read
            again for each new connection.
        max_event_history: Most events that `retrieve` reads and holds, or None.
        on_conflict: What a save does about another writer's events.
        on_publish_error: What a save does when the broker fails.
        record_exp: Seconds after its latest save when a conversation expires, or None.
        outbox: Whether the messages for the event broker are stored in the transaction
            of each save, and published in order afterwards, in place of before. Every
            process that saves to the database must say the same. Not with Oracle, nor
            with an SQLite database in memory.

    Raises:
        ConfigurationError: An option is wrong or does not apply to the dialect.
    """

    _knows_of_no_outbox = False
    _keeps_columns = True
    _reads_rasa_layout = False  # True for those who only read, and so need no upgrade

    def __init__(
        self,
        domain: Domain | None = None,
        dialect: str = "sqlite",
        host: str | None = None,
        port: int | str | None = None,
        db: str | None = "rasa.db",
        username: str | None = None,
        password: str | PasswordSource | None = None,
        event_broker: EventBroker | None = None,
        login_db: str | None = None,
        query: Mapping[str, Any] | None = None,
        *,
        schema: str | None = None,
        pool_size: int | None = None,
        max_overflow: int | None = None,
        pool_recycle_seconds: float | None = None,
        pool_pre_ping: bool = False,
        pool_timeout_seconds: float | None = None,
        connect_timeout_seconds: float | None = None,
        command_timeout_seconds: float | None = None,
        ssl_mode: SslMode | None = None,
        ssl_ca_certs: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        pgbouncer: bool = False,
        auto_upgrade: bool = False,
        create_tables: bool = True,
        engine: AsyncEngine | None = None,
        password_file: str | None = None,
        max_event_history: int | None = None,
        on_conflict: OnConflict = "rebase",
        on_publish_error: OnPublishError = "raise",
        record_exp: float | None = None,
        outbox: bool = False,
    ) -> None:
        super().__init__(
            domain,
            event_broker,
            max_event_history=max_event_history,
            on_conflict=on_conflict,
            on_publish_error=on_publish_error,
            record_exp=record_exp,
        )
        secret, source = text_or_source(password, password_file)
        self._renews_credentials = source is not None
        options = ConnectionOptions(
            schema=schema,
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_recycle_seconds=pool_recycle_seconds,
            pool_pre_ping=pool_pre_ping,
            pool_timeout_seconds=pool_timeout_seconds,
            connect_timeout_seconds=connect_timeout_seconds,
            command_timeout_seconds=command_timeout_seconds,
            ssl_mode=ssl_mode,
            ssl_ca_certs=ssl_ca_certs,
            ssl_certfile=ssl_certfile,
            ssl_keyfile=ssl_keyfile,
            pgbouncer=pgbouncer,
            password_source=source,
        )
        self._connector: Connector
        if engine is None:
            url = engines.get_db_url(
                dialect, host, port, db, username, secret, login_db, query
            )
            self._connector = Connector(url, options, create=login_db and db)
        elif host or username or login_db or query:
            raise ConfigurationError("`engine` brings its own address and login")
        else:
            self._connector = OwnEngine(engine, options)
        self.backend_name = self._connector.dialect
        self._deadlines = Deadlines(engines.command_seconds(options))
        self.outbox = outbox and check_outbox(self._connector)
        self._outbox: SqlOutbox | None = None
        self._auto_upgrade = auto_upgrade
        self._create_tables = create_tables
        self._translated = Translated(self._connector.where, error_table, source)
        self._engine: AsyncEngine | None = None
        self._operations: Operations | None = None

    @staticmethod
    def get_db_url(
        dialect: str = "sqlite",
        host: str | None = None,
        port: int | str | None = None,
        db: str | None = "rasa.db",
        username: str | None = None,
        password: str | None = None,
        login_db: str | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> URL:
        """Return the URL that these options stand for, as Rasa's method does.

        The arguments are those of the class. A whole URL in `host` is taken as it is;
        with `login_db` the URL names that database.

        Raises:
            ConfigurationError: The URL or the port is not one.
        """
        return engines.get_db_url(
            dialect, host, port, db, username, password, login_db, query
        )

    def __repr__(self) -> str:
        """Say where it connects, without credentials."""
        schema = self._connector.options.schema
        within = f", schema {schema}" if schema else ""
        return f"<{type(self).__name__}: {self._connector.where}{within}>"

    # -- opening and closing -----------------------------------------------------------

    async def _open(self) -> None:
        try:
            # SQLAlchemy loses the connection of a caller who is cancelled while it
            # gets to know the server.
            await settled(self._open_whole())
        except asyncio.CancelledError:
            await self._close()  # it may have come up after all
            raise

    async def _open_whole(self) -> None:
        self._deadlines = Deadlines(self._deadlines.seconds)  # of this loop
        if not self._creates_layout and self._connector.is_absent():
            raise StoreUnavailableError(  # connecting would create it
                f"{self._connector.where} cannot be reached: there is no such file"
            )
        engine = await self._connected_engine()
        try:
            with self._translated:
                tables = build_tables(engine.dialect, self._connector.options.schema)
                self._operations = await self._operations_on(engine, tables)
                await self._operations.open()
                if self.outbox:
                    await self._create_outbox()
        except BaseException:
            self._operations = None
            await self._connector.release(engine)
            raise
        self._engine = engine

    async def _create_outbox(self) -> None:
        schema = self._connector.options.schema
        self._outbox = SqlOutbox(self._opened, schema, self._deadlines.seconds)
        if self._creates_layout:
            await self._outbox.create(create_tables=self._create_tables)
        self._opened.outbox = self._outbox.messages

    def _open_outbox(self) -> Outbox | None:
        return self._outbox

    async def _operations_on(self, engine: AsyncEngine, tables: Tables) -> Operations:
        if self._reads_rasa_layout and await is_rasas(engine, tables):
            return RasaOperations(engine, tables)
        await ensure_layout(
            engine,
            tables,
            create_tables=self._create_tables,
            auto_upgrade=self._auto_upgrade,
        )
        return operations_for(
            engine,
            tables,
            self._connector.options,
            is_ours=self._connector.owns_engine,
        )

    async def _connected_engine(self) -> AsyncEngine:
        """Return an engine that has connected once, and so knows what it talks to."""
        engine: AsyncEngine | None = None
        self._connector.check_folder()
        try:
            with self._translated:
                engine = await self._connector.connect()
                async with engine.connect():
                    return engine
        except BaseException as error:
            if engine is not None:
                await self._connector.release(engine)
            if isinstance(error, TypeError) and "unexpected keyword" in str(error):
                raise ConfigurationError(
                    f"the {self.backend_name} driver refuses an option in `query`: "
                    f"{error}"
                ) from None
            raise

    async def _close(self) -> None:
        engine, operations = self._engine, self._operations
        self._engine = self._operations = None
        self._deadlines.close()
        with self._translated:
            if operations is not None:
                await operations.close()
            if engine is not None:
                await self._connector.release(engine)

    # -- the layout --------------------------------------------------------------------

    # -- primitives --------------------------------------------------------------------

    def _check_size(
        self, sender_id: str, rows: Sequence[NewRow], snapshot: str
    ) -> None:
        if isinstance(self._operations, CoreOperations):  # SQLite has no limit below
            self._operations.check_size(sender_id, rows, snapshot)

    async def _append(self, append: Append) -> bool:
        with self._translated:  # `_bounded` without a frame of its own
            return await self._deadlines.bound(self._opened.append(append))

    async def _append_many(
        self, appends: Sequence[Append]
    ) -> list[bool | BaseException]:
        try:
            answers = await self._bounded(self._opened.append_many(appends))
        except StoreUnavailableError as error:
            return [error] * len(appends)  # any of them may have landed
        except Exception:  # noqa: BLE001  one of them is to blame, which is told below
            answers = None
        if answers is None:
            return await super()._append_many(appends)
        return list(answers)

    async def _read(self, read: Read) -> StoredConversation | None:
        with self._translated:
            return await self._deadlines.bound(self._opened.read(read))

    async def _read_many(
        self, reads: Sequence[Read]
    ) -> list[StoredConversation | None]:
        return await self._bounded(self._opened.read_many(reads))

    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        await self._find_outbox()
        return await self._bounded(self._opened.delete(sender_id, before, now, version))

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        await self._find_outbox()
        return await self._bounded(self._opened.rewrite(rewrite))

    async def _find_outbox(self) -> None:
        """Look once whether others have an outbox here: it is erased from as well."""
        if self._opened.outbox is None and not self._knows_of_no_outbox:
            found = await self._bounded(self._messages_of_others())
            self._opened.outbox = found
            self._knows_of_no_outbox = found is None

    async def _messages_of_others(self) -> Table | None:
        async with self._opened.connection() as connection:
            return await find_messages(connection, self._connector.options.schema)

    async def _list(self, listing: Listing) -> list[ConversationSummary]:
        return list(await self._bounded(self._opened.list(listing)))

    async def _upkeep(self, *, apply: bool) -> Upkeep:
        # Not bounded: it takes as long as the tables are large.
        operations = self._opened
        dialect, schema = operations.engine.dialect, self._connector.options.schema
        with self._translated:
            tables = build_tables(dialect, schema)
            return await sql_upkeep(operations, tables, apply=apply)

    async def _health(self) -> Health:
        started = time.perf_counter()
        server_version = await self._bounded(self._opened.server_version())
        latency_seconds = time.perf_counter() - started
        layout = await self._layout()
        return Health(
            backend=self.backend_name,
            reachable=True,
            latency_seconds=latency_seconds,
            server_version=server_version,
            schema_version=layout.version,
            details={
                "schema": str(layout),
                "driver": self._driver_name(),
                "pool": self._pool_use(),
            },
        )

    @property
    def _opened(self) -> Operations:
        if self._operations is None:
            raise StoreClosedError("the store was closed while it was in use")
        return self._operations

    async def _bounded(self, work: Awaitable[T]) -> T:
        """Await one operation for a bounded time, with the driver's errors as ours."""
        with self._translated:
            return await self._deadlines.bound(work)

    def _driver_name(self) -> str:
        return "" if self._engine is None else self._engine.dialect.driver

    def _pool_use(self) -> dict[str, int]:
        pool = None if self._engine is None else self._engine.pool
        if not isinstance(pool, AsyncAdaptedQueuePool):
            return {}
        return {
            "size": pool.size(),
            "checked_out": pool.checkedout() - self._opened.idle_count,
            "overflow": max(0, pool.overflow()),
        }
