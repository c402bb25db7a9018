"""The message of an event whose JSON text is there: it is not encoded once more.

A save encodes each event to store it. The body of its message is the same JSON object
with `sender_id` in front, so it is made of that text.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tracker_store_async.broker import EventMessage

if TYPE_CHECKING:
    from tracker_store_async.rows import NewRow

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


class EncodedMessage(EventMessage):
    """A message that is text already; `body` is parsed when somebody asks for it.

    Args:
        message_id: Id of the event.
        sender_id: The conversation.
        position: Where the event will be stored.
        text: The body as JSON text.
        type_name: Type of the event.
    """

    __slots__ = ("_parsed", "_text", "_type_name")

    _parsed: dict[str, Any] | None
    _text: str
    _type_name: str

    def __init__(
        self, message_id: str, sender_id: str, position: int, text: str, type_name: str
    ) -> None:
        keep = object.__setattr__  # the class is frozen
        keep(self, "message_id", message_id)
        keep(self, "sender_id", sender_id)
        keep(self, "position", position)
        keep(self, "_text", text)
        keep(self, "_type_name", type_name)
        keep(self, "_parsed", None)

    @property
    def body(self) -> dict[str, Any]:
        """Rasa's message. Do not change it."""
        if self._parsed is None:
            object.__setattr__(self, "_parsed", json.loads(self._text))
        return self._parsed or {}

    @property
    def type_name(self) -> str:
        """Type of the event, such as `user` or `slot`."""
        return self._type_name

    def encoded(self) -> bytes:
        """Return the body as JSON in ASCII."""
        text = self._text
        if not text.isascii():
            # They only stand in strings.
            text = _BEYOND_ASCII.sub(_escaped, text)
        return text.encode("ascii")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy as a message with a body."""
        return EventMessage, (
            *(self.message_id, self.sender_id, self.position),
            self.body,
        )


def encoded_message(
    sender_id: str, position: int, row: NewRow, user_id: str | None
) -> EncodedMessage | None:
    """Return the message of an event as it is stored, or None if it has to be encoded.

    That is so where the event has one of the two keys itself, and so decides itself.

    Args:
        sender_id: The conversation.
        position: Where the event is going to be stored.
        row: The event.
        user_id: The user whom the conversation belongs to, or None.
    """
    data = row.data
    if '"sender_id"' in data or not data.startswith('{"'):
        return None
    text = f'{{"sender_id":{json.dumps(sender_id)},{data[1:]}'
    if user_id is not None:
        if '"user_id"' in data:
            return None
        text = f'{text[:-1]},"user_id":{json.dumps(user_id)}}}'
    return EncodedMessage(row.event_id, sender_id, position, text, row.type_name)


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]
