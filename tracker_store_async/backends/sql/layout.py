"""What layout a database holds, and creating ours where there is none.

Every answer that leads to a change is asked again under a lock that one process holds
at a time, so that several that start together on an empty database all come up.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import TYPE_CHECKING

from sqlalchemy import false, inspect, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tracker_store_async import errors
from tracker_store_async.backends.sql.errors import code_of
from tracker_store_async.backends.sql.schema import (
    CONVERSATIONS,
    EVENTS,
    LAYOUT_VERSION,
    OWN_COLUMNS,
    RASA_COLUMNS,
    UPGRADING,
    Tables,
)
from tracker_store_async.stored_layout import check_version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from sqlalchemy import Connection, Table
    from sqlalchemy.engine import Inspector
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

LOCK_KEY = 7_306_919_411_862_915_437
"""Our advisory lock in a PostgreSQL database: the first bytes of our name's hash."""

LOCK_SECONDS = 3600
"""Longest wait for another process that creates or upgrades the tables on MySQL."""


_BEING_CHANGED = (1412, 1684)
"""MySQL and MariaDB: a table is being created or altered as it is looked at."""


class LayoutState(Enum):
    """What is there."""

    NONE = "not created"
    CURRENT = f"current ({LAYOUT_VERSION})"
    RASA = "Rasa's layout (upgrade needed)"
    UPGRADING = "Rasa's layout, half upgraded (run the upgrade again)"
    PARTIAL = "events without their conversations (upgrade needed)"
    OLDER = "older than this library (upgrade needed)"
    NEWER = "newer than this library"
    TAKEN = "Rasa's layout, with a column of somebody else's by our name"
    FOREIGN = "tables of something else"
    NO_SCHEMA = "the schema does not exist"


@dataclass(frozen=True, slots=True)
class Layout:
    """The answer of :func:`inspect_layout`."""

    state: LayoutState
    version: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        """Read as `current (1)` or `Rasa's layout (upgrade needed)`."""
        if self.state is LayoutState.NEWER:
            return f"newer than this library ({self.version})"
        if self.state is LayoutState.OLDER:
            return f"older than this library ({self.version}, upgrade needed)"
        if self.detail:
            return f"{self.state.value}: {self.detail}"
        return str(self.state.value)


RASA = Layout(LayoutState.RASA)


def no_schema(layout: Layout) -> errors.SchemaError:
    """Return the error that says what to do where the schema itself is missing."""
    return errors.SchemaError(
        f"the schema {layout.detail!r} does not exist: create it with CREATE "
        "SCHEMA, or check `schema` and the environment variable POSTGRESQL_SCHEMA"
    )


async def layout_of(connection: AsyncConnection, tables: Tables) -> Layout:
    """Return what layout the database holds; it changes nothing.

    Args:
        connection: A connection that has no transaction of the caller's.
        tables: The layout of this version.

    Raises:
        DBAPIError: The database cannot be asked.
        StoreTimeoutError: Another process changes the tables and does not end.
    """
    try:
        return await connection.run_sync(inspect_layout, tables)
    except DBAPIError as error:
        if code_of(error) not in _BEING_CHANGED:
            raise
    # Whoever changes them holds the lock: look again when it is done.
    await connection.rollback()
    async with _named_lock(connection):
        return await connection.run_sync(inspect_layout, tables)


def inspect_layout(connection: Connection, tables: Tables) -> Layout:
    """Return what layout the database holds; it changes nothing."""
    inspector = inspect(connection)
    schema = tables.metadata.schema
    if schema is not None and not inspector.has_schema(schema):
        return Layout(LayoutState.NO_SCHEMA, detail=schema)
    version = _stored_version(connection, inspector, tables)
    if version is None:
        found = _layout_without_version(connection, inspector, tables)
        # Another process may have made it while this looked: the version comes last,
        # and an inspector remembers.
        version = _stored_version(connection, inspect(connection), tables)
        if version is None:
            return found
    return Layout(_state_of(version), version)


def _stored_version(
    connection: Connection, inspector: Inspector, tables: Tables
) -> int | None:
    table = tables.layout
    if not inspector.has_table(table.name, schema=table.schema):
        return None
    if "version" not in columns_of(connection, table):
        return None
    return connection.execute(select(table.c.version)).scalar()


def _state_of(version: int) -> LayoutState:
    if version == UPGRADING:
        return LayoutState.UPGRADING
    if version < LAYOUT_VERSION:
        return LayoutState.OLDER
    newer = version > LAYOUT_VERSION
    return LayoutState.NEWER if newer else LayoutState.CURRENT


def _layout_without_version(
    connection: Connection, inspector: Inspector, tables: Tables
) -> Layout:
    for table in (tables.conversations, tables.layout):
        missing = _missing(connection, inspector, table, table.c.keys())
        if missing:
            return Layout(LayoutState.FOREIGN, detail=_foreign(table, missing))
    missing = _missing(connection, inspector, tables.events, RASA_COLUMNS)
    if missing:
        return Layout(LayoutState.FOREIGN, detail=_foreign(tables.events, missing))
    if not inspector.has_table(EVENTS, schema=tables.events.schema):
        return Layout(LayoutState.NONE)
    missing = _missing(connection, inspector, tables.events, tables.events.c.keys())
    if missing:
        theirs = sorted(OWN_COLUMNS - missing)
        return Layout(LayoutState.TAKEN, detail=theirs[0]) if theirs else RASA
    if _is_partial(connection, inspector, tables):
        return Layout(LayoutState.PARTIAL)
    # All of ours but the version, which is written last: creating it was cut short.
    return Layout(LayoutState.NONE)


def _is_partial(connection: Connection, inspector: Inspector, tables: Tables) -> bool:
    """Whether there are events but no conversations, as after a partial restore."""
    if not _has_rows(connection, tables.events):
        return False
    head = tables.conversations
    is_there = inspector.has_table(head.name, schema=head.schema)
    return not (is_there and _has_rows(connection, head))


def _has_rows(connection: Connection, table: Table) -> bool:
    first = select(table.c.sender_id).limit(1)
    return connection.execute(first).first() is not None


def columns_of(connection: Connection, table: Table) -> set[str]:
    """Return the names of the columns that a table has, which exists."""
    # Not by reflection: on PostgreSQL it wants the JSON codec that we do without.
    nothing = select(text("*")).select_from(table).where(false())
    return {name.lower() for name in connection.execute(nothing).keys()}  # noqa: SIM118


def _missing(
    connection: Connection, inspector: Inspector, table: Table, names: Iterable[str]
) -> set[str]:
    """Return the columns that a table lacks; nothing if there is no such table."""
    if not inspector.has_table(table.name, schema=table.schema):
        return set()
    return set(names) - columns_of(connection, table)


def _foreign(table: Table, missing: set[str]) -> str:
    return f"table {table.name!r} has no column {', '.join(sorted(missing))}"


def check_layout(layout: Layout, *, create_tables: bool, auto_upgrade: bool) -> None:
    """Check that the layout is one that can be used, created or upgraded as told.

    Raises:
        SchemaTooNewError: A newer version of this library wrote it.
        SchemaUpgradeRequiredError: It is Rasa's, and nobody allowed the upgrade.
        SchemaError: It is missing and may not be created, or is none of ours.
    """
    state = layout.state
    if state is LayoutState.OLDER:
        check_version(
            layout.version or 0,
            LAYOUT_VERSION,
            "the database",
            may_upgrade=auto_upgrade,
        )
    if state is LayoutState.NEWER:
        raise errors.SchemaTooNewError(
            f"the tables have layout version {layout.version}, this version of the "
            f"library knows {LAYOUT_VERSION}: update tracker_store_async"
        )
    if state is LayoutState.NO_SCHEMA:
        raise no_schema(layout)
    if state is LayoutState.FOREIGN:
        raise errors.SchemaError(
            f"the database holds other tables by our names ({layout.detail}): use "
            "another database, or another schema"
        )
    if state is LayoutState.TAKEN:
        raise errors.SchemaError(
            f"table {EVENTS!r} has Rasa's layout and a column {layout.detail!r}, which "
            "the upgrade adds itself: rename that column first"
        )
    if state is LayoutState.NONE and not create_tables:
        raise errors.SchemaError(
            "the tables are missing and `create_tables` is false: open the store once "
            "with `create_tables: true` and a role that may create tables"
        )
    if state in _UPGRADABLE and not auto_upgrade:
        raise _upgrade_required(state)


_UPGRADABLE = (LayoutState.RASA, LayoutState.UPGRADING, LayoutState.PARTIAL)

_HOW_TO_UPGRADE = (
    "`auto_upgrade: true` in endpoints.yml, SQLTrackerStore(auto_upgrade=True), "
    "`await store.upgrade_schema()` or `tracker-store schema upgrade`"
)


def _upgrade_required(state: LayoutState) -> errors.SchemaUpgradeRequiredError:
    if state is LayoutState.PARTIAL:
        return errors.SchemaUpgradeRequiredError(
            f"table {EVENTS!r} holds events but {CONVERSATIONS!r} is missing or empty, "
            "as after a partial restore: restore it as well, or have it made anew from "
            f"the events, without user ids and expiry, with {_HOW_TO_UPGRADE}"
        )
    found = "is half upgraded from" if state is LayoutState.UPGRADING else "has"
    return errors.SchemaUpgradeRequiredError(
        f"table {EVENTS!r} {found} Rasa's layout: stop the Rasa processes that write "
        f"to it, make a backup, then upgrade it with {_HOW_TO_UPGRADE}"
    )


async def create_layout(connection: AsyncConnection, tables: Tables) -> None:
    """Create the tables that are missing, and the version last. Hold the lock."""
    await connection.run_sync(tables.metadata.create_all)
    await write_version(connection, tables, LAYOUT_VERSION)


async def write_version(
    connection: AsyncConnection, tables: Tables, version: int
) -> None:
    """Store the version of the layout."""
    await connection.execute(tables.layout.delete())
    await connection.execute(tables.layout.insert().values(version=version))


@asynccontextmanager
async def schema_lock(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Yield a connection while no other process changes the schema.

    On PostgreSQL and SQLite it is one transaction: what fails half-way never happened.
    """
    name = engine.dialect.name
    if name == "sqlite":
        locked = _sqlite_lock(engine)
    elif name in ("mysql", "mariadb"):
        locked = _mysql_lock(engine)
    else:
        locked = _transaction(engine)
    async with locked as connection:
        yield connection


@asynccontextmanager
async def _transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # Our own connections wait no longer than a command may take.
            await connection.execute(text("SET LOCAL lock_timeout = 0"))
            await connection.execute(
                text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY}
            )
        yield connection


@asynccontextmanager
async def _sqlite_lock(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as raw:
        # Python's own transactions begin at the first INSERT, after the DDL.
        connection = await raw.execution_options(isolation_level="AUTOCOMMIT")
        await connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            with suppress(SQLAlchemyError):  # SQLite itself may have rolled it back
                await connection.exec_driver_sql("ROLLBACK")
            raise
        await connection.exec_driver_sql("COMMIT")


@asynccontextmanager
async def _mysql_lock(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as raw:
        # Each DDL statement commits anyway.
        connection = await raw.execution_options(isolation_level="AUTOCOMMIT")
        async with _named_lock(connection):
            yield connection


@asynccontextmanager
async def _named_lock(connection: AsyncConnection) -> AsyncIterator[None]:
    # The lock belongs to the whole server, and its name may have 64 characters.
    name = f"{connection.engine.url.database}/tracker_store_async"
    lock = {"name": sha256(name.encode()).hexdigest()}
    seconds = {"seconds": LOCK_SECONDS}
    taken = await connection.execute(
        text("SELECT GET_LOCK(:name, :seconds)"), lock | seconds
    )
    if taken.scalar() != 1:
        raise errors.StoreTimeoutError(
            "another process has been changing the tables for "
            f"{LOCK_SECONDS} seconds: wait for it, or stop it"
        )
    try:
        yield
    finally:
        await connection.execute(text("SELECT RELEASE_LOCK(:name)"), lock)
