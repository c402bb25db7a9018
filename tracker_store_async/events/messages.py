"""What the bot and human agents said."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, ClassVar

from tracker_store_async.events.base import Event, MisfitError, check_kind
from tracker_store_async.events.json_values import frozen

if TYPE_CHECKING:
    from tracker_store_async.events.tracker_state import TrackerState


class BotUttered(Event):
    """The bot has said something.

    Attributes:
        text: What was said.
        data: What goes with it: buttons, images, ...
    """

    type_name: ClassVar[str] = "bot"
    _written: ClassVar[tuple[tuple[str, str], ...]] = (
        ("text", "text"),
        ("data", "data"),
        ("metadata", "metadata"),
    )

    text: str | None
    data: dict[str, Any]

    def __init__(
        self,
        text: str | None = None,
        data: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        timestamp: float | None = None,
    ) -> None:
        check_kind(data, dict, "data")
        self._fill(timestamp, metadata, text=text, data=data or {})

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        data = row.pop("data", None)
        if type(data) is not dict:
            if data:
                raise MisfitError("the data is not an object")
            data = {}  # Rasa's rule for every empty or false value
        return {
            "text": row.pop("text", None),
            "data": data,
        }

    @staticmethod
    def empty() -> BotUttered:
        """Return a response that says nothing."""
        said = object.__new__(BotUttered)  # as every tracker begins with it
        fields: dict[str, Any] = {
            "text": None,
            "data": {},
            "timestamp": time.time(),
            "metadata": {},
        }
        said._assemble(fields, {})
        return said

    def message(self) -> dict[str, Any]:
        """Return text, data, time and metadata as one dict, as a channel sends it."""
        message = {**self.data, "text": self.text, "timestamp": self.timestamp}
        message.update(self.metadata)
        if message.get("image") == message.get("attachment"):
            # Old versions of Rasa stored the image under both names.
            message["attachment"] = None
        return message

    def apply_to(self, tracker: TrackerState) -> None:
        """Make this the latest response."""
        tracker.latest_bot_utterance = self

    def _compared(self) -> Any:
        return self.text, _without_nones(self.data), _without_nones(self.metadata)

    def __hash__(self) -> int:
        return hash(
            (frozen(self.text), *map(_without_nones, (self.data, self.metadata)))
        )

    def __str__(self) -> str:
        return (
            f"BotUttered(text: {self.text}, data: {json.dumps(self.data, default=repr)}"
            f", metadata: {json.dumps(self.metadata, default=repr)})"
        )


def _without_nones(fields: dict[str, Any]) -> str:
    return frozen({name: value for name, value in fields.items() if value is not None})


class AgentUttered(Event):
    """A human agent has said something.

    Attributes:
        text: What was said.
        data: What goes with it.
    """

    type_name: ClassVar[str] = "agent"
    _written: ClassVar[tuple[tuple[str, str], ...]] = (
        ("text", "text"),
        ("data", "data"),
    )

    text: str | None
    data: Any = None

    def __init__(
        self,
        text: str | None = None,
        data: Any = None,
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._fill(timestamp, metadata, text=text, data=data)

    @staticmethod
    def _read(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "text": row.pop("text", None),
            "data": row.pop("data", None),
        }

    def _compared(self) -> Any:
        return self.text, frozen(self.data)

    def __hash__(self) -> int:
        return hash((frozen(self.text), frozen(self.data)))

    def __str__(self) -> str:
        data = json.dumps(self.data, default=repr)
        return f"AgentUttered(text: {self.text}, data: {data})"
