"""SQLite: putting other content in the place of what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.sql.columns import changed_content
from tracker_store_async.backends.sql.outbox import rewritten_bodies

if TYPE_CHECKING:
    import sqlite3

    from tracker_store_async.rows import Rewrite

_WAITING_MESSAGES = """
SELECT position FROM outbox WHERE sender_id = :sender_id AND position >= :first_position
"""
_REWRITE_MESSAGE = """
UPDATE outbox SET body = :body WHERE sender_id = :sender_id AND position = :position
"""
_SAME = """
WHERE sender_id = :sender_id AND version = :version AND created_at = :created_at
    AND first_position = :first_position AND (expires_at IS NULL OR expires_at > :now)
"""
_IS_SAME = "SELECT 1 FROM conversations"
_CLAIM_REWRITE = """
UPDATE conversations SET snapshot = :snapshot, user_id = :user_id,
    created_at = :new_created_at
"""
_REWRITE_EVENT = """
UPDATE events SET data = :data, type_name = :type_name, timestamp = :timestamp,
    intent_name = :intent_name, action_name = :action_name
WHERE sender_id = :sender_id AND position = :position
"""


def is_same(conn: sqlite3.Connection, rewrite: Rewrite) -> bool:
    """Whether what is stored is still what is to be rewritten."""
    return conn.execute(_IS_SAME + _SAME, _values(rewrite)).fetchone() is not None


def rewrite_within(
    conn: sqlite3.Connection, rewrite: Rewrite, *, with_outbox: bool
) -> bool:
    """Rewrite within a transaction; return False if something else is stored."""
    values = _values(rewrite)
    if conn.execute(_CLAIM_REWRITE + _SAME, values).rowcount != 1:
        return False
    rows = [
        {**content, "sender_id": rewrite.sender_id, "position": position}
        for position, content in changed_content(rewrite)
    ]
    conn.executemany(_REWRITE_EVENT, rows)
    if with_outbox:
        waiting = [each[0] for each in conn.execute(_WAITING_MESSAGES, values)]
        conn.executemany(_REWRITE_MESSAGE, rewritten_bodies(rewrite, waiting))
    return True


def _values(rewrite: Rewrite) -> dict[str, Any]:
    return {
        "sender_id": rewrite.sender_id,
        "version": rewrite.expected_version,
        "first_position": rewrite.first_position,
        "created_at": rewrite.created_at,
        "new_created_at": rewrite.new_created_at,
        "snapshot": rewrite.snapshot,
        "user_id": rewrite.user_id,
        "now": rewrite.now,
    }
