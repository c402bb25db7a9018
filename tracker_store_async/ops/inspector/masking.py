"""What a reader of conversations is not shown: secrets, and slots that somebody named.

It is the redaction of `tracker_store_async.redaction`, but for texts: reading them is
what the inspector is for. The value of a masked slot is masked wherever it turns up in
what is shown with it: in entities, in what the user typed and in what the bot repeats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tracker_store_async.redaction import MASK, Redactor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SHORTEST_VALUE = 4
"""Shorter values are masked where they are the slot's, and not within texts: `no` or
`2` would tear holes into words that have nothing to do with it."""

MOST_VALUES = 500
"""With more of them, looking for each would take too long: then no text is shown."""

DEEPEST = 50
"""Levels within levels that are looked at; what is below is not shown."""


class Mask:
    """Masks events and slots that are shown together.

    Args:
        redactor: Says what is secret.
        shown: Whether everything is shown, since somebody asked for it.
    """

    def __init__(self, redactor: Redactor, *, shown: bool = False) -> None:
        self._redactor = redactor
        self._shown = shown or not redactor.enabled
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._secret_names: dict[str, bool] = {}

    @property
    def learns(self) -> bool:
        """Whether the values of any slots are masked within texts."""
        return not self._shown and bool(self._redactor.slots)

    def learn_events(self, events: Iterable[Mapping[str, Any] | None]) -> None:
        """Note the values of masked slots in events, so that texts lose them."""
        for fields in events:
            if fields is None or not self.learns:
                continue
            if fields.get("event") == "slot" and self.is_secret(fields.get("name")):
                self._learn(fields.get("value"))
            for entity in _entities(fields):
                if self.is_secret(entity.get("entity")):
                    self._learn(entity.get("value"))
                    self._learn(_cut_out(fields.get("text"), entity))

    def learn_slots(self, slots: Mapping[str, Any]) -> None:
        """Note the values of masked slots."""
        for name, value in slots.items():
            if self.is_secret(name):
                self._learn(value)

    def is_secret(self, name: Any) -> bool:
        """Whether a slot, entity or field of this name is masked."""
        if self._shown or not isinstance(name, str):
            return False
        known = self._secret_names.get(name)
        if known is None:
            known = self._secret_names[name] = self._redactor.is_secret(name)
        return known

    def slot(self, name: str, value: Any) -> Any:
        """Return the value of a slot, or the mask."""
        return MASK if self.is_secret(name) else self.value(value)

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return a value of an event, whatever it is made of, as it may be shown."""
        if self._shown:
            return value
        if depth > DEEPEST:
            return MASK
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {
                self._text(str(key)): self._field(value, key, inner, depth)
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(inner, depth + 1) for inner in value]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return MASK if is_number and _as_typed(value) in self._values else value

    def _field(
        self, fields: Mapping[Any, Any], key: Any, value: Any, depth: int
    ) -> Any:
        if self.is_secret(key):
            return MASK
        names = (fields.get("name"), fields.get("entity"), fields.get("slot"))
        if key == "value" and any(map(self.is_secret, names)):
            return MASK
        return self.value(value, depth + 1)

    def _text(self, text: str) -> str:
        if len(self._values) > MOST_VALUES:
            return MASK
        if self._values:
            if self._pattern is None:
                longest_first = sorted(self._values, key=len, reverse=True)
                self._pattern = re.compile(
                    "|".join(map(re.escape, longest_first)), re.IGNORECASE
                )
            text = self._pattern.sub(MASK, text)
        return self._redactor.text(text)

    def _learn(self, value: Any) -> None:
        for leaf in _leaves(value):
            text = _as_typed(leaf)
            if len(text) >= SHORTEST_VALUE and len(self._values) <= MOST_VALUES:
                self._values.add(text)
                self._pattern = None


def _entities(fields: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    parse_data = fields.get("parse_data")
    parts = [fields, parse_data if isinstance(parse_data, Mapping) else {}]
    for part in parts:
        entities = part.get("entities")
        for entity in entities if isinstance(entities, list) else ():
            if isinstance(entity, Mapping):
                yield entity


def _cut_out(text: Any, entity: Mapping[str, Any]) -> str | None:
    """Return the words that an entity was found in."""
    start, end = entity.get("start"), entity.get("end")
    if isinstance(text, str) and isinstance(start, int) and isinstance(end, int):
        return text[max(0, start) : max(0, end)]
    return None


def _as_typed(leaf: str | float) -> str:
    """Return a value as people type it: whole numbers without `.0`."""
    is_whole = isinstance(leaf, float) and leaf.is_integer()
    return str(int(leaf) if is_whole else leaf).strip()


def _leaves(value: Any) -> Iterator[Any]:
    todo = [value]
    while todo:  # however deep
        found = todo.pop()
        if isinstance(found, Mapping):
            todo += found.values()
        elif isinstance(found, list | tuple):
            todo += found
        elif isinstance(found, str | int | float) and not isinstance(found, bool):
            yield found
