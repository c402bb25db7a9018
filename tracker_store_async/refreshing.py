"""Bring an older tracker up to date by reading only what came after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker_store_async.errors import InvalidInputError
from tracker_store_async.lazy_events import LazyEvents
from tracker_store_async.packed_rows import (
    PackedRows,
    packed,
    position_after,
    rest_after,
)
from tracker_store_async.serialization import check_sender_id, check_tracker

if TYPE_CHECKING:
    from tracker_store_async.rows import StoredConversation
    from tracker_store_async.store import TrackerStore
    from tracker_store_async.tracker import DialogueStateTracker


async def refresh(
    store: TrackerStore, sender_id: str, since: DialogueStateTracker
) -> DialogueStateTracker | None:
    """Bring a tracker up to date; see `TrackerStore.retrieve`.

    Args:
        store: The store that it was loaded from.
        sender_id: The conversation.
        since: The tracker.

    Returns:
        The same tracker, or None if nothing is stored any more.
    """
    check_since(store, check_sender_id(sender_id), since)
    async with store._saver.turn(since):
        check_since(store, sender_id, since)
        fresh = await _continued_tracker(store, since)
        if fresh is None:
            start = 0 if since._log.whole else None
            last = since.max_event_history
            fresh = await store._load(sender_id, start=start, last=last)
        check_since(store, sender_id, since)  # it may have been updated meanwhile
        if fresh is None:
            return None
        since.user_id = fresh.user_id
        since.adopt(fresh, max_event_history=since.max_event_history)
        return since


def check_since(
    store: TrackerStore, sender_id: str, since: DialogueStateTracker
) -> None:
    """Refuse a tracker that cannot be brought up to date without losing something.

    Raises:
        InvalidInputError: It is no tracker, is of another conversation or store, was
            never loaded or saved, or has unsaved events.
    """
    check_tracker(since)
    cursor = since._log
    if since.sender_id != sender_id or cursor.sender_id not in (None, sender_id):
        raise InvalidInputError(
            f"the tracker given as since is of the conversation {since.sender_id!r}, "
            f"not of {sender_id!r}: pass the tracker of the same conversation"
        )
    if cursor.pending:
        raise InvalidInputError(
            f"the tracker of {sender_id!r} given as since has {len(cursor.pending)} "
            "unsaved events: save it, which brings it up to date, or retrieve a new one"
        )
    if cursor.version is None:
        raise InvalidInputError(
            f"the tracker of {sender_id!r} given as since was never loaded or saved: "
            "retrieve it without since"
        )
    if not cursor.speaks_of(store, sender_id):
        raise InvalidInputError(
            f"the tracker of {sender_id!r} given as since was loaded from another "
            "store: retrieve it without since"
        )


async def _continued_tracker(
    store: TrackerStore, since: DialogueStateTracker
) -> DialogueStateTracker | None:
    """Return a tracker of what is held and what came after it, or None."""
    events, cursor = since.events, since._log
    if (
        not isinstance(events, LazyEvents)
        or not events.stored[1]
        or not store._tells_logs_apart
        or cursor.created_at is None
        # Earlier sessions may have been cut off, which a read from here does not show.
        or cursor.whole
    ):
        return None
    first, rows = events.stored
    end = first + len(rows)
    start = position_after(rows, end)
    stored = await store._fetch(since.sender_id, start=start, last=None, ids=False)
    if stored is None or stored.created_at != cursor.created_at:
        return None
    stored = rest_after(rows, end, stored)
    if stored is None:
        return None
    rows = [*rows, *packed(stored.rows)]
    last = since.max_event_history
    known = _without_earlier(stored, first, rows, last)
    if known is None:
        return None
    return await store._loader.build(since.sender_id, known, start=None, last=last)


def _without_earlier(
    stored: StoredConversation, first: int, rows: list[str | bytes], last: int | None
) -> StoredConversation | None:
    """Return what a read of the latest session would have, or None if rows lack.

    Args:
        stored: The header as it is now.
        first: Position of the first row.
        rows: The rows up to the latest one.
        last: Most events to hold, or None.
    """
    gone = max(0, stored.session_start - first)
    if last is not None:
        gone = max(gone, len(rows) - last)
    first, rows = first + gone, rows[gone:]
    if first > stored.session_start and len(rows) != last:
        return None
    return stored.with_rows(first, PackedRows(rows))
