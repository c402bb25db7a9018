"""The statements of SQLite, each as it is prepared: `?` in order or `:name`."""

from __future__ import annotations

IS_ALIVE = """
SELECT expires_at IS NULL OR expires_at > :now, version FROM conversations
WHERE sender_id = :sender_id
"""
ADVANCE = """
UPDATE conversations SET version = ?, session_start = ?, snapshot = ?, updated_at = ?,
    expires_at = ?
WHERE sender_id = ? AND version = ? AND created_at = coalesce(?, created_at)
    AND (expires_at IS NULL OR expires_at > ?)
"""
# Only where there is one: setting it writes a page of the index on it, changed or not.
NAME_USER = "UPDATE conversations SET user_id = ? WHERE sender_id = ?"
BEGIN = """
INSERT INTO conversations (sender_id, version, first_position, session_start, snapshot,
    created_at, updated_at, expires_at, user_id)
VALUES (:sender_id, :version, :position, :session_start, :snapshot, :begun_at, :stamp,
    :expires_at, :user_id)
"""
_INSERT_EVENTS = """
INSERT INTO events (sender_id, position, event_id, data, type_name, timestamp,
    intent_name, action_name)
VALUES """
MOST_ROWS = 16
"""Most rows of one INSERT: each number of rows is a statement that is kept prepared."""

INSERT_EVENTS = [
    _INSERT_EVENTS + ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * count)
    for count in range(1, MOST_ROWS + 1)
]
"""The statements that insert one row, two rows, and so on."""

INSERT_MESSAGE = """
INSERT INTO outbox (sender_id, position, message_id, body)
VALUES (:sender_id, :position, :message_id, :body)
"""
ERASE = (
    "DELETE FROM conversations WHERE sender_id = :sender_id",
    "DELETE FROM events WHERE sender_id = :sender_id",
)
CLAIM_CUT = """
UPDATE conversations SET first_position = :before
WHERE sender_id = :sender_id AND first_position < :before AND session_start >= :before
    AND (expires_at IS NULL OR expires_at > :now)
"""
CUT = "DELETE FROM events WHERE sender_id = :sender_id AND position < :before"
ERASE_MESSAGES = "DELETE FROM outbox WHERE sender_id = :sender_id"
CUT_MESSAGES = "DELETE FROM outbox WHERE sender_id = :sender_id AND position < :before"

LIST = """
SELECT sender_id, version, created_at, updated_at, user_id FROM conversations
WHERE (expires_at IS NULL OR expires_at > :now){bounds}
ORDER BY sender_id LIMIT :limit
"""
