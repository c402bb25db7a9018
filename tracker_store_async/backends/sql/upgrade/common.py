"""The steps that are the same for every database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import Select, and_, case, func, literal, null, select

from tracker_store_async.backends.sql.layout import write_version
from tracker_store_async.backends.sql.schema import LAYOUT_VERSION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from tracker_store_async.backends.sql.schema import Tables

Step: TypeAlias = "Callable[[AsyncConnection, Tables], Awaitable[None]]"

RASA_INDEX = "ix_events_sender_id"
"""Rasa's index; the one on (sender_id, position) does its work as well."""


async def create_other_tables(connection: AsyncConnection, tables: Tables) -> None:
    """Create the tables that Rasa does not have."""
    others = [tables.conversations, tables.layout]
    await connection.run_sync(tables.metadata.create_all, tables=others)


async def fill_conversations(connection: AsyncConnection, tables: Tables) -> None:
    """Make the row of each conversation from its events."""
    head = tables.conversations
    await connection.execute(head.delete())  # of an earlier try
    statement = conversations_from_events(tables, time.time())
    await connection.execute(head.insert().from_select(CONVERSATION_COLUMNS, statement))


async def finish(connection: AsyncConnection, tables: Tables) -> None:
    """Say that the layout is ours now."""
    await write_version(connection, tables, LAYOUT_VERSION)


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


def conversations_from_events(tables: Tables, now: float) -> Select[Any]:
    """Return the rows of `conversations` as a query over events that have positions.

    Args:
        tables: The layout.
        now: Time for conversations without any timestamp, in seconds since the epoch.
    """
    event = tables.events
    starts = session_starts(tables).subquery("starts")
    # NaN and the infinities, which PostgreSQL's column can hold, are no times.
    is_time = event.c.timestamp.between(-1e300, 1e300)
    moment = case((is_time, event.c.timestamp))
    return (
        select(
            event.c.sender_id,
            func.count(),
            literal(0),
            func.coalesce(func.max(starts.c.start), 0),
            null(),
            func.coalesce(func.min(moment), now),
            func.coalesce(func.max(moment), now),
            null(),
            null(),
        )
        .select_from(event.outerjoin(starts, starts.c.sender_id == event.c.sender_id))
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
