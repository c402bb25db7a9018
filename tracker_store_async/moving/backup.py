"""`backup`: conversations of a store into one file."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tracker_store_async import __version__
from tracker_store_async.errors import ErasedKeyError
from tracker_store_async.moving.backup_file import (
    BACKUP_FORMAT,
    conversation_line,
    event_line,
    line_of,
)
from tracker_store_async.moving.backup_writer import BackupWriter
from tracker_store_async.moving.batches import batches_of
from tracker_store_async.moving.last_backup import LastBackup, state_of
from tracker_store_async.moving.pages import (
    PAGE_EVENTS,
    SourceChangedError,
    end_of,
    pages_of,
)
from tracker_store_async.moving.reports import BackupReport, Silent
from tracker_store_async.rows import ConversationSummary, Read
from tracker_store_async.serialization import check_sender_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tracker_store_async.moving.batches import Batch
    from tracker_store_async.moving.reports import Progress
    from tracker_store_async.rows import StoredConversation
    from tracker_store_async.store import TrackerStore

BATCH_CONVERSATIONS = 50
ATTEMPTS = 5
"""Times that a conversation is written that somebody erases meanwhile."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which conversations are moved; each of them whole.

    Attributes:
        conversations: Their ids, or None for all.
        updated_from: Only those updated at this time or later (s since the epoch).
        updated_before: Only those updated before this time (s since the epoch).
        last: Only those that are not what the last backup has.
    """

    conversations: Sequence[str] | None = None
    updated_from: float | None = None
    updated_before: float | None = None
    last: LastBackup | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is written into a file."""
        ids = self.conversations
        written: dict[str, Any] = {
            "conversations": None if ids is None else list(ids),
            "updated_from": self.updated_from,
            "updated_before": self.updated_before,
        }
        if self.last is not None:
            written["since_last"] = self.last.checksum
        return written


async def selected(
    store: TrackerStore, selection: Selection, cursor: str | None
) -> AsyncIterator[ConversationSummary]:
    """List the conversations of a selection.

    Args:
        store: Where.
        selection: Which.
        cursor: Go on behind the conversation with this cursor.
    """
    last = selection.last
    async with aclosing(_listed(store, selection, cursor)) as listing:  # type: ignore[type-var]
        async for summary in listing:
            if last is None or last.has(summary.sender_id) != state_of(summary):
                yield summary


async def _listed(
    store: TrackerStore, selection: Selection, cursor: str | None
) -> AsyncIterator[ConversationSummary]:
    if selection.conversations is None:
        async for summary in store.conversations(
            updated_from=selection.updated_from,
            updated_before=selection.updated_before,
            cursor=cursor,
        ):
            yield summary
        return
    await store._ensure_open()
    for sender_id in sorted(set(map(check_sender_id, selection.conversations))):
        if cursor is not None and sender_id <= cursor:
            continue
        read = Read(sender_id, store._now(), start=0, last=0)
        found = await store._read(read)
        if found is not None and _is_within(found, selection):
            times = (found.created_at, found.updated_at)
            user = found.user_id
            yield ConversationSummary(sender_id, found.version, *times, user, sender_id)


def _is_within(found: StoredConversation, selection: Selection) -> bool:
    first, before = selection.updated_from, selection.updated_before
    if first is not None and found.updated_at < first:
        return False
    return before is None or found.updated_at < before


async def backup(
    source: TrackerStore,
    path: Path,
    *,
    conversations: Sequence[str] | None = None,
    updated_from: float | None = None,
    updated_before: float | None = None,
    last: LastBackup | None = None,
    page_events: int = PAGE_EVENTS,
    progress: Progress | None = None,
) -> BackupReport:
    """Write conversations of a store into one compressed file.

    The file appears at its place whole or not at all. A run that is cut off leaves
    `<name>.part` beside it: the same call goes on from there. Each conversation is
    written as it was at one moment; the store may be written to meanwhile.

    Args:
        source: Where from; it is only read.
        path: The file, which must not exist: `.jsonl.gz` or `.jsonl.zst`.
        conversations: Ids of the conversations to write, or None for all.
        updated_from: Only those updated at this time or later (s since the epoch).
        updated_before: Only those updated before this time (s since the epoch).
        last: What the last backup has: only those that are something else now. What is
            in this one is added to it.
        page_events: Most events of a conversation that are read at once.
        progress: Is told how far it is.

    Raises:
        ConfigurationError: The file exists, another backup is being written to it, or
            its name does not say how to compress.
        MissingExtraError: `.zst` without the package for it.
        StoreUnavailableError: The storage cannot be reached; call it again.
    """
    started = time.perf_counter()
    selection = Selection(conversations, updated_from, updated_before, last)
    job = {"kind": "backup", "from": repr(source), **selection.as_dict()}
    writer = await asyncio.to_thread(BackupWriter, path, job)
    run = _Backup(source, writer, page_events, progress or Silent())
    try:
        await run.write(selection)
        checksum, size_bytes = await asyncio.to_thread(writer.finish)
    finally:
        writer.close(keep=True)
    if last is not None:
        last.close()
        await asyncio.to_thread(last.add, path, checksum)
    return BackupReport(
        str(path),
        writer.conversations,
        writer.events,
        size_bytes,
        checksum,
        time.perf_counter() - started,
        writer.began_at,
    )


class _Backup:
    """One run of `backup`."""

    def __init__(
        self,
        source: TrackerStore,
        writer: BackupWriter,
        page_events: int,
        progress: Progress,
    ) -> None:
        self._source = source
        self._writer = writer
        self._page_events = page_events
        self._progress = progress
        self._last: LastBackup | None = None

    async def write(self, selection: Selection) -> None:
        """Write everything that is selected, behind what is written already."""
        writer, self._last = self._writer, selection.last
        if writer.is_new:
            head = {
                "tracker_store_backup": BACKUP_FORMAT,
                "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "library": __version__,
                "source": repr(self._source),
                "selection": selection.as_dict(),
            }
            writer.write([line_of(head)])
        listing = selected(self._source, selection, writer.cursor)
        async with aclosing(batches_of(listing, BATCH_CONVERSATIONS)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                conversations, events = await self._write_batch(batch)
                self._progress.advance(conversations, events)
                cursor = batch.cursor
                await asyncio.to_thread(writer.reached, cursor, conversations, events)

    async def _write_batch(self, batch: Batch) -> tuple[int, int]:
        now, limit = self._source._now(), self._page_events
        ids = [summary.sender_id for summary in batch.summaries]
        reads = [Read(each, now, start=0, limit=limit) for each in ids]
        pages = await self._read_many(reads)
        conversations = events = 0
        for sender_id, page in zip(ids, pages, strict=True):
            if page is None:
                continue  # erased, or expired, since it was listed
            if end_of(page) >= page.version:
                before = self._before(sender_id)
                lines = await asyncio.to_thread(_lines_of, sender_id, page, before)
                self._writer.write(lines)
                conversations, events = conversations + 1, events + len(page.rows)
                continue
            count = await self._write_long(sender_id)
            if count is not None:
                conversations, events = conversations + 1, events + count
        return conversations, events

    def _before(self, sender_id: str) -> str | None:
        """Return what the last backup has of a conversation, or None."""
        return None if self._last is None else self._last.has(sender_id)

    async def _read_many(
        self, reads: Sequence[Read]
    ) -> Sequence[StoredConversation | None]:
        """Read conversations; one whose key was erased is none any more."""
        try:
            return await self._source._read_many(reads)
        except ErasedKeyError:  # which one, is found out by asking for each alone
            return [await self._read_alone(read) for read in reads]

    async def _read_alone(self, read: Read) -> StoredConversation | None:
        with suppress(ErasedKeyError):
            return await self._source._read(read)
        return None

    async def _write_long(self, sender_id: str) -> int | None:
        for _ in range(ATTEMPTS):
            try:
                return await self._write_pages(sender_id)
            except SourceChangedError:
                self._writer.write([line_of({"abandoned": sender_id})])
        raise SourceChangedError(sender_id)

    async def _write_pages(self, sender_id: str) -> int | None:
        """Write a log page by page, as long as it was when it was begun."""
        count = 0
        header: StoredConversation | None = None
        try:
            async for page in pages_of(self._source, sender_id, self._page_events):
                if header is None:
                    header = page
                    line = conversation_line(sender_id, page, self._before(sender_id))
                    self._writer.write([line])
                rows = page.rows[: header.version - page.first_position]
                count += len(rows)
                lines = await asyncio.to_thread(_event_lines, page.first_position, rows)
                self._writer.write(lines)
                await asyncio.to_thread(self._writer.spill)
                if page.first_position + len(rows) >= header.version:
                    break
        except ErasedKeyError:
            if header is not None:  # what is written of it is called off
                raise SourceChangedError(sender_id) from None
        return None if header is None else count


def _lines_of(
    sender_id: str, page: StoredConversation, before: str | None
) -> list[bytes]:
    lines = [conversation_line(sender_id, page, before)]
    return lines + _event_lines(page.first_position, page.rows)


def _event_lines(first_position: int, rows: Sequence[Any]) -> list[bytes]:
    return [event_line(at, row) for at, row in enumerate(rows, first_position)]
