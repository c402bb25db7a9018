"""SQLite: one transaction, which keeps other writers out until it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import MetaData

from tracker_store_async.backends.sql.schema import RASA_COLUMNS
from tracker_store_async.backends.sql.upgrade.common import (
    RASA_INDEX,
    create_other_tables,
    fill_conversations,
    finish,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from tracker_store_async.backends.sql.schema import Tables
    from tracker_store_async.backends.sql.upgrade.common import Step

_NEW_TABLE = "tracker_store_new_events"


async def rebuild_table(connection: AsyncConnection, tables: Tables) -> None:
    """Copy Rasa's table into ours.

    SQLite cannot add a required column to a table. Columns that others have added to
    Rasa's are kept.
    """
    new = tables.events.to_metadata(MetaData(), name=_NEW_TABLE)
    await connection.run_sync(new.create)
    quote = connection.dialect.identifier_preparer.quote
    names: dict[str, str] = {}
    info = await connection.exec_driver_sql("PRAGMA table_info(events)")
    for column in info.mappings():
        name = quote(column["name"])
        kept = "coalesce(data, '')" if name == "data" else name
        names[name] = kept
        if column["name"] not in RASA_COLUMNS:
            await connection.exec_driver_sql(
                f"ALTER TABLE {_NEW_TABLE} ADD COLUMN {name} {column['type']}"
            )
    await connection.exec_driver_sql(
        f"INSERT INTO {_NEW_TABLE} ({', '.join(names)}, position)"  # noqa: S608
        f" SELECT {', '.join(names.values())},"
        " row_number() OVER (PARTITION BY sender_id ORDER BY id) - 1 FROM events"
    )


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
    finish,
]
