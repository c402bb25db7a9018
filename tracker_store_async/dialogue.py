"""`Dialogue`: the name and the events of a conversation, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker_store_async.events import event_from_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracker_store_async.events import Event


class Dialogue:
    """What a whole tracker is serialised to (Rasa's `rasa.shared.core.conversation`).

    Args:
        name: The sender id.
        events: The events, oldest first.
    """

    def __init__(self, name: str, events: list[Event]) -> None:
        self.name = name
        self.events = events

    def as_dict(self) -> dict[str, Any]:
        """Return the dialogue as Rasa's tracker stores write it."""
        return {"events": [event.as_dict() for event in self.events], "name": self.name}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Dialogue:
        """Create a dialogue from what `as_dict` gave, with every event of it.

        Rasa leaves out objects without a type.

        Args:
            parameters: A mapping with `name` and `events`.
        """
        events = [event_from_dict(fields) for fields in parameters.get("events", [])]
        return cls(parameters.get("name", ""), events)

    def __repr__(self) -> str:
        """Show the size; the events may be private."""
        return f"<Dialogue of {len(self.events)} events>"
