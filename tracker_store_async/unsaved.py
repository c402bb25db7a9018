"""What a tracker has not stored yet: its new events and the state after them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from tracker_store_async import errors
from tracker_store_async.cursor import (
    SESSION_START,
    identify_all,
    is_session_action,
)
from tracker_store_async.encoded_events import EncodedEvents
from tracker_store_async.events.codec import all_fields_of
from tracker_store_async.events.json_values import encode_all_fast
from tracker_store_async.serialization import (
    encode_row,
    encode_snapshot,
    row_of,
    snapshot_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.cursor import LogCursor, PendingEvent
    from tracker_store_async.rows import NewRow
    from tracker_store_async.tracker import DialogueStateTracker


@dataclass(slots=True)
class Batch:
    """The unsaved events of one tracker, encoded, as they were when a save began."""

    version: int
    rows: list[NewRow]
    session_start: int
    snapshot: str


def names_user(tracker: DialogueStateTracker, *, begins: bool = False) -> bool:
    """Whether a tracker was given another user than is stored with its conversation.

    Args:
        tracker: The tracker.
        begins: Whether a conversation that does not exist yet counts, too.
    """
    cursor = tracker._log
    if tracker.user_id is None or not (cursor.version or begins):
        return False
    return not cursor.version or tracker.user_id != cursor.user_id


def encode_batch(
    tracker: DialogueStateTracker, *, most_rows: int | None = None
) -> Batch:
    """Encode the unsaved events and the state after them at once.

    Args:
        tracker: The tracker.
        most_rows: Most events to encode; None for all.

    Raises:
        EventSerialisationError: An event holds what JSON cannot represent.
    """
    cursor = tracker._log
    version, count = cursor.version or 0, len(cursor.pending)
    session_start = session_start_after(cursor, count)
    pending = cursor.pending[:most_rows]
    events = [entry.event for entry in pending]
    values, doubtful = all_fields_of(events)
    texts = EncodedEvents(events)
    state = session_state(tracker, session_start, texts)
    doubtful.append(state)
    snapshot_fields = snapshot_of(state, version + count, session_start)
    encoded = encode_all_fast([*values, snapshot_fields], doubtful)
    if encoded is None:
        return _encoded_with_care(tracker, most_rows)
    identify_all(pending)
    rows = [
        row_of(entry.event, entry.event_id or entry.identify(), fields, text)
        for entry, fields, text in zip(pending, values, encoded, strict=False)
    ]
    snapshot = texts.put_into(encoded[-1], encoded)
    return Batch(version, rows, session_start, snapshot)


def _encoded_with_care(tracker: DialogueStateTracker, most_rows: int | None) -> Batch:
    """Encode one by one what the fast way refused, or say what cannot be encoded."""
    cursor = tracker._log
    version, count = cursor.version or 0, len(cursor.pending)
    session_start = session_start_after(cursor, count)
    rows = encoded_rows(cursor.pending[:most_rows])
    try:
        state = session_state(tracker, session_start)
        snapshot = encode_snapshot(state, version + count, session_start)
    except errors.EventSerialisationError:
        encoded_rows(cursor.pending)  # says which event it is
        raise
    return Batch(version, rows, session_start, snapshot)


def encoded_rows(pending: Sequence[PendingEvent]) -> list[NewRow]:
    """Return events as rows, with their ids.

    Raises:
        EventSerialisationError: An event holds what JSON cannot represent.
    """
    identify_all(pending)
    return [
        encode_row(entry.event, entry.event_id or entry.identify()) for entry in pending
    ]


def session_start_after(cursor: LogCursor, count: int) -> int:
    """Return where the latest session starts once `count` pending events are stored.

    A session starts at the `session_started` event, or at the `action_session_start`
    action right before it where there is one.
    """
    start = cursor.session_start
    for offset, entry in enumerate(cursor.pending[:count]):
        if entry.event.type_name == SESSION_START:
            after_action = (
                is_session_action(cursor.pending[offset - 1].event)
                if offset
                else cursor.ends_with_session_action
            )
            start = (cursor.version or 0) + offset - (1 if after_action else 0)
    return start


def session_state(
    tracker: DialogueStateTracker,
    session_start: int,
    texts: EncodedEvents | None = None,
) -> dict[str, Any]:
    """Return the state that a replay of the latest session alone would give.

    `session_started` resets the state, so a tracker that holds earlier sessions too has
    the same one; only what reverts events, or looks for a message, can reach across.
    """
    cursor = tracker._log
    state = tracker.state_snapshot(texts)
    if cursor.base == session_start:
        return state
    first_held = (cursor.version or 0) + len(cursor.pending) - len(tracker.events)
    if cursor.has_reverts and first_held <= session_start:
        session = list(islice(tracker.events, session_start - first_held, None))
        replayed = type(tracker)(tracker.sender_id, None)
        replayed.load_events(session)
        return replayed.state_snapshot()
    state["latest_input_channel"] = cursor.channel_after(cursor.pending)
    return state
