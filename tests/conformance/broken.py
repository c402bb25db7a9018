"""Stores that break one guarantee each: the mistakes that real stores have made."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.conformance.backends import MemoryStorage
from tracker_store_async import InMemoryTrackerStore

if TYPE_CHECKING:
    from tracker_store_async import DialogueStateTracker
    from tracker_store_async.rows import (
        Append,
        ConversationSummary,
        Listing,
        NewRow,
        Read,
        Rewrite,
        StoredConversation,
    )


class SoundStore(InMemoryTrackerStore):
    """Breaks nothing; the others start from it."""

    journal: list[str]

    async def _open(self) -> None:
        """Connect to nothing: the memory is shared."""

    def _version(self, sender_id: str) -> int:
        found = self._conversations.get(sender_id)
        return 0 if found is None else found.version

    async def _append_rows(self, append: Append, rows: list[NewRow]) -> bool:
        return await InMemoryTrackerStore._append(self, replace(append, rows=rows))


class IgnoresTheExpectedVersion(SoundStore):
    async def _append(self, append: Append) -> bool:
        version = self._version(append.sender_id)
        return await super()._append(
            replace(append, expected_version=version, created_at=None)
        )


class ChecksBeforeItWaits(SoundStore):
    """Reads the version, waits, then writes: the lost update."""

    async def _append(self, append: Append) -> bool:
        version = self._version(append.sender_id)
        await asyncio.sleep(0.02)
        if version != append.expected_version:
            return False
        if not await super()._append(append):
            found = self._conversations[append.sender_id]
            rows = [(row.event_id, row.data) for row in append.rows]
            found.rows[version - found.first :] = rows
        return True


class WritesBeforeItChecks(SoundStore):
    async def _append(self, append: Append) -> bool:
        found = self._conversations.get(append.sender_id)
        if found is not None and found.version != append.expected_version:
            found.rows.append((append.rows[0].event_id, append.rows[0].data))
        return await super()._append(append)


class WritesRowByRow(SoundStore):
    """Leaves half a save behind when it is cancelled."""

    async def _append(self, append: Append) -> bool:
        if self._version(append.sender_id) != append.expected_version:
            return False
        for n, row in enumerate(append.rows):
            await asyncio.sleep(0)
            position = append.expected_version + n
            one = replace(append, rows=[row], expected_version=position)
            await super()._append(one)
        return True


class DropsIds(SoundStore):
    async def _read(self, read: Read) -> StoredConversation | None:
        found = await super()._read(read)
        if found is not None:
            found.rows = [(None, data) for _, data in found.rows]
        return found


class MergesEqualEvents(SoundStore):
    """Stores an event only once, as a set does."""

    async def _append(self, append: Append) -> bool:
        unique = {row.data: row for row in append.rows}
        return await self._append_rows(append, list(unique.values()))


class ForgetsTheSnapshot(SoundStore):
    async def _read(self, read: Read) -> StoredConversation | None:
        found = await super()._read(read)
        if found is not None:
            found.snapshot = None
        return found


class KeepsTheFirstSession(SoundStore):
    async def _append(self, append: Append) -> bool:
        return await super()._append(replace(append, session_start=0))


class SortsByTimestamp(SoundStore):
    async def _read(self, read: Read) -> StoredConversation | None:
        found = await super()._read(read)
        if found is not None:
            found.rows = sorted(
                found.rows, key=lambda row: json.loads(row[1]).get("timestamp") or 0
            )
        return found


class IgnoresCase(SoundStore):
    async def _append(self, append: Append) -> bool:
        return await super()._append(replace(append, sender_id=fold(append.sender_id)))

    async def _read(self, read: Read) -> StoredConversation | None:
        return await super()._read(replace(read, sender_id=fold(read.sender_id)))


def fold(sender_id: str) -> str:
    return sender_id.casefold().rstrip(" ")


class CutsText(SoundStore):
    """Cuts at 64 kB, as MySQL's TEXT does."""

    async def _append(self, append: Append) -> bool:
        rows = [row._replace(data=row.data[:65_535]) for row in append.rows]
        return await self._append_rows(append, rows)


class ReadsNumbersAsFloats(SoundStore):
    """Makes 1.0 of 1, as a store that keeps documents may."""

    async def _append(self, append: Append) -> bool:
        rows = [
            row._replace(data=json.dumps(json.loads(row.data, parse_int=float)))
            for row in append.rows
        ]
        return await self._append_rows(append, rows)


class ReturnsTheSameTracker(SoundStore):
    async def retrieve(self, sender_id: str) -> DialogueStateTracker | None:
        cache = self.__dict__.setdefault("cache", {})
        if sender_id not in cache:
            cache[sender_id] = await super().retrieve(sender_id)
        tracker: DialogueStateTracker | None = cache[sender_id]
        return tracker


class PublishesAfterwards(SoundStore):
    async def save(self, tracker: DialogueStateTracker) -> None:
        publisher, self._publisher = self._publisher, None
        try:
            await super().save(tracker)
        finally:
            self._publisher = publisher
        for event in tracker.events:
            await self.publish(tracker, event)

    async def publish(self, tracker: DialogueStateTracker, event: Any) -> None:
        from tracker_store_async.broker import EventMessage

        if self.event_broker is not None:
            body = {"sender_id": tracker.sender_id, **event.as_dict()}
            message = EventMessage(str(id(event)), tracker.sender_id, 0, body)
            await self.event_broker.publish(message)


class ListsByOffset(SoundStore):
    async def _list(self, listing: Listing) -> list[ConversationSummary]:
        skipped = int(listing.after or 0)
        found = await super()._list(replace(listing, after=None, limit=10**6))
        page = found[skipped : skipped + listing.limit]
        return [
            replace(summary, cursor=str(skipped + n + 1))
            for n, summary in enumerate(page)
        ]


class ListsTheLatestLast(SoundStore):
    """Orders the pages by the latest save, while the cursor is the sender id."""

    async def _list(self, listing: Listing) -> list[ConversationSummary]:
        found = await super()._list(replace(listing, limit=10**6))
        found.sort(key=lambda summary: summary.updated_at)
        return found[: listing.limit]


class CutsAnywhere(SoundStore):
    """Leaves it to its caller to spare the latest session."""

    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        found = self._live(sender_id, now)
        if found is None or before is None:
            return await super()._delete(sender_id, before, now, version)
        del found.rows[: before - found.first]
        found.first = before
        return True


class CutsWhatExpired(SoundStore):
    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        now = now if before is None else 0.0
        return await super()._delete(sender_id, before, now, version)


class NumbersAnewAfterACut(SoundStore):
    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        found = await super()._delete(sender_id, before, now, version)
        if found and before is not None:
            conversation = self._conversations[sender_id]
            conversation.first = 0
            conversation.session_start -= before
        return found


class KeepsAJournal(SoundStore):
    """Deletes, but not what it wrote down beside."""

    async def _append(self, append: Append) -> bool:
        journal = self._conversations.setdefault("\0journal", [])  # type: ignore
        journal.append([row.data for row in append.rows])
        return await super()._append(append)


class ExpiresNothing(SoundStore):
    async def _append(self, append: Append) -> bool:
        return await super()._append(replace(append, expires_at=None))


class ExpiresAfterTheFirstSave(SoundStore):
    async def _append(self, append: Append) -> bool:
        found = self._conversations.get(append.sender_id)
        if found is not None:
            append = replace(append, expires_at=found.expires_at)
        return await super()._append(append)


class LeaksAConnection(SoundStore):
    """Has one connection, and does not give back what was cancelled."""

    async def _read(self, read: Read) -> StoredConversation | None:
        pool = self.__dict__.setdefault("pool", asyncio.Semaphore(1))
        await pool.acquire()
        await asyncio.sleep(0)
        found = await super()._read(read)
        pool.release()
        return found


class OpensAsOftenAsItIsUsed(SoundStore):
    """Opens as often as it is used at once."""

    async def _ensure_open(self) -> None:
        if self._loop is None:
            await self._open()
            self._loop = asyncio.get_running_loop()


class RewritesTheSameLog(SoundStore):
    """Does not tell whoever has loaded the conversation before."""

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        done = await super()._rewrite(rewrite)
        if done:
            self._conversations[rewrite.sender_id].created_at = rewrite.created_at
        return done


class KeepsTheOldState(SoundStore):
    """Rewrites the events and not the state beside them."""

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        found = self._conversations.get(rewrite.sender_id)
        old = "" if found is None else found.snapshot
        return await super()._rewrite(replace(rewrite, snapshot=old))


class RewritesWhateverIsThere(SoundStore):
    """Does not look what it rewrites."""

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        found = self._conversations.get(rewrite.sender_id)
        if found is None or not rewrite.changed:
            return found is not None
        found.rows = [(row.event_id, row.data) for row in rewrite.rows]
        return True


class DeletesWhateverVersion(SoundStore):
    """Erases a conversation that somebody has come back to."""

    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        return await super()._delete(sender_id, before, now)


class BrokenStorage(MemoryStorage):
    """A memory with stores of one of these classes."""

    def __init__(self, store_class: type[SoundStore]) -> None:
        super().__init__()
        self._store_class = store_class

    def _make(self, **options: Any) -> SoundStore:
        store = self._store_class(**options)
        store._conversations, store._sorted_ids = self._shared
        return store
