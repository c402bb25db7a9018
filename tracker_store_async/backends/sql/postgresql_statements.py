"""The statements of PostgreSQL's append and read, and their arguments."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.sql.columns import column_text, column_time
from tracker_store_async.backends.sql.core import MAX_POSITION
from tracker_store_async.backends.sql.outbox import build_outbox

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tracker_store_async.backends.sql.schema import Tables
    from tracker_store_async.rows import Append, NewRow, Read

VALUES_ROWS = 32
"""Most rows that are parameters of their own. More go as arrays: one statement for any
number, a little slower, and on each new connection asyncpg has to look the types up."""

_ADVANCE = """
UPDATE {conversations}
SET version = $3, session_start = $4, snapshot = $5, updated_at = $6, expires_at = $7,
    user_id = coalesce($8, user_id)
WHERE sender_id = $1 AND version = $2 AND (expires_at IS NULL OR expires_at > $6)
    AND created_at = coalesce($9::float8, created_at)
RETURNING sender_id
"""

_BEGIN = """
INSERT INTO {conversations}
    (sender_id, version, session_start, snapshot, updated_at, expires_at, user_id,
     first_position, created_at)
VALUES ($1, $3, $4, $5, $6, $7, $8, 0, coalesce($9::float8, $6))
ON CONFLICT (sender_id) DO NOTHING
RETURNING sender_id
"""

_APPEND = """
WITH head AS ({head}), rows AS (
    INSERT INTO {events}
        (sender_id, position, event_id, data, type_name, timestamp, intent_name,
         action_name)
    SELECT $1::varchar, $2::int + n - 1, event_id, data, type_name, timestamp,
        intent_name, action_name
    FROM head, {new} (event_id, data, type_name, timestamp, intent_name,
                      action_name, n)
)
SELECT sender_id FROM head
"""

# The same with the messages for the broker, in the same statement: their ids are the
# events' own. The order of the keys is the order of the events.
_APPEND_WITH_OUTBOX = """
WITH head AS ({head}), new AS (
    SELECT * FROM {new} (event_id, data, type_name, timestamp, intent_name,
                         action_name, body, n)
), rows AS (
    INSERT INTO {events}
        (sender_id, position, event_id, data, type_name, timestamp, intent_name,
         action_name)
    SELECT $1::varchar, $2::int + n - 1, event_id, data, type_name, timestamp,
        intent_name, action_name
    FROM head, new
), messages AS (
    INSERT INTO {outbox} (sender_id, position, message_id, body)
    SELECT $1::varchar, $2::int + n - 1, event_id, body
    FROM head, new WHERE body IS NOT NULL ORDER BY n
)
SELECT sender_id FROM head
"""

# The header comes with the first row, as one value: a UNION of header and rows, one
# array of all rows, and a plain join with its sort were each slower (the arrays up to
# three times at 10,000 events). OFFSET 0 keeps the rows in the order of the index
# without sorting them once more. Ids that nobody asks for are a tenth of a long answer.
_READ = """
SELECT e.data, CASE WHEN e.position IS NULL OR e.position = f.first
    THEN ROW({header}, f.first) END{ids}
FROM {conversations} c
CROSS JOIN LATERAL (
    SELECT least(c.version, greatest(c.first_position, {start}{last})) AS first
) f
LEFT JOIN LATERAL (
    SELECT position, event_id, data FROM {events}
    WHERE sender_id = $1 AND position >= f.first ORDER BY position {limit}
) e ON true
WHERE c.sender_id = $1 AND (c.expires_at IS NULL OR c.expires_at > $2)
"""

_HEADER = """
SELECT NULL, ROW({header}, c.version)
FROM {conversations} c
WHERE c.sender_id = $1 AND (c.expires_at IS NULL OR c.expires_at > $2)
"""

_HEADER_COLUMNS = (
    "c.version, c.session_start, c.snapshot, c.created_at, c.updated_at, "
    "c.expires_at, c.user_id"
)


FIRST_OF_ROWS = 10
"""Number of the first parameter that belongs to a row."""

_TYPES = ("text", "text", "text", "float8", "text", "text")
_BODY = ("text",)


class Statements:
    """The statements with the names of the tables in them.

    Args:
        engine: Whose dialect quotes the names.
        tables: The layout.
    """

    def __init__(self, engine: AsyncEngine, tables: Tables) -> None:
        quote = engine.dialect.identifier_preparer.format_table
        names = {
            "conversations": quote(tables.conversations),
            "events": quote(tables.events),
            "outbox": quote(
                build_outbox(engine.dialect, tables.metadata.schema).messages
            ),
        }
        heads = {True: _BEGIN.format(**names), False: _ADVANCE.format(**names)}

        @cache
        def append_sql(is_new: bool, count: int, with_outbox: bool) -> str:
            types = _TYPES + _BODY if with_outbox else _TYPES
            new = _values(count, types) if count else _arrays(types)
            statement = _APPEND_WITH_OUTBOX if with_outbox else _APPEND
            return statement.format(head=heads[is_new], new=new, **names)

        @cache
        def read_sql(from_start: bool, last: bool, limit: bool, ids: bool) -> str:
            return _READ.format(
                ids=", e.event_id" if ids else "",
                start="$3::int" if from_start else "c.session_start",
                last=f", c.version - ${3 + from_start}::int" if last else "",
                limit=f"LIMIT ${3 + from_start + last}::int" if limit else "OFFSET 0",
                header=_HEADER_COLUMNS,
                **names,
            )

        self._append_sql = append_sql
        self._read_sql = read_sql
        self._header_sql = _HEADER.format(header=_HEADER_COLUMNS, **names)

    def append(self, append: Append) -> tuple[str, list[Any]]:
        """Return the statement of an append, and its arguments."""
        count = len(append.rows) if len(append.rows) <= VALUES_ROWS else 0
        arguments = [
            append.sender_id,
            append.expected_version,
            append.new_version,
            append.session_start,
            append.snapshot,
            append.now,
            append.expires_at,
            append.user_id,
            append.created_at,
        ]
        rows = [_columns(row) for row in append.rows]
        if append.outbox:
            bodies = {entry.message_id: entry.body for entry in append.outbox}
            rows = [(*row, bodies.get(row[0])) for row in rows]
        if count:
            for row in rows:
                arguments += row
        else:
            columns = zip(*rows, strict=True) if rows else [()] * len(_TYPES)
            arguments += map(list, columns)
        is_new = not append.expected_version
        return self._append_sql(is_new, count, bool(append.outbox)), arguments

    def read(self, read: Read) -> tuple[str, list[Any]]:
        """Return the statement of a read, and its arguments."""
        arguments: list[Any] = [read.sender_id, read.now]
        if read.last == 0:
            return self._header_sql, arguments
        bounds = (read.start, read.last, read.limit)
        arguments += (min(each, MAX_POSITION) for each in bounds if each is not None)
        given = (each is not None for each in bounds)
        return self._read_sql(*given, read.ids), arguments


def _values(count: int, types: tuple[str, ...]) -> str:
    rows = []
    for number in range(1, count + 1):
        first = FIRST_OF_ROWS + (number - 1) * len(types)
        columns = [f"${first + at}::{kind}" for at, kind in enumerate(types)]
        rows.append(f"({', '.join(columns)}, {number})")
    return f"(VALUES {', '.join(rows)}) AS new"


def _arrays(types: tuple[str, ...]) -> str:
    columns = [f"${FIRST_OF_ROWS + at}::{kind}[]" for at, kind in enumerate(types)]
    return f"unnest({', '.join(columns)}) WITH ORDINALITY AS new"


def _columns(row: NewRow) -> tuple[Any, ...]:
    return (
        row.event_id,
        row.data,
        column_text(row.type_name),
        column_time(row.timestamp),
        column_text(row.intent_name),
        column_text(row.action_name),
    )
