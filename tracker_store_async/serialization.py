"""Event to stored row and back; tracker to text or dict and back; state snapshots.

This is the one place where rows become events and events become rows: backends only
ever see the rows.
"""

from __future__ import annotations

import json
import math
import sys
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic_core import from_json

from tracker_store_async import errors
from tracker_store_async.events import decode_event, encode_json
from tracker_store_async.events.codec import encode_fields, fields_of
from tracker_store_async.rows import MAX_SENDER_ID_LENGTH, NewRow
from tracker_store_async.tracker import Dialogue, DialogueStateTracker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.events import Event
    from tracker_store_async.rows import StoredRow

SNAPSHOT_FORMAT = 1
"""Format of the state snapshots that this version writes and understands."""

_LARGEST = sys.float_info.max
_new: Any = tuple.__new__  # without the method that a NamedTuple has for it
SerializationType = TypeVar("SerializationType")


def check_sender_id(sender_id: object) -> str:
    """Return the sender id if every backend can store it exactly.

    Raises:
        InvalidSenderIdError: It is not a string, is empty, is longer than 255
            characters, or holds a NUL or a lone surrogate.
    """
    if not isinstance(sender_id, str):
        raise errors.InvalidSenderIdError(
            f"a sender id must be a string, not {type(sender_id).__name__}: "
            "convert it with str()"
        )
    if not sender_id:
        raise errors.InvalidSenderIdError("a sender id must not be empty")
    if len(sender_id) > MAX_SENDER_ID_LENGTH:
        raise errors.InvalidSenderIdError(
            f"a sender id must not be longer than {MAX_SENDER_ID_LENGTH} characters; "
            f"this one has {len(sender_id)}"
        )
    if not sender_id.isascii():
        try:
            sender_id.encode()
        except UnicodeEncodeError:
            raise errors.InvalidSenderIdError(
                f"the sender id {sender_id!r} holds a lone surrogate, which no "
                "database can store as text"
            ) from None
    if "\0" in sender_id:
        raise errors.InvalidSenderIdError(
            f"the sender id {sender_id!r} holds a NUL character, which not every "
            "database can store"
        )
    return sender_id


def check_tracker(tracker: object) -> DialogueStateTracker:
    """Return the tracker if every backend can store what names it exactly.

    Raises:
        InvalidInputError: It is not a tracker, or its user id is not text of 1 to 255
            characters without a NUL or a lone surrogate.
        InvalidSenderIdError: Its sender id is not one.
    """
    if not isinstance(tracker, DialogueStateTracker):
        raise errors.InvalidInputError(
            f"a tracker is expected, not {type(tracker).__name__}: build one with "
            "init_tracker() or DialogueStateTracker.from_events()"
        )
    check_sender_id(tracker.sender_id)
    if tracker.user_id is not None:
        try:
            check_sender_id(tracker.user_id)
        except errors.InvalidSenderIdError as error:
            raise errors.InvalidInputError(
                str(error).replace("sender id", "user id")
            ) from None
    return tracker


def encode_row(event: Event, event_id: str) -> NewRow:
    """Encode one event for storage.

    The columns beside the text are the ones of Rasa's SQL tracker store: `intent_name`
    is `parse_data.intent.name` and `action_name` is the field `name`.

    Args:
        event: The event.
        event_id: Its id.

    Raises:
        EventSerialisationError: It holds a value that JSON cannot represent.
    """
    fields = fields_of(event)
    return row_of(event, event_id, fields, encode_fields(event, fields))


def row_of(event: Event, event_id: str, fields: dict[str, Any], data: str) -> NewRow:
    """Return the row of an event; see `encode_row`.

    Args:
        event: The event.
        event_id: Its id.
        fields: Its JSON object.
        data: The text of that.
    """
    # Not an attribute of the event: pydantic takes 3 us to say that there is none.
    intent_name = None
    if "parse_data" in fields and isinstance(fields["parse_data"], dict):
        intent = fields["parse_data"].get("intent")
        name = intent.get("name") if isinstance(intent, dict) else None
        intent_name = None if name is None else _text_or_none(name)
    action_name = fields.get("name")
    # most are names, for which no function has to be called
    if action_name is not None and not (
        type(action_name) is str and action_name.isidentifier()
    ):
        action_name = _text_or_none(action_name)
    timestamp = event.timestamp
    # of a float that is a number and finite, no function has to find that out
    if type(timestamp) is not float or not -_LARGEST <= timestamp <= _LARGEST:
        timestamp = float(timestamp) if _is_finite_number(timestamp) else None  # type: ignore[assignment]
    values = event_id, data, event.type_name, timestamp, intent_name, action_name
    row: NewRow = _new(NewRow, values)
    return row


def derived_row(event_id: str | None, data: str | bytes) -> NewRow:
    """Return the row of an event that is stored already, byte for byte, to be moved.

    Args:
        event_id: Its id; None where Rasa wrote it.
        data: Its JSON text. Text of any other shape keeps its columns empty.
    """
    text = data if isinstance(data, str) else data.decode()
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    fields = fields if isinstance(fields, dict) else {}
    parse_data = fields.get("parse_data")
    intent = parse_data.get("intent") if isinstance(parse_data, dict) else None
    timestamp: Any = fields.get("timestamp")
    return NewRow(
        event_id,  # type: ignore[arg-type]  # as nullable as what is stored
        text,
        _text_or_none(fields.get("event")) or "",
        float(timestamp) if _is_finite_number(timestamp) else None,
        _text_or_none(intent.get("name")) if isinstance(intent, dict) else None,
        _text_or_none(fields.get("name")),
    )


def _is_finite_number(value: object) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _text_or_none(value: object) -> str | None:
    if not isinstance(value, str) or "\0" in value:
        return None
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return None
    return value


def decode_rows(
    sender_id: str, first_position: int, rows: Sequence[StoredRow]
) -> list[Event]:
    """Decode a run of stored rows.

    Args:
        sender_id: The conversation, for the error.
        first_position: Position of the first row, for the error.
        rows: The rows, in order.

    Raises:
        CorruptEventError: A row is not a JSON object.
    """
    try:
        return [decode_event(data) for _, data in rows]
    except ValueError:
        for offset, (_, data) in enumerate(rows):
            try:
                decode_event(data)
            except ValueError as error:
                sealed = data[:8] in ('"sealed:', b'"sealed:')
                raise errors.CorruptEventError(
                    sender_id,
                    first_position + offset,
                    "it is encrypted, and this store has no `encryption`"
                    if sealed
                    else "it is not a JSON object",
                ) from error
        raise


def encode_snapshot(state: Mapping[str, Any], version: int, session_start: int) -> str:
    """Encode the state of the latest session as it is after `version` events.

    Args:
        state: The state.
        version: Number of events.
        session_start: Position where the latest session starts.

    Raises:
        EventSerialisationError: The state holds a value that JSON cannot represent.
    """
    snapshot = snapshot_of(state, version, session_start)
    return encode_json(snapshot, "state snapshot")


def snapshot_of(
    state: Mapping[str, Any], version: int, session_start: int
) -> dict[str, Any]:
    """Return what `encode_snapshot` encodes."""
    return {
        "format": SNAPSHOT_FORMAT,
        "version": version,
        "session_start": session_start,
        "state": state,
    }


def decode_snapshot(
    snapshot: str | bytes | None, version: int, session_start: int
) -> dict[str, Any] | None:
    """Return the state in a snapshot, or None if it does not belong to this version."""
    if snapshot is None:
        return None
    try:
        decoded = _loads(snapshot)
    except ValueError:
        return None
    if (
        not isinstance(decoded, dict)
        or decoded.get("format") != SNAPSHOT_FORMAT
        or decoded.get("version") != version
        or decoded.get("session_start") != session_start
    ):
        return None
    state = decoded.get("state")
    return state if isinstance(state, dict) else None


def is_of_version(
    snapshot: str | bytes | None, version: int, session_start: int
) -> bool:
    """Whether a snapshot begins as `encode_snapshot` begins one of this version.

    One that another program has laid out otherwise may be of it, too.
    """
    if snapshot is None:
        return False
    head = (
        f'{{"format":{SNAPSHOT_FORMAT},"version":{version},'
        f'"session_start":{session_start},"state":{{'
    )
    if isinstance(snapshot, str):
        return snapshot.startswith(head)
    return snapshot.startswith(head.encode())


def _loads(text: str | bytes) -> Any:
    """Decode JSON as events are decoded: half of the time of `json.loads`.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)  # which alone reads a lone surrogate


class SerializedTrackerRepresentation(Generic[SerializationType]):
    """Base of the ways to turn a whole tracker into one value, with Rasa's name."""

    @staticmethod
    @abstractmethod
    def serialise_tracker(tracker: DialogueStateTracker) -> SerializationType:
        """Return the tracker's events in this representation."""


class SerializedTrackerAsText(SerializedTrackerRepresentation[str]):
    """Serialises a tracker to JSON text, as Rasa's Redis and in-memory stores do."""

    @staticmethod
    def serialise_tracker(tracker: DialogueStateTracker) -> str:
        """Return the tracker's events as JSON text.

        Raises:
            EventSerialisationError: An event holds what JSON cannot represent.
        """
        return encode_json(tracker.as_dialogue().as_dict(), "tracker")


class SerializedTrackerAsDict(SerializedTrackerRepresentation[dict[str, Any]]):
    """Serialises a tracker to a dict, as Rasa's MongoDB and DynamoDB stores do."""

    @staticmethod
    def serialise_tracker(tracker: DialogueStateTracker) -> dict[str, Any]:
        """Return the tracker's events and its sender id as a dict."""
        return {**tracker.as_dialogue().as_dict(), "sender_id": tracker.sender_id}


def deserialise_dialogue(serialised: str | bytes | Mapping[str, Any]) -> Dialogue:
    """Read what one of the `SerializedTracker...` classes wrote.

    Args:
        serialised: JSON text, its UTF-8 bytes, or the dict.

    Raises:
        TrackerDeserialisationError: It is not JSON, or not a serialised tracker.
    """
    parameters: Any = serialised
    if not isinstance(serialised, Mapping):
        try:
            parameters = json.loads(serialised)
        except (ValueError, TypeError) as error:
            raise errors.TrackerDeserialisationError(
                "the tracker cannot be deserialised because it is not JSON; pickled "
                "trackers of old Rasa versions are not supported"
            ) from error
    if not isinstance(parameters, Mapping) or not isinstance(
        parameters.get("events"), list
    ):
        raise errors.TrackerDeserialisationError(
            "the tracker cannot be deserialised: expected a JSON object with a list "
            "under 'events'"
        )
    try:
        return Dialogue.from_parameters(dict(parameters))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise errors.TrackerDeserialisationError(
            "the tracker cannot be deserialised: one of its events is not a JSON object"
        ) from error
