"""Slots: the named values of a conversation, with Rasa's types and coercions.

Only what a tracker store needs is here. A slot holds a value, knows its initial value
and can be reset to it; turning values into features is left to the assistant.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from typing import TYPE_CHECKING, Any, ClassVar, cast

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.redaction import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

logger = get_logger(__name__)


class Slot:
    """One named value of a conversation; subclass it for a slot type of your own.

    Args:
        name: Name of the slot.
        mappings: How the assistant fills it. Kept, not interpreted.
        initial_value: Its value at the start and after each reset.
        value_reset_delay: Kept for Rasa's sake, where it has no effect either.
        influence_conversation: Whether the assistant's policies look at it.

    Attributes:
        type_name: Name of the type in a domain file.
    """

    type_name: ClassVar[str] = "slot"

    def __init__(
        self,
        name: str,
        mappings: Sequence[dict[str, Any]] | None = None,
        initial_value: Any = None,
        value_reset_delay: int | None = None,
        influence_conversation: bool = True,
    ) -> None:
        self.name = name
        self.mappings = list(mappings or ())
        self.initial_value = initial_value
        self.value_reset_delay = value_reset_delay
        self.influence_conversation = influence_conversation
        self._value = _fresh(initial_value)
        self._has_been_set = False

    @property
    def value(self) -> Any:
        """The current value."""
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value = value
        self._has_been_set = True

    @property
    def has_been_set(self) -> bool:
        """Whether a value was set since the start or the last reset."""
        return self._has_been_set

    def reset(self) -> None:
        """Set the value back to a fresh copy of the initial value."""
        self.value = _fresh(self.initial_value)
        self._has_been_set = False

    @staticmethod
    def resolve_by_type(type_name: str) -> type[Slot]:
        """Return the slot class that a domain file names.

        Args:
            type_name: A built-in name such as `text`, the `type_name` of a subclass of
                `Slot` that is already imported, or the dotted path of a class.

        Raises:
            ConfigurationError: Nothing of that name exists.
        """
        for slot_class in _subclasses(Slot):
            if slot_class.type_name == type_name:
                return slot_class
        return _import_slot_class(type_name)

    def __copy__(self) -> Slot:
        """Return a slot of the same type and content; `copy.copy` is slower."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __repr__(self) -> str:
        """Show type and name; the value may be private."""
        return f"<{type(self).__name__}({self.name})>"


class TextSlot(Slot):
    """Holds text. The value is kept as it is given."""

    type_name = "text"


class BooleanSlot(Slot):
    """Holds true or false. The value is kept as it is given."""

    type_name = "bool"


class FloatSlot(Slot):
    """Holds a number. The value is kept as it is given, also outside the range.

    Args:
        name: Name of the slot.
        mappings: How the assistant fills it. Kept, not interpreted.
        initial_value: Its value at the start and after each reset.
        value_reset_delay: Kept for Rasa's sake, where it has no effect either.
        max_value: Upper end of the range that the assistant's policies tell apart.
        min_value: Lower end of that range.
        influence_conversation: Whether the assistant's policies look at it.

    Raises:
        ConfigurationError: The range is empty, or the initial value is no number.
    """

    type_name = "float"

    def __init__(
        self,
        name: str,
        mappings: Sequence[dict[str, Any]] | None = None,
        initial_value: float | None = None,
        value_reset_delay: int | None = None,
        max_value: float = 1.0,
        min_value: float = 0.0,
        influence_conversation: bool = True,
    ) -> None:
        super().__init__(
            name, mappings, initial_value, value_reset_delay, influence_conversation
        )
        self.max_value = max_value
        self.min_value = min_value
        if not min_value < max_value:
            raise ConfigurationError(
                f"slot {name!r}: min_value ({min_value}) must be smaller than "
                f"max_value ({max_value})"
            )
        if initial_value is None:
            return
        if isinstance(initial_value, bool) or not isinstance(
            initial_value, int | float
        ):
            raise ConfigurationError(
                f"slot {name!r}: the initial_value of a float slot must be a number, "
                f"not {type(initial_value).__name__}"
            )
        if not min_value <= initial_value <= max_value:
            logger.warning(
                "The initial value of the float slot %r lies outside its range from "
                "%s to %s.",
                name,
                min_value,
                max_value,
            )


class ListSlot(Slot):
    """Holds a list. A single value that is not empty is wrapped into a list."""

    type_name = "list"

    @property
    def value(self) -> Any:
        """The current value."""
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        if value and not isinstance(value, list):
            value = [value]
        self._value = value
        self._has_been_set = True


class CategoricalSlot(Slot):
    """Holds one of several values. Other values are kept as they are given, too.

    Args:
        name: Name of the slot.
        mappings: How the assistant fills it. Kept, not interpreted.
        values: The values to choose from; compared as lower-case text, None is dropped.
        initial_value: Its value at the start and after each reset.
        value_reset_delay: Kept for Rasa's sake, where it has no effect either.
        influence_conversation: Whether the assistant's policies look at it.
    """

    type_name = "categorical"

    def __init__(
        self,
        name: str,
        mappings: Sequence[dict[str, Any]] | None = None,
        values: Sequence[Any] | None = None,
        initial_value: Any = None,
        value_reset_delay: int | None = None,
        influence_conversation: bool = True,
    ) -> None:
        super().__init__(
            name, mappings, initial_value, value_reset_delay, influence_conversation
        )
        self.values = [str(each).lower() for each in values or () if each is not None]


class AnySlot(Slot):
    """Holds any value. It never influences the conversation.

    Args:
        name: Name of the slot.
        mappings: How the assistant fills it. Kept, not interpreted.
        initial_value: Its value at the start and after each reset.
        value_reset_delay: Kept for Rasa's sake, where it has no effect either.
        influence_conversation: Must be False.

    Raises:
        ConfigurationError: `influence_conversation` is True.
    """

    type_name = "any"

    def __init__(
        self,
        name: str,
        mappings: Sequence[dict[str, Any]] | None = None,
        initial_value: Any = None,
        value_reset_delay: int | None = None,
        influence_conversation: bool = False,
    ) -> None:
        if influence_conversation:
            raise ConfigurationError(
                f"slot {name!r}: a slot of type any cannot influence the conversation; "
                "remove influence_conversation or choose another type"
            )
        super().__init__(
            name, mappings, initial_value, value_reset_delay, influence_conversation
        )

    def __eq__(self, other: object) -> bool:
        """Two of them are equal if name, initial value and value are."""
        if not isinstance(other, AnySlot):
            return NotImplemented
        return (self.name, self.initial_value, self.value) == (
            other.name,
            other.initial_value,
            other.value,
        )

    __hash__ = None  # type: ignore[assignment]


BUILT_IN_SLOT_TYPES: dict[str, type[Slot]] = {
    slot_class.type_name: slot_class
    for slot_class in (
        TextSlot,
        BooleanSlot,
        CategoricalSlot,
        FloatSlot,
        ListSlot,
        AnySlot,
    )
}
"""The slot types that need no dotted path, by their name in a domain file."""


class AnySlotDict(dict[str, Slot]):
    """Slots of a tracker without a domain: every slot exists as soon as it is used."""

    def __missing__(self, name: str) -> Slot:
        """Create the slot: `AnySlot(name)`, in one step, as each load does it."""
        slot = self[name] = object.__new__(AnySlot)
        slot.__dict__ = {
            "name": name,
            "mappings": [],
            "initial_value": None,
            "value_reset_delay": None,
            "influence_conversation": False,
            "_value": None,
            "_has_been_set": False,
        }
        return slot

    def __contains__(self, name: object) -> bool:
        """Whether a slot of that name can be used: always."""
        return True


def create_slot(name: str, properties: Any) -> Slot:
    """Create a slot from its description in a domain file.

    Args:
        name: Name of the slot.
        properties: Its `type` and the arguments of that type.

    Raises:
        ConfigurationError: The type is unknown, or does not take these arguments.
    """
    if not isinstance(name, str):
        raise ConfigurationError(f"the name of slot {name!r} must be text: quote it")
    if not isinstance(properties, dict) or not isinstance(properties.get("type"), str):
        raise ConfigurationError(
            f"slot {name!r} must be a mapping with a `type`; {_valid_types()}"
        )
    arguments = copy.deepcopy(properties)
    type_name = arguments.pop("type")
    try:
        slot_class = Slot.resolve_by_type(type_name)
    except ConfigurationError as error:
        raise ConfigurationError(f"slot {name!r}: {error}") from error
    known = inspect.signature(slot_class).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in known.values())
    unknown = [key for key in arguments if key not in known and not takes_any]
    if unknown:
        allowed = ", ".join(["type", *list(known)[1:]])
        raise ConfigurationError(
            f"slot {name!r} of type {type_name} has the unknown key {unknown[0]!r}; "
            f"valid are: {allowed}"
        )
    arguments.setdefault("mappings", [])
    try:
        return slot_class(name, **arguments)
    except TypeError as error:
        raise ConfigurationError(
            f"slot {name!r} of type {type_name} cannot be created: {error}"
        ) from error


def _fresh(value: Any) -> Any:
    """Return a value that no other slot shares: lists and dicts are copied."""
    return copy.deepcopy(value) if isinstance(value, list | dict) else value


def _subclasses(slot_class: type[Slot]) -> Iterator[type[Slot]]:
    for each in slot_class.__subclasses__():
        yield each
        yield from _subclasses(each)


def _valid_types() -> str:
    names = ", ".join(BUILT_IN_SLOT_TYPES)
    return f"valid types are {names}, or the dotted path of a slot class"


def _import_slot_class(path: str) -> type[Slot]:
    module_name, _, class_name = path.rpartition(".")
    if not module_name:
        raise ConfigurationError(f"unknown slot type {path!r}; {_valid_types()}")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"slot type {path!r} cannot be imported ({error}); {_valid_types()}"
        ) from error
    if not (
        isinstance(found, type) and hasattr(found, "value") and hasattr(found, "reset")
    ):
        raise ConfigurationError(
            f"slot type {path!r} is not a slot class: subclass "
            "tracker_store_async.slots.Slot"
        )
    return cast("type[Slot]", found)
