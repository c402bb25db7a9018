"""The layout of a store's database: what it is, upgrading it, writing it down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker_store_async.backends.sql.layout import (
    Layout,
    LayoutState,
    layout_of,
    no_schema,
)
from tracker_store_async.backends.sql.migrations import statements
from tracker_store_async.backends.sql.opening import ensure_layout
from tracker_store_async.backends.sql.outbox import (
    build_outbox,
    create_outbox,
    missing_tables,
)
from tracker_store_async.backends.sql.schema import build_tables, written
from tracker_store_async.errors import SchemaError
from tracker_store_async.settling import settled

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from tracker_store_async.backends.sql.connector import Connector
    from tracker_store_async.backends.sql.opening import Operations
    from tracker_store_async.translation import Translated


class SchemaOfStore:
    """What `SQLTrackerStore` says of its tables and does about them."""

    outbox: bool
    _connector: Connector
    _engine: AsyncEngine | None
    _operations: Operations | None
    _translated: Translated

    async def _connected_engine(self) -> AsyncEngine:
        raise NotImplementedError

    async def schema_state(self) -> str:
        """Return what layout the database holds, without changing or creating it.

        It may be called on a store that is not open, and leaves it so.

        Returns:
            Such as `not created`, `current (1)` or `Rasa's layout (upgrade needed)`.

        Raises:
            StoreUnavailableError: The database cannot be reached.
            StoreAccessError: The database refused the credentials.
        """
        return str(await settled(self._layout()))

    async def upgrade_schema(self) -> None:
        """Bring the database to this version's layout, from Rasa's or from none.

        With `outbox: true` its tables are created as well. What wraps the store also
        creates the tables that it keeps in other databases.

        It may be called on a store that is not open, and leaves it so. Cut short, it
        can be run again. Stop the Rasa processes that write to the database first:
        afterwards their inserts fail.

        Raises:
            SchemaError: The layout is none that can be upgraded.
            StoreUnavailableError: The database cannot be reached.
        """
        if self._engine is None:  # else it is open, and so the layout is the one needed
            await settled(self._upgrade())

    async def outbox_is_there(self) -> bool:
        """Return whether the database has the tables of an outbox; it changes nothing.

        It may be called on a store that is not open, and leaves it so.

        Raises:
            StoreUnavailableError: The database cannot be reached.
        """
        if self._connector.is_absent():
            return False
        engine = await settled(self._connected_engine())
        try:
            return not await settled(self._missing_of_outbox(engine))
        finally:
            await self._connector.release(engine)

    async def schema_sql(self) -> list[str]:
        """Return the statements that create the layout, for somebody else to run.

        With `outbox: true` those are among them that create its tables.

        It may be called on a store that is not open, and leaves it so. Nothing is
        changed.

        Raises:
            SchemaError: There are tables already that statements alone cannot upgrade.
            StoreUnavailableError: The database cannot be reached.
        """
        layout = await settled(self._layout())
        if layout.state is LayoutState.NO_SCHEMA:
            raise no_schema(layout)
        if layout.state not in (LayoutState.CURRENT, LayoutState.NONE):
            raise SchemaError(
                f"the database holds {layout}: its upgrade looks at the rows as it "
                "goes and cannot be written down; run `tracker-store schema upgrade`"
            )
        if layout.state is LayoutState.CURRENT and not self.outbox:
            return []
        if self._connector.is_absent():  # to connect would create the file
            engine = await self._connector.connect()
        else:
            engine = await settled(self._connected_engine())
        try:
            found: list[str] = []
            if layout.state is LayoutState.NONE:
                tables = build_tables(engine.dialect, self._connector.options.schema)
                found = statements(engine.dialect, tables)
            if self.outbox:
                missing = await settled(self._missing_of_outbox(engine))
                found += written(engine.dialect, *missing)
            return found
        finally:
            await self._connector.release(engine)

    async def _missing_of_outbox(self, engine: AsyncEngine) -> list[Table]:
        schema = self._connector.options.schema
        if self._connector.is_absent():  # to connect would create the file
            tables = build_outbox(engine.dialect, schema)
            return [tables.messages, tables.lease]
        with self._translated:
            async with engine.connect() as connection:
                return await missing_tables(connection, schema)

    async def _upgrade(self) -> None:
        engine = await self._connected_engine()
        try:
            tables = build_tables(engine.dialect, self._connector.options.schema)
            with self._translated:
                await ensure_layout(
                    engine, tables, create_tables=True, auto_upgrade=True
                )
                if self.outbox:
                    await create_outbox(engine, self._connector.options.schema)
        finally:
            await self._connector.release(engine)

    async def _layout(self) -> Layout:
        if self._operations is not None:
            with self._translated:
                async with self._operations.connection() as connection:
                    return await self._layout_on(connection)
        if self._connector.is_absent():
            self._connector.check_folder()
            return Layout(LayoutState.NONE)
        engine = await self._connected_engine()
        try:
            with self._translated:
                async with engine.connect() as connection:
                    return await self._layout_on(connection)
        finally:
            await self._connector.release(engine)

    async def _layout_on(self, connection: AsyncConnection) -> Layout:
        tables = build_tables(connection.dialect, self._connector.options.schema)
        return await layout_of(connection, tables)
