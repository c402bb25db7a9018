"""`AuditedTrackerStore`: a record of every access, before the storage is asked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from tracker_store_async.auditing import UNKNOWN_ACTOR, Actor, current_actor
from tracker_store_async.auditing.trail import Trail
from tracker_store_async.saving_many import one_by_one
from tracker_store_async.settling import settled
from tracker_store_async.wrappers.base import WrapperTrackerStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from tracker_store_async.auditing.sinks import Sink
    from tracker_store_async.rows import (
        Append,
        ConversationSummary,
        Health,
        Listing,
        Read,
        Rewrite,
        StoredConversation,
    )
    from tracker_store_async.side_database import SideTable
    from tracker_store_async.store import TrackerStore

T = TypeVar("T")


class AuditedTrackerStore(WrapperTrackerStore):
    """Records who reads, changes, lists and deletes which conversation.

    A record is durable before the storage is asked, so nothing happens unrecorded: what
    cannot be recorded is not done, and raises `AuditError`. What then fails, or is
    refused, gets a second record that refers to the first. No record holds what was
    said.

    It belongs around encryption, retries and the fail-safe, and within a cache. A batch
    of `save_many` gets a record for each conversation, all of which are durable before
    the batch is sent. Upkeep and health are not recorded: they say nothing of what was
    said, and change nothing.

    Args:
        wrapped: The store; it is owned, opened and closed.
        sink: Where records go.
        reads: Whether reads and lists are recorded, or changes and deletions alone.
        default_actor: Who acts where `acting_as` has not said.
    """

    _carries_outbox = True

    def __init__(
        self,
        wrapped: TrackerStore,
        sink: Sink,
        *,
        reads: bool = True,
        default_actor: str = UNKNOWN_ACTOR,
    ) -> None:
        super().__init__(wrapped)
        self._trail = Trail(sink)
        self._records_reads = reads
        self._default_actor = Actor(default_actor)

    def _side_table(self) -> SideTable | None:
        return self._trail.sink.side_table()

    async def _open(self) -> None:
        # Else what opens there when the caller is cancelled would never be closed.
        await settled(self._trail.open())
        try:
            await super()._open()
        except BaseException:
            await settled(self._trail.close())
            raise

    async def _close(self) -> None:
        try:
            await super()._close()
        finally:
            await settled(self._trail.close())

    async def _append(self, append: Append) -> bool:
        record = self._record_of(append)
        landed = await self._recorded(record, super()._append(append))
        if not landed:
            self._note(record, "refused")
        return landed

    async def _append_many(
        self, appends: Sequence[Append]
    ) -> list[bool | BaseException]:
        if self._appends_otherwise_than(AuditedTrackerStore):
            return await one_by_one(self._append, appends)
        records = [self._record_of(append) for append in appends]
        try:
            writing = await asyncio.gather(
                *map(self._trail.write, records), return_exceptions=True
            )
        except asyncio.CancelledError:
            for record in records:
                self._note(record, "CancelledError")
            raise
        answers: list[bool | BaseException] = [
            False if error is None else error for error in writing
        ]
        sent = [at for at, error in enumerate(writing) if error is None]
        try:
            found = await self._forward_many([appends[at] for at in sent])
        except BaseException as error:
            for at in sent:
                self._note(records[at], type(error).__name__)
            raise
        for at, answer in zip(sent, found, strict=True):
            answers[at] = answer
            if answer is not True:
                refused = answer is False
                outcome = "refused" if refused else type(answer).__name__
                self._note(records[at], outcome)
        return answers

    def _record_of(self, append: Append) -> dict[str, Any]:
        position, events = append.position, len(append.rows)
        return self._record(
            "change", append.sender_id, position=position, events=events
        )

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        record = self._record(
            "change",
            rewrite.sender_id,
            position=rewrite.first_position,
            events=len(rewrite.changed),
            rewritten=True,
        )
        landed = await self._recorded(record, super()._rewrite(rewrite))
        if not landed:
            self._note(record, "refused")
        return landed

    async def _read(self, read: Read) -> StoredConversation | None:
        # A header alone says nothing of what was said.
        if not self._records_reads or read.last == 0:
            return await super()._read(read)
        which = {"position": read.start, "last": read.last, "limit": read.limit}
        record = self._record(None, read.sender_id, **which)
        return await self._recorded(record, super()._read(read))

    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        record = self._record(
            "delete", sender_id, before_position=before, only_version=version
        )
        deleting = super()._delete(sender_id, before, now, version)
        erased = await self._recorded(record, deleting)
        if version is not None and not erased:
            self._note(record, "refused")
        return erased

    async def _list(self, listing: Listing) -> list[ConversationSummary]:
        if not self._records_reads:
            return await super()._list(listing)
        record = self._record("list", None, user_id=listing.user_id)
        return await self._recorded(record, super()._list(listing))

    async def _health(self) -> Health:
        health = await super()._health()
        sink = self._trail.sink
        audit = {
            "sink": sink.name,
            "records": sink.head.seq,
            "error": self._trail.error,
        }
        return replace(health, details={**health.details, "audit": audit})

    def _record(
        self, action: str | None, sender_id: str | None, **more: Any
    ) -> dict[str, Any]:
        actor = current_actor() or self._default_actor
        record = {
            "id": uuid4().hex,
            "time": self._now(),
            "actor": actor.name,
            "action": action or actor.purpose,
            "sender_id": sender_id,
        }
        return record | {name: v for name, v in more.items() if v is not None}

    async def _recorded(self, record: dict[str, Any], work: Awaitable[T]) -> T:
        try:
            await self._trail.write(record)
        except BaseException as error:
            work.close()  # type: ignore[attr-defined]  # a coroutine that never began
            if isinstance(error, asyncio.CancelledError):
                self._note(record, "CancelledError")
            raise
        try:
            return await work
        except BaseException as error:
            self._note(record, type(error).__name__)
            raise

    def _note(self, record: dict[str, Any], outcome: str) -> None:
        """Say of an earlier record how it went; after an outage it may have landed."""
        about = {name: record[name] for name in ("actor", "action", "sender_id")}
        now = {"id": uuid4().hex, "time": self._now()}
        self._trail.note({**now, **about, "of": record["id"], "outcome": outcome})
