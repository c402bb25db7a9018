"""Conversations in the memory of one process: for tests, demos and fallbacks."""

from __future__ import annotations

import asyncio
import bisect
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tracker_store_async.rows import (
    Append,
    ConversationSummary,
    Health,
    Listing,
    Read,
    StoredConversation,
    Upkeep,
)
from tracker_store_async.serialization import SerializedTrackerAsText
from tracker_store_async.store import TrackerStore

if TYPE_CHECKING:
    from tracker_store_async.rows import Rewrite, StoredRow


@dataclass(slots=True)
class _Conversation:
    """One conversation: its header and its rows from position `first` on."""

    created_at: float
    updated_at: float = 0.0
    expires_at: float | None = None
    user_id: str | None = None
    session_start: int = 0
    snapshot: str | None = ""
    first: int = 0
    rows: list[StoredRow] = field(default_factory=list)

    @property
    def version(self) -> int:
        return self.first + len(self.rows)

    def is_expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class InMemoryTrackerStore(TrackerStore, SerializedTrackerAsText):
    """Keeps conversations in memory, with the same meaning as every other backend.

    Only encoded rows are kept, so a caller that changes a tracker or an event does not
    change the store. Nothing survives the process; `close()` keeps what is stored, so
    that the same object can be opened again, on another loop too.

    The arguments are those of :class:`~tracker_store_async.store.TrackerStore`.
    """

    backend_name = "in_memory"
    _conversations: dict[str, _Conversation]
    _sorted_ids: list[str]

    async def _open(self) -> None:
        if not hasattr(self, "_conversations"):
            self._conversations = {}
            self._sorted_ids = []

    async def _close(self) -> None:
        return

    async def _append(self, append: Append) -> bool:
        await asyncio.sleep(0)  # let others run, as a server would
        sender_id = append.sender_id
        conversation = self._conversations.get(sender_id)
        if conversation is not None and conversation.is_expired(append.now):
            self._forget(sender_id)
            conversation = None
        version = 0 if conversation is None else conversation.version
        if version != append.expected_version:
            return False
        if conversation and append.created_at not in (None, conversation.created_at):
            return False
        if conversation is None:
            conversation = _Conversation(append.begun_at, first=append.position)
            self._conversations[sender_id] = conversation
            bisect.insort(self._sorted_ids, sender_id)
        conversation.rows += [(row.event_id, row.data) for row in append.rows]
        conversation.session_start = append.session_start
        conversation.snapshot = append.snapshot
        conversation.updated_at = append.stamp
        conversation.expires_at = append.expires_at
        if append.user_id is not None:
            conversation.user_id = append.user_id
        return True

    async def _read(self, read: Read) -> StoredConversation | None:
        await asyncio.sleep(0)
        conversation = self._live(read.sender_id, read.now)
        if conversation is None:
            return None
        start = conversation.session_start if read.start is None else read.start
        first = min(max(start, conversation.first), conversation.version)
        if read.last is not None:
            first = max(first, conversation.version - read.last)
        end = None if read.limit is None else first - conversation.first + read.limit
        return StoredConversation(
            version=conversation.version,
            session_start=conversation.session_start,
            snapshot=conversation.snapshot,
            created_at=conversation.created_at,
            updated_at=conversation.updated_at,
            expires_at=conversation.expires_at,
            user_id=conversation.user_id,
            first_position=first,
            rows=conversation.rows[first - conversation.first : end],
        )

    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        conversation = self._live(sender_id, now)
        if conversation is None:
            self._forget(sender_id)
            return False
        if before is None:
            if version not in (None, conversation.version):
                return False
            self._forget(sender_id)
            return True
        if not conversation.first < before <= conversation.session_start:
            return False
        del conversation.rows[: before - conversation.first]
        conversation.first = before
        return True

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        await asyncio.sleep(0)
        conversation = self._live(rewrite.sender_id, rewrite.now)
        if conversation is None or (
            conversation.version,
            conversation.first,
            conversation.created_at,
        ) != (rewrite.expected_version, rewrite.first_position, rewrite.created_at):
            return False
        if rewrite.changed:
            conversation.rows = [(row.event_id, row.data) for row in rewrite.rows]
            conversation.snapshot = rewrite.snapshot
            conversation.user_id = rewrite.user_id
            conversation.created_at = rewrite.new_created_at
        return True

    async def _list(self, listing: Listing) -> list[ConversationSummary]:
        ids = self._sorted_ids
        at = 0 if listing.after is None else bisect.bisect_right(ids, listing.after)
        page: list[ConversationSummary] = []
        while at < len(ids) and len(page) < listing.limit:
            conversation = self._conversations[ids[at]]
            if _is_listed(conversation, listing):
                page.append(_summarise(ids[at], conversation))
            at += 1
        return page

    async def _upkeep(self, *, apply: bool) -> Upkeep:
        held = self._conversations.values()
        size = sum(len(data) for each in held for _, data in each.rows)
        size += sum(len(each.snapshot or "") for each in held)
        return Upkeep(size, notes=["in the memory of this process, as text"])

    async def _health(self) -> Health:
        started = time.perf_counter()
        count = len(self._conversations)
        return Health(
            self.backend_name,
            True,
            time.perf_counter() - started,
            details={"conversations": count},
        )

    def _live(self, sender_id: str, now: float) -> _Conversation | None:
        conversation = self._conversations.get(sender_id)
        if conversation is None or conversation.is_expired(now):
            return None
        return conversation

    def _forget(self, sender_id: str) -> None:
        if self._conversations.pop(sender_id, None) is not None:
            del self._sorted_ids[bisect.bisect_left(self._sorted_ids, sender_id)]


def _is_listed(conversation: _Conversation, listing: Listing) -> bool:
    if conversation.is_expired(listing.now):
        return False
    if listing.user_id is not None and conversation.user_id != listing.user_id:
        return False
    updated_at = conversation.updated_at
    if listing.updated_from is not None and updated_at < listing.updated_from:
        return False
    return listing.updated_before is None or updated_at < listing.updated_before


def _summarise(sender_id: str, conversation: _Conversation) -> ConversationSummary:
    return ConversationSummary(
        sender_id=sender_id,
        version=conversation.version,
        created_at=conversation.created_at,
        updated_at=conversation.updated_at,
        user_id=conversation.user_id,
        cursor=sender_id,
    )
