"""The `EventBroker` Protocol: where `save` publishes before it persists.

A broker of your own is ten lines: subclass :class:`EventBroker` and write `publish`.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.options import OnPublishError


@dataclass(frozen=True, slots=True)
class EventMessage:
    """One event on its way to a broker.

    Attributes:
        message_id: Id of the event. A repeat carries the same id: consumers drop it.
        sender_id: The conversation.
        position: Where the event will be stored, unless another writer is faster.
        body: Rasa's message: `sender_id`, the event's fields, and `user_id` where the
            conversation has one. Do not change it.
    """

    message_id: str
    sender_id: str
    position: int
    body: dict[str, Any] = field(repr=False)  # it may hold the text of a message

    @property
    def type_name(self) -> str:
        """Type of the event, such as `user` or `slot`."""
        return str(self.body.get("event"))

    def encoded(self) -> bytes:
        """Return the body as JSON in ASCII."""
        return json.dumps(self.body).encode("ascii")


class EventBroker(Protocol):
    """Publishes events; returning from `publish` means the broker has the event.

    Attributes:
        on_publish_error: What a save does when this broker fails, `raise` or
            `best_effort`; None leaves it to the store.
        timeout_seconds: Longest time that a publish takes, waiting for `open` included:
            then the store cancels it, and it has failed.
        manages_connection: Whether `publish_many` connects where needed, and ends
            within `timeout_seconds`, by itself. Then the store leaves both to it.
    """

    on_publish_error: OnPublishError | None = None
    timeout_seconds: float = 10.0
    manages_connection: bool = False

    @abstractmethod
    async def publish(self, message: EventMessage) -> None:
        """Hand one event over and wait until the broker has confirmed it.

        It is cancelled after `timeout_seconds`, and must end then: whatever the broker
        has by then may arrive, and is published again.

        Raises:
            BrokerRefusedError: The broker will not take this event. Under `best_effort`
                only its own conversation waits for it.
            Exception: Whatever else went wrong; `save` wraps it in `PublishError`.
        """

    async def publish_many(self, messages: Sequence[EventMessage]) -> None:
        """Hand over the events of one save, in order.

        The default publishes one after the other. Override it where the protocol can
        confirm a batch in one round trip.
        """
        for message in messages:
            await self.publish(message)

    async def open(self) -> None:
        """Connect. The default does nothing.

        The store calls it in the background and publishes nothing before it returns.
        Where it raises, the next publish calls it again.

        Raises:
            BrokerAccessError: Credentials or rights are refused. Opening the store
                raises that too, unless its `on_publish_error` is `best_effort`.
        """
        return

    async def close(self) -> None:
        """Release what `open` took. The default does nothing."""
        return

    def is_ready(self) -> bool:
        """Whether `publish` may be called; True unless a broker knows better."""
        return True
