"""Alembic's context, on the table that tells the version of the layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Integer, MetaData, Table, TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy import Connection, Dialect

    from tracker_store_async.backends.sql.schema import Tables


class _Number(TypeDecorator[str]):
    """A revision: text for Alembic, a number in the table."""

    impl = Integer
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else str(value)


class LayoutContext(MigrationContext):
    """Runs revisions, and keeps them in `tracker_store_schema`.

    Args:
        dialect: The dialect of a connected engine.
        connection: The connection; None where statements are written down.
        tables: The layout.
        opts: Alembic's options.
    """

    def __init__(
        self,
        dialect: Dialect,
        connection: Connection | None,
        tables: Tables,
        opts: dict[str, Any],
    ) -> None:
        layout = tables.layout
        names = {"version_table": layout.name, "version_table_schema": layout.schema}
        super().__init__(dialect, connection, {**opts, **names})
        # In place of a table with a text `version_num`. A hook for it would be one of
        # the dialect, and so change what others do with Alembic in this process.
        self._version = Table(
            layout.name,
            MetaData(schema=layout.schema),
            Column(
                "version",
                _Number,
                key="version_num",
                primary_key=True,
                autoincrement=False,
            ),
            **layout.kwargs,
        )
