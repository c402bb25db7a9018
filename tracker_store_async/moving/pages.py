"""Logs, read page by page: what is copied, written into a file and compared."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tracker_store_async.errors import TrackerStoreError
from tracker_store_async.rows import Read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tracker_store_async.rows import StoredConversation, StoredRow
    from tracker_store_async.store import TrackerStore

PAGE_EVENTS = 1000
"""Most events of a conversation that are read at once."""

CLOSE_ENOUGH_SECONDS = 0.25
"""How much two ends of Rasa's conversation may differ: Redis tells what is left."""


class SourceChangedError(TrackerStoreError):
    """A conversation was erased, cut or begun again while it was read."""

    def __init__(self, sender_id: str) -> None:
        super().__init__(
            f"conversation {sender_id!r} was erased or cut again and again while it "
            "was read: run the command again"
        )


async def pages_of(
    store: TrackerStore, sender_id: str, page_events: int = PAGE_EVENTS
) -> AsyncIterator[StoredConversation]:
    """Read a log from its beginning, in pages of a bounded number of events.

    The header of the last page is the one that the log had when it ended there.

    Args:
        store: Where.
        sender_id: The conversation; nothing is yielded if it does not exist.
        page_events: Most events of a page.

    Raises:
        SourceChangedError: It was erased or cut meanwhile.
    """
    page = await _page(store, sender_id, 0, page_events)
    if page is None:
        return
    began = page.created_at
    while True:
        yield page
        position = end_of(page)
        if position >= page.version:
            return
        following = await _page(store, sender_id, position, page_events)
        if (
            following is None
            or following.created_at != began
            or following.first_position != position
        ):
            raise SourceChangedError(sender_id)
        page = following


async def _page(
    store: TrackerStore, sender_id: str, start: int, limit: int
) -> StoredConversation | None:
    await store._ensure_open()
    return await store._read(Read(sender_id, store._now(), start=start, limit=limit))


def end_of(page: StoredConversation) -> int:
    """Return the position behind the last event of a page."""
    return page.first_position + len(page.rows)


def as_text(data: str | bytes) -> str:
    """Return what is stored as text."""
    return data if isinstance(data, str) else data.decode()


def same_rows(ours: Sequence[StoredRow], theirs: Sequence[StoredRow]) -> int | None:
    """Return the number of the first row that differs, or None.

    Where one has more rows than the other, it is the first that the other lacks.
    """
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if mine[0] != other[0] or as_text(mine[1]) != as_text(other[1]):
            return number
    return None if len(ours) == len(theirs) else min(len(ours), len(theirs))


def difference_of_headers(
    source: StoredConversation, target: StoredConversation
) -> str | None:
    """Return what is not the same in two headers, or None.

    Where the log begins is not looked at: a page tells the start of its rows.
    """
    for name in ("version", "session_start", "created_at", "updated_at", "user_id"):
        if getattr(source, name) != getattr(target, name):
            return name
    if as_text(source.snapshot or "") != as_text(target.snapshot or ""):
        return "snapshot"
    return None if _same_end(source, target) else "expires_at"


def _same_end(source: StoredConversation, target: StoredConversation) -> bool:
    ours, theirs = source.expires_at, target.expires_at
    if ours == theirs:
        return True
    if ours is None or theirs is None or source.snapshot:
        return False
    return abs(ours - theirs) < CLOSE_ENOUGH_SECONDS


class SessionScan:
    """Follows where the latest session starts, in a log that is read from its start.

    It is the rule of `sessions.session_starts`, for rows that nobody has decoded.
    """

    def __init__(self, first_position: int) -> None:
        self.start = first_position
        self._is_after_action = False

    def add(self, position: int, rows: Sequence[StoredRow]) -> None:
        """Look at further rows.

        Args:
            position: Position of the first one.
            rows: The rows.
        """
        for at, (_, data) in enumerate(rows, position):
            text = as_text(data)
            begins = "session_started" in text and _is_event(text, "session_started")
            if begins:
                self.start = at - 1 if self._is_after_action else at
            self._is_after_action = "action_session_start" in text and _is_event(
                text, "action", "action_session_start"
            )


def _is_event(text: str, kind: str, name: str | None = None) -> bool:
    try:
        fields = json.loads(text)
    except ValueError:
        return False
    if not isinstance(fields, dict) or fields.get("event") != kind:
        return False
    return name is None or fields.get("name") == name
