"""The primitives in SQLAlchemy Core: for every database, in portable SQL.

An append is one transaction: the conversation's row is inserted, or updated if it still
has the expected version, then the events follow. Dialects that can do better override
the methods; those that cannot (Oracle, and drivers we do not know) use these.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import BigInteger, and_, case, func, literal, null, or_, select
from sqlalchemy.exc import IntegrityError

from tracker_store_async.backends.sql.columns import event_values
from tracker_store_async.backends.sql.errors import is_contended
from tracker_store_async.backends.sql.lost import dropping_lost
from tracker_store_async.backends.sql.outbox import outbox_values
from tracker_store_async.backends.sql.paging import check_whole, page_end
from tracker_store_async.backends.sql.rewriting import rewrite_on
from tracker_store_async.rows import ConversationSummary, StoredConversation
from tracker_store_async.settling import settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from sqlalchemy import ColumnElement, Insert, Select, Table
    from sqlalchemy.engine import Row
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from tracker_store_async.backends.sql.schema import Tables
    from tracker_store_async.rows import Append, Listing, NewRow, Read, Rewrite

T = TypeVar("T")

MAX_POSITION = 2**31 - 1
"""The largest number that the columns of positions and versions hold."""

CONTENTION_ATTEMPTS = 5
"""Times that a transaction is tried that the database ends in favour of others."""


class CoreOperations:
    """Append, read, delete and list on one engine.

    Args:
        engine: A connected engine.
        tables: The layout on it.
    """

    def __init__(self, engine: AsyncEngine, tables: Tables) -> None:
        self.engine = engine
        self.tables = tables
        self.outbox: Table | None = None
        self.renews_login = False  # whether new connections may log in otherwise

    async def open(self) -> None:
        """Take what is held for as long as the store is open."""

    async def close(self) -> None:
        """Release it."""

    # -- append ------------------------------------------------------------------------

    async def append(self, append: Append) -> bool:
        """Store everything if the version is the expected one; False if it is not."""
        return await self._in_transaction(
            lambda conn: self._append_on(conn, append), undo_refused=True
        )

    async def _append_on(self, conn: AsyncConnection, append: Append) -> bool:
        if append.expected_version:
            is_mine = await self._advance(conn, append)
        else:
            is_mine = await self._begin(conn, append)
        if is_mine and append.rows:
            await self._send(conn, self.tables.events.insert(), event_values(append))
        if is_mine and append.outbox and self.outbox is not None:
            await self._send(conn, self.outbox.insert(), outbox_values(append))
        return is_mine

    async def append_many(self, appends: Sequence[Append]) -> list[bool] | None:
        """Append to several conversations at once, if this database has a way to.

        Copies go into one transaction, or each alone if one is refused.

        Returns:
            What `append` returns for each; None if they have to be sent one by one.
        """
        if any(append.origin is None for append in appends):
            return None

        async def run(conn: AsyncConnection) -> bool:
            for append in appends:
                if not await self._append_on(conn, append):
                    return False
            return True

        if await self._in_transaction(run, undo_refused=True):
            return [True] * len(appends)
        return [await self.append(append) for append in appends]

    async def _send(
        self, conn: AsyncConnection, statement: Insert, rows: list[dict[str, Any]]
    ) -> None:
        await conn.execute(statement, rows)

    def check_size(self, sender_id: str, rows: Sequence[NewRow], snapshot: str) -> None:
        """Refuse what could never be stored; most databases have no limit."""

    async def _advance(self, conn: AsyncConnection, append: Append) -> bool:
        table = self.tables.conversations
        values = header_values(append)
        if append.user_id is None:
            del values["user_id"]
        statement = table.update().where(
            table.c.sender_id == append.sender_id,
            table.c.version == append.expected_version,
            self._alive(append.now),
        )
        if append.created_at is not None:
            statement = statement.where(table.c.created_at == append.created_at)
        return (await conn.execute(statement.values(values))).rowcount == 1

    async def _begin(self, conn: AsyncConnection, append: Append) -> bool:
        """Insert the conversation unless it is there; an expired one is replaced."""
        values = begun_header_values(append)
        if await self._insert_header(conn, values):
            return True
        # Looked at without a lock: MySQL's writers who met a row that is there share a
        # lock on it, and would all wait for each other to give it up.
        if not await self._has_expired(conn, append):
            return False
        table = self.tables.conversations
        expired = table.delete().where(
            table.c.sender_id == append.sender_id, table.c.expires_at <= append.now
        )
        if (await conn.execute(expired)).rowcount != 1:
            return False
        await self._erase(conn, append.sender_id)
        return await self._insert_header(conn, values)

    async def _has_expired(self, conn: AsyncConnection, append: Append) -> bool:
        table = self.tables.conversations
        found = select(table.c.sender_id).where(
            table.c.sender_id == append.sender_id, table.c.expires_at <= append.now
        )
        return (await conn.execute(found)).first() is not None

    async def _insert_header(
        self, conn: AsyncConnection, values: dict[str, Any]
    ) -> bool:
        """Insert a conversation's row; return False if there is one."""
        try:
            # First the insert, then the question who was faster: a SELECT FOR UPDATE
            # of a row that is not there makes MySQL's writers deadlock on the gap.
            await conn.execute(self.tables.conversations.insert().values(values))
        except IntegrityError:
            return False
        return True

    # -- read --------------------------------------------------------------------------

    async def read(self, read: Read) -> StoredConversation | None:
        """Return header and rows as of one moment, or None."""
        async with self._reading() as conn:
            found = (await conn.execute(self._read_statement(read))).all()
        return _conversation_of(read, found)

    async def read_many(self, reads: Sequence[Read]) -> list[StoredConversation | None]:
        """Do several reads on one connection."""
        async with self._reading() as conn:
            return [
                _conversation_of(
                    read, (await conn.execute(self._read_statement(read))).all()
                )
                for read in reads
            ]

    def _read_statement(self, read: Read) -> Select[Any]:
        head, event = self.tables.conversations, self.tables.events
        header = [head.c[name] for name in HEADER_COLUMNS if name != "snapshot"]
        if read.last == 0:
            empty = [null().label("position"), null().label("event_id")]
            return select(*header, head.c.snapshot, *empty, null().label("data")).where(
                head.c.sender_id == read.sender_id, self._alive(read.now)
            )
        start: Any = head.c.session_start
        if read.start is not None:
            start = literal(min(read.start, MAX_POSITION), BigInteger())
        within = [event.c.sender_id == head.c.sender_id, event.c.position >= start]
        if read.last is not None:
            last = min(read.last, MAX_POSITION)
            within.append(event.c.position >= head.c.version - last)
        is_last = or_(
            event.c.position.is_(None), event.c.position == head.c.version - 1
        )
        if read.limit is not None:
            # Portable for `position < greatest(start, first_position) + limit`.
            ends = [begin + read.limit for begin in (start, head.c.first_position)]
            within.append(or_(*(event.c.position < end for end in ends)))
            is_last = or_(is_last, *(event.c.position == end - 1 for end in ends))
        return (
            select(
                *header,
                # Once is enough: it may be long.
                case((is_last, head.c.snapshot)).label("snapshot"),
                event.c.position,
                event.c.event_id,
                event.c.data,
            )
            .select_from(head.outerjoin(event, and_(*within)))
            .where(head.c.sender_id == read.sender_id, self._alive(read.now))
            .order_by(event.c.position)
        )

    # -- delete ------------------------------------------------------------------------

    async def delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        """Erase a conversation or its beginning; return whether there was anything."""

        async def run(conn: AsyncConnection) -> bool:
            if before is None:
                return await self._delete_whole(conn, sender_id, now, version)
            return await self._cut(conn, sender_id, before, now)

        return await self._in_transaction(run)

    async def _delete_whole(
        self, conn: AsyncConnection, sender_id: str, now: float, version: int | None
    ) -> bool:
        table = self.tables.conversations
        header = select(table.c.expires_at, table.c.version)
        header = header.where(table.c.sender_id == sender_id)
        found = (await conn.execute(header.with_for_update())).first()
        if found is None or version not in (None, found.version):
            return False
        await self._erase(conn, sender_id)
        return found.expires_at is None or bool(found.expires_at > now)

    async def _erase(self, conn: AsyncConnection, sender_id: str) -> None:
        # The conversation first: an append that waits for its row then finds nothing.
        for table in (self.tables.conversations, self.tables.events, self.outbox):
            if table is not None:
                found = table.c.sender_id == sender_id
                await conn.execute(table.delete().where(found))

    async def _cut(
        self, conn: AsyncConnection, sender_id: str, before: int, now: float
    ) -> bool:
        head, event = self.tables.conversations, self.tables.events
        claim = (
            head.update()
            .values(first_position=before)
            .where(
                head.c.sender_id == sender_id,
                head.c.first_position < before,
                head.c.session_start >= before,
                self._alive(now),
            )
        )
        if (await conn.execute(claim)).rowcount != 1:
            return False
        for table in (event, self.outbox):
            if table is not None:
                cut = (table.c.sender_id == sender_id, table.c.position < before)
                await conn.execute(table.delete().where(*cut))
        return True

    # -- rewrite -----------------------------------------------------------------------

    async def rewrite(self, rewrite: Rewrite) -> bool:
        """Put other content in the place of what is stored; False if it is not that."""
        is_alive = self._alive(rewrite.now)
        return await self._in_transaction(
            lambda conn: rewrite_on(conn, self.tables, self.outbox, rewrite, is_alive),
            undo_refused=True,
        )

    # -- list --------------------------------------------------------------------------

    async def list(self, listing: Listing) -> Sequence[ConversationSummary]:
        """Return the next page, in the order of the sender ids' code points."""
        async with self._reading() as conn:
            found = (await conn.execute(self.list_statement(listing))).all()
        return [ConversationSummary(*(*row, row[0])) for row in found]

    def list_statement(self, listing: Listing) -> Select[Any]:
        """Return one page's statement: it goes on behind a key, never by OFFSET."""
        table = self.tables.conversations
        statement = select(
            table.c.sender_id,
            table.c.version,
            table.c.created_at,
            table.c.updated_at,
            table.c.user_id,
        ).where(self._alive(listing.now))
        if listing.after is not None:
            statement = statement.where(table.c.sender_id > listing.after)
        if listing.user_id is not None:
            statement = statement.where(table.c.user_id == listing.user_id)
        if listing.updated_from is not None:
            statement = statement.where(table.c.updated_at >= listing.updated_from)
        if listing.updated_before is not None:
            statement = statement.where(table.c.updated_at < listing.updated_before)
        return statement.order_by(table.c.sender_id).limit(listing.limit)

    # -- health ------------------------------------------------------------------------

    async def server_version(self) -> str:
        """Ask the server for its version: one round trip."""
        async with self._reading() as conn:
            return str((await conn.execute(select(func.version()))).scalar())

    # -- connections -------------------------------------------------------------------

    @property
    def idle_count(self) -> int:
        """Number of connections that count as taken from the pool but are unused."""
        return 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection of SQLAlchemy's."""
        async with (
            self.engine.connect() as conn,
            dropping_lost(conn, renews_login=self.renews_login),
        ):
            yield conn

    def _alive(self, now: float) -> ColumnElement[bool]:
        expires_at = self.tables.conversations.c.expires_at
        return or_(expires_at.is_(None), expires_at > now)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection for one statement."""
        async with self.connection() as conn:
            yield conn

    async def _in_transaction(
        self,
        work: Callable[[AsyncConnection], Awaitable[T]],
        *,
        undo_refused: bool = False,
    ) -> T:
        """Run a transaction to its end even if the caller is cancelled meanwhile.

        Args:
            work: What to do in it.
            undo_refused: Whether to roll back when it returns False. An append that is
                refused may have written half of it; a deletion that says no may have
                erased what had expired.
        """

        async def run() -> T:
            async with self.connection() as conn, conn.begin() as transaction:
                is_done = await work(conn)
                if undo_refused and not is_done:
                    await transaction.rollback()
                return is_done

        for attempt in range(CONTENTION_ATTEMPTS):
            try:
                return await settled(run())
            except Exception as error:
                if attempt == CONTENTION_ATTEMPTS - 1 or not is_contended(error):
                    raise
            await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311
        raise AssertionError  # the last attempt returned or raised


HEADER_COLUMNS = (
    "version",
    "first_position",
    "session_start",
    "snapshot",
    "created_at",
    "updated_at",
    "expires_at",
    "user_id",
)


def header_values(append: Append) -> dict[str, Any]:
    """Return what an append writes to the conversation's row."""
    return {
        "version": append.new_version,
        "session_start": append.session_start,
        "snapshot": append.snapshot,
        "updated_at": append.stamp,
        "expires_at": append.expires_at,
        "user_id": append.user_id,
    }


def begun_header_values(append: Append) -> dict[str, Any]:
    """Return the conversation's row as the append that begins it writes it."""
    return header_values(append) | {
        "sender_id": append.sender_id,
        "first_position": append.position,
        "created_at": append.begun_at,
    }


def _conversation_of(
    read: Read, found: Sequence[Row[Any]]
) -> StoredConversation | None:
    if not found:
        return None
    tail = found[-1]
    start = tail.session_start if read.start is None else read.start
    first = max(start, tail.first_position)
    if read.last is not None:
        first = max(first, tail.version - read.last)
    first = min(first, tail.version)
    rows = [] if tail.position is None else [(r.event_id, r.data or "") for r in found]
    check_whole(read.sender_id, first, page_end(read, first, tail.version), len(rows))
    return StoredConversation(
        version=tail.version,
        session_start=tail.session_start,
        snapshot=tail.snapshot,
        created_at=tail.created_at,
        updated_at=tail.updated_at,
        expires_at=tail.expires_at,
        user_id=tail.user_id,
        first_position=first,
        rows=rows,
    )
