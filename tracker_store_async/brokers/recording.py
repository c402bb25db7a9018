"""An event broker that keeps what it is given, for tests and for trying things out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker_store_async.broker import EventBroker

if TYPE_CHECKING:
    from tracker_store_async.broker import EventMessage


class RecordingBroker(EventBroker):
    """Keeps every message in memory, in the order in which it was published.

    Attributes:
        messages: What was published so far. It grows until it is cleared.
    """

    def __init__(self) -> None:
        self.messages: list[EventMessage] = []

    async def publish(self, message: EventMessage) -> None:
        """Keep the message."""
        self.messages.append(message)
