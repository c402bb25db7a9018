"""Slots: initial values, coercions, resets, and types of one's own."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.slots import (
    BUILT_IN_SLOT_TYPES,
    AnySlot,
    AnySlotDict,
    CategoricalSlot,
    FloatSlot,
    ListSlot,
    Slot,
    TextSlot,
    create_slot,
)


class UpperSlot(Slot):
    """A slot type of a user: it takes an argument of its own and changes values."""

    type_name = "upper"

    def __init__(self, name: str, mappings: Any, suffix: str, **rest: Any) -> None:
        super().__init__(name, mappings, **rest)
        self.suffix = suffix

    @property
    def value(self) -> Any:
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        text = None if value is None else str(value).upper() + self.suffix
        self._value = text
        self._has_been_set = True


@pytest.mark.parametrize("type_name", BUILT_IN_SLOT_TYPES)
def test_set_and_reset(type_name: str) -> None:
    slot = create_slot("s", {"type": type_name, "mappings": [{"type": "custom"}]})
    assert (slot.name, slot.value, slot.has_been_set) == ("s", None, False)
    assert slot.mappings == [{"type": "custom"}]
    slot.value = ["x"]
    assert slot.value == ["x"]
    assert slot.has_been_set
    slot.reset()
    assert slot.value is None
    assert not slot.has_been_set


@pytest.mark.parametrize(
    ("given", "held"),
    [
        ("pizza", ["pizza"]),
        (["pizza"], ["pizza"]),
        (None, None),
        ("", ""),
        (0, 0),
        (7, [7]),
        ({"a": 1}, [{"a": 1}]),
        ([], []),
    ],
)
def test_list_slot_wraps_what_is_no_list(given: Any, held: Any) -> None:
    slot = ListSlot("s")
    slot.value = given
    assert slot.value == held


def test_list_slot_wraps_its_initial_value_on_reset() -> None:
    slot = ListSlot("s", initial_value="x")
    assert slot.value == "x"
    slot.reset()
    assert slot.value == ["x"]


@pytest.mark.parametrize("value", ["nope", 10**30, float("inf"), {"a": 1}, None])
def test_values_of_another_type_are_kept(value: Any) -> None:
    for type_name in ("text", "bool", "float", "categorical", "any"):
        slot = create_slot("s", {"type": type_name})
        slot.value = value
        assert slot.value is value


def test_resets_never_share_the_initial_value() -> None:
    slot = ListSlot("s", initial_value=[["a"]])
    other = copy.copy(slot)
    other.reset()
    other.value[0].append("b")
    assert slot.value == [["a"]]
    slot.reset()
    assert slot.value == [["a"]]
    assert other.initial_value == [["a"]]


def test_copy_keeps_type_and_content() -> None:
    slot = UpperSlot("s", [], suffix="!")
    slot.value = "a"
    other = copy.copy(slot)
    other.value = "b"
    assert (type(other), other.value, slot.value) == (UpperSlot, "B!", "A!")


def test_float_slot_checks_its_range(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigurationError, match=r"slot 's': min_value \(2\)"):
        FloatSlot("s", min_value=2, max_value=2)
    with pytest.raises(ConfigurationError, match="must be a number, not str"):
        FloatSlot("s", initial_value="1")  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        assert FloatSlot("s", initial_value=3).value == 3
    assert "outside its range" in caplog.text


def test_categorical_slot_compares_lower_case_text() -> None:
    slot = CategoricalSlot("s", values=["A", None, 3, True])
    assert slot.values == ["a", "3", "true"]


def test_any_slot_refuses_to_influence_the_conversation() -> None:
    with pytest.raises(ConfigurationError, match="cannot influence"):
        AnySlot("s", influence_conversation=True)
    assert AnySlot("s", initial_value=1) == AnySlot("s", initial_value=1)
    assert AnySlot("s") != AnySlot("t")
    assert AnySlot("s") != "s"


def test_types_of_ones_own() -> None:
    dotted = f"{__name__}.UpperSlot"
    for type_name in ("upper", dotted):
        slot = create_slot(
            "s", {"type": type_name, "suffix": "?", "initial_value": "a"}
        )
        assert isinstance(slot, UpperSlot)
        slot.reset()
        assert slot.value == "A?"
    with pytest.raises(ConfigurationError, match=r"'s' of type upper.*suffix"):
        create_slot("s", {"type": "upper"})
    assert Slot.resolve_by_type("text") is TextSlot


def test_any_slot_dict_creates_slots_on_demand() -> None:
    slots = AnySlotDict()
    assert "a" in slots
    assert len(slots) == 0
    slots["a"].value = 3
    assert {name: slot.value for name, slot in slots.items()} == {"a": 3}


def test_repr_does_not_show_the_value() -> None:
    slot = TextSlot("s", initial_value="private")
    assert repr(slot) == "<TextSlot(s)>"
