"""From stored rows to a tracker that knows where it stands in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker_store_async.applied import types_in
from tracker_store_async.cursor import is_session_action
from tracker_store_async.events import UserUttered, decode_event
from tracker_store_async.lazy_events import LazyEvents
from tracker_store_async.locks import LoopLock
from tracker_store_async.packed_rows import PackedRows, in_place, packed
from tracker_store_async.refreshing import refresh
from tracker_store_async.row_types import (
    has_type,
    needs_replay,
)
from tracker_store_async.rows import BytesRows
from tracker_store_async.serialization import (
    decode_rows,
    decode_snapshot,
    is_of_version,
)
from tracker_store_async.told_state import tells_everything
from tracker_store_async.tracker import DialogueStateTracker
from tracker_store_async.unread_state import MOST_ROWS, UnreadState

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from typing import Any

    from tracker_store_async.cursor import LogCursor
    from tracker_store_async.events import Event
    from tracker_store_async.rows import StoredConversation, StoredRow
    from tracker_store_async.store import TrackerStore

EVENTS_PER_TURN = 128
"""Most events decoded before others get their turn: about 1 ms of work."""

ROWS_PER_TURN = 4096
"""Most rows taken over before others get their turn: less than 1 ms of work."""

READING_SECONDS = 0.0001
"""What it takes to read the state of a conversation, which is put off."""

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
            CorruptEventError: A stored event is not a JSON object. One that is not
                decoded yet raises it when it is touched.
        """
        stored = await self._store._fetch(sender_id, start=start, last=last, ids=False)
        if stored is None:
            return None
        tracker = await self.build(sender_id, stored, start=start, last=last)
        if tracker is None:
            # Rasa wrote this conversation: without a snapshot, only a replay of the
            # whole session gives the state. The next save stores a snapshot.
            stored = await self._store._fetch(
                sender_id, start=start, last=None, ids=False
            )
            if stored is None:
                return None
            tracker = self._new_tracker(sender_id, stored, last)
            await self._replay_all(tracker, stored, whole=start is not None)
        return tracker

    async def build(
        self,
        sender_id: str,
        stored: StoredConversation,
        *,
        start: int | None,
        last: int | None,
    ) -> DialogueStateTracker | None:
        """Return the tracker of what was read.

        Args:
            sender_id: The conversation.
            stored: What was read; the tracker may keep the rows.
            start: Where it was asked to start.
            last: Most events to hold, or None.

        Returns:
            The tracker, or None if its state is not known without earlier rows.
        """
        beginning = stored.session_start if start is None else start
        # Without `last` it is so only where a wrapper could not get hold of the rest.
        is_part = start is None or last is not None
        is_window = is_part and stored.first_position > beginning
        lazily = self._store._lazy_events
        whole = start is not None
        if (
            lazily
            and not is_window
            and stored.first_position == stored.session_start
            and is_of_version(stored.snapshot, stored.version, stored.session_start)
        ):
            unread = await self._unread(sender_id, stored, last, whole=whole)
            if unread is not None:
                return unread
        is_whole_and_eager = not is_window and not lazily
        state = None
        if not is_whole_and_eager:
            state = decode_snapshot(
                stored.snapshot, stored.version, stored.session_start
            )
        if state is None and is_window and last is not None:
            return None
        tracker = self._new_tracker(sender_id, stored, last)
        if state is None or not await self._take_over(
            tracker, stored, state, is_window=is_window, whole=whole
        ):
            await self._replay_all(tracker, stored, whole=whole)
        elif not self._store._lazy_events:
            await self.checked(tracker)
        return tracker

    async def _unread(
        self,
        sender_id: str,
        stored: StoredConversation,
        last: int | None,
        *,
        whole: bool,
    ) -> DialogueStateTracker | None:
        """Return a tracker whose state is read when it is touched.

        One of many events is read at once, so that it is never on touching it that all
        of them are applied: it is None if they have to be.
        """
        count = len(stored.rows)
        texts = None
        if count > ROWS_PER_TURN and type(stored.rows) is not BytesRows:
            texts = await self.packed(stored.rows)
        turns = self._store._loop_turns
        if turns.are_over:
            await turns.wait()
        with turns:
            rows = in_place(stored.rows) if texts is None else texts
            unread = UnreadState(sender_id, self._store._slots(), stored, rows)
            if count > MOST_ROWS and not unread.is_told():
                return None
            events = LazyEvents.of_rows(
                sender_id,
                stored.first_position,
                rows,
                maxlen=last,
                is_whole=True,
                unread=unread,
            )
            tracker = DialogueStateTracker.of_stored(
                sender_id, events, unread, max_event_history=last
            )
            tracker.user_id = stored.user_id
            cursor = self._place_in_log(tracker, stored, whole=whole)
            cursor.unread = unread
            if count <= MOST_ROWS:
                turns.owe(READING_SECONDS)
            cursor.ends_with_session_action = bool(rows) and _is_session_action(
                rows[-1]
            )
        return tracker

    async def _take_over(
        self,
        tracker: DialogueStateTracker,
        stored: StoredConversation,
        state: dict[str, Any],
        *,
        is_window: bool,
        whole: bool,
    ) -> bool:
        """Give a new tracker what was read, undecoded; False if it has to be replayed.

        All of it is one turn: most conversations have few rows.
        """
        are_many = len(stored.rows) > ROWS_PER_TURN
        texts = await self.packed(stored.rows) if are_many else None
        turns = self._store._loop_turns
        if turns.are_over:
            await turns.wait()
        with turns:
            rows = packed(stored.rows) if texts is None else texts
            begins_earlier = stored.first_position < stored.session_start
            if not is_window and not tells_everything(
                state, rows, begins_earlier=begins_earlier
            ):
                return False
            events = LazyEvents.of_rows(
                tracker.sender_id,
                stored.first_position,
                rows,
                maxlen=tracker.max_event_history,
                is_whole=not is_window,
            )
            self._hold(tracker, stored, events, state, is_window=is_window)
            tracker.keep_assigned_slots()
            self._place_by_state(tracker, stored, state, rows, whole=whole)
        return True

    def _hold(
        self,
        tracker: DialogueStateTracker,
        stored: StoredConversation,
        events: LazyEvents,
        state: dict[str, Any],
        *,
        is_window: bool,
    ) -> None:
        """Give a new tracker the events and the state after them."""
        # Truncated is what a read without a bound would complete.
        is_truncated = is_window and tracker.max_event_history is not None
        tracker.hold_stored(events, state, truncated=is_truncated)
        if state["latest_message"] is not None and tracker.latest_message:
            events.expect(tracker.latest_message)
            if not is_window:
                tracker.latest_message.share_entities()
        channel = state["latest_input_channel"]
        if channel is not None or stored.first_position >= stored.session_start:
            events.know_channel(channel)

    def _new_tracker(
        self, sender_id: str, stored: StoredConversation, last: int | None
    ) -> DialogueStateTracker:
        tracker = self._store._new_tracker(sender_id, max_event_history=last)
        tracker.user_id = stored.user_id
        return tracker

    async def packed(self, rows: Sequence[StoredRow]) -> list[str | bytes]:
        """Return the text of rows, in pieces: without their ids, and as short bytes."""
        if isinstance(rows, PackedRows):
            return packed(rows)
        kept: list[str | bytes] = []
        for offset in range(0, len(rows), ROWS_PER_TURN):
            async with self._store._loop_turns:
                kept += packed(rows[offset : offset + ROWS_PER_TURN])
        return kept

    def latest(
        self, sender_id: str, since: DialogueStateTracker | None
    ) -> Coroutine[Any, Any, DialogueStateTracker | None]:
        """Return the tracker of the latest session; see `TrackerStore.retrieve`."""
        store = self._store
        if since is not None:
            return refresh(store, sender_id, since)
        return store._load(sender_id, start=None, last=store._max_event_history)

    async def checked(
        self, tracker: DialogueStateTracker | None
    ) -> DialogueStateTracker | None:
        """Return a tracker once every event that it holds is decoded, in pieces.

        Raises:
            CorruptEventError: A stored event is not a JSON object.
        """
        events = None if tracker is None else tracker.events
        if isinstance(events, LazyEvents):
            for first in range(0, len(events), EVENTS_PER_TURN):
                async with self._store._loop_turns:
                    events.decode(first, first + EVENTS_PER_TURN)
        return tracker

    async def _replay_all(
        self, tracker: DialogueStateTracker, stored: StoredConversation, *, whole: bool
    ) -> None:
        """Decode and apply what was read: nothing else tells the state."""
        events = await self.decode(tracker.sender_id, stored)
        rest = await self._replay(tracker, events)
        async with self._store._loop_turns:
            tracker.load_events(rest)
            tracker.keep_assigned_slots()
            self._place(tracker, stored, events, whole=whole)

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

    def _place_in_log(
        self, tracker: DialogueStateTracker, stored: StoredConversation, *, whole: bool
    ) -> LogCursor:
        """Tell a tracker where it stands in the log.

        Args:
            tracker: The tracker.
            stored: The header that it was loaded with.
            whole: Whether it begins at the beginning of the log, or else at the start
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
        # A window may begin within the session, and has the state of all of it.
        first = stored.first_position if whole else stored.session_start
        cursor.base = min(first, stored.session_start)
        return cursor

    def _place_by_state(
        self,
        tracker: DialogueStateTracker,
        stored: StoredConversation,
        state: Mapping[str, Any],
        rows: Sequence[str | bytes],
        *,
        whole: bool,
    ) -> None:
        """Tell a tracker where it stands, without looking at its events."""
        cursor = self._place_in_log(tracker, stored, whole=whole)
        cursor.input_channel = state["latest_input_channel"]
        cursor.ends_with_session_action = bool(rows) and _is_session_action(rows[-1])
        # Only a state that started before the session can differ after a revert.
        is_longer = cursor.base != cursor.session_start
        cursor.has_reverts = is_longer and needs_replay(rows)

    def _place(
        self,
        tracker: DialogueStateTracker,
        stored: StoredConversation,
        events: Sequence[Event],
        *,
        whole: bool,
    ) -> None:
        """Tell a tracker where it stands, by the events that it has replayed."""
        cursor = self._place_in_log(tracker, stored, whole=whole)
        cursor.input_channel = tracker.get_latest_input_channel()
        if whole:
            session = events[max(0, stored.session_start - stored.first_position) :]
            said = next(
                (e for e in reversed(session) if isinstance(e, UserUttered)), None
            )
            cursor.input_channel = None if said is None else said.input_channel
        cursor.ends_with_session_action = bool(events) and is_session_action(events[-1])
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


def _is_session_action(row: str | bytes) -> bool:
    if not has_type(row, ("action_session_start",)):
        return False
    try:
        return is_session_action(decode_event(row))
    except ValueError:
        return False  # the first who looks at it is told
