"""SQLite: what a read does on the thread of a connection, in few steps.

Python's `sqlite3` lets go of the interpreter for each step of a statement, and a step
gives one row. Where the event loop is busy, the thread may wait for 5 ms (Python's
switch interval) until it gets the interpreter back: with a row a step, a conversation
of 1,000 events may take seconds to read. So SQLite itself joins the texts of many rows.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.sql.paging import check_whole, page_end
from tracker_store_async.packed_rows import PackedRows, packed_texts
from tracker_store_async.rows import NewRow, StoredConversation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.rows import Read

SHORT_READ_ROWS = 2_000
"""Most rows that are read on the connection that writes: 1 ms, as a save takes to be
synced. More are read on the other one, after a second hop to a thread."""

ROWS_A_STEP = 128
"""Most rows whose texts are joined. For more at once it takes as long a row."""

_SEPARATOR = "\x1e"
"""No JSON text holds this character other than as an escape."""

_HEADER = """
    version, session_start, snapshot, created_at, updated_at, expires_at, user_id
"""
_FOUND = "sender_id = ? AND (expires_at IS NULL OR expires_at > ?)"
_READ_HEADER = f"""
SELECT {_HEADER}, first_position FROM conversations WHERE {_FOUND}
"""  # noqa: S608  (of constants)
_READ_EVENTS = """
SELECT event_id, data FROM events
WHERE sender_id = ? AND position >= ? AND position < ? ORDER BY position
"""
_READ_ROWS = _READ_EVENTS.replace(
    "event_id, data", "event_id, data, type_name, timestamp, intent_name, action_name"
)
_READ_TEXTS = _READ_EVENTS.replace("event_id, data", "data")
# SQLite joins in the order in which it reads, and an index is read in its order. A
# subquery with ORDER BY in place of the index's name takes a fifth more time.
_JOIN = """
SELECT count(data) || char(30) || group_concat(data, char(30))
FROM events INDEXED BY {index} WHERE
"""
_READ_JOINED = f"{_JOIN} sender_id = ? AND position >= ? AND position < ?"
_READ_SHORT = f"""
SELECT {_HEADER}, first, CASE WHEN version - first BETWEEN 1 AND {ROWS_A_STEP} THEN (
    {_JOIN} events.sender_id = found.sender_id AND position >= first
        AND position < version
) END
FROM (
    SELECT *, min(version, max(first_position, coalesce(?, session_start),
        version - coalesce(?, version))) AS first
    FROM conversations WHERE {_FOUND}
) AS found
"""  # noqa: S608  (of constants)


_COLUMNS = """
SELECT name, "desc", coll FROM pragma_index_xinfo(?) WHERE key ORDER BY seqno
"""
_SOUGHT = [("sender_id", 0, "BINARY"), ("position", 0, "BINARY")]


class TooManyRowsError(Exception):
    """A read is not a short one."""


class Transaction:
    """BEGIN, and COMMIT or ROLLBACK, around what runs on a connection's thread."""

    def __init__(self, conn: sqlite3.Connection, begin: str) -> None:
        self._conn = conn
        self._begin = begin

    def __enter__(self) -> None:
        self._conn.execute(self._begin)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            if kind is None:
                self._conn.execute("COMMIT")
        finally:
            # A COMMIT may fail too: somebody reads, and there is no write-ahead log.
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK")


class Reading:
    """Reads from connections to one database.

    Args:
        index: Name of the index on sender id and position, or None: then nothing is
            joined.
    """

    def __init__(self, index: str | None) -> None:
        self._short = self._joined = ""
        if index is not None:
            name = '"{}"'.format(index.replace('"', '""'))
            self._short = _READ_SHORT.replace("{index}", name)
            self._joined = _READ_JOINED.replace("{index}", name)

    @classmethod
    def of(cls, conn: sqlite3.Connection) -> Reading:
        """Return what reads from the database of a connection."""
        listed = conn.execute("PRAGMA index_list(events)").fetchall()
        for _, name, _, _, is_partial in listed:
            columns = conn.execute(_COLUMNS, (name,)).fetchall()
            if not is_partial and columns == _SOUGHT:
                return cls(name)
        return cls(None)

    def one(
        self, conn: sqlite3.Connection, read: Read, most_rows: int | None = None
    ) -> StoredConversation | None:
        """Return header and rows as of one moment, or None.

        Raises:
            TooManyRowsError: There are more than `most_rows`.
        """
        with_ids = read.ids and read.last != 0
        if self._short and read.limit is None and not read.columns and not with_ids:
            with suppress(sqlite3.DataError):  # more than SQLite holds in one text
                found = self._read_short(conn, read)
                if found is None or not (missing := _missing(found)):
                    return found
                _check_few(missing, most_rows)
        # Two statements of one transaction beat one join: 7 against 13 ms for 10,000
        # events, since each row of a join is wider.
        with Transaction(conn, "BEGIN"):
            values = read.sender_id, read.now
            header = conn.execute(_READ_HEADER, values).fetchone()
            if header is None:
                return None
            version, session_start, *rest, trimmed = header
            first = max(session_start if read.start is None else read.start, trimmed)
            if read.last is not None:
                first = max(first, version - read.last)
            first = min(first, version)
            _check_few(version - first, most_rows)
            end = page_end(read, first, version)
            rows: Sequence[Any] = []
            if first < end:
                bounds = (read.sender_id, first, end)
                if read.columns:
                    rows = list(map(NewRow._make, conn.execute(_READ_ROWS, bounds)))
                elif not read.ids:
                    rows = PackedRows(self._read_texts(conn, *bounds))
                else:
                    rows = conn.execute(_READ_EVENTS, bounds).fetchall()
        check_whole(read.sender_id, first, end, len(rows))
        return StoredConversation(*(version, session_start, *rest, first, rows))

    def many(
        self, conn: sqlite3.Connection, reads: Sequence[Read]
    ) -> list[StoredConversation | None]:
        """Do several reads, each as of one moment."""
        return [self.one(conn, read) for read in reads]

    def _read_short(
        self, conn: sqlite3.Connection, read: Read
    ) -> StoredConversation | None:
        """Return the header, with the rows if they are few and as they should be.

        In one step, and so as of one moment without a transaction.
        """
        values = (read.start, read.last, read.sender_id, read.now)
        found = conn.execute(self._short, values).fetchone()
        if found is None:
            return None
        *header, first, joined = found
        texts = None if joined is None else _split(joined, header[0] - first)
        return StoredConversation(*(*header, first, PackedRows(texts or ())))

    def _read_texts(
        self, conn: sqlite3.Connection, sender_id: str, first: int, end: int
    ) -> list[str | bytes]:
        """Return the texts of rows, one after the other."""
        found: list[str | bytes] = []
        for at in range(first, end, ROWS_A_STEP):
            bounds = (sender_id, at, min(end, at + ROWS_A_STEP))
            texts = None
            if self._joined:
                with suppress(sqlite3.DataError):  # as above
                    joined = conn.execute(self._joined, bounds).fetchone()[0]
                    texts = None if joined is None else _split(joined, bounds[2] - at)
            if texts is None:
                rows = conn.execute(_READ_TEXTS, bounds)
                texts = packed_texts(map(itemgetter(0), rows))
            found += texts
        return found


def _missing(found: StoredConversation) -> int:
    return found.version - found.first_position - len(found.rows)


def _check_few(count: int, most_rows: int | None) -> None:
    if most_rows is not None and count > most_rows:
        raise TooManyRowsError


def _split(joined: str, count: int) -> list[str | bytes] | None:
    """Return the texts of so many rows, or None if these are others.

    One may be missing, or NULL, or hold what no JSON text does.
    """
    texts: list[str | bytes] = joined.split(_SEPARATOR)  # type: ignore[assignment]
    if len(texts) != count + 1 or texts.pop(0) != str(count):
        return None
    return texts if joined.isascii() else packed_texts(texts)
