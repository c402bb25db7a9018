"""The steps that are the same for every database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import Select, and_, case, func, not_, null, select

from tracker_store_async.backends.sql.layout import write_version
from tracker_store_async.backends.sql.schema import LAYOUT_VERSION
from tracker_store_async.redaction import get_logger
from tracker_store_async.rows import MAX_SENDER_ID_LENGTH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from tracker_store_async.backends.sql.schema import Tables

logger = get_logger(__name__)

Step: TypeAlias = "Callable[[AsyncConnection, Tables], Awaitable[None]]"

RASA_INDEX = "ix_events_sender_id"
"""Rasa's index; the one on (sender_id, position) does its work as well."""


async def create_other_tables(connection: AsyncConnection, tables: Tables) -> None:
    """Create the tables that Rasa does not have."""
    others = [tables.conversations, tables.layout]
    await connection.run_sync(tables.metadata.create_all, tables=others)


async def fill_conversations(connection: AsyncConnection, tables: Tables) -> None:
    """Make the row of each conversation from its events.

    What this library's methods would refuse gets none, so that no listing names it; its
    events stay as they are.
    """
    head = tables.conversations
    await connection.execute(head.delete())  # of an earlier try
    statement = conversations_from_events(tables, time.time(), connection.dialect.name)
    await connection.execute(head.insert().from_select(CONVERSATION_COLUMNS, statement))
    sender_id = tables.events.c.sender_id
    left_out = select(func.count(sender_id.distinct())).where(
        not_(is_storable(sender_id, connection.dialect.name))
    )
    count = (await connection.execute(left_out)).scalar()
    if count:
        logger.warning(
            "%s conversations have a sender id that is empty or too long: their events "
            "stay in table %r, but no method reads or lists them.",
            count,
            tables.events.name,
        )


def is_storable(sender_id: ColumnElement[str], dialect: str) -> ColumnElement[bool]:
    """Return whether this library accepts a sender id that a database holds."""
    is_named = func.length(sender_id) > 0
    if dialect != "sqlite":
        return is_named  # the column ends where the library's limit is
    # SQLite keeps any text; its length() ends at a NUL, which is refused as well.
    return and_(
        is_named,
        func.length(sender_id) <= MAX_SENDER_ID_LENGTH,
        func.instr(sender_id, func.char(0)) == 0,
    )


async def finish(connection: AsyncConnection, tables: Tables) -> None:
    """Say that the layout is ours now."""
    await write_version(connection, tables, LAYOUT_VERSION)


REBUILD: list[Step] = [create_other_tables, fill_conversations, finish]
"""What makes the other tables anew from events that have their positions."""

CONVERSATION_COLUMNS = [
    "sender_id",
    "version",
    "first_position",
    "session_start",
    "snapshot",
    "created_at",
    "updated_at",
    "expires_at",
    "user_id",
]


def conversations_from_events(tables: Tables, now: float, dialect: str) -> Select[Any]:
    """Return the rows of `conversations` as a query over events that have positions.

    Args:
        tables: The layout.
        now: Time for conversations without any timestamp, in seconds since the epoch.
        dialect: Name of the database.
    """
    event = tables.events
    first = func.min(event.c.position)  # beyond 0 where a beginning was erased
    starts = session_starts(tables).subquery("starts")
    # NaN and the infinities, which PostgreSQL's column can hold, are no times.
    is_time = event.c.timestamp.between(-1e300, 1e300)
    moment = case((is_time, event.c.timestamp))
    return (
        select(
            event.c.sender_id,
            func.max(event.c.position) + 1,
            first,
            func.coalesce(func.max(starts.c.start), first),
            null(),
            func.coalesce(func.min(moment), now),
            func.coalesce(func.max(moment), now),
            null(),
            null(),
        )
        .select_from(event.outerjoin(starts, starts.c.sender_id == event.c.sender_id))
        .where(is_storable(event.c.sender_id, dialect))
        .group_by(event.c.sender_id)
    )


def session_starts(tables: Tables) -> Select[Any]:
    """Return where the latest session of each conversation starts, if one is marked.

    A session starts at `session_started`, or at the `action_session_start` action right
    before it where there is one.
    """
    event, before = tables.events, tables.events.alias("before")
    is_before = and_(
        before.c.sender_id == event.c.sender_id,
        before.c.position == event.c.position - 1,
        before.c.type_name == "action",
        before.c.action_name == "action_session_start",
    )
    start = event.c.position - case((before.c.id.is_(None), 0), else_=1)
    return (
        select(event.c.sender_id, func.max(start).label("start"))
        .select_from(event.outerjoin(before, is_before))
        .where(event.c.type_name == "session_started")
        .group_by(event.c.sender_id)
    )


async def run(connection: AsyncConnection, tables: Tables, sql: str) -> None:
    """Run a statement after putting the quoted names in.

    `{events}` is the table, `{in_schema}` its schema and a dot, or nothing.
    """
    schema = tables.events.schema
    quote = connection.dialect.identifier_preparer
    names = {
        "events": quote.format_table(tables.events),
        "in_schema": f"{quote.quote_schema(schema)}." if schema else "",
    }
    await connection.exec_driver_sql(sql.format(**names))
