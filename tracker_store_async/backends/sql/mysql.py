"""MySQL and MariaDB: three round trips to append (UPDATE, INSERT, COMMIT), two to read.

A transaction begins by itself and each ends with one word; nothing else is sent. Values
travel in the text of a statement, which the server takes up to `max_allowed_packet`.
Many conversations are appended to in one transaction, with some six statements of many
rows each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select
from sqlalchemy.dialects.mysql import insert

from tracker_store_async.backends.sql.columns import column_text, event_values
from tracker_store_async.backends.sql.core import (
    CoreOperations,
    begun_header_values,
)
from tracker_store_async.backends.sql.outbox import outbox_values
from tracker_store_async.backends.sql.packets import (
    RESERVED_BYTES,
    literal_bytes,
    statement_room,
)
from tracker_store_async.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Insert
    from sqlalchemy.ext.asyncio import AsyncConnection

    from tracker_store_async.rows import Append, NewRow

CHANGING_COLUMNS = ("version", "session_start", "snapshot", "updated_at", "expires_at")
"""The columns of a conversation's row that every append writes."""


class MysqlOperations(CoreOperations):
    """MySQL and MariaDB with any asyncio driver that SQLAlchemy knows.

    The portable statements are theirs too. What differs is elsewhere: types and
    collation in `schema`, isolation and reset of connections in `engine`.
    """

    _room_bytes: int | None = None

    async def open(self) -> None:
        """Ask how long a statement may be."""
        async with self._reading() as conn:
            self._room_bytes = await statement_room(conn)

    def check_size(self, sender_id: str, rows: Sequence[NewRow], snapshot: str) -> None:
        """Refuse what is too long for a statement.

        Raises:
            InvalidInputError: An event or the state is.
        """
        room = self._room_bytes
        if room is None:
            return
        for number, row in enumerate(rows, 1):
            what = f"unsaved event {number} of {len(rows)} ({row.type_name})"
            _check(what, literal_bytes((sender_id, *_texts(row)), room), room)
        size_bytes = literal_bytes((sender_id, snapshot), room)
        _check("the state (slots and the like)", size_bytes, room)

    def _check_messages(self, append: Append) -> None:
        """Refuse a message that is too long, of those that this append has.

        It may be longer than its event: its body is ASCII.

        Raises:
            InvalidInputError: One is.
        """
        room = self._room_bytes
        if room is None:
            return
        for entry in append.outbox:
            texts = (append.sender_id, entry.message_id, entry.body)
            what = f"the message of the event at position {entry.position}, in ASCII,"
            _check(what, literal_bytes(texts, room), room)

    async def append(self, append: Append) -> bool:
        """Store everything if the version is the expected one."""
        self._check_messages(append)
        return await super().append(append)

    async def _send(
        self, conn: AsyncConnection, statement: Insert, rows: list[dict[str, Any]]
    ) -> None:
        # The driver joins rows to statements of up to 1 MB, whatever the server takes.
        for values in _batches(rows, self._room_bytes):
            await conn.execute(statement, values)

    # -- many at once ------------------------------------------------------------------

    async def append_many(self, appends: Sequence[Append]) -> list[bool]:
        """Append to several conversations in one transaction.

        In the order of the ids, so that two who do so do not wait for each other.
        """
        for each in appends:
            self._check_messages(each)
        ordered = sorted(appends, key=lambda each: each.sender_id)
        stored = await self._in_transaction(
            lambda conn: self._append_all(conn, ordered)
        )
        # Rare: an expired conversation may stand in the way of a new one.
        return [
            each.sender_id in stored
            or (not each.expected_version and await self.append(each))
            for each in appends
        ]

    async def _append_all(
        self, conn: AsyncConnection, appends: Sequence[Append]
    ) -> set[str]:
        """Return the ids of the conversations that were appended to."""
        stored = await self._advance_all(conn, appends)
        stored += await self._begin_all(conn, appends)
        events = [row for each in stored for row in event_values(each)]
        await self._send(conn, self.tables.events.insert(), events)
        if self.outbox is not None:
            messages = [row for each in stored for row in outbox_values(each)]
            await self._send(conn, self.outbox.insert(), messages)
        return {each.sender_id for each in stored}

    async def _advance_all(
        self, conn: AsyncConnection, appends: Sequence[Append]
    ) -> list[Append]:
        """Update the rows of conversations that go on; return what may be appended."""
        going_on = {each.sender_id: each for each in appends if each.expected_version}
        if not going_on:
            return []
        table = self.tables.conversations
        found = await conn.execute(
            select(
                *(table.c.sender_id, table.c.version),
                *(table.c.created_at, table.c.expires_at),
            )
            .where(table.c.sender_id.in_(going_on))
            .order_by(table.c.sender_id)
            .with_for_update()
        )
        stored = [
            going_on[row.sender_id]
            for row in found
            if _is_expected(going_on[row.sender_id], row)
        ]
        # Every row is there and locked, so nothing is inserted: this is an update of
        # many rows, each with values of its own, in one statement.
        rows = insert(table)
        given = rows.inserted
        changed = {name: given[name] for name in CHANGING_COLUMNS}
        user_id = func.coalesce(given.user_id, table.c.user_id)
        update = rows.on_duplicate_key_update(changed | {"user_id": user_id})
        await self._send(conn, update, [begun_header_values(each) for each in stored])
        return stored

    async def _begin_all(
        self, conn: AsyncConnection, appends: Sequence[Append]
    ) -> list[Append]:
        """Insert the rows of conversations that are not there; return their appends.

        If somebody else is faster, the whole transaction fails.
        """
        begun = [each for each in appends if not each.expected_version]
        if not begun:
            return []
        table = self.tables.conversations
        ids = [each.sender_id for each in begun]
        # Without a lock: one on rows that are not there makes the others deadlock.
        found = await conn.execute(
            select(table.c.sender_id).where(table.c.sender_id.in_(ids))
        )
        there = set(found.scalars())
        begun = [each for each in begun if each.sender_id not in there]
        await self._send(conn, table.insert(), [*map(begun_header_values, begun)])
        return begun


def _is_expected(append: Append, row: Any) -> bool:
    """Whether a conversation is as an append expects it."""
    if row.expires_at is not None and row.expires_at <= append.now:
        return False
    if append.created_at not in (None, row.created_at):
        return False
    return bool(row.version == append.expected_version)


def _check(what: str, size_bytes: int, room_bytes: int) -> None:
    if size_bytes > room_bytes:
        limit = room_bytes + RESERVED_BYTES
        raise InvalidInputError(
            f"{what} takes {size_bytes} bytes in a statement, and the server accepts "
            f"{limit} with its own words (max_allowed_packet): store less in it, or "
            "raise max_allowed_packet on the server and open the store again"
        )


def _texts(row: NewRow) -> tuple[str | None, ...]:
    derived = (row.type_name, row.intent_name, row.action_name)
    return (row.data, row.event_id, *map(column_text, derived))


def _batches(
    found: list[dict[str, Any]], room_bytes: int | None
) -> Iterator[list[dict[str, Any]]]:
    """Yield rows in runs that fit into one statement each."""
    if room_bytes is None or not found:
        yield from filter(None, (found,))
        return
    batch: list[dict[str, Any]] = []
    left = room_bytes
    for values in found:
        texts = [value for value in values.values() if isinstance(value, str)]
        size_bytes = literal_bytes(texts, room_bytes // 16) + 128  # and its numbers
        if batch and size_bytes > left:
            yield batch
            batch, left = [], room_bytes
        batch.append(values)
        left -= size_bytes
    yield batch
