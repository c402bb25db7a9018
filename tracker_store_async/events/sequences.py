"""Helpers for sequences of events, with Rasa's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker_store_async.events.actions import ActionExecuted
from tracker_store_async.events.base import Event
from tracker_store_async.events.control import SessionStarted
from tracker_store_async.redaction import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

logger = get_logger(__name__)


def deserialise_events(serialized_events: Iterable[Mapping[str, Any]]) -> list[Event]:
    """Build events from their JSON objects.

    Rasa's rule: objects without a type, and the `topic` of very old versions, are left
    out. Use `event_from_dict` for each object to keep them.

    Args:
        serialized_events: The JSON objects, such as
            `{"event": "slot", "name": "people", "value": 4}`.
    """
    events = []
    for fields in serialized_events:
        if "event" not in fields:
            continue
        event = Event.from_parameters(fields)
        if event is None:
            logger.warning("Left out an event of type %r", fields["event"])
        else:
            events.append(event)
    return events


def split_events(
    events: Iterable[Event],
    event_type_to_split_on: type[Event],
    additional_splitting_conditions: Mapping[str, Any] | None = None,
    include_splitting_event: bool = True,
) -> list[list[Event]]:
    """Split events before each one of a type.

    Args:
        events: The events.
        event_type_to_split_on: The type.
        additional_splitting_conditions: Attributes that such an event must have too,
            such as `{"action_name": "action_session_start"}`.
        include_splitting_event: Whether the event that splits begins its part, or is
            left out.

    Returns:
        The parts that are not empty, in order.
    """
    conditions = dict(additional_splitting_conditions or {})
    parts: list[list[Event]] = [[]]
    for event in events:
        if not isinstance(event, event_type_to_split_on) or any(
            getattr(event, name, None) != value for name, value in conditions.items()
        ):
            parts[-1].append(event)
        else:
            parts.append([event] if include_splitting_event else [])
    return [part for part in parts if part]


def do_events_begin_with_session_start(events: Sequence[Event]) -> bool:
    """Whether `action_session_start` and `session_started` are the first two events."""
    if len(events) < 2:
        return False
    first, second = events[0], events[1]
    return (
        isinstance(first, ActionExecuted)
        and first.action_name == "action_session_start"
        and isinstance(second, SessionStarted)
    )
