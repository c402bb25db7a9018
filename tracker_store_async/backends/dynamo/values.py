"""DynamoDB's attribute values: what Python's become, and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

Item = dict[str, Any]
"""An item, or a value of it, as it goes over the wire."""


def text(value: str) -> Item:
    """Return a string."""
    return {"S": value}


def number(value: float) -> Item:
    """Return a number; the shortest text that is exactly this float goes to and fro."""
    return {"N": repr(value)}


def flag() -> Item:
    """Return true."""
    return {"BOOL": True}


def text_of(item: Item, name: str) -> str | None:
    """Return a string of an item, or None."""
    value = item.get(name)
    return None if value is None else value.get("S")


def float_of(item: Item, name: str) -> float | None:
    """Return a number of an item, or None."""
    value = item.get(name)
    return None if value is None else float(value["N"])


def int_of(item: Item, name: str, default: int = 0) -> int:
    """Return a whole number of an item."""
    value = item.get(name)
    return default if value is None else int(value["N"])


def wire_bytes(item: Item) -> int:
    """Return how many bytes an item has in a request."""
    return len(json.dumps(item))


class Expression:
    """An expression under construction: every name and value gets an alias.

    Many plain names, such as `position` and `ttl`, are reserved words.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: Item = {}

    def name(self, attribute: str) -> str:
        """Return the alias of an attribute."""
        alias = f"#{attribute}"
        self._names[alias] = attribute
        return alias

    def value(self, value: Item) -> str:
        """Return the alias of a value."""
        alias = f":v{len(self._values)}"
        self._values[alias] = value
        return alias

    def equals(self, attribute: str, value: Item) -> str:
        """Return the condition that an attribute has a value."""
        return f"{self.name(attribute)} = {self.value(value)}"

    def exists(self, attribute: str) -> str:
        """Return the condition that there is such an attribute."""
        return f"attribute_exists({self.name(attribute)})"

    def lacks(self, attribute: str) -> str:
        """Return the condition that there is no such attribute."""
        return f"attribute_not_exists({self.name(attribute)})"

    def update(self, values: Item, removed: Iterable[str] = ()) -> str:
        """Return the update that sets and removes attributes."""
        parts = [f"{self.name(key)} = {self.value(values[key])}" for key in values]
        said = f"SET {', '.join(parts)}" if parts else ""
        gone = ", ".join(self.name(key) for key in removed)
        return f"{said} REMOVE {gone}".strip() if gone else said

    def parameters(self, **texts: str) -> dict[str, Any]:
        """Return the parameters of a request: the texts, the names and the values."""
        found: dict[str, Any] = dict(texts)
        if self._names:
            found["ExpressionAttributeNames"] = dict(self._names)
        if self._values:
            found["ExpressionAttributeValues"] = dict(self._values)
        return found
