"""What a tracker has not stored yet: its new events and the state after them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from tracker_store_async import errors
from tracker_store_async.applied import kind_of, loop_names_in
from tracker_store_async.cursor import (
    SESSION_START,
    identify_all,
    is_session_action,
)
from tracker_store_async.encoded_events import EncodedEvents
from tracker_store_async.events import SlotSet, UserUttered
from tracker_store_async.events.codec import all_fields_of
from tracker_store_async.events.json_values import (
    JSON_ATOMS,
    encode_all_fast,
    isolated,
)
from tracker_store_async.serialization import (
    decode_rows,
    encode_row,
    encode_snapshot,
    row_of,
    snapshot_of,
)
from tracker_store_async.snapshot import take_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracker_store_async.cursor import LogCursor, PendingEvent
    from tracker_store_async.events import Event
    from tracker_store_async.rows import NewRow
    from tracker_store_async.tracker import DialogueStateTracker


@dataclass(slots=True)
class Batch:
    """The unsaved events of one tracker, encoded, as they were when a save began.

    Attributes:
        version: Number of events stored before them.
        entries: The events, all of them also where the rows are not complete yet.
        rows: The same, encoded.
        session_start: Position where the latest session starts once they are stored.
        message: The latest user message among them in that session, or None.
        snapshot: The state after them.
        values: The slot events among them whose values may be changed in place.
    """

    version: int
    entries: list[PendingEvent]
    rows: list[NewRow]
    session_start: int
    message: UserUttered | None
    snapshot: str
    values: list[SlotValue]


class SlotValue(NamedTuple):
    """A slot event whose value may be changed in place.

    Attributes:
        event: The event.
        value: Its value, as an object.
        stored: A copy of what that was when it was encoded.
    """

    event: SlotSet
    value: Any
    stored: Any


def slot_values(entries: Iterable[PendingEvent]) -> list[SlotValue]:
    """Return the slot events whose values may be changed in place."""
    return [
        SlotValue(event, event.value, isolated(event.value))
        for entry in entries
        if isinstance(event := entry.event, SlotSet)
        and type(event.value) not in JSON_ATOMS
    ]


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
    entries = cursor.pending[:]
    version, end = cursor.version or 0, (cursor.version or 0) + len(entries)
    session_start, message = latest_session(cursor, entries)
    pending = entries if most_rows is None else entries[:most_rows]
    events = [entry.event for entry in pending]
    objects, doubtful = all_fields_of(events)
    texts = EncodedEvents(events)
    state = session_state(tracker, session_start, message, texts)
    doubtful.append(state)
    snapshot_fields = snapshot_of(state, end, session_start)
    encoded = encode_all_fast([*objects, snapshot_fields], doubtful)
    if encoded is None:
        state = session_state(tracker, session_start, message)
        rows, snapshot = _encoded_with_care(entries, pending, state, end, session_start)
    else:
        identify_all(pending)
        rows = [
            row_of(entry.event, entry.event_id or entry.identify(), fields, text)
            for entry, fields, text in zip(pending, objects, encoded, strict=False)
        ]
        snapshot = texts.put_into(encoded[-1], encoded)
    values = slot_values(entries)
    return Batch(version, entries, rows, session_start, message, snapshot, values)


def _encoded_with_care(
    entries: Sequence[PendingEvent],
    pending: Sequence[PendingEvent],
    state: dict[str, Any],
    version: int,
    session_start: int,
) -> tuple[list[NewRow], str]:
    """Encode one by one what the fast way refused, or say what cannot be encoded."""
    rows = encoded_rows(pending)
    try:
        return rows, encode_snapshot(state, version, session_start)
    except errors.EventSerialisationError:
        encoded_rows(entries)  # says which event it is
        raise


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
    """Return where the latest session starts once `count` pending events are stored."""
    return latest_session(cursor, cursor.pending[:count])[0]


def latest_session(
    cursor: LogCursor, entries: Sequence[PendingEvent]
) -> tuple[int, UserUttered | None]:
    """Return where the latest session starts once the first pending events are stored.

    A session starts at the `session_started` event, or at the `action_session_start`
    action right before it where there is one.

    Args:
        cursor: The tracker's place in the log.
        entries: The events.

    Returns:
        The position, and the latest user message among the events that are of that
        session, or None.
    """
    start, message = cursor.session_start, None
    for offset, entry in enumerate(entries):
        event = entry.event
        if kind_of(event) == "user":
            message = cast("UserUttered", event)
        elif event.type_name == SESSION_START:
            after_action = (
                is_session_action(entries[offset - 1].event)
                if offset
                else cursor.ends_with_session_action
            )
            start = (cursor.version or 0) + offset - (1 if after_action else 0)
            message = None
    return start, message


def session_state(
    tracker: DialogueStateTracker,
    session_start: int,
    message: UserUttered | None = None,
    texts: EncodedEvents | None = None,
) -> dict[str, Any]:
    """Return the state that a replay of the latest session alone would give.

    `session_started` resets the state, so a tracker that holds earlier sessions too has
    the same one, but where events were reverted and a loop of an earlier session counts
    (Rasa's rule), and but for the channel.

    Args:
        tracker: The tracker.
        session_start: Position where the session starts.
        message: The latest user message in it, if that is not stored yet.
        texts: Events that are encoded already.
    """
    cursor = tracker._log
    if message is not None and cursor.base == session_start:
        state = take_snapshot(tracker, texts)
        state["latest_input_channel"] = message.input_channel
        return state
    state = tracker.state_snapshot(texts)
    if cursor.base == session_start:
        return state
    if cursor.has_reverts and _counts_earlier_loops(tracker, session_start):
        replayed = type(tracker)(tracker.sender_id, None)
        replayed.load_events(_session_events(tracker, session_start))
        return replayed.state_snapshot()
    state["latest_input_channel"] = cursor.channel_after(cursor.pending)
    return state


def needs_reload(tracker: DialogueStateTracker) -> bool:
    """Whether only the stored events tell the state that a save has to keep.

    Args:
        tracker: The tracker. If so, it is told, and to begin with the latest session.
    """
    if not tracker.state_needs_reload and _lacks_session(tracker):
        tracker.state_needs_reload = True
        tracker._log.whole = False
    return tracker.state_needs_reload


def _lacks_session(tracker: DialogueStateTracker) -> bool:
    """Whether a session has to be replayed that is neither held nor pending."""
    cursor = tracker._log
    if not (cursor.has_reverts and tracker.is_truncated):
        return False  # as nearly always: no more is asked of a save
    start = latest_session(cursor, cursor.pending)[0]
    # The event that a session begins with may be missing: it changes nothing.
    known = min(_first_held(tracker), (cursor.version or 0) - 1)
    return cursor.base != start < known and _counts_earlier_loops(tracker, start)


def _counts_earlier_loops(tracker: DialogueStateTracker, session_start: int) -> bool:
    """Whether loops of earlier sessions count in what the tracker made of this one.

    As in Rasa, where a loop is activated decides of all events that a tracker holds: a
    replay of the latest session alone knows of its own loops.
    """
    if tracker.has_earlier_loops:
        return True
    earlier = max(0, session_start - _first_held(tracker))
    return bool(loop_names_in(list(islice(tracker.events, earlier))))


def _first_held(tracker: DialogueStateTracker) -> int:
    """Return the position of the first event that a tracker holds."""
    cursor = tracker._log
    return (cursor.version or 0) + len(cursor.pending) - len(tracker.events)


def _session_events(tracker: DialogueStateTracker, session_start: int) -> list[Event]:
    """Return the events of a session that are held, or else those that are pending.

    They are as they were stored: with loops of earlier sessions, a tracker's messages
    may have been changed otherwise.

    Args:
        tracker: The tracker.
        session_start: Position where the session starts.
    """
    cursor, events = tracker._log, tracker.events
    first_held = _first_held(tracker)
    if first_held <= session_start:
        first, rows = getattr(events, "stored", (session_start, ()))
        data = [(None, row) for row in rows[max(0, session_start - first) :]]
        session = decode_rows(tracker.sender_id, session_start, data)
        later = islice(events, session_start - first_held + len(session), None)
        return session + [as_uttered(event) for event in later]
    begin = max(0, session_start - (cursor.version or 0))
    return [as_uttered(entry.event) for entry in cursor.pending[begin:]]


def as_uttered(event: Event) -> Event:
    """Return an event as it will be stored, without what later ones made of it."""
    if not isinstance(event, UserUttered):
        return event
    other = event.model_copy()
    stored = event.parse_data.get("entities")
    if event.entities is not stored:
        other.entities = list(stored or [])
    other.leave_undecided()
    return other
