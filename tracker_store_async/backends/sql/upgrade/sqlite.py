"""SQLite: one transaction, which keeps other writers out until it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import MetaData

from tracker_store_async.backends.sql.schema import RASA_COLUMNS
from tracker_store_async.backends.sql.upgrade.common import (
    RASA_INDEX,
    create_other_tables,
    fill_conversations,
)
from tracker_store_async.errors import SchemaError

if TYPE_CHECKING:
    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

    from tracker_store_async.backends.sql.schema import Tables
    from tracker_store_async.backends.sql.upgrade.common import Step

_NEW_TABLE = "tracker_store_new_events"


async def rebuild_table(connection: AsyncConnection, tables: Tables) -> None:
    """Copy Rasa's table into ours.

    SQLite cannot add a required column to a table. Columns that others have added to
    Rasa's are kept, with type, NOT NULL and default.

    Raises:
        SchemaError: One of them cannot be kept; nothing has changed.
    """
    found = await connection.exec_driver_sql("PRAGMA table_xinfo(events)")
    columns = found.mappings().all()
    for column in columns:
        _check_column(column)
    new = tables.events.to_metadata(MetaData(), name=_NEW_TABLE)
    await connection.run_sync(new.create)
    quote = connection.dialect.identifier_preparer.quote
    names: dict[str, str] = {}
    for column in columns:
        name, plain = quote(column["name"]), column["name"].lower()
        names[name] = "coalesce(data, '')" if plain == "data" else name
        if plain not in RASA_COLUMNS:
            await connection.exec_driver_sql(
                f"ALTER TABLE {_NEW_TABLE} ADD COLUMN {name} {_definition(column)}"
            )
    await connection.exec_driver_sql(
        f"INSERT INTO {_NEW_TABLE} ({', '.join(names)}, position)"  # noqa: S608
        f" SELECT {', '.join(names.values())},"
        " row_number() OVER (PARTITION BY sender_id ORDER BY id) - 1 FROM events"
    )


_GENERATED = (2, 3)
"""What the PRAGMA calls columns whose values SQLite computes; it hides how."""


def _check_column(column: RowMapping) -> None:
    if column["hidden"] in _GENERATED:
        raise SchemaError(
            f"table 'events' has the generated column {column['name']!r}, which the "
            "upgrade cannot copy: drop it, upgrade, and add it again"
        )
    is_theirs = column["name"].lower() not in RASA_COLUMNS
    if is_theirs and column["notnull"] and column["dflt_value"] is None:
        raise SchemaError(
            f"table 'events' has the column {column['name']!r}, which is NOT NULL and "
            "has no default, so that no event could be stored: give it a default or "
            "let it be NULL, then upgrade"
        )


def _definition(column: RowMapping) -> str:
    """Return a column's type, default and NOT NULL; no event is there to break them."""
    default = column["dflt_value"]
    words = [column["type"], "" if default is None else f"DEFAULT ({default})"]
    return " ".join([*words, "NOT NULL" if column["notnull"] else ""])


async def swap_tables(connection: AsyncConnection, tables: Tables) -> None:
    """Put the new table in the place of the old one, with all that others added.

    Indexes and triggers are put back; views go on by the table's name.
    """
    kept = await connection.exec_driver_sql(
        "SELECT sql FROM sqlite_master WHERE tbl_name = 'events'"
        " AND type IN ('index', 'trigger') AND sql IS NOT NULL AND name <> ?",
        (RASA_INDEX,),
    )
    statements = kept.scalars().all()
    await connection.exec_driver_sql("DROP TABLE events")
    # Else SQLite refuses the name because views speak of a table that is not there.
    await connection.exec_driver_sql("PRAGMA legacy_alter_table = ON")
    await connection.exec_driver_sql(f"ALTER TABLE {_NEW_TABLE} RENAME TO events")
    await connection.exec_driver_sql("PRAGMA legacy_alter_table = OFF")
    for statement in statements:
        await connection.exec_driver_sql(statement)


STEPS: list[Step] = [
    rebuild_table,
    swap_tables,
    create_other_tables,
    fill_conversations,
]
