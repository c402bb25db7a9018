"""How events and headers lie in Redis, and what Rasa's value stands for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import CorruptEventError, TrackerDeserialisationError
from tracker_store_async.rasa_rows import conversation_from_rasa
from tracker_store_async.rows import BytesRows, StoredConversation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.rows import Read, StoredRow


def encode_row(event_id: str | None, data: str | bytes) -> bytes:
    """Return `<event id>`, a line feed and the event's JSON.

    An id that is not a plain word is a JSON string; where Rasa wrote the event there is
    none, and the line is empty.
    """
    if event_id is None:
        line = ""
    elif (
        event_id.isascii() and event_id.isprintable() and event_id[:1] not in ("", '"')
    ):
        line = event_id
    else:
        line = json.dumps(event_id)
    raw = data.encode() if isinstance(data, str) else data
    return line.encode() + b"\n" + raw


def decode_row(row: bytes) -> StoredRow:
    """Return the id and the JSON of an event."""
    line, _, data = row.partition(b"\n")
    if not line:
        return None, data
    if line[:1] == b'"':
        return json.loads(line), data
    return line.decode(), data


def texts_of(rows: Sequence[bytes]) -> list[bytes]:
    """Return the JSON of events: in 0.6 ms for 5,000, and 1.0 ms by one call each."""
    return [row[row.find(b"\n") + 1 :] for row in rows]


def decode_conversation(read: Read, answer: Sequence[Any]) -> StoredConversation:
    """Return what the script `READ` answered with.

    Raises:
        CorruptEventError: Somebody removed rows behind our back.
    """
    head, first, rows = answer
    version, _, session_start, created_at, updated_at, expires_at, user, snapshot = head
    end = int(version)
    if read.limit is not None:
        end = min(end, first + read.limit)
    if first + len(rows) != end:
        raise CorruptEventError(
            read.sender_id,
            first,
            f"{end - first} events are needed from here on, {len(rows)} are stored",
        )
    return StoredConversation(
        version=int(version),
        session_start=int(session_start),
        snapshot=snapshot,
        created_at=float(created_at),
        updated_at=float(updated_at),
        expires_at=float(expires_at) if expires_at else None,
        user_id=None if user is None else user.decode(),
        first_position=first,
        rows=BytesRows(rows, decode_row, texts_of),
    )


def conversation_of_rasa(
    sender_id: str, value: bytes, ttl_ms: int, now: float
) -> StoredConversation | None:
    """Return the conversation that Rasa's value holds, whole; None if it is empty.

    Raises:
        TrackerDeserialisationError: It is not what Rasa stores.
    """
    try:
        dialogue = json.loads(value)
        events = dialogue["events"]
    except (ValueError, TypeError, LookupError, RecursionError):
        raise TrackerDeserialisationError(
            f"what Rasa stored for conversation {sender_id!r} is not JSON with events"
        ) from None
    expires_at = now + ttl_ms / 1000 if ttl_ms >= 0 else None
    return conversation_from_rasa(sender_id, events, expires_at=expires_at)
