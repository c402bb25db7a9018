"""Events of a save that are encoded already, so that the state does not do it again."""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING

from tracker_store_async.events import Event

if TYPE_CHECKING:
    from collections.abc import Iterable


class EncodedEvents:
    """Texts of events, and what stands for them in a value until that is encoded.

    The latest message is two thirds of a state, and nearly always among the events that
    are saved with it.

    Args:
        encoded: Each event and its JSON text as of now.
    """

    __slots__ = ("_texts", "_used")

    def __init__(self, encoded: Iterable[tuple[Event, str]]) -> None:
        self._texts = {id(event): text for event, text in encoded}
        self._used: list[str] = []

    def stand_in(self, event: Event) -> str | None:
        """Return what stands for an event, or None if its text is not known.

        Args:
            event: The event.
        """
        text = self._texts.get(id(event))
        if text is None or type(event).as_dict is not Event.as_dict:
            return None
        self._used.append(text)
        return f"{_SECRET}{len(self._used)}"

    def put_into(self, text: str) -> str:
        """Return a JSON text with the events' texts in place of what stands for them.

        Args:
            text: The text.
        """
        for number, event in enumerate(self._used, 1):
            text = text.replace(f'"{_SECRET}{number}"', event, 1)
        return text


_SECRET = f"{token_hex(16)}-"
"""It is never told to anybody, so that no value of a user can hold it."""
