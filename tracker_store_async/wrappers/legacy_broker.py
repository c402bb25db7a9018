"""An event broker of Rasa's kind, `publish(dict)`, as an `EventBroker`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker_store_async.broker import EventBroker
from tracker_store_async.wrappers.legacy_calls import ConversationTurns

if TYPE_CHECKING:
    from tracker_store_async.broker import EventMessage
    from tracker_store_async.wrappers.legacy_calls import LegacyCalls


class LegacyBroker(EventBroker):
    """Publishes to a foreign broker, one event at a time, off the loop if it is sync.

    The broker gets the body alone, as from Rasa: not the message id, so its consumers
    cannot tell a repeat.

    Args:
        broker: Has `publish(event)`, sync or async, and maybe `close()` and
            `is_ready()`.
        calls: Runs what is sync.
    """

    def __init__(self, broker: Any, calls: LegacyCalls) -> None:
        self.wrapped = broker
        self._calls = calls
        self._turns = ConversationTurns()

    async def publish(self, message: EventMessage) -> None:
        """Hand one event over and wait until `publish` has returned.

        One that is given up may go on in its thread: the next one waits for it.
        """
        # All in turn: foreign brokers are seldom safe in threads.
        async with self._turns.turn("") as turn:
            body = dict(message.body)
            await self._calls.call(self.wrapped.publish, body, turn=turn)

    async def close(self) -> None:
        """Close the foreign broker if it can be closed."""
        close = getattr(self.wrapped, "close", None)
        if callable(close):
            await self._calls.call(close)

    def is_ready(self) -> bool:
        """Whether the foreign broker says so; True if it says nothing."""
        is_ready = getattr(self.wrapped, "is_ready", None)
        return bool(is_ready()) if callable(is_ready) else True
