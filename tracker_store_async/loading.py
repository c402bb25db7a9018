"""From stored rows to a tracker that knows where it stands in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker_store_async.applied import types_in
from tracker_store_async.cursor import is_session_action
from tracker_store_async.events import UserUttered
from tracker_store_async.locks import LoopLock
from tracker_store_async.serialization import decode_rows, decode_snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.events import Event
    from tracker_store_async.rows import StoredConversation
    from tracker_store_async.store import TrackerStore
    from tracker_store_async.tracker import DialogueStateTracker

EVENTS_PER_TURN = 128
"""Most events decoded before others get their turn: about 1 ms of work."""

EVENTS_PER_REPLAY = 512
"""Most events applied before others get their turn: about 1 ms of work."""


class TrackerLoader:
    """Reads conversations of one store and makes trackers of them."""

    def __init__(self, store: TrackerStore) -> None:
        self._store = store
        self._decode_turn = LoopLock()

    async def load(
        self, sender_id: str, *, start: int | None, last: int | None
    ) -> DialogueStateTracker | None:
        """Return the tracker of a conversation, or None if nothing is stored.

        Args:
            sender_id: The conversation.
            start: None for the latest session, 0 for everything.
            last: Most events to read and hold, or None for all of them.

        Raises:
            CorruptEventError: A stored event is not a JSON object.
        """
        stored = await self._store._fetch(sender_id, start=start, last=last)
        if stored is None:
            return None
        beginning = stored.session_start if start is None else start
        state = None
        # Without `last` it is so only where a wrapper could not get hold of the rest.
        is_part = start is None or last is not None
        if is_part and stored.first_position > beginning:
            state = decode_snapshot(
                stored.snapshot, stored.version, stored.session_start
            )
            if state is None and last is not None:
                # Rasa wrote this conversation: without a snapshot, only a replay of
                # the whole session gives the state. The next save stores a snapshot.
                stored = await self._store._fetch(sender_id, start=start, last=None)
                if stored is None:
                    return None
        events = await self.decode(sender_id, stored)
        tracker = self._store._new_tracker(sender_id, max_event_history=last)
        tracker.user_id = stored.user_id
        rest = events if state is not None else await self._replay(tracker, events)
        async with self._store._loop_turns:
            # Truncated is what a read without `last` would complete.
            is_truncated = state is not None and last is not None
            tracker.load_events(rest, snapshot=state, truncated=is_truncated)
            tracker.keep_assigned_slots()
            self.place(tracker, stored, events, whole=start is not None)
            return tracker

    async def _replay(
        self, tracker: DialogueStateTracker, events: list[Event]
    ) -> list[Event]:
        """Apply a long history in pieces; return what is left for the last one.

        What reverts others looks at all of them: that is faster in one pass.
        """
        if len(events) <= EVENTS_PER_TURN or types_in(events, "undo", "rewind"):
            return events
        whole = len(events) - len(events) % EVENTS_PER_REPLAY
        for offset in range(0, whole, EVENTS_PER_REPLAY):
            async with self._store._loop_turns:
                tracker.load_events(events[offset : offset + EVENTS_PER_REPLAY])
        return events[whole:]

    def place(
        self,
        tracker: DialogueStateTracker,
        stored: StoredConversation,
        events: Sequence[Event],
        *,
        whole: bool,
    ) -> None:
        """Tell a tracker where it stands in the log.

        Args:
            tracker: The tracker, with its events and its state.
            stored: The header that it was loaded with.
            events: Its events.
            whole: Whether they begin at the beginning of the log, or else at the start
                of the latest session or within it.
        """
        cursor = tracker._log
        cursor.version = stored.version
        cursor.store, cursor.sender_id = self._store, tracker.sender_id
        if self._store._tells_logs_apart:
            cursor.created_at = stored.created_at
        cursor.user_id = stored.user_id
        cursor.session_start = stored.session_start
        cursor.whole = whole
        cursor.base = stored.first_position if whole else stored.session_start
        cursor.input_channel = tracker.get_latest_input_channel()
        if whole:
            session = list(events)[
                max(0, stored.session_start - stored.first_position) :
            ]
            said = next(
                (e for e in reversed(session) if isinstance(e, UserUttered)), None
            )
            cursor.input_channel = None if said is None else said.input_channel
        cursor.ends_with_session_action = bool(events) and is_session_action(events[-1])
        # Only a state that started before the session can differ after a revert.
        cursor.has_reverts = cursor.base != cursor.session_start and any(
            event.type_name in ("rewind", "undo") for event in events
        )

    async def decode(self, sender_id: str, stored: StoredConversation) -> list[Event]:
        """Decode rows in pieces, so that a long history does not stop the loop.

        Raises:
            CorruptEventError: A stored event is not a JSON object.
        """
        events: list[Event] = []
        for offset in range(0, len(stored.rows), EVENTS_PER_TURN):
            piece = stored.rows[offset : offset + EVENTS_PER_TURN]
            async with self._store._loop_turns:
                position = stored.first_position + offset
                events += decode_rows(sender_id, position, piece)
        return events
