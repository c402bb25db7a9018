"""What a stored row is, told from its first characters and without decoding it.

Rasa and this library write the type of an event first: `{"event": "user", ...`. A row
that begins otherwise is decoded by whoever has to know.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tracker_store_async.applied import kind_of_type
from tracker_store_async.events.base import EVENT_CLASSES, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tracker_store_async.applied import Kind

_LONGEST_HEAD = 128
"""Longest beginning of a row, in characters, that is searched for its type."""

_HEAD = 24
"""Enough for the type of what reverts others; few rows differ in it, which is fast."""

_BEGINNING = re.compile(r'\{\s*"event"\s*:\s*"([^"\\]*)("?)')
_REVERTS = ("undo", "rewind")


def kind_of_row(row: str | bytes) -> Kind | None:
    """Return the kind of a row, or None if its beginning does not tell.

    A row that does not fit the class of its type is decoded as an `UnknownEvent`, of
    the kind `other`, whatever this says.
    """
    found = _BEGINNING.match(_text(row[:_LONGEST_HEAD]))
    if found is None or not found[2]:
        return None
    return kind_of_name(found[1])


def kind_of_name(type_name: str) -> Kind:
    """Return the kind of the events of a type."""
    cls = EVENT_CLASSES.get(type_name)
    return "other" if cls is None else kind_of_type(cls._loads_as or cls)


def needs_replay(rows: Iterable[str | bytes]) -> bool:
    """Whether only a replay tells what the messages among some rows are like.

    It is so where a row reverts others, or does not begin with its type.
    """
    reverts = _reverting.names()
    for head in {row[:_HEAD] for row in rows}:
        found = _BEGINNING.match(_text(head))
        if found is None:
            return True
        name, is_complete = found[1], found[2]
        if name in reverts if is_complete else _begins_one(name, reverts):
            return True
    return False


def has_type(row: str | bytes, type_names: Iterable[str]) -> bool:
    """Whether a row may be of one of these types: it is not, if this says so."""
    text = row if isinstance(row, str) else row.decode(errors="replace")
    return any(name in text for name in type_names)


def types_with_own_state() -> list[str]:
    """Return the types from elsewhere that change a tracker in a way of their own."""
    return _own_state.names()


class _TypeNames:
    """Names of the event types that are of some kind.

    Every load asks. Looking at each class took 4 us of its 70; so they are only
    compared with those that were looked at before, which takes a tenth of that.
    """

    def __init__(self, is_wanted: Callable[[type[Event]], bool]) -> None:
        self._is_wanted = is_wanted
        self._seen: list[type[Event]] = []
        self._names: list[str] = []

    def names(self) -> list[str]:
        """Return the names as of now: a class can be added at any time."""
        classes = list(EVENT_CLASSES.values())
        if classes != self._seen:
            wanted = self._is_wanted
            found = [name for name, cls in EVENT_CLASSES.items() if wanted(cls)]
            self._seen, self._names = classes, found
        return self._names


def _has_own_state(cls: type[Event]) -> bool:
    return not getattr(cls.apply_to, "__module__", "").startswith(_OURS)


def _reverts_others(cls: type[Event]) -> bool:
    return kind_of_type(cls._loads_as or cls) in _REVERTS


def _begins_one(beginning: str, names: Iterable[str]) -> bool:
    return any(name.startswith(beginning) for name in names)


def _text(head: str | bytes) -> str:
    return head if isinstance(head, str) else head.decode(errors="replace")


_own_state = _TypeNames(_has_own_state)
_reverting = _TypeNames(_reverts_others)
_OURS = Event.__module__.rpartition(".")[0] + "."
