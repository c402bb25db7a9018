"""MySQL and MariaDB: step by step, since each change of a table commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import inspect, select, text
from sqlalchemy.exc import DBAPIError

from tracker_store_async.backends.sql.layout import columns_of
from tracker_store_async.backends.sql.schema import mysql_collation
from tracker_store_async.backends.sql.upgrade.common import (
    RASA_INDEX,
    create_other_tables,
    fill_conversations,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

    from tracker_store_async.backends.sql.schema import Tables
    from tracker_store_async.backends.sql.upgrade.common import Step

BATCH_SENDERS = 500
"""Conversations that are numbered in one transaction."""

NUMBERING_ATTEMPTS = 5

_CONVERT = """
ALTER TABLE {events}
    ADD COLUMN position INTEGER NULL, ADD COLUMN event_id TEXT {text} NULL,
    MODIFY id BIGINT NOT NULL AUTO_INCREMENT,
    MODIFY sender_id VARCHAR(255) {text} NOT NULL,
    MODIFY type_name VARCHAR(255) {text} NOT NULL,
    MODIFY timestamp DOUBLE NULL,
    MODIFY intent_name VARCHAR(255) {text} NULL,
    MODIFY action_name VARCHAR(255) {text} NULL,
    MODIFY data LONGTEXT {text} NULL,
    ENGINE = InnoDB, ROW_FORMAT = DYNAMIC, DEFAULT {text}
"""

# Rasa's column is a 32-bit FLOAT, which rounds the time of an event to minutes: the
# exact one stands in its JSON.
_NUMBER = """
UPDATE {events} AS e JOIN (
    SELECT id, row_number() OVER (PARTITION BY sender_id ORDER BY id) - 1 AS position,
        CASE WHEN json_valid(data) THEN json_extract(data, '$.timestamp') END AS moment
    FROM {events} WHERE sender_id BETWEEN :first AND :last
) AS numbered ON numbered.id = e.id
SET e.position = numbered.position, e.data = coalesce(e.data, ''), e.timestamp = CASE
    WHEN json_type(numbered.moment) IN ('DOUBLE', 'INTEGER', 'DECIMAL')
    THEN numbered.moment + 0e0 ELSE e.timestamp END
"""

_REQUIRE = """
ALTER TABLE {events} MODIFY position INTEGER NOT NULL,
    ADD CONSTRAINT uq_events_sender_id_position UNIQUE (sender_id, position)
"""


async def convert_table(connection: AsyncConnection, tables: Tables) -> None:
    """Add our columns, and give Rasa's the types that lose nothing, in one change."""
    if "position" not in await connection.run_sync(columns_of, tables.events):
        collation = mysql_collation(connection.dialect)
        options = f"CHARACTER SET utf8mb4 COLLATE {collation}"
        await run(connection, tables, _CONVERT.replace("{text}", options))


async def number_events(connection: AsyncConnection, tables: Tables) -> None:
    """Number the events, until no Rasa process has added one behind our back."""
    if await connection.run_sync(_has_unique_positions, tables):
        return
    for attempt in range(NUMBERING_ATTEMPTS):
        await _number_all(connection, tables)
        try:
            # From now on the insert of a Rasa process fails.
            await run(connection, tables, _REQUIRE)
        except DBAPIError:
            if attempt == NUMBERING_ATTEMPTS - 1:
                raise
        else:
            return


async def _number_all(connection: AsyncConnection, tables: Tables) -> None:
    quoted = connection.dialect.identifier_preparer.format_table(tables.events)
    update = text(_NUMBER.format(events=quoted))
    # None, not "": Rasa has stored events without a sender id, too.
    after: str | None = None
    while batch := await _next_batch(connection, tables, after):
        after = batch[-1]
        await connection.execute(update, {"first": batch[0], "last": after})


async def _next_batch(
    connection: AsyncConnection, tables: Tables, after: str | None
) -> Sequence[str]:
    sender_id = tables.events.c.sender_id
    batch = select(sender_id).distinct().order_by(sender_id).limit(BATCH_SENDERS)
    if after is not None:
        batch = batch.where(sender_id > after)
    return (await connection.execute(batch)).scalars().all()


async def drop_rasa_index(connection: AsyncConnection, tables: Tables) -> None:
    """Drop the index that ours makes superfluous."""
    if await connection.run_sync(_has_rasa_index, tables):
        await run(connection, tables, f"DROP INDEX {RASA_INDEX} ON {{events}}")


def _has_unique_positions(connection: Connection, tables: Tables) -> bool:
    found = inspect(connection).get_unique_constraints(tables.events.name)
    return any(unique["column_names"] == ["sender_id", "position"] for unique in found)


def _has_rasa_index(connection: Connection, tables: Tables) -> bool:
    found = inspect(connection).get_indexes(tables.events.name)
    return any(index["name"] == RASA_INDEX for index in found)


STEPS: list[Step] = [
    create_other_tables,
    convert_table,
    number_events,
    drop_rasa_index,
    fill_conversations,
]
