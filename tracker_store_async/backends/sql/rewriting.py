"""Putting other content in the place of what is stored, in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, bindparam, select

from tracker_store_async.backends.sql.columns import CONTENT, changed_content
from tracker_store_async.backends.sql.outbox import rewritten_bodies

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from tracker_store_async.backends.sql.schema import Tables
    from tracker_store_async.rows import Rewrite


async def rewrite_on(
    conn: AsyncConnection,
    tables: Tables,
    outbox: Table | None,
    rewrite: Rewrite,
    is_alive: ColumnElement[bool],
) -> bool:
    """Rewrite a conversation; return False if something else is stored.

    Args:
        conn: A connection with a transaction.
        tables: The layout on it.
        outbox: What waits to be published, if there is an outbox.
        rewrite: What is put in the place of what.
        is_alive: Whether the conversation has not expired.
    """
    head, event = tables.conversations, tables.events
    is_same = and_(
        head.c.sender_id == rewrite.sender_id,
        head.c.version == rewrite.expected_version,
        head.c.first_position == rewrite.first_position,
        head.c.created_at == rewrite.created_at,
        is_alive,
    )
    if not rewrite.changed:
        found = await conn.execute(select(head.c.version).where(is_same))
        return found.first() is not None
    claim = head.update().values(
        snapshot=rewrite.snapshot,
        user_id=rewrite.user_id,
        created_at=rewrite.new_created_at,
    )
    if (await conn.execute(claim.where(is_same))).rowcount != 1:
        return False
    change = event.update().where(
        event.c.sender_id == rewrite.sender_id,
        event.c.position == bindparam("at"),
    )
    change = change.values({name: bindparam(f"new_{name}") for name in CONTENT})
    values = [
        {"at": position, **{f"new_{name}": each for name, each in content.items()}}
        for position, content in changed_content(rewrite)
    ]
    await conn.execute(change, values)
    if outbox is not None:
        await _rewrite_messages(conn, outbox, rewrite)
    return True


async def _rewrite_messages(
    conn: AsyncConnection, outbox: Table, rewrite: Rewrite
) -> None:
    """Change what waits to be published, too."""
    found = await conn.execute(
        select(outbox.c.position).where(
            outbox.c.sender_id == rewrite.sender_id,
            outbox.c.position >= rewrite.first_position,
        )
    )
    bodies = rewritten_bodies(rewrite, [row[0] for row in found])
    if bodies:
        change = outbox.update().where(
            outbox.c.sender_id == rewrite.sender_id,
            outbox.c.position == bindparam("at"),
        )
        await conn.execute(
            change.values(body=bindparam("new_body")),
            [{"at": each["position"], "new_body": each["body"]} for each in bodies],
        )
