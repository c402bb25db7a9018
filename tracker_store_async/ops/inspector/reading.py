"""Reads a bounded number of events at once, and the state at any one of them.

Nothing here reads a whole conversation to show a part of it. The state at an event is
that of a replay from where the session, or the latest restart, begins: these take back
everything before them. Only where an event takes back others the beginning is read,
since loops that ran in earlier sessions decide what is taken back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracker_store_async.applied import kind_of
from tracker_store_async.events import decode_event
from tracker_store_async.observation import observed
from tracker_store_async.rows import Read
from tracker_store_async.serialization import check_sender_id, decode_snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.events import Event
    from tracker_store_async.rows import StoredConversation
    from tracker_store_async.store import TrackerStore
    from tracker_store_async.tracker import DialogueStateTracker

PAGE_EVENTS = 200
"""Events on one page."""

CHUNK_EVENTS = 500
"""Events that are read at once on the way back to where a session begins."""

EVENTS_PER_TURN = 128
"""Events that are decoded or applied before others get their turn."""


@dataclass(frozen=True, slots=True)
class Page:
    """A run of events, as Rasa's JSON.

    Attributes:
        header: What is known of the whole conversation.
        first: Position of the first event.
        events: The events; None where one cannot be read.
        before: The event before the first one, or None.
    """

    header: StoredConversation = field(repr=False)
    first: int
    events: Sequence[dict[str, Any] | None] = field(repr=False)
    before: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def end(self) -> int:
        """Position behind the last event."""
        return self.first + len(self.events)

    @property
    def is_last(self) -> bool:
        """Whether nothing is stored behind the last event."""
        return self.end >= self.header.version


class Reader:
    """Reads conversations of one store; it has no way to change one.

    Args:
        store: The store; it is opened by the first question.
    """

    def __init__(self, store: TrackerStore) -> None:
        self._store = store

    async def header(self, sender_id: str) -> StoredConversation | None:
        """Return what is known of a conversation, without any of its events.

        Raises:
            InvalidSenderIdError: No backend could store this sender id.
        """
        return await self._read(sender_id, None, last=0)

    def began(self, header: StoredConversation) -> str:
        """Return when a log began, to tell it from one that took its place.

        The text is empty where the store does not know.
        """
        return repr(header.created_at) if self._store._tells_logs_apart else ""

    async def last_page(self, sender_id: str, count: int = PAGE_EVENTS) -> Page | None:
        """Return the last events, or None if there is no conversation."""
        stored = await self._read(sender_id, 0, last=count + 1)
        if stored is None:
            return None
        events = await self._decoded(stored)
        lead = 1 if len(events) > count else 0
        return _page(stored, events, lead)

    async def page(
        self, sender_id: str, start: int, count: int = PAGE_EVENTS
    ) -> Page | None:
        """Return events from a position on, or None if there is no conversation.

        Args:
            sender_id: The conversation.
            start: Position of the first event that is wanted. If what stands there was
                erased, the page begins where the log does.
            count: Most events of the page.
        """
        first = max(0, start - 1)
        stored = await self._read(sender_id, first, limit=count + start - first)
        if stored is None:
            return None
        events = await self._decoded(stored)
        lead = min(max(0, start - stored.first_position), len(events))
        return _page(stored, events[: count + lead], lead)

    async def state_after(
        self, sender_id: str, page: Page
    ) -> DialogueStateTracker | None:
        """Return a tracker with the state after a page; None if it is gone.

        At the end of a log that is the state which is stored beside the events.
        """
        header = page.header
        if page.is_last:
            state = decode_snapshot(
                header.snapshot, header.version, header.session_start
            )
            if state is not None:
                tracker = self._store._new_tracker(sender_id)
                tracker.restore_state(state)
                return tracker
        found = await self.state_at(sender_id, page.end - 1)
        return None if found is None else found[1]

    async def state_at(
        self, sender_id: str, position: int
    ) -> tuple[dict[str, Any], DialogueStateTracker] | None:
        """Return the slots before an event, and a tracker with the state after it.

        Args:
            sender_id: The conversation.
            position: Of the event.

        Returns:
            None if there is no such event.
        """
        events = await self._until(sender_id, position)
        if not events:
            return None
        tracker = self._store._new_tracker(sender_id)
        await self._apply(tracker, events[:-1])
        before = tracker.current_slot_values()
        # Applied one by one, an event that takes back others needs them held.
        if events[-1] is not None:
            async with self._store._loop_turns:
                tracker.load_events([events[-1]])
        return before, tracker

    async def _until(self, sender_id: str, position: int) -> list[Event | None]:
        """Return the events that the state at a position comes from, oldest first."""
        found: list[Event | None] = []
        end, has_reverts = position + 1, False
        while end > 0:
            start = max(0, end - CHUNK_EVENTS)
            stored = await self._read(sender_id, start, limit=end - start)
            if stored is None or stored.first_position + len(stored.rows) != end:
                return []  # there is no such event, or not any more
            piece = await self._events(stored)
            kinds = ["other" if each is None else kind_of(each) for each in piece]
            has_reverts = has_reverts or "undo" in kinds or "rewind" in kinds
            if not has_reverts:
                # Not at the last event itself: the state before it is wanted too.
                last = len(kinds) if found else len(kinds) - 1
                for place in reversed(range(last)):
                    if kinds[place] in ("session", "restart"):
                        return piece[place:] + found
            found = piece + found
            if stored.first_position > start:
                break  # what stood before was erased
            end = start
        return found

    async def _apply(
        self, tracker: DialogueStateTracker, events: Sequence[Event | None]
    ) -> None:
        readable = [event for event in events if event is not None]
        if any(kind_of(event) in ("undo", "rewind") for event in readable):
            # What takes back others is faster in one pass: beside the loop, then.
            await asyncio.to_thread(tracker.load_events, readable)
            return
        for offset in range(0, len(readable), EVENTS_PER_TURN):
            async with self._store._loop_turns:
                tracker.load_events(readable[offset : offset + EVENTS_PER_TURN])

    async def _decoded(self, stored: StoredConversation) -> list[dict[str, Any] | None]:
        events = await self._events(stored)
        return [None if event is None else event.as_dict() for event in events]

    async def _events(self, stored: StoredConversation) -> list[Event | None]:
        events: list[Event | None] = []
        for offset in range(0, len(stored.rows), EVENTS_PER_TURN):
            piece = stored.rows[offset : offset + EVENTS_PER_TURN]
            async with self._store._loop_turns:
                events += [_decode(data) for _, data in piece]
        return events

    async def _read(
        self,
        sender_id: str,
        start: int | None,
        *,
        last: int | None = None,
        limit: int | None = None,
    ) -> StoredConversation | None:
        store = self._store
        check_sender_id(sender_id)
        await store._ensure_open()
        read = Read(sender_id, store._now(), start, last, limit)
        return await observed(store, "read", store._read(read), sender_id)


def _page(
    stored: StoredConversation, events: list[dict[str, Any] | None], lead: int
) -> Page:
    before = events[lead - 1] if lead else None
    return Page(stored, stored.first_position + lead, events[lead:], before)


def _decode(data: str | bytes) -> Event | None:
    """Return an event, or None: one that cannot be read must not hide the others."""
    try:
        return decode_event(data)
    except (ValueError, RecursionError):
        return None
