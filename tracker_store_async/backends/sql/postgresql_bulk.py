"""PostgreSQL: many conversations in one transaction, to copy them.

Two statements for the headers and COPY for the events: some ten times as fast as one
append after the other, each of which has to reach the disk by itself.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.sql.columns import INSERTED, column_text
from tracker_store_async.backends.sql.core import MAX_POSITION
from tracker_store_async.backends.sql.paging import check_whole, page_end
from tracker_store_async.rows import NewRow, StoredConversation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from tracker_store_async.backends.sql.schema import Tables
    from tracker_store_async.rows import Append, Read, StoredRow

_BEGIN = """
INSERT INTO {conversations}
    (sender_id, version, first_position, session_start, snapshot, created_at,
     updated_at, expires_at, user_id)
SELECT * FROM unnest($1::text[], $2::int[], $3::int[], $4::int[], $5::text[],
    $6::float8[], $7::float8[], $8::float8[], $9::text[])
ON CONFLICT (sender_id) DO NOTHING
RETURNING sender_id
"""

_ADVANCE = """
UPDATE {conversations} AS c
SET version = n.version, session_start = n.session_start, snapshot = n.snapshot,
    updated_at = n.updated_at, expires_at = n.expires_at,
    user_id = coalesce(n.user_id, c.user_id)
FROM unnest($1::text[], $2::int[], $3::int[], $4::int[], $5::text[], $6::float8[],
    $7::float8[], $8::float8[], $9::text[], $10::float8[])
    AS n (sender_id, version, expected, session_start, snapshot, asked, updated_at,
          expires_at, user_id, now)
WHERE c.sender_id = n.sender_id AND c.version = n.expected
    AND (c.expires_at IS NULL OR c.expires_at > n.now)
    AND c.created_at = coalesce(n.asked, c.created_at)
RETURNING c.sender_id
"""

_HEADERS = """
SELECT sender_id, version, first_position, session_start, snapshot, created_at,
    updated_at, expires_at, user_id
FROM {conversations} WHERE sender_id = ANY($1::text[])
"""

_ROWS = """
SELECT e.sender_id, e.event_id, e.data{more}
FROM unnest($1::text[], $2::int[], $3::int[]) AS w (sender_id, first, stop)
JOIN {events} e ON e.sender_id = w.sender_id
    AND e.position >= w.first AND e.position < w.stop
ORDER BY e.sender_id, e.position
"""


class Bulk:
    """Appends to and reads many conversations at once.

    Args:
        engine: Whose dialect quotes the names.
        tables: The layout.
    """

    def __init__(self, engine: AsyncEngine, tables: Tables) -> None:
        quote = engine.dialect.identifier_preparer.format_table
        names = {
            "conversations": quote(tables.conversations),
            "events": quote(tables.events),
        }
        self._begin, self._advance, self._headers, self._rows = (
            statement.format(**names)
            for statement in (_BEGIN, _ADVANCE, _HEADERS, _ROWS.replace("{more}", ""))
        )
        more = ", e.type_name, e.timestamp, e.intent_name, e.action_name"
        self._rows_with_columns = _ROWS.format(more=more, **names)
        self._events = tables.events

    async def append(self, driver: Any, appends: Sequence[Append]) -> set[str]:
        """Do the appends of a copy; return the ids of those that were stored.

        Args:
            driver: A connection of asyncpg.
            appends: The appends, of a conversation each.
        """
        # In one order, so that two copies into one database do not lock each other out.
        ordered = sorted(appends, key=lambda append: append.sender_id)
        begins = [append for append in ordered if not append.expected_version]
        others = [append for append in ordered if append.expected_version]
        async with driver.transaction():
            stored: set[str] = set()
            if begins:
                columns = zip(*map(_begun, begins), strict=True)
                found = await driver.fetch(self._begin, *map(list, columns))
                stored.update(row[0] for row in found)
            if others:
                columns = zip(*map(_advanced, others), strict=True)
                found = await driver.fetch(self._advance, *map(list, columns))
                stored.update(row[0] for row in found)
            records = _records(each for each in ordered if each.sender_id in stored)
            if records:
                await driver.copy_records_to_table(
                    self._events.name,
                    schema_name=self._events.schema,
                    records=records,
                    columns=INSERTED,
                )
        return stored

    async def read(
        self, driver: Any, reads: Sequence[Read]
    ) -> list[StoredConversation | None]:
        """Do reads that have a `start`, or are for the header alone.

        Args:
            driver: A connection of asyncpg.
            reads: The reads, of a conversation each.
        """
        options = {"isolation": "repeatable_read", "readonly": True}
        async with driver.transaction(**options):
            ids = [read.sender_id for read in reads]
            headers = {row[0]: row for row in await driver.fetch(self._headers, ids)}
            wanted = [
                (read.sender_id, *bounds)
                for read in reads
                if (header := headers.get(read.sender_id)) is not None
                and (bounds := _bounds(read, header)) is not None
            ]
            rows: dict[str, list[StoredRow]] = {}
            if wanted:
                columns = map(list, zip(*wanted, strict=True))
                if all(read.columns for read in reads):
                    for record in await driver.fetch(self._rows_with_columns, *columns):
                        sender_id, event_id, data, *more = record
                        row = NewRow(event_id, data or "", *more)
                        rows.setdefault(sender_id, []).append(row)  # type: ignore[arg-type]
                else:
                    for sender_id, *row in await driver.fetch(self._rows, *columns):
                        rows.setdefault(sender_id, []).append((row[0], row[1] or ""))
        return [_conversation(read, headers, rows) for read in reads]


def _begun(append: Append) -> tuple[Any, ...]:
    return (
        append.sender_id,
        append.new_version,
        append.position,
        append.session_start,
        append.snapshot,
        append.begun_at,
        append.stamp,
        append.expires_at,
        append.user_id,
    )


def _advanced(append: Append) -> tuple[Any, ...]:
    return (
        append.sender_id,
        append.new_version,
        append.expected_version,
        append.session_start,
        append.snapshot,
        append.created_at,
        append.stamp,
        append.expires_at,
        append.user_id,
        append.now,
    )


class _ColumnTexts(dict[str | None, str | None]):
    """What `column_text` says of a text, which a batch repeats for most of its rows.

    It was a third of the time that this process spends on a copy.
    """

    def __missing__(self, text: str | None) -> str | None:
        found = self[text] = column_text(text)
        return found


def _records(appends: Iterable[Append]) -> list[tuple[Any, ...]]:
    of = _ColumnTexts()
    return [
        (
            append.sender_id,
            position,
            event_id,
            data,
            of[type_name],
            timestamp if timestamp is None or isfinite(timestamp) else None,
            of[intent_name],
            of[action_name],
        )
        for append in appends
        for position, (
            event_id,
            data,
            type_name,
            timestamp,
            intent_name,
            action_name,
        ) in enumerate(append.rows, append.position)
    ]


def _first(read: Read, header: Any) -> int:
    start = header["version"] if read.last == 0 else read.start
    first: int = max(start or 0, header["first_position"])
    return min(first, int(header["version"]))


def _bounds(read: Read, header: Any) -> tuple[int, int] | None:
    """Return the first position that is wanted and the one behind the last, if any."""
    first = _first(read, header)
    end = page_end(read, first, header["version"])
    return (first, min(end, MAX_POSITION)) if first < end else None


def _conversation(
    read: Read, headers: dict[str, Any], rows: dict[str, list[StoredRow]]
) -> StoredConversation | None:
    header = headers.get(read.sender_id)
    if header is None:
        return None
    expires_at = header["expires_at"]
    if expires_at is not None and expires_at <= read.now:
        return None
    first = _first(read, header)
    found = rows.get(read.sender_id, [])
    end = page_end(read, first, header["version"])
    check_whole(read.sender_id, first, end, len(found))
    return StoredConversation(
        version=header["version"],
        session_start=header["session_start"],
        snapshot=header["snapshot"],
        created_at=header["created_at"],
        updated_at=header["updated_at"],
        expires_at=expires_at,
        user_id=header["user_id"],
        first_position=first,
        rows=found,
    )
