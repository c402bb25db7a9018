"""SQLite: one connection that writes, one that reads, one thread hop an operation.

aiosqlite gives each connection a thread. Its public methods hop there once for each
statement, so that a caller who is cancelled between two of them leaves a transaction
open for good. Here a whole operation, BEGIN to COMMIT, is one function that runs on
that thread: nothing on the event loop can come in between, and nobody else's statements
can either.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.pool import StaticPool
from sqlalchemy.util import greenlet_spawn

from tracker_store_async.backends.sql import sqlite_statements as sql
from tracker_store_async.backends.sql.columns import event_tuples
from tracker_store_async.backends.sql.outbox import outbox_values
from tracker_store_async.backends.sql.sqlite_lane import Lane
from tracker_store_async.backends.sql.sqlite_log import grow_log
from tracker_store_async.backends.sql.sqlite_reading import (
    SHORT_READ_ROWS,
    Reading,
    TooManyRowsError,
    Transaction,
)
from tracker_store_async.backends.sql.sqlite_rewriting import is_same, rewrite_within
from tracker_store_async.rows import ConversationSummary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.pool import PoolProxiedConnection

    from tracker_store_async.rows import (
        Append,
        Listing,
        Read,
        Rewrite,
        StoredConversation,
    )

T = TypeVar("T")

BUSY_TIMEOUT_SECONDS = 10.0
"""Longest wait for other processes before the journal mode can be set."""

BULK_ROWS = 1000
"""Rows from which several appends at once count as a bulk copy."""

BULK_CHECKPOINT_PAGES = 16_000
"""Pages in the write-ahead log from which a bulk copy moves them into the file.

SQLite's own 1,000 are reached by each transaction of such a copy, and each time the
same pages of the indexes are written and synced once more.
"""


SAVES_BEFORE_LOG = 8
"""Saves of a process after which it is worth while to make the log longer."""


MOST_LONG = 10_000
"""Conversations that are remembered for being long."""


class SqliteOperations:
    """Append, read, delete and list on one SQLite database.

    Args:
        engine: A connected engine.
        set_modes: Whether to set the file's journal mode and the connections' level of
            durability, or to leave them as the engine's owner has set them.
    """

    def __init__(self, engine: AsyncEngine, *, set_modes: bool = True) -> None:
        self.engine = engine
        self._set_modes = set_modes
        self.outbox: Table | None = None
        self._pooled: list[PoolProxiedConnection] = []
        self._lanes: list[Lane] = []
        self._writer: Lane
        self._reader: Lane
        self._reading: Reading
        # one object each, by which the lane knows them
        self._append_one = self._append_here
        self._append_together = self._append_all_here
        self._writes: deque[None] = deque()  # one for each that is not done
        self._saves_before_log = SAVES_BEFORE_LOG if set_modes else -1
        self._long: dict[str, None] = {}  # conversations that are no short read

    async def open(self) -> None:
        """Take the connections that are held for as long as the store is open."""
        try:
            writing = self._append_one, self._append_together
            self._writer = self._reader = await self._take(*writing)
            # A database in memory belongs to the one connection that made it.
            if not isinstance(self.engine.pool, StaticPool):
                self._reader = await self._take()
            self._reading = await self._reader.run(Reading.of)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Wait for what is under way and release the connections."""
        try:
            while self._pooled:
                await greenlet_spawn(self._pooled.pop().close)
        finally:
            while self._lanes:
                self._lanes.pop().close()

    idle_count = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection of SQLAlchemy's."""
        async with self.engine.connect() as conn:
            yield conn

    async def _take(self, *together: Any) -> Lane:
        pooled = await self.engine.raw_connection()
        self._pooled.append(pooled)
        lane = Lane(pooled.driver_connection, *together)
        self._lanes.append(lane)
        await lane.run(_read_forwards)
        if self._set_modes:
            await lane.run(_set_modes)
        return lane

    async def append(self, append: Append) -> bool:
        """Store everything if the version is the expected one; False if it is not."""
        self._writes.append(None)
        with_outbox = self.outbox is not None
        landed: bool = await self._writer.ask(self._append_one, append, with_outbox)
        return landed

    def _append_here(
        self, conn: sqlite3.Connection, append: Append, with_outbox: bool
    ) -> bool:
        try:
            return _append(conn, append, with_outbox)
        finally:
            self._writes.pop()  # here: whoever waited for it may be gone
            if self._saves_before_log > 0:
                self._note_saves(conn, 1)

    def _append_all_here(
        self, conn: sqlite3.Connection, calls: Sequence[tuple[Append, bool]]
    ) -> Sequence[bool | Exception] | None:
        """Append what several callers wait for; None if one of them is to blame."""
        found: list[bool | Exception] = []
        try:
            with _writing(conn):
                found += _append_within(conn, calls)
        except Exception as error:  # noqa: BLE001  each is told its own
            if not _is_busy(error):
                return None
            # Who holds the file is waited for once, not by one after the other.
            found = [copy(error) for _ in calls]
        for _ in calls:
            self._writes.pop()
        if self._saves_before_log > 0:
            self._note_saves(conn, len(calls))
        return found

    def _note_saves(self, conn: sqlite3.Connection, count: int) -> None:
        """Make the log longer once it is clear that there are going to be more."""
        self._saves_before_log = max(0, self._saves_before_log - count)
        if not self._saves_before_log:
            grow_log(conn)

    async def append_many(self, appends: Sequence[Append]) -> list[bool] | None:
        """Append to several conversations in one transaction: they are synced once."""
        return await self._write(_append_many, appends, self.outbox is not None)

    async def read(self, read: Read) -> StoredConversation | None:
        """Return header and rows as of one moment, or None.

        A short read goes to the connection that writes, while nobody writes: its cache
        holds the pages that were written, and each write voids the other one's cache.
        That takes 50 us off the 450 of a read of ten events after a save.
        """
        if not self._writes and read.sender_id not in self._long:
            try:
                return await self._writer.run(self._reading.one, read, SHORT_READ_ROWS)
            except TooManyRowsError:  # a save would have to wait for it
                self._long[read.sender_id] = None
                if len(self._long) > MOST_LONG:
                    del self._long[next(iter(self._long))]
        return await self._reader.run(self._reading.one, read)

    async def read_many(self, reads: Sequence[Read]) -> list[StoredConversation | None]:
        """Do several reads in one hop to the thread."""
        return await self._reader.run(self._reading.many, reads)

    async def delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        """Erase a conversation or its beginning; return whether there was anything."""
        with_outbox = self.outbox is not None
        return await self._write(_delete, sender_id, before, now, version, with_outbox)

    async def rewrite(self, rewrite: Rewrite) -> bool:
        """Put other content in the place of what is stored; False if it is not that."""
        with_outbox = self.outbox is not None
        return await self._write(_rewrite, rewrite, with_outbox)

    async def list(self, listing: Listing) -> Sequence[ConversationSummary]:
        """Return the next page, in the order of the sender ids' code points."""
        return await self._reader.run(_list, listing)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function on the writing connection, outside of a transaction."""
        return await self._write(work)

    async def _write(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work(connection, *arguments)` on the connection that writes."""

        def noted(conn: sqlite3.Connection) -> T:
            try:
                return work(conn, *arguments)
            finally:
                self._writes.pop()  # here: whoever waited for it may be gone

        self._writes.append(None)
        return await self._writer.run(noted)

    async def server_version(self) -> str:
        """Return the version of the SQLite library, after a read from the file."""
        return await self._reader.run(_version)


def _read_forwards(conn: sqlite3.Connection) -> None:
    # SQLite's default. The other way round is for tests of who relies on an order that
    # no ORDER BY asks for, as `sqlite_reading` does.
    conn.execute("PRAGMA reverse_unordered_selects = OFF")


def _set_modes(conn: sqlite3.Connection) -> None:
    # FULL: what was acknowledged survives a power cut, too, for some 0.1 ms a save.
    conn.execute("PRAGMA synchronous = FULL")
    # What is erased is overwritten: else it stays in the file until its page is used.
    conn.execute("PRAGMA secure_delete = ON")
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            # WAL: readers and the writer do not wait for each other. It is stored in
            # the file; where it cannot be (network drives), SQLite says so and goes on.
            conn.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # This lock is one that the busy timeout does not wait for.
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _is_busy(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, 15)  # or its locking protocol failed


def _writing(conn: sqlite3.Connection) -> Transaction:
    # IMMEDIATE: take the lock now. A lock that is taken later, by the first write, is
    # refused at once and without a busy timeout if another process wrote meanwhile.
    return Transaction(conn, "BEGIN IMMEDIATE")


def _append(conn: sqlite3.Connection, append: Append, with_outbox: bool) -> bool:
    with _writing(conn):
        return _append_within(conn, ((append, with_outbox),))[0]


def _append_many(
    conn: sqlite3.Connection, appends: Sequence[Append], with_outbox: bool
) -> list[bool]:
    if sum(len(append.rows) for append in appends) >= BULK_ROWS:
        conn.execute(f"PRAGMA wal_autocheckpoint = {BULK_CHECKPOINT_PAGES}")
    # One that is refused has changed nothing, so the others may stay.
    with _writing(conn):
        return _append_within(conn, [(append, with_outbox) for append in appends])


def _append_within(
    conn: sqlite3.Connection, calls: Iterable[tuple[Append, bool]]
) -> list[bool]:
    """Append within a transaction; return of each whether it was not refused."""
    found: list[bool] = []
    rows: list[tuple[Any, ...]] = []
    for append, with_outbox in calls:
        if append.expected_version:
            is_mine = _advance(conn, append)
        else:
            _insert(conn, rows)  # it may erase a log that has expired, with its rows
            rows = []
            is_mine = _begin(conn, append, with_outbox)
        if is_mine:
            rows += event_tuples(append)
            if append.outbox:
                conn.executemany(sql.INSERT_MESSAGE, outbox_values(append))
        found.append(is_mine)
    _insert(conn, rows)
    return found


def _insert(conn: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    # Several in a step, as `sqlite_reading` says of reading.
    for at in range(0, len(rows), sql.MOST_ROWS):
        some = rows[at : at + sql.MOST_ROWS]
        conn.execute(sql.INSERT_EVENTS[len(some) - 1], tuple(chain.from_iterable(some)))


def _advance(conn: sqlite3.Connection, append: Append) -> bool:
    values = (
        append.new_version,
        append.session_start,
        append.snapshot,
        append.stamp,
        append.expires_at,
        append.sender_id,
        append.expected_version,
        append.created_at,
        append.now,
    )
    is_mine = conn.execute(sql.ADVANCE, values).rowcount == 1
    if is_mine and append.user_id is not None:
        conn.execute(sql.NAME_USER, (append.user_id, append.sender_id))
    return is_mine


def _begin(conn: sqlite3.Connection, append: Append, with_outbox: bool) -> bool:
    values = {
        "sender_id": append.sender_id,
        "version": append.new_version,
        "session_start": append.session_start,
        "snapshot": append.snapshot,
        "now": append.now,
        "expires_at": append.expires_at,
        "user_id": append.user_id,
        "position": append.position,
        "begun_at": append.begun_at,
        "stamp": append.stamp,
    }
    found = conn.execute(sql.IS_ALIVE, values).fetchone()
    if found is not None:
        if found[0]:
            return False
        _erase(conn, values, with_outbox)
    conn.execute(sql.BEGIN, values)
    return True


def _erase(conn: sqlite3.Connection, values: dict[str, Any], with_outbox: bool) -> None:
    for statement in (*sql.ERASE, sql.ERASE_MESSAGES) if with_outbox else sql.ERASE:
        conn.execute(statement, values)


def _delete(
    conn: sqlite3.Connection,
    sender_id: str,
    before: int | None,
    now: float,
    version: int | None,
    with_outbox: bool,
) -> bool:
    values = {"sender_id": sender_id, "before": before, "now": now}
    with _writing(conn):
        if before is None:
            found = conn.execute(sql.IS_ALIVE, values).fetchone()
            if found is not None and version not in (None, found[1]):
                return False
            _erase(conn, values, with_outbox)
            return found is not None and bool(found[0])
        if conn.execute(sql.CLAIM_CUT, values).rowcount != 1:
            return False
        for statement in (sql.CUT, sql.CUT_MESSAGES) if with_outbox else (sql.CUT,):
            conn.execute(statement, values)
        return True


def _rewrite(conn: sqlite3.Connection, rewrite: Rewrite, with_outbox: bool) -> bool:
    if not rewrite.changed:
        return is_same(conn, rewrite)
    with _writing(conn):
        return rewrite_within(conn, rewrite, with_outbox=with_outbox)


def _list(conn: sqlite3.Connection, listing: Listing) -> list[ConversationSummary]:
    bounds = {
        "sender_id > :after": listing.after,
        "user_id = :user_id": listing.user_id,
        "updated_at >= :updated_from": listing.updated_from,
        "updated_at < :updated_before": listing.updated_before,
    }
    given = [f" AND {bound}" for bound, value in bounds.items() if value is not None]
    found = conn.execute(sql.LIST.format(bounds="".join(given)), asdict(listing))
    return [ConversationSummary(*(*row, row[0])) for row in found]


def _version(conn: sqlite3.Connection) -> str:
    conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return str(conn.execute("SELECT sqlite_version()").fetchone()[0])
