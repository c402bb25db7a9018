"""What every event has: the base class, its JSON shape and the table of types."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator

from tracker_store_async.errors import InvalidInputError
from tracker_store_async.events.json_values import isolated as isolated

if TYPE_CHECKING:
    from tracker_store_async.events.tracker_state import TrackerState

MAX_EVENT_ID_LENGTH = 255
"""Longest id in characters: AMQP holds no longer message id."""

_new = object.__new__
_set = object.__setattr__


class MisfitError(ValueError):
    """A stored row cannot be held by the class of its type without losing something."""


def take_name(row: dict[str, Any], field: str = "name") -> Any:
    """Take the name of a slot, action or loop out of a row.

    Raises:
        MisfitError: It is a list or an object, which no tracker can use as a name.
    """
    name = row.pop(field, None)
    if type(name) is list or type(name) is dict:
        raise MisfitError(f"{field} is not text")
    return name


def check_kind(value: object, kind: type | tuple[type, ...], argument: str) -> None:
    """Refuse an argument that would not be read again as what it is, None aside.

    Raises:
        InvalidInputError: It is something else.
    """
    if value is not None and not isinstance(value, kind):
        expected = kind if isinstance(kind, type) else kind[0]
        raise InvalidInputError(
            f"{argument} must be of type {expected.__name__}, "
            f"not {type(value).__name__}"
        )


def _is_usable_id(carried: object) -> TypeGuard[str]:
    """Whether it is 1 to 255 characters without controls and lone surrogates."""
    return (
        isinstance(carried, str)
        and 0 < len(carried) <= MAX_EVENT_ID_LENGTH
        and carried.isprintable()
    )


class Event(BaseModel):
    """Something that happened in a conversation.

    An event holds the fields of its type as attributes, under Rasa's names, and every
    other field of its row in `model_extra`. The attributes may be set; what they hold
    is not checked then, only when the event is encoded.

    Instances are put together as pydantic's `model_construct` does it, without running
    validators or `__init__`: Rasa's rules for odd rows decide, in `_read`, which
    values a class takes. That is also what pydantic's own `model_validate` uses;
    `Event.model_validate(row)` returns the class of the row's type.

    Every class writes its `__init__` out: type checkers give a pydantic model without
    one a constructor that takes keywords alone.

    Attributes:
        type_name: The value of `event` in the JSON of this type.
        timestamp: When it happened, in seconds since the epoch. A row written by
            somebody else may hold anything here; it is kept as it is.
        metadata: Data of the application, kept with the event.
    """

    model_config = ConfigDict(
        extra="allow",
        defer_build=True,  # nothing here needs the validators; importing is faster
        hide_input_in_errors=True,  # an input may be the text of a message
        protected_namespaces=(),
        ser_json_inf_nan="constants",
    )

    type_name: ClassVar[str] = "event"
    _own_fields: ClassVar[set[str]] = set()
    # the fields of the JSON, in Rasa's order, and the attributes that they hold
    _written: ClassVar[tuple[tuple[str, str], ...]] = ()
    _loads_as: ClassVar[type[Event] | None] = None  # another class, for old names
    # whether metadata that is no object is one of the other fields, or else a misfit
    _keeps_odd_metadata: ClassVar[bool] = False
    # whether `_written` alone says what the JSON holds: no method is another one
    _is_as_written: ClassVar[bool] = False

    timestamp: float
    metadata: dict[str, Any]

    def __init__(
        self, timestamp: float | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        self._fill(timestamp, metadata)

    def _fill(
        self,
        timestamp: float | None,
        metadata: dict[str, Any] | None,
        **attributes: Any,
    ) -> None:
        """Set the attributes of a new event.

        Rasa's rule (`Event.__init__`): a timestamp that is missing, or 0, is now.

        Raises:
            InvalidInputError: The metadata is not a dict.
        """
        check_kind(metadata, dict, "metadata")
        attributes["timestamp"] = timestamp or time.time()
        attributes["metadata"] = metadata or {}
        self._assemble(attributes, {})

    def _assemble(self, attributes: dict[str, Any], extra: dict[str, Any]) -> None:
        """Make the dicts given those of this instance, as `model_construct` does.

        All events of a class share one set of "fields set": a set for each would be a
        third of the memory of a small event, and of the garbage collector's work.
        """
        _set(self, "__dict__", attributes)
        _set(self, "__pydantic_fields_set__", self._own_fields)
        _set(self, "__pydantic_extra__", extra)
        _set(self, "__pydantic_private__", None)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Enter the class in the tables of types; the first of a name stays."""
        super().__pydantic_init_subclass__(**kwargs)
        cls._own_fields = set(cls.model_fields)
        cls._is_as_written = (
            cls.as_dict is Event.as_dict
            and cls.shared_dict is Event.shared_dict
            and cls._fields is Event._fields
            and isinstance(cls.type_name, str)
        )
        name = cls.type_name
        if isinstance(name, str) and name not in EVENT_CLASSES and name != "event":
            EVENT_CLASSES[name] = cls
            EVENT_BUILDERS[name] = _builder(cls)

    @model_validator(mode="wrap")
    @classmethod
    def _validate(cls, data: Any, _: Any) -> Event:
        event = event_from_dict(data) if isinstance(data, Mapping) else data
        if not isinstance(event, cls):
            raise ValueError(f"it is not the JSON object of a {cls.__name__} event")
        return event

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        """Take the fields of this type out of a row and return the attributes.

        Raises:
            MisfitError: The row does not fit this class.
        """
        return {}

    @staticmethod
    def from_parameters(
        parameters: Mapping[str, Any], default: type[Event] | None = None
    ) -> Event | None:
        """Build an event from its JSON object, as Rasa's method of this name.

        Rasa raises `ValueError` for a type it does not know, and whatever its
        constructor raises for a row that does not fit. Here both are kept as
        `UnknownEvent`, so that no row is lost and none stops a conversation from
        loading.

        Args:
            parameters: The JSON object; it is copied.
            default: Class for types that are not known.

        Returns:
            The event, or None where Rasa returns None: there is no type, or it is the
            `topic` of very old versions.
        """
        name = parameters.get("event")
        if name is None or name == "topic":
            return None
        return event_from_dict(parameters, default or UnknownEvent)

    @staticmethod
    def resolve_by_type(
        type_name: str, default: type[Event] | None = None
    ) -> type[Event] | None:
        """Return the class of a type name.

        Args:
            type_name: The value of `event` in the JSON.
            default: What to return for a name that is not known.

        Returns:
            The class, `default` (by default `UnknownEvent`), or None for `topic`.
        """
        found = EVENT_CLASSES.get(type_name)
        if found is None and type_name != "topic":
            return default or UnknownEvent
        return found

    @property
    def event_id(self) -> str | None:
        """The id that the event carries among its fields, or None.

        What a database or a broker could not take as an id is an ordinary field.
        """
        extra = self.__pydantic_extra__
        carried = extra.get("event_id") if extra else None
        return carried if carried and _is_usable_id(carried) else None

    @event_id.setter
    def event_id(self, value: str) -> None:
        if self.__pydantic_extra__ is not None:
            self.__pydantic_extra__["event_id"] = value

    @property
    def stored_name(self) -> Any:
        """The field `name` of the JSON, which Rasa's SQL layout keeps a column for."""
        return (self.__pydantic_extra__ or {}).get("name")

    def _fields(self) -> dict[str, Any]:
        """Return Rasa's JSON of this type, sharing what is nested."""
        held = self.__dict__
        fields = {"event": self.type_name, "timestamp": held["timestamp"]}
        if held["metadata"]:
            fields["metadata"] = held["metadata"]
        for name, attribute in self._written:
            fields[name] = held[attribute]
        return fields

    def shared_dict(self) -> dict[str, Any]:
        """Return what `as_dict` does, but share lists and dicts with the event.

        For callers that encode it at once and change nothing.
        """
        fields = self._fields()
        extra = self.__pydantic_extra__
        if extra:
            for name, value in extra.items():
                fields.setdefault(name, value)
        return fields

    def as_dict(self) -> dict[str, Any]:
        """Return the event's JSON object: Rasa's keys in Rasa's order, then the rest.

        Nothing in it is shared with the event (Rasa hands out references).
        """
        return isolated(self.shared_dict())  # type: ignore[no-any-return]

    @model_serializer(mode="plain")
    def _serialise(self) -> dict[str, Any]:
        return self.as_dict()

    def fingerprint(self) -> str:
        """Return a hash of the event without its timestamp, stable across processes."""
        fields = self.as_dict()
        fields.pop("timestamp", None)
        text = json.dumps([self.type_name, fields], sort_keys=True, default=repr)
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    def apply_to(self, tracker: TrackerState) -> None:
        """Change the tracker's state as this event says; most types change nothing."""

    def __eq__(self, other: object) -> bool:
        """Compare what the event says; each type decides, and time never counts."""
        if not isinstance(other, self.__class__):
            return NotImplemented
        return bool(self._compared() == other._compared())

    def __hash__(self) -> int:
        """Return a hash that equal events share."""
        return hash(self.type_name)

    def _compared(self) -> Any:
        """Return what equality looks at."""
        return None

    def __str__(self) -> str:
        """Return Rasa's readable form; it can hold the text of a message."""
        return f"{type(self).__name__}()"

    def __repr__(self) -> str:
        """Return the class and time, never what was said."""
        return f"{type(self).__name__}(timestamp={self.timestamp!r})"


EVENT_CLASSES: dict[str, type[Event]] = {}
"""Every class of event by the type name in its rows."""

EVENT_BUILDERS: dict[str, Callable[[dict[str, Any]], Event]] = {}
"""By type name, what builds an event from its row and uses the row up.

It raises one of `MISFITS` if the row does not fit the class.
"""

MISFITS = (ValueError, TypeError, AttributeError, KeyError)
"""What building an event from a row that does not fit its class raises."""


def _builder(cls: type[Event]) -> Callable[[dict[str, Any]], Event]:
    """Return what builds an event from its row, in one function without lookups.

    Spread over methods it takes a quarter more time for each event that is loaded.
    """
    target = cls._loads_as or cls
    own_fields = target._own_fields
    read = cls._read

    def build(row: dict[str, Any]) -> Event:
        attributes = read(row)
        row.pop("event", None)
        metadata = row.pop("metadata", None)
        # Rasa's rule: metadata that is null, or an empty or false value, is `{}`; a
        # timestamp that is missing, null or 0 is the time of loading.
        if type(metadata) is not dict:
            if metadata and not target._keeps_odd_metadata:
                raise MisfitError("the metadata is not an object")
            if metadata:
                row["metadata"] = metadata
            metadata = {}
        attributes["timestamp"] = row.pop("timestamp", None) or time.time()
        attributes["metadata"] = metadata
        event = _new(target)
        _set(event, "__dict__", attributes)
        _set(event, "__pydantic_fields_set__", own_fields)
        # A dict that fields were taken out of keeps its size: a new one is smaller.
        _set(event, "__pydantic_extra__", row or {})
        _set(event, "__pydantic_private__", None)
        return event

    return build


class UnknownEvent(Event):
    """An event that no class fits: another product's type, or a row of odd shape.

    It changes no state and loses nothing: `as_dict()` is the row as it came, and every
    field of it can be read as an attribute or in `model_extra`.

    Attributes:
        timestamp: What the row has there, or None.
        metadata: What the row has there, if it is an object.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        """Create it from its JSON object, which is copied."""
        self._take(isolated(dict(fields)))

    def _take(self, row: dict[str, Any]) -> None:
        metadata = row.get("metadata")
        self._assemble(
            {
                "timestamp": row.get("timestamp"),
                "metadata": metadata if isinstance(metadata, dict) else {},
            },
            row,
        )

    @property
    def type_name(self) -> str:  # type: ignore[override]
        """The value of `event` in the row, or `unknown` where that is no text."""
        name = (self.__pydantic_extra__ or {}).get("event")
        return name if isinstance(name, str) else "unknown"

    def shared_dict(self) -> dict[str, Any]:
        """Return the row, with `timestamp` and `metadata` if they were set since."""
        row = dict(self.__pydantic_extra__ or {})
        if self.timestamp is not row.get("timestamp"):
            row["timestamp"] = self.timestamp
        if self.metadata or isinstance(row.get("metadata"), dict):
            row["metadata"] = self.metadata
        return row

    def _compared(self) -> Any:
        return self.shared_dict()

    def __hash__(self) -> int:
        return hash(self.type_name)

    def __str__(self) -> str:
        return f"UnknownEvent({self.type_name})"

    def __repr__(self) -> str:
        return f"UnknownEvent({self.type_name!r}, timestamp={self.timestamp!r})"


def build_unknown(row: dict[str, Any]) -> UnknownEvent:
    """Build the event of a row that no class fits; the row becomes part of it."""
    event = _new(UnknownEvent)
    event._take(row)
    return event


def event_from_dict(
    fields: Mapping[str, Any], default: type[Event] = UnknownEvent
) -> Event:
    """Build the event of a JSON object, as `decode_event` does from its text.

    Args:
        fields: The JSON object; it is copied.
        default: Class for types that are not known.

    Returns:
        The event: an `UnknownEvent` if the type is not known, or if the class of the
        type cannot hold the row without losing something.
    """
    try:
        return builder_of(fields, default)(isolated(dict(fields)))
    except MISFITS:
        return UnknownEvent(fields)


def event_from_own(fields: dict[str, Any]) -> Event:
    """Build the event of a JSON object that nobody else uses: it is not copied."""
    try:
        return builder_of(fields)(dict(fields))
    except MISFITS:
        return build_unknown(fields)


def builder_of(
    fields: Mapping[str, Any], default: type[Event] = UnknownEvent
) -> Callable[[dict[str, Any]], Event]:
    """Return what builds the event of a row, with `default` for unknown types."""
    name = fields.get("event")
    known = EVENT_BUILDERS.get(name) if type(name) is str else None
    if known:
        return known
    return build_unknown if default is UnknownEvent else _builder(default)
