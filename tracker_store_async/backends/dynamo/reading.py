"""Reading: one descending query meets the head, then the newest saves.

Queries see each item as it was last committed, not the table as of one moment. So the
saves must join without a gap from the version that the head tells down to where the
read begins; where they do not, another writer was seen half way, and it reads again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tracker_store_async.backends.dynamo.layout import (
    HEAD_KEY,
    Head,
    head_from,
    position_of,
)
from tracker_store_async.backends.dynamo.saves import (
    count_of,
    event_parts,
    is_run,
    parts_from,
    rows_in,
    rows_of_parts,
    token_of,
)
from tracker_store_async.backends.dynamo.values import float_of
from tracker_store_async.errors import CorruptEventError
from tracker_store_async.rasa_rows import slice_of
from tracker_store_async.rows import StoredConversation

if TYPE_CHECKING:
    from tracker_store_async.backends.dynamo.rasa import RasaTable
    from tracker_store_async.backends.dynamo.table import Table
    from tracker_store_async.backends.dynamo.values import Item
    from tracker_store_async.rows import Read, StoredRow

FIRST_PAGE_ITEMS = 21
"""Items of the first page where not everything is wanted: the head and 20 saves."""

ATTEMPTS = 6
"""Times that a conversation is read that does not hang together."""


class TornError(Exception):
    """What was read does not hang together.

    Args:
        position: Where.
    """

    def __init__(self, position: int) -> None:
        super().__init__()
        self.position = position


class Reader:
    """Reads conversations.

    Args:
        table: Our table.
        rasa: Rasa's table, or None if there is none.
    """

    def __init__(self, table: Table, rasa: RasaTable | None) -> None:
        self._table = table
        self._rasa = rasa

    async def read(self, read: Read) -> StoredConversation | None:
        """Return a consistent header and run of rows, or None.

        Raises:
            CorruptEventError: Somebody removed events behind our back.
        """
        for attempt in range(ATTEMPTS):
            try:
                if read.last == 0:
                    return await self._read_header(read)
                if read.limit is not None:
                    return await self._read_page(read, read.limit)
                return await self._read_once(read)
            except TornError as torn:
                position = torn.position
            await asyncio.sleep(0.01 * 2**attempt)
        raise CorruptEventError(
            read.sender_id, position, "it is needed and is not stored any more"
        )

    async def _read_header(self, read: Read) -> StoredConversation | None:
        head = await self._table.head(read.sender_id)
        if head is None:
            return await self._read_rasas(read)
        if head.is_gone(read.now):
            return None
        return await self._answer(read.sender_id, head, head.version, [])

    async def _read_once(self, read: Read) -> StoredConversation | None:
        sender_id = read.sender_id
        limit = None if read.start == 0 and read.last is None else FIRST_PAGE_ITEMS
        items, after = await self._table.page(sender_id, 0, HEAD_KEY, limit=limit)
        if not items or position_of(items[0]) != HEAD_KEY:
            return await self._read_rasas(read)
        head = head_from(items[0])
        if head.is_gone(read.now):
            return None
        first = first_wanted(head, read)
        saves = saves_of(head, items[1:])
        low = _lowest_key(head, first)
        while after is not None and not _covers(saves, first):
            more, after = await self._table.page(sender_id, low, HEAD_KEY, after=after)
            saves += saves_of(head, more)
        rows = await self._rows(sender_id, _chain(head, saves, first), first)
        return await self._answer(sender_id, head, first, rows)

    async def _read_page(self, read: Read, limit: int) -> StoredConversation | None:
        """Read the first events from a position on: their items and no others."""
        sender_id = read.sender_id
        head = await self._table.head(sender_id)
        if head is None:
            return await self._read_rasas(read)
        if head.is_gone(read.now):
            return None
        first = first_wanted(head, read)
        end = min(first + limit, head.version)
        saves: list[Item] = []
        after = None
        while first < end and not _covers(saves, first):
            size = FIRST_PAGE_ITEMS if after is None else None
            more, after = await self._table.page(
                sender_id, 0, end - 1, after=after, limit=size
            )
            saves += saves_of(head, more)
            if after is None:
                break
        chain = _chain(head, saves, first, end)
        rows = await self._rows(sender_id, chain, first)
        return await self._answer(sender_id, head, first, rows[: end - first])

    async def _rows(
        self, sender_id: str, chain: list[Item], first: int
    ) -> list[StoredRow]:
        rows: list[StoredRow] = []
        for item in chain:
            skipped = max(0, first - position_of(item))
            if event_parts(item) is None:
                rows += rows_in(item)[skipped:]
            else:
                rows += await self.rows_in_parts(sender_id, item, skipped)
        return rows

    async def rows_in_parts(
        self, sender_id: str, item: Item, skipped: int
    ) -> list[StoredRow]:
        """Return the rows of a large save, without so many leading ones.

        Raises:
            TornError: Parts of it are gone.
        """
        counts = event_parts(item) or []
        at, before = parts_from(counts, skipped)
        token = token_of(item)
        parts = await self._table.parts(sender_id, token, at, len(counts) - at)
        if not is_run(parts, token, at, len(counts) - at):
            raise TornError(position_of(item))
        return rows_of_parts(parts)[skipped - before :]

    async def snapshot(self, sender_id: str, head: Head) -> str | None:
        """Return the state of a head, wherever it lies.

        Raises:
            TornError: Parts of it are gone.
        """
        if not head.snapshot_parts:
            return head.snapshot
        key = head.last_key
        saves, _ = await self._table.page(sender_id, key, key)
        if not saves or str(token_of(saves[0])) != head.last_save:
            raise TornError(head.version - 1)
        [save] = saves
        at, count = len(event_parts(save) or ()), head.snapshot_parts
        parts = await self._table.parts(sender_id, token_of(save), at, count)
        if not is_run(parts, token_of(save), at, count):
            raise TornError(head.version - 1)
        return "".join(part["events"]["S"] for part in parts)

    async def _answer(
        self, sender_id: str, head: Head, first: int, rows: list[StoredRow]
    ) -> StoredConversation:
        return StoredConversation(
            version=head.version,
            session_start=head.session_start,
            snapshot=await self.snapshot(sender_id, head),
            created_at=head.created_at,
            updated_at=head.updated_at,
            expires_at=head.expires_at,
            user_id=head.user_id,
            first_position=first,
            rows=rows,
        )

    async def _read_rasas(self, read: Read) -> StoredConversation | None:
        """Return what Rasa stored, since there is no log of ours."""
        if self._rasa is None:
            return None
        found = await self._rasa.get(read.sender_id)
        if found.has_head:
            raise TornError(0)  # a log has begun meanwhile
        stored = found.conversation(read.sender_id)
        return None if stored is None else slice_of(stored, read)


def first_wanted(head: Head, read: Read) -> int:
    """Return the position of the first event that a read asks for."""
    start = head.session_start if read.start is None else read.start
    first = min(max(start, head.first), head.version)
    return first if read.last is None else max(first, head.version - read.last)


def _lowest_key(head: Head, first: int) -> int:
    """Return a key at or below that of the save that holds a position."""
    key = head.session_key
    return key if key is not None and key <= head.session_start <= first else 0


def saves_of(head: Head, items: list[Item]) -> list[Item]:
    """Return the items that belong to the log of a head.

    Others may lie between them: what a rewrite has not removed yet, or what DynamoDB
    has not expired yet of an earlier log.
    """
    created_at = head.created_at
    return [item for item in items if float_of(item, "created_at") == created_at]


def _covers(saves: list[Item], first: int) -> bool:
    return bool(saves) and position_of(saves[-1]) <= first


def _chain(
    head: Head, saves: list[Item], first: int, stop: int | None = None
) -> list[Item]:
    """Return the saves from a position on, oldest first; they must join.

    With `stop` they reach at least up to that position, and else up to the version.

    Raises:
        TornError: They do not.
    """
    chain: list[Item] = []
    end = head.version if stop is None else stop
    for item in saves:
        position = position_of(item)
        if end <= first:
            break
        if position >= head.version:
            continue  # newer than the head
        joins = position + count_of(item)
        if joins != end and not (stop is not None and not chain and joins > end):
            raise TornError(end - 1)
        chain.append(item)
        end = position
    if end > first:
        raise TornError(first)
    chain.reverse()
    return chain
