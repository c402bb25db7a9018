"""Publishing of unsaved events, in order, before they are persisted."""

from __future__ import annotations

import asyncio
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from tracker_store_async import errors
from tracker_store_async.best_effort import BestEffort
from tracker_store_async.broker import EventMessage
from tracker_store_async.broker_handle import (
    ACCESS_ERRORS,
    BrokerHandle,
    is_outage,
    reason_of,
)
from tracker_store_async.encoded_message import encoded_message
from tracker_store_async.redaction import get_logger
from tracker_store_async.rows import OutboxEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.backlog import Backlog
    from tracker_store_async.broker import EventBroker
    from tracker_store_async.cursor import PendingEvent
    from tracker_store_async.options import OnPublishError
    from tracker_store_async.rows import NewRow
    from tracker_store_async.tracker import DialogueStateTracker

logger = get_logger(__name__)

CLOSE_SECONDS = 15.0
"""Longest time that closing a broker may take: ours are faster whatever happens."""


class Publisher:
    """Publishes each unsaved event of a tracker once, in order, and awaits it.

    A publish ends within the broker's `timeout_seconds`. Opening the broker is part of
    the first one, so that a store opens, and reads, without it. Under `best_effort`
    what the broker does not take is kept and sent later: see `best_effort.py`.

    Args:
        broker: The broker.
        policy: What a failure means; the broker's own wish comes first.

    Attributes:
        broker: The broker.
        handle: Opens it and publishes to it.
        policy: What a failure means.

    Raises:
        ConfigurationError: It is not an event broker.
    """

    def __init__(self, broker: EventBroker, policy: OnPublishError) -> None:
        self.handle = BrokerHandle(broker)
        self.broker = broker
        self.policy: OnPublishError = broker.on_publish_error or policy
        self._kept = BestEffort(self.handle)

    @property
    def backlog(self) -> Backlog:
        """Under `best_effort`, what the broker has not taken yet."""
        return self._kept.backlog

    @property
    def dropped(self) -> int:
        """Number of events that were given up: by the full backlog, or by the broker.

        RabbitMQ's can be told to drop what it cannot send.
        """
        by_broker = getattr(self.broker, "dropped", 0)
        return self._kept.dropped + (by_broker if type(by_broker) is int else 0)

    @property
    def held_count(self) -> int:
        """Number of conversations that wait since an event of theirs is refused."""
        return self._kept.held_count

    def metrics(self) -> dict[str, Any]:
        """Return what health reports: the policy, what waits, what is lost, and why."""
        return {
            "policy": self.policy,
            "backlog_events": len(self.backlog),
            "dropped_events": self.dropped,
            "held_conversations": self.held_count,
            "broker_is_away": self._kept.is_away or self.handle.problem is not None,
            "error": self.handle.problem,
        }

    # -- opening and closing -----------------------------------------------------------

    def start(self, *, opens_broker: bool) -> None:
        """Let it be used, again, and begin to send what was left.

        Args:
            opens_broker: Whether to begin to open the broker, in the background.
        """
        self.handle.start(opens=opens_broker)
        self._kept.start()

    async def opened(self) -> None:
        """Find out early whether the broker lets us in, where saves would need it.

        Under `best_effort` nobody waits. A broker that is away is told in the log, and
        may be back by the time of the first save.

        Raises:
            Exception: It refused the credentials, or anything else that it raises
                without being away.
        """
        if self.policy == "best_effort":
            return
        try:
            async with asyncio.timeout(self.handle.timeout_seconds):
                await self.handle.opened()
        except Exception as error:
            if not is_outage(error) or isinstance(error, ACCESS_ERRORS):
                raise
            logger.warning(
                "The store is open without its event broker %s (%s): saves raise "
                "PublishError until that is back.",
                self.handle.name,
                reason_of(error),
            )

    async def close(self, *, closes_broker: bool) -> None:
        """Send what is left of the backlog, in a bounded time, and end every task.

        Args:
            closes_broker: Whether to close the broker too.
        """
        try:
            await self._kept.drain()
        finally:
            try:
                await self.handle.stop()
            finally:
                if closes_broker:
                    await self._close_broker()

    async def _close_broker(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS) as scope:
                await self.broker.close()
        except TimeoutError:
            if not scope.expired():
                raise
            logger.warning(
                "The event broker %s did not close within %g s.",
                self.handle.name,
                CLOSE_SECONDS,
            )

    def hand_over(self, successor: Publisher | None) -> None:
        """Leave the backlog to the publisher that takes this one's place.

        It sends the backlog before anything newer. What the old broker is being sent at
        this moment may arrive at both.

        Args:
            successor: The publisher of the new broker, or None if there is to be none.

        Raises:
            ConfigurationError: Events wait and nobody would keep them.
        """
        waiting = len(self.backlog)
        keeps = successor is not None and successor.policy == "best_effort"
        if waiting and not keeps:
            raise errors.ConfigurationError(
                f"{waiting} events wait for the event broker {self.handle.name} and "
                "would be lost: close the store, which sends them, or set a broker "
                "whose on_publish_error is 'best_effort'"
            )
        if waiting and successor is not None:
            logger.warning(
                "%d events that wait for the event broker %s go to its successor %s.",
                waiting,
                self.handle.name,
                successor.handle.name,
            )
        if successor is not None:
            successor._kept.dropped = self.dropped
        self._kept.hand_over(successor._kept if successor and keeps else None)

    # -- publishing --------------------------------------------------------------------

    async def publish(
        self,
        sender_id: str,
        version: int,
        pending: Sequence[PendingEvent],
        user_id: str | None = None,
        rows: Sequence[NewRow] = (),
    ) -> None:
        """Publish the events that this publisher has not published yet.

        Args:
            sender_id: The conversation.
            version: Position where the first pending event is going to be stored.
            pending: The unsaved events, oldest first, each with its id.
            user_id: The user whom the conversation belongs to, or None.
            rows: The first of the events as they are stored: encoded already.

        Raises:
            PublishError: The broker failed and the policy is `raise`.
        """
        found = self.unpublished(sender_id, version, pending, user_id, rows)
        if not found:
            return
        messages = [message for message, _ in found]
        try:
            if self.policy == "raise":
                await self.handle.send(messages)
            else:
                await self._kept.publish(sender_id, messages)
        except Exception as error:
            raise errors.PublishError(
                f"the event broker {self.handle.name} did not confirm the events of "
                f"conversation {sender_id!r} ({reason_of(error)}); nothing was stored: "
                "save the tracker again once the broker is back, or set "
                "on_publish_error='best_effort'"
            ) from error
        # Nothing is awaited in between: what is confirmed, or kept, is marked.
        for _, entry in found:
            entry.published_by = self

    def unpublished(
        self,
        sender_id: str,
        version: int,
        pending: Sequence[PendingEvent],
        user_id: str | None = None,
        rows: Sequence[NewRow] = (),
    ) -> list[tuple[EventMessage, PendingEvent]]:
        """Return what this publisher has not published; the arguments of `publish`."""
        return [
            (message_of(sender_id, version + offset, entry, user_id, row), entry)
            for offset, (entry, row) in enumerate(zip_longest(pending, rows))
            if entry.published_by is not self
        ]


def message_of(
    sender_id: str,
    position: int,
    entry: PendingEvent,
    user_id: str | None,
    row: NewRow | None = None,
) -> EventMessage:
    """Return the message of an event: Rasa's body, and whose conversation it is.

    Args:
        sender_id: The conversation.
        position: Where the event is going to be stored.
        entry: The event and its id.
        user_id: The user whom the conversation belongs to, or None.
        row: The event as it is stored, if it is encoded already.
    """
    if row is not None:
        encoded = encoded_message(sender_id, position, row, user_id)
        if encoded is not None:
            return encoded
    body = {"sender_id": sender_id, **entry.event.as_dict()}
    if user_id is not None:
        body.setdefault("user_id", user_id)
    return EventMessage(entry.identify(), sender_id, position, body)


def outbox_entries(
    tracker: DialogueStateTracker,
    publisher: Publisher | None,
    rows: Sequence[NewRow],
    *,
    with_bodies: bool,
) -> list[OutboxEntry]:
    """Return what an outbox is to keep of a tracker's first unsaved events.

    Args:
        tracker: The tracker. What it got since the rows were encoded is not stored
            with them.
        publisher: What it has published already is left out.
        rows: The events as they are stored.
        with_bodies: Whether the messages are stored, or only where they stand.
    """
    messages = [
        message_of(tracker.sender_id, position, entry, tracker.user_id, row)
        for position, (entry, row) in enumerate(
            zip(tracker._log.pending, rows, strict=False), tracker._log.version or 0
        )
        if publisher is None or entry.published_by is not publisher
    ]
    return [
        OutboxEntry(
            each.message_id,
            each.position,
            each.encoded().decode("ascii") if with_bodies else "",
        )
        for each in messages
    ]
