"""An SQL database beside the conversations: of the audit trail, or of data keys."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from tracker_store_async.backends.sql import errors as error_table
from tracker_store_async.backends.sql.errors import Kind
from tracker_store_async.backends.sql.schema import written
from tracker_store_async.errors import ConfigurationError
from tracker_store_async.settling import settled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Table
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tracker_store_async.errors import TrackerStoreError

T = TypeVar("T")

ANSWER_SECONDS = 10.0
"""Longest time that such a database may take: every access waits for it."""

_SAID = {
    Kind.NO_TABLE: "lacks a table of ours: run `tracker-store schema upgrade`",
    Kind.NO_DATABASE: "does not exist: create it, or check the URL",
    Kind.TLS: "and this client do not agree on TLS: check what the URL says of it",
    Kind.POOL: "has all connections of the pool in use: try again later",
}
"""What is to be checked is the URL: a store's own keys do not count here."""

CREATE_ATTEMPTS = 5
CREATE_PAUSE_SECONDS = 0.02


def parse_url(url: str, option: str, example: str) -> URL:
    """Return the URL of a database with an asyncio driver.

    Args:
        url: SQLAlchemy's URL.
        option: What it was given as, for the error.
        example: What it could be.

    Raises:
        ConfigurationError: It is none; the text does not show it.
    """
    try:
        parsed = make_url(url)
        is_async = parsed.get_dialect().is_async
    except (SQLAlchemyError, ImportError, ValueError):
        is_async = False
    if is_async:
        return parsed
    raise ConfigurationError(
        f"{option}: must be the URL of an SQL database with an asyncio driver that is "
        f"installed, such as {example}"
    )


class SideTable:
    """A table of ours in such a database, for whoever looks after the tables.

    Args:
        name: What it holds, such as `audit trail`.
        option: What names the database in the configuration.
        url: The database.
        table: The table.
        error: What is raised where the database cannot be used.

    Attributes:
        name: What it holds.
        place: Where the database is, without user and password.
    """

    def __init__(
        self,
        name: str,
        option: str,
        url: URL,
        table: Table,
        error: type[TrackerStoreError],
    ) -> None:
        self.name = name
        self.place = place_of(url)
        self._option = option
        self._url = url
        self._table = table
        self._error = error

    async def is_there(self) -> bool:
        """Return whether the table is there; nothing is created.

        Raises:
            TrackerStoreError: The database cannot be reached, or not be used.
        """

        async def look(engine: AsyncEngine) -> bool:
            async with engine.connect() as connection:
                return await connection.run_sync(
                    lambda sync: inspect(sync).has_table(self._table.name)
                )

        return not self._has_no_file() and await settled(self._asked(look))

    async def create(self) -> None:
        """Create the table where there is none.

        Raises:
            TrackerStoreError: The database cannot be reached, or refuses it.
        """
        await settled(self._asked(partial(create_table, table=self._table)))

    def statements(self) -> list[str]:
        """Return the statements that create the table; nothing is connected to."""
        return written(self._url.get_dialect()(), self._table)

    def _has_no_file(self) -> bool:
        """Whether it is an SQLite file that is missing: a look would make it."""
        name = self._url.database
        is_plain = name and name != ":memory:" and "uri" not in self._url.query
        is_file = self._url.get_backend_name() == "sqlite" and is_plain
        return bool(is_file) and not Path(name or "").exists()

    async def _asked(self, ask: Callable[[AsyncEngine], Awaitable[T]]) -> T:
        engine = connect(self._url)
        try:
            async with answering():
                return await ask(engine)
        except (SQLAlchemyError, OSError) as error:
            raise self._error(explain(error, self._option, self._url)) from error
        finally:
            await engine.dispose()


def place_of(url: URL) -> str:
    """Return where a database is, such as `postgresql at 127.0.0.1/audit`.

    Neither user nor password nor an option is shown.
    """
    dialect = url.get_backend_name()
    if dialect == "sqlite":
        return f"sqlite database {url.database or ':memory:'}"
    port = "" if url.port is None else f":{url.port}"
    host = url.host or url.query.get("host") or "localhost"
    return f"{dialect} at {host}{port}/{url.database or ''}"


def explain(error: Exception, option: str, url: URL) -> str:
    """Return the sentence about what a driver raised: what is wrong, what to check.

    Args:
        error: What was raised.
        option: What names the database in the configuration.
        url: The database.
    """
    where = f"the database of {option} ({place_of(url)})"
    kind = error_table.kind_of(error)
    if kind in _SAID:
        return f"{where} {_SAID[kind]}"
    ours = error_table.translate(error, where)
    if ours is not None:
        return str(ours)
    return f"{where} cannot be used: check {option} ({type(error).__name__})"


def answering() -> asyncio.Timeout:
    """Return what bounds the time of what is done within it, with `TimeoutError`."""
    return asyncio.timeout(ANSWER_SECONDS)


def connect(url: URL) -> AsyncEngine:
    """Return an engine; it connects when it is used.

    A connection that the server has ended meanwhile, as MySQL does with idle ones, is
    replaced before it is used.
    """
    return create_async_engine(url, hide_parameters=True, pool_pre_ping=True)


async def create_table(engine: AsyncEngine, table: Table) -> None:
    """Create a table where there is none, whoever else does so at the same time.

    Raises:
        SQLAlchemyError, OSError: It cannot be created.
    """
    for attempt in range(CREATE_ATTEMPTS):
        try:
            async with engine.begin() as connection:
                await connection.run_sync(table.metadata.create_all)
            return
        except DBAPIError as error:
            is_last = attempt == CREATE_ATTEMPTS - 1
            if is_last or error.statement is None:  # none: it was not reached
                raise
        # MariaDB lets nobody look at a table that another one is just creating.
        await asyncio.sleep(CREATE_PAUSE_SECONDS * attempt)
