"""Replaying what an outage has left: in order, and each event once."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from tracker_store_async.errors import ConcurrentSaveError
from tracker_store_async.events import decode_event
from tracker_store_async.overlap import ids_of, landed_parts
from tracker_store_async.redaction import get_logger
from tracker_store_async.rows import Append, Read
from tracker_store_async.saving import (
    LONGEST_PAUSE_SECONDS,
    MAX_ATTEMPTS,
)
from tracker_store_async.unsaved import encode_batch, session_start_after
from tracker_store_async.wrappers.failsafe_backlog import ALWAYS, new_rows
from tracker_store_async.wrappers.failsafe_pieces import in_pieces, remaining

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from tracker_store_async.rows import NewRow, StoredConversation
    from tracker_store_async.store import TrackerStore
    from tracker_store_async.tracker import DialogueStateTracker
    from tracker_store_async.wrappers.failsafe_backlog import Backlog, Entry
    from tracker_store_async.wrappers.failsafe_breaker import CircuitBreaker
    from tracker_store_async.wrappers.failsafe_memory import LastSeen

logger = get_logger(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class Replayed:
    """What was replayed since the breaker opened.

    Attributes:
        conversations: Number of conversations.
        events: Number of events that were handed to the primary.
        landed: Number of those that it had: only the answer had been lost.
        conflicts: Number of conversations that others had written to meanwhile.
    """

    conversations: int = 0
    events: int = 0
    landed: int = 0
    conflicts: int = 0


class Replayer:
    """Moves conversations from the backlog to the primary.

    Args:
        primary: The primary.
        breaker: Calls it.
        backlog: Where they come from.
        seen: What is known of conversations, to be brought up to date.
    """

    def __init__(
        self,
        primary: TrackerStore,
        breaker: CircuitBreaker,
        backlog: Backlog,
        seen: LastSeen,
    ) -> None:
        self._primary = primary
        self._breaker = breaker
        self._backlog = backlog
        self._seen = seen
        self.replayed = Replayed()

    async def replay(self, entry: Entry) -> int:
        """Append what one conversation has left, and then forget it in the backlog.

        Cut short anywhere, it can be done again: what has landed is recognised by its
        ids. The caller sees to it that nobody else works on the conversation.

        Returns:
            Number of events that were handed to the primary.

        Raises:
            StoreUnavailableError: The primary went away again.
            TrackerStoreError: The primary refuses it; it stays in the backlog.
        """
        now = self._primary._now()
        held = await self._backlog.read(entry, Read(entry.sender_id, ALWAYS, start=0))
        rows: list[NewRow] = []
        if held is not None and not entry.has_expired(now):
            rows = new_rows(held.rows[entry.confirmed - held.first_position :])
            if await self._append_all(entry, held, rows):
                self._seen.put(entry.sender_id, held)
            else:
                self.replayed.conflicts += await self._rebase(entry, held, rows)
                await self._see(entry.sender_id)
            self.replayed.conversations += 1
            self.replayed.events += len(rows)
        await self._backlog.remove(entry)
        return len(rows)

    async def _append_all(
        self, entry: Entry, held: StoredConversation, rows: Sequence[NewRow]
    ) -> bool:
        """Append as if there had been no outage; return False if that is refused."""
        for request in self._requests(entry, held, rows):
            if not await self._append(request):
                return False
        return True

    def _requests(
        self, entry: Entry, held: StoredConversation, rows: Sequence[NewRow]
    ) -> Iterator[Append]:
        saves = entry.saves
        version, first = entry.confirmed, entry.first
        if first is not None:
            yield Append(
                entry.sender_id,
                version,
                rows[: first.count],
                first.session_start,
                first.snapshot,
                entry.created_at,
                first.expires_at,
                first.user_id,
            )
            version, rows, saves = version + first.count, rows[first.count :], saves[1:]
        if rows:
            whole = Append(
                entry.sender_id,
                version,
                rows,
                entry.session_start,
                _text(held.snapshot),
                held.updated_at,
                entry.expires_at,
                entry.user_id,
                entry.created_at if self._primary._tells_logs_apart else None,
            )
            yield from in_pieces(whole, saves)

    # -- when something else is stored than was there before the outage ----------------

    async def _rebase(
        self, entry: Entry, held: StoredConversation, rows: Sequence[NewRow]
    ) -> bool:
        """Append behind what others wrote; return whether anybody has.

        Raises:
            ConcurrentSaveError: They always were faster.
        """
        told = False
        for attempt in range(MAX_ATTEMPTS):
            stored, start = await self._read_since(entry)
            ids = [row.event_id for row in rows]
            position, landed = landed_parts(ids, stored, start)
            version = 0 if stored is None else stored.version
            first = position if landed else entry.confirmed
            others = first != entry.confirmed or version != first + landed
            if not landed and self._is_another(stored, entry):
                others = True
            if others and not told:
                self._tell(entry, version)
                told = True
            known = ids_of(stored)
            left = [row for row in rows[landed:] if row.event_id not in known]
            if not left or await self._append_behind(entry, held, left, stored):
                self.replayed.landed += landed
                return told
            pause = min(LONGEST_PAUSE_SECONDS, 0.001 * 2**attempt)
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311
        raise ConcurrentSaveError(entry.sender_id, entry.version, entry.version)

    async def _append_behind(
        self,
        entry: Entry,
        held: StoredConversation,
        rows: Sequence[NewRow],
        stored: StoredConversation | None,
    ) -> bool:
        """Append rows to what is stored, with the state that this gives."""
        tracker = await self._load(entry.sender_id)
        cursor = tracker._log
        if cursor.version != (0 if stored is None else stored.version):
            return False  # ours may be among what has come since it was looked through
        for row in rows:
            tracker.update(decode_event(row.data))
            cursor.pending[-1].event_id = row.event_id
        batch = encode_batch(tracker)
        expires_at = entry.expires_at
        if expires_at is not None and stored is not None and stored.expires_at:
            expires_at = max(expires_at, stored.expires_at)
        now = held.updated_at
        if stored is not None:
            now = max(now, stored.updated_at)
        whole = Append(
            entry.sender_id,
            batch.version,
            rows,
            batch.session_start,
            batch.snapshot,
            now,
            expires_at,
            entry.user_id,
            cursor.created_at if batch.version else None,
        )
        counts = remaining(entry.saves, entry.event_count - len(rows))
        saves = [
            (count, session_start_after(cursor, end))
            for count, end in zip(counts, accumulate(counts), strict=True)
        ]
        for piece in in_pieces(whole, saves):
            if not await self._append(piece):
                return False
        return True

    async def _read_since(self, entry: Entry) -> tuple[StoredConversation | None, int]:
        """Read what came after the last event that was confirmed before the outage.

        Returns:
            What is stored, and the position from which it was read.
        """
        stored = await self._read(entry.sender_id, start=entry.confirmed)
        if not entry.confirmed or not self._is_another(stored, entry):
            return stored, entry.confirmed
        return await self._read(entry.sender_id, start=0), 0

    def _is_another(self, stored: StoredConversation | None, entry: Entry) -> bool:
        """Whether the log was deleted, or has expired, and was begun again."""
        if stored is None or not self._primary._tells_logs_apart:
            return False
        return stored.created_at != entry.created_at

    def _tell(self, entry: Entry, version: int) -> None:
        self._primary.conflict_count += 1
        logger.warning(
            "Conversation %r has %d stored events, %d were known before the outage: "
            "its events of the outage are appended after the other writer's.",
            entry.sender_id,
            version,
            entry.confirmed,
        )

    # -- the primary -------------------------------------------------------------------

    async def _call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return await self._breaker.call(work)

    async def _append(self, request: Append) -> bool:
        async def work() -> bool:
            await self._primary._ensure_open()
            return await self._primary._append(request)

        return await self._call(work)

    async def _read(
        self, sender_id: str, start: int | None
    ) -> StoredConversation | None:
        async def work() -> StoredConversation | None:
            return await self._primary._fetch(sender_id, start=start, last=None)

        return await self._call(work)

    async def _load(self, sender_id: str) -> DialogueStateTracker:
        async def work() -> DialogueStateTracker | None:
            return await self._primary._load(sender_id, start=None, last=None)

        tracker = await self._call(work)
        if tracker is None:
            tracker = self._primary._new_tracker(sender_id)
            tracker._log.version = 0
        return tracker

    async def _see(self, sender_id: str) -> None:
        """Read a conversation that others have written to, to know of it."""
        read = Read(sender_id, self._primary._now())
        erasures = self._seen.erasures
        self._seen.note_read(read, await self._read(sender_id, start=None), erasures)


def _text(snapshot: str | bytes | None) -> str:
    return snapshot.decode() if isinstance(snapshot, bytes) else snapshot or ""
