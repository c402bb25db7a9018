"""SQLite: the write-ahead log is brought to its usual size before it gets there."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress

LOG_BYTES = 4 << 20
"""What a write-ahead log has anyway before it is moved into the file (1,000 pages)."""

CACHED_PAGES = 10
"""Pages that the cache may hold while the log grows: the others have to go there."""


def grow_log(conn: sqlite3.Connection) -> None:
    """Make the write-ahead log as long as it is going to be; nothing is stored.

    While the log grows, each sync has to write down the file's new length as well: a
    save of six events takes 400 us and, in a log that is long enough, 270. So pages are
    written to it in a transaction that is rolled back, which takes some 8 ms. If that
    cannot be done now the log grows by and by.

    Args:
        conn: The connection that writes, outside of a transaction.
    """
    with suppress(sqlite3.Error, OSError):
        path = conn.execute("PRAGMA database_list").fetchone()[2]
        if not path or os.path.getsize(f"{path}-wal") >= LOG_BYTES:
            return
        with _set(conn, "busy_timeout", 0), _set(conn, "cache_size", CACHED_PAGES):
            conn.execute("BEGIN IMMEDIATE")
            try:
                conn.execute("CREATE TABLE growing_log (data)")
                conn.execute(
                    "INSERT INTO growing_log VALUES (zeroblob(?))", (LOG_BYTES,)
                )
            finally:
                conn.execute("ROLLBACK")


class _set:  # noqa: N801  it reads as a statement
    """A pragma with another value for a while."""

    def __init__(self, conn: sqlite3.Connection, name: str, value: int) -> None:
        self._conn, self._name, self._value = conn, name, value

    def __enter__(self) -> None:
        found = self._conn.execute(f"PRAGMA {self._name}").fetchone()
        self._former = int(found[0])
        self._conn.execute(f"PRAGMA {self._name} = {self._value}")

    def __exit__(self, *exc_info: object) -> None:
        self._conn.execute(f"PRAGMA {self._name} = {self._former}")
