"""Events of a save that are encoded already, so that the state does not do it again."""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING

from tracker_store_async.events import Event

if TYPE_CHECKING:
    from collections.abc import Sequence


class EncodedEvents:
    """Texts of events, and what stands for them in a value until that is encoded.

    The latest message is two thirds of a state, and nearly always among the events that
    are saved with it.

    Args:
        events: The events, in order.
    """

    __slots__ = ("_events", "_used")

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self._used: list[int] = []

    def stand_in(self, event: Event) -> str | None:
        """Return what stands for an event, or None if it is none of them.

        Args:
            event: The event.
        """
        for place, each in enumerate(self._events):
            if each is event and type(event).as_dict is Event.as_dict:
                self._used.append(place)
                return f"{_SECRET}{len(self._used)}"
        return None

    def put_into(self, text: str, encoded: Sequence[str]) -> str:
        """Return a JSON text with the events' texts in place of what stands for them.

        Args:
            text: The text.
            encoded: The JSON text of each event.
        """
        for number, place in enumerate(self._used, 1):
            text = text.replace(f'"{_SECRET}{number}"', encoded[place], 1)
        return text


_SECRET = f"{token_hex(16)}-"
"""It is never told to anybody, so that no value of a user can hold it."""
