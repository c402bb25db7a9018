"""What happens between an engine and an open store: layout and primitives."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from sqlalchemy.exc import DBAPIError

from tracker_store_async.backends.sql.errors import code_of
from tracker_store_async.backends.sql.layout import (
    LayoutState,
    check_layout,
    create_layout,
    layout_of,
    schema_lock,
)
from tracker_store_async.backends.sql.migrations import migrate
from tracker_store_async.backends.sql.mysql import MysqlOperations
from tracker_store_async.backends.sql.oracle import OracleOperations
from tracker_store_async.backends.sql.postgresql import (
    AsyncpgOperations,
    PostgresqlOperations,
)
from tracker_store_async.backends.sql.sqlite import SqliteOperations
from tracker_store_async.backends.sql.upgrade import rebuild_conversations
from tracker_store_async.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from tracker_store_async.backends.sql.core import CoreOperations
    from tracker_store_async.backends.sql.engine import ConnectionOptions
    from tracker_store_async.backends.sql.schema import Tables

Operations: TypeAlias = "CoreOperations | SqliteOperations"

_CREATED_MEANWHILE = 955
"""Oracle: the name is used by an existing object."""


def operations_for(
    engine: AsyncEngine, tables: Tables, options: ConnectionOptions, *, is_ours: bool
) -> Operations:
    """Return the primitives for the engine's database and driver.

    Args:
        engine: The engine.
        tables: The layout on it.
        options: How it connects.
        is_ours: Whether we made the engine, and so may set the database's modes.

    Raises:
        ConfigurationError: There are none.
    """
    operations = _operations_for(engine, tables, options, is_ours=is_ours)
    if not isinstance(operations, SqliteOperations):
        operations.renews_login = options.password_source is not None
    return operations


def _operations_for(
    engine: AsyncEngine, tables: Tables, options: ConnectionOptions, *, is_ours: bool
) -> Operations:
    name, driver = engine.dialect.name, engine.dialect.driver
    if (name, driver) == ("postgresql", "asyncpg"):
        return AsyncpgOperations(
            engine,
            tables,
            keep_connections=is_ours and not options.checks_connections,
        )
    if name == "postgresql":
        return PostgresqlOperations(engine, tables)
    if (name, driver) == ("sqlite", "aiosqlite"):
        return SqliteOperations(engine, set_modes=is_ours)
    if name in ("mysql", "mariadb"):
        return MysqlOperations(engine, tables)
    if name == "oracle":
        return OracleOperations(engine, tables)
    raise ConfigurationError(
        f"engines of {name}+{driver} are not supported: use sqlite+aiosqlite, "
        "postgresql, mysql, mariadb or oracle"
    )


async def is_rasas(engine: AsyncEngine, tables: Tables) -> bool:
    """Return whether the database holds Rasa's layout, as Rasa left it."""
    async with engine.connect() as connection:
        layout = await layout_of(connection, tables)
    return layout.state is LayoutState.RASA


async def ensure_layout(
    engine: AsyncEngine, tables: Tables, *, create_tables: bool, auto_upgrade: bool
) -> None:
    """Make sure that the database holds the layout of this version.

    Args:
        engine: The engine.
        tables: The layout to be there.
        create_tables: Whether missing tables may be created.
        auto_upgrade: Whether Rasa's layout may be upgraded.

    Raises:
        SchemaError: It does not, and it may not or cannot be mended.
    """
    allowed = {"create_tables": create_tables, "auto_upgrade": auto_upgrade}
    async with engine.connect() as connection:
        layout = await layout_of(connection, tables)
    check_layout(layout, **allowed)
    if layout.state is LayoutState.CURRENT:
        return
    async with schema_lock(engine) as connection:
        layout = await layout_of(connection, tables)
        check_layout(layout, **allowed)
        if layout.state is LayoutState.NONE:
            await _create(connection, tables)
        elif layout.state is LayoutState.PARTIAL:
            await rebuild_conversations(connection, tables)
        elif layout.state is not LayoutState.CURRENT:
            await migrate(connection, tables)


async def _create(connection: AsyncConnection, tables: Tables) -> None:
    try:
        await create_layout(connection, tables)
    except DBAPIError as error:
        # Oracle has no lock that any role may take: another process may be faster.
        if code_of(error) != _CREATED_MEANWHILE:
            raise
        await create_layout(connection, tables)
