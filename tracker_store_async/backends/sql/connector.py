"""Where a store connects: the place, checked when it is named, reached on demand."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from tracker_store_async.backends.sql.engine import (
    ConnectionOptions,
    async_url,
    check_driver,
    check_options,
    is_file,
    make_engine,
    make_tls_context,
    plain_dialect,
    take_driver_options,
)
from tracker_store_async.backends.sql.environment import (
    pool_from_environment,
    schema_from_environment,
)
from tracker_store_async.backends.sql.errors import code_of
from tracker_store_async.errors import ConfigurationError, StoreUnavailableError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL
    from sqlalchemy.pool import ConnectionPoolEntry

_DUPLICATE_DATABASE = ("42P04", "23505")
"""What PostgreSQL says to the slower of two that create one database."""


class Connector:
    """Makes engines for one place, from options.

    Args:
        url: Where to connect; its driver is replaced by ours.
        options: Pool, timeouts and TLS.
        create: Name of a PostgreSQL database to create first, from the one in the URL,
            and to connect to in its place.

    Attributes:
        dialect: `sqlite`, `postgresql`, `mysql` or `oracle`.
        where: What errors begin with; it holds no password.
        options: The options, with those that were found in the URL's query.

    Raises:
        ConfigurationError: An option does not apply.
    """

    owns_engine = True

    def __init__(
        self, url: URL, options: ConnectionOptions, create: str | None = None
    ) -> None:
        url, found = take_driver_options(async_url(url))
        for name, value in found.items():
            if getattr(options, name) is None:
                options = replace(options, **{name: value})
        self.dialect = plain_dialect(url)
        if self.dialect == "postgresql":
            options = _with_environment(options)
        check_options(options, self.dialect)
        _check_address(url, self.dialect, create)
        if options.password_source is not None and url.password is not None:
            raise ConfigurationError("the password is given twice, once in the URL")
        self.options = options
        self._login_url = url if create else None
        self._url = url.set(database=create) if create else url
        self._create = create
        self.where = _describe(self._url, self.dialect)

    async def connect(self) -> AsyncEngine:
        """Return an engine, after creating the database if that was asked for."""
        check_driver(self._url)
        tls = await asyncio.to_thread(make_tls_context, self.options)
        if self._create and self._login_url is not None:
            engine = make_engine(self._login_url, self.options, tls)
            try:
                await create_database(engine, self._create)
            finally:
                await engine.dispose()
        return make_engine(self._url, self.options, tls)

    async def release(self, engine: AsyncEngine) -> None:
        """Close the engine's connections; those in use, once they are given back."""
        pool = engine.sync_engine.pool
        if isinstance(pool, AsyncAdaptedQueuePool):
            event.listen(pool, "checkin", _close_for_good)
        await engine.dispose()

    def is_in_memory(self) -> bool:
        """Whether it is an SQLite database that has no file."""
        return self.dialect == "sqlite" and not is_file(self._url)

    def is_absent(self) -> bool:
        """Whether it is an SQLite file that is missing: connecting would make it."""
        return not self._file.exists()

    def check_folder(self) -> None:
        """Check that there is a folder for the SQLite file, if it is one.

        Raises:
            StoreUnavailableError: There is none, and SQLite does not make it.
        """
        folder = self._file.parent
        if not folder.is_dir():
            raise StoreUnavailableError(
                f"{self.where} cannot be reached: there is no folder "
                f"{str(folder)!r}; create it first"
            )

    @property
    def _file(self) -> Path:
        """The SQLite file; of a database that has none, a path that exists."""
        is_plain = (
            self.dialect == "sqlite"
            and is_file(self._url)
            and self._url.query.get("uri") is None
        )
        return Path(self._url.database or "") if is_plain else Path()


class OwnEngine(Connector):
    """An engine that its owner made and will dispose of.

    Raises:
        ConfigurationError: It is not an `AsyncEngine`, or options contradict it.
    """

    owns_engine = False

    def __init__(self, engine: AsyncEngine, options: ConnectionOptions) -> None:
        if not isinstance(engine, AsyncEngine):
            raise ConfigurationError(
                "`engine` must come from sqlalchemy.ext.asyncio.create_async_engine"
            )
        contradicting = options.given() - {
            "schema",
            "pgbouncer",
            "command_timeout_seconds",
        }
        if contradicting:
            raise ConfigurationError(
                f"`engine` brings its own `{min(contradicting)}`: set it there"
            )
        self._engine = engine
        self._url = engine.url
        self.dialect = plain_dialect(engine.url)
        check_options(options, self.dialect)
        self.options = options
        self.where = _describe(engine.url, self.dialect)

    async def connect(self) -> AsyncEngine:
        """Return the engine."""
        return self._engine

    async def release(self, engine: AsyncEngine) -> None:
        """Leave the engine as it is."""


def _with_environment(options: ConnectionOptions) -> ConnectionOptions:
    """Fill what is not given from Rasa's variables, as the factory does too."""
    try:
        if options.pool_size is None:
            options = replace(options, pool_size=pool_from_environment("pool_size"))
        if options.max_overflow is None:
            overflow = pool_from_environment("max_overflow")
            options = replace(options, max_overflow=overflow)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    if options.schema is None:
        options = replace(options, schema=schema_from_environment())
    return options


def _close_for_good(connection: object, record: ConnectionPoolEntry) -> None:
    """Close what comes back to a pool that nobody takes from any more."""
    if connection is not None:
        record.invalidate()


def _check_address(url: URL, dialect: str, create: str | None) -> None:
    if create and dialect != "postgresql":
        raise ConfigurationError("`login_db` works with dialect postgresql only")
    if dialect == "sqlite" and any((url.host, url.port, url.username, url.password)):
        raise ConfigurationError(
            "SQLite has no host, port, username or password: name the file in `db`"
        )


def _describe(url: URL, dialect: str) -> str:
    if dialect == "sqlite":
        return f"sqlite database {url.database or ':memory:'}"
    port = "" if url.port is None else f":{url.port}"
    return f"{dialect} at {url.host or 'localhost'}{port}/{url.database or ''}"


async def create_database(login_engine: AsyncEngine, name: str) -> None:
    """Create a PostgreSQL database if it is not there.

    Args:
        login_engine: Connects to another database of the server.
        name: Name of the database to create.
    """
    quoted = login_engine.dialect.identifier_preparer.quote_identifier(name)
    async with login_engine.connect() as raw:
        connection = await raw.execution_options(isolation_level="AUTOCOMMIT")
        found = await connection.execute(
            text("SELECT 1 FROM pg_catalog.pg_database WHERE datname = :name"),
            {"name": name},
        )
        if found.scalar():
            return
        try:
            await connection.exec_driver_sql(f"CREATE DATABASE {quoted}")
        except DBAPIError as error:
            if code_of(error) not in _DUPLICATE_DATABASE:
                raise
