"""The events that Rasa keeps in one value, as rows of a log that begins with them.

Rasa's Redis, MongoDB and DynamoDB stores keep a conversation as one list of events. A
backend that finds such a list answers with these rows, and writes them in front of the
first append: the log begins with what Rasa wrote.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import TrackerDeserialisationError
from tracker_store_async.events import encode_json
from tracker_store_async.rows import StoredConversation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracker_store_async.rows import Read, StoredRow


def conversation_from_rasa(
    sender_id: str, events: Any, *, expires_at: float | None = None
) -> StoredConversation | None:
    """Return the log that begins with what Rasa stored, whole; None if it is empty.

    Times are those of the events, or 0 where none has one: two reads, and two
    processes, must agree on when the log began.

    Args:
        sender_id: The conversation, for the error.
        events: Rasa's list of events, as dicts.
        expires_at: When Rasa's value expires, in seconds since the epoch.

    Raises:
        TrackerDeserialisationError: It is not a list of JSON objects.
    """
    if not isinstance(events, list) or not all(isinstance(e, dict) for e in events):
        raise TrackerDeserialisationError(
            f"what Rasa stored for conversation {sender_id!r} is not a list of events"
        )
    if not events:
        return None
    rows: list[StoredRow] = [(None, encode_json(event, "an event")) for event in events]
    moments = [event["timestamp"] for event in events if _has_time(event)]
    return StoredConversation(
        version=len(rows),
        session_start=latest_session_start(events),
        snapshot=None,
        created_at=float(min(moments, default=0.0)),
        updated_at=float(max(moments, default=0.0)),
        expires_at=expires_at,
        rows=rows,
    )


def latest_session_start(events: Sequence[Mapping[str, Any]]) -> int:
    """Return where the latest session starts; 0 if none is marked.

    It is the rule of `sessions.session_starts`, for events that are not decoded.
    """
    for position in range(len(events) - 1, -1, -1):
        if events[position].get("event") == "session_started":
            before = events[position - 1] if position else {}
            is_action = before.get("event") == "action"
            starts_it = is_action and before.get("name") == "action_session_start"
            return position - 1 if starts_it else position
    return 0


def slice_of(conversation: StoredConversation, read: Read) -> StoredConversation:
    """Return the part of a whole conversation that a read asks for.

    Args:
        conversation: Header and all rows; it is changed and returned.
        read: The request.
    """
    start = conversation.session_start if read.start is None else read.start
    first = min(max(start, conversation.first_position), conversation.version)
    if read.last is not None:
        first = max(first, conversation.version - read.last)
    rows = conversation.rows[first - conversation.first_position :]
    conversation.rows = rows if read.limit is None else rows[: read.limit]
    conversation.first_position = first
    return conversation


def _has_time(event: Mapping[str, Any]) -> bool:
    moment: Any = event.get("timestamp")
    if not isinstance(moment, int | float) or isinstance(moment, bool):
        return False
    return abs(moment) < 1e300 and math.isfinite(moment)
