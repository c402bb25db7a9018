"""One event to JSON text and back, exactly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic_core import from_json

from tracker_store_async.events.base import (
    EVENT_BUILDERS,
    MISFITS,
    Event,
    build_unknown,
    builder_of,
)
from tracker_store_async.events.json_values import (
    JSON_ATOMS,
    encode_fast,
    encode_with_care,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


def decode_event(data: str | bytes) -> Event:
    """Decode one event from its JSON text.

    Args:
        data: The text, or its UTF-8 bytes.

    Returns:
        The event: an `UnknownEvent` if its type is not known, or if the class of its
        type cannot hold it without losing something.

    Raises:
        ValueError: It is not a JSON object.
    """
    try:
        fields = from_json(data)
        return EVENT_BUILDERS.get(fields.get("event"), build_unknown)(fields)
    except MISFITS:
        return _decode_with_care(data)


def _decode_with_care(data: str | bytes) -> Event:
    """Decode what the fast way refused.

    That is a row that does not fit its class, JSON that only Python's own parser reads,
    such as a lone surrogate, and what is no JSON object.
    """
    fields = _loads(data)
    try:
        return builder_of(fields)(fields)
    except MISFITS:
        return build_unknown(_loads(data))  # the fields above are used up


def _loads(data: str | bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if type(fields) is not dict:
        raise ValueError("it is not a JSON object")
    return fields


def encode_event(event: Event) -> str:
    """Encode one event as JSON text that `decode_event` gives back exactly.

    Returns:
        Text without a raw NUL that can be encoded as UTF-8. NaN and infinities are
        written as Python's json does. What Python's json turns into JSON's own types,
        a tuple or a number as a key, comes back as these.

    Raises:
        EventSerialisationError: It holds a value that JSON cannot represent.
    """
    return encode_fields(event, fields_of(event))


def fields_of(event: Event) -> dict[str, Any]:
    """Return the JSON object of an event, to be encoded at once and not changed."""
    own = type(event).as_dict is Event.as_dict
    return event.shared_dict() if own else event.as_dict()


def all_fields_of(events: Iterable[Event]) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return what `fields_of` does of several events, and the values to be looked at.

    Who encodes them has to look whether JSON can hold these values; of the others, and
    of the keys beside them, it is known by now.
    """
    found: list[dict[str, Any]] = []
    doubtful: list[Any] = []
    for event in events:
        kind = type(event)
        type_name, written = _shapes.get(kind) or _shape_of(kind)
        if type_name is None or event.__pydantic_extra__:
            fields = fields_of(event)
            doubtful.append(fields)
        else:  # as `Event._fields` does it
            held = event.__dict__
            timestamp, metadata = held["timestamp"], held["metadata"]
            fields = {"event": type_name, "timestamp": timestamp}
            if type(timestamp) is not float:
                doubtful.append(timestamp)
            if metadata:
                fields["metadata"] = metadata
                doubtful.append(metadata)
            for name, attribute in written:
                fields[name] = value = held[attribute]
                if type(value) not in JSON_ATOMS:
                    doubtful.append(value)
        found.append(fields)
    return found, doubtful


_Shape: TypeAlias = "tuple[str | None, tuple[tuple[str, str], ...]]"

_shapes: dict[type[Event], _Shape] = {}


def _shape_of(kind: type[Event]) -> _Shape:
    """Return the type name of a class and what it writes; no name if not that alone.

    To ask the class takes five times as long: pydantic's has a `__getattr__`.
    """
    name = kind.type_name if kind._is_as_written else None
    shape = _shapes[kind] = name, kind._written
    return shape


def encode_fields(event: Event, fields: dict[str, Any]) -> str:
    """Encode what `fields_of` has returned; see `encode_event`."""
    return encode_fast(fields) or encode_with_care(
        fields, f"an event of type {event.type_name!r}"
    )
