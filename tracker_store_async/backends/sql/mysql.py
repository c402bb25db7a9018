"""MySQL and MariaDB: three round trips to append (UPDATE, INSERT, COMMIT), two to read.

A transaction begins by itself and each ends with one word; nothing else is sent. Values
travel in the text of a statement, which the server takes up to `max_allowed_packet`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from tracker_store_async.backends.sql.columns import column_text, event_values
from tracker_store_async.backends.sql.core import CoreOperations
from tracker_store_async.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from tracker_store_async.rows import Append, NewRow

RESERVED_BYTES = 1024
"""Room in a statement for its own words, names and numbers, generously."""

_ESCAPED = "\0\n\r\x1a\"'\\"
"""Characters that become two in a literal (`escape_string` of asyncmy and PyMySQL)."""


class MysqlOperations(CoreOperations):
    """MySQL and MariaDB with any asyncio driver that SQLAlchemy knows.

    The portable statements are theirs too. What differs is elsewhere: types and
    collation in `schema`, isolation and reset of connections in `engine`.
    """

    _room_bytes: int | None = None

    async def open(self) -> None:
        """Ask how long a statement may be."""
        async with self._reading() as conn:
            found = await conn.execute(text("SELECT @@max_allowed_packet"))
            self._room_bytes = int(found.scalar_one()) - RESERVED_BYTES

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
            _check(what, (sender_id, *_texts(row)), room)
        _check("the state (slots and the like)", (sender_id, snapshot), room)

    async def _insert_events(self, conn: AsyncConnection, append: Append) -> None:
        # The driver joins rows to statements of up to 1 MB, whatever the server takes.
        for values in _batches(event_values(append), self._room_bytes):
            await conn.execute(self.tables.events.insert(), values)


def _check(what: str, texts: Sequence[str | None], room_bytes: int) -> None:
    size_bytes = _literal_bytes(texts, room_bytes)
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


def _literal_bytes(texts: Sequence[str | None], enough_bytes: int) -> int:
    """Return the length of texts as literals; or an upper bound that is enough."""
    given = [value for value in texts if value is not None]
    # No character takes more than four bytes; one that is escaped takes two.
    bound = sum(4 * len(value) for value in given)
    if bound <= enough_bytes:
        return bound
    return sum(
        len(value.encode(errors="replace")) + sum(map(value.count, _ESCAPED))
        for value in given
    )


def _batches(
    found: list[dict[str, Any]], room_bytes: int | None
) -> Iterator[list[dict[str, Any]]]:
    """Yield rows in runs that fit into one statement each."""
    if room_bytes is None:
        yield found
        return
    batch: list[dict[str, Any]] = []
    left = room_bytes
    for values in found:
        texts = [value for value in values.values() if isinstance(value, str)]
        size_bytes = _literal_bytes(texts, room_bytes // 16) + 128  # and its numbers
        if batch and size_bytes > left:
            yield batch
            batch, left = [], room_bytes
        batch.append(values)
        left -= size_bytes
    yield batch
