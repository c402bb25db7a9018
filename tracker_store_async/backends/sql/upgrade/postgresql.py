"""PostgreSQL: one transaction, which keeps other writers out until it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker_store_async.backends.sql.upgrade.common import (
    RASA_INDEX,
    create_other_tables,
    fill_conversations,
    run,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from tracker_store_async.backends.sql.schema import Tables
    from tracker_store_async.backends.sql.upgrade.common import Step


async def lock_table(connection: AsyncConnection, tables: Tables) -> None:
    """Wait for the transactions of Rasa processes, and keep new ones out."""
    await run(connection, tables, "LOCK TABLE {events} IN ACCESS EXCLUSIVE MODE")


async def add_columns(connection: AsyncConnection, tables: Tables) -> None:
    """Add our columns to Rasa's table."""
    await run(
        connection,
        tables,
        "ALTER TABLE {events} ADD COLUMN IF NOT EXISTS position integer,"
        " ADD COLUMN IF NOT EXISTS event_id text",
    )


async def number_events(connection: AsyncConnection, tables: Tables) -> None:
    """Give each event its position: Rasa orders the events of a conversation by id."""
    await run(
        connection,
        tables,
        "UPDATE {events} SET position = numbered.position,"
        " data = coalesce(data, '') FROM ("
        " SELECT id, row_number() OVER (PARTITION BY sender_id ORDER BY id) - 1"
        " AS position FROM {events}) AS numbered WHERE {events}.id = numbered.id",
    )


async def require_positions(connection: AsyncConnection, tables: Tables) -> None:
    """From now on the insert of a Rasa process fails instead of spoiling the log."""
    await run(
        connection,
        tables,
        "ALTER TABLE {events} ALTER COLUMN position SET NOT NULL,"
        " ADD CONSTRAINT uq_events_sender_id_position UNIQUE (sender_id, position)",
    )
    await run(connection, tables, f"DROP INDEX IF EXISTS {{in_schema}}{RASA_INDEX}")


STEPS: list[Step] = [
    lock_table,
    add_columns,
    number_events,
    require_positions,
    create_other_tables,
    fill_conversations,
]
