"""The state of a short conversation, as the text it is stored as until it is touched.

Who reads a conversation to show its last events never asks for the slots, and who does
pays for it then. A tracker, its events and its place in the log share one such state:
the first of them that has to know reads it, for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tracker_store_async.message_changes import message_key
from tracker_store_async.packed_rows import PackedRows
from tracker_store_async.serialization import decode_rows, decode_snapshot
from tracker_store_async.snapshot import attributes_of
from tracker_store_async.told_state import tells_everything
from tracker_store_async.tracker import DialogueStateTracker

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tracker_store_async.events import Event, UserUttered
    from tracker_store_async.rows import StoredConversation
    from tracker_store_async.slots import Slot

MOST_ROWS = 128
"""Most rows of a conversation whose state is left unread: where only applying them
tells it, whoever touches it stops the loop for about 1 ms."""


class ReadState(NamedTuple):
    """What a stored state turned out to be.

    Attributes:
        attributes: Attributes of a tracker and their values.
        message: The latest message, if it says something.
        message_key: What tells it from other messages, as it was stored.
        channel: The channel of the latest user message.
        events: The events of the rows, where these had to be applied.
    """

    attributes: Mapping[str, Any]
    message: UserUttered | None
    message_key: tuple[Any, ...] | None
    channel: str | None
    events: list[Event] | None


class UnreadState:
    """The state after the rows of a whole session. It holds no store.

    Args:
        sender_id: The conversation.
        slots: The slots that can be set, or None for all.
        stored: The header. The session begins with the first row.
        rows: The JSON text of each event.
    """

    __slots__ = (
        "_first",
        "_found",
        "_rows",
        "_sender_id",
        "_slots",
        "_snapshot",
        "_version",
    )

    def __init__(
        self,
        sender_id: str,
        slots: Iterable[Slot] | None,
        stored: StoredConversation,
        rows: Sequence[str | bytes],
    ) -> None:
        self._sender_id, self._slots, self._rows = sender_id, slots, rows
        self._snapshot, self._version = stored.snapshot, stored.version
        self._first = stored.first_position
        self._found: ReadState | None = None

    def read(self) -> ReadState:
        """Return the state; the same objects whenever it is asked for.

        Raises:
            CorruptEventError: A stored event is not a JSON object, and only applying
                all of them would tell the state.
        """
        if self._found is None:
            self._found = self._told() or self._replayed()
            self._snapshot = None
        return self._found

    def is_told(self) -> bool:
        """Read the state now, unless only applying the events would tell it."""
        if self._found is None:
            self._found = self._told()
        return self._found is not None

    def _told(self) -> ReadState | None:
        state = decode_snapshot(self._snapshot, self._version, self._first)
        if state is None or not tells_everything(
            state, self._rows, text=self._snapshot
        ):
            return None
        try:
            attributes = attributes_of(state, self._slots)
        except (ValueError, LookupError, TypeError, AttributeError):
            return None  # it is of another shape
        message = key = None
        if state["latest_message"] is not None:
            message = attributes["latest_message"]
            key = message_key(message)
            message.share_entities()
        channel = state["latest_input_channel"]
        return ReadState(attributes, message, key, channel, None)

    def _replayed(self) -> ReadState:
        tracker = DialogueStateTracker(self._sender_id, self._slots)
        events = decode_rows(self._sender_id, self._first, PackedRows(self._rows))
        tracker.load_events(events)
        tracker.keep_assigned_slots()
        channel = tracker.get_latest_input_channel()
        return ReadState(tracker.state_attributes(), None, None, channel, events)
