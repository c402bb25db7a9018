"""Oracle: step by step, since each change of a table commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import inspect

from tracker_store_async.backends.sql.layout import columns_of
from tracker_store_async.backends.sql.upgrade.common import (
    create_other_tables,
    fill_conversations,
    run,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

    from tracker_store_async.backends.sql.schema import Tables
    from tracker_store_async.backends.sql.upgrade.common import Step

ADD_COLUMNS = (
    "ALTER TABLE {events} ADD (position INTEGER, event_id VARCHAR2(1000 CHAR))"
)

GIVE_IDS = "ALTER TABLE {events} MODIFY (id DEFAULT events_seq.NEXTVAL)"
"""Rasa takes the next id from its sequence itself, we leave that to the table."""

NUMBER = (
    "MERGE INTO {events} e USING (SELECT id, row_number() OVER"
    " (PARTITION BY sender_id ORDER BY id) - 1 AS place FROM {events}) numbered"
    " ON (e.id = numbered.id) WHEN MATCHED THEN UPDATE SET e.position = numbered.place"
)

REQUIRE = (
    "ALTER TABLE {events} MODIFY (position NOT NULL)"
    " ADD CONSTRAINT uq_events_sender_id_position UNIQUE (sender_id, position)"
)


async def add_columns(connection: AsyncConnection, tables: Tables) -> None:
    """Add our columns to Rasa's table, and let the table give the ids."""
    if "position" not in await connection.run_sync(columns_of, tables.events):
        await run(connection, tables, ADD_COLUMNS)
    await run(connection, tables, GIVE_IDS)


async def number_events(connection: AsyncConnection, tables: Tables) -> None:
    """Give each event its position, and require one from now on."""
    if await connection.run_sync(_has_unique_positions, tables):
        return
    await run(connection, tables, NUMBER)
    await run(connection, tables, REQUIRE)


def _has_unique_positions(connection: Connection, tables: Tables) -> bool:
    found = inspect(connection).get_unique_constraints(tables.events.name)
    return any(len(unique["column_names"]) == 2 for unique in found)


STEPS: list[Step] = [
    create_other_tables,
    add_columns,
    number_events,
    fill_conversations,
]
