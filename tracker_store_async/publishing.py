"""Publishing of unsaved events, in order, before they are persisted."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any

from tracker_store_async import errors
from tracker_store_async.broker import EventMessage
from tracker_store_async.encoded_message import encoded_message
from tracker_store_async.locks import LoopLock
from tracker_store_async.redaction import fields, get_logger
from tracker_store_async.rows import OutboxEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.broker import EventBroker
    from tracker_store_async.cursor import PendingEvent
    from tracker_store_async.options import OnPublishError
    from tracker_store_async.rows import NewRow
    from tracker_store_async.tracker import DialogueStateTracker

logger = get_logger(__name__)

BACKLOG_LIMIT = 10_000
"""Most events that `best_effort` keeps; beyond it the oldest are dropped, counted."""

FLUSH_BATCH = 100
"""Events of a backlog that are sent together."""


FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0
"""Pauses between two attempts to send a backlog while nobody saves."""

DRAIN_SECONDS = 10.0
"""Longest time that closing a store spends on its backlog."""


class Publisher:
    """Publishes each unsaved event of a tracker once, in order, and awaits it.

    Under `best_effort` what the broker does not take is kept, oldest first, and sent
    before anything newer: with the next save, or a while later if there is none. A
    save spends no longer on a broker that is down than the latest failure took, ago:
    then its events join the backlog at once. The backlog holds `BACKLOG_LIMIT` events
    in memory; beyond it the oldest are dropped and counted.

    Attributes:
        policy: What a failure means; the broker's own wish comes first.
        backlog: Under `best_effort`, what the broker has not taken yet, oldest first.
        dropped: Number of events that the full backlog had to drop.
    """

    def __init__(self, broker: EventBroker, policy: OnPublishError) -> None:
        self.broker = broker
        self.policy: OnPublishError = broker.on_publish_error or policy
        self.backlog: deque[EventMessage] = deque()
        self.dropped = 0
        self._is_failing = False
        self._backlog_turn = LoopLock()
        self._leave_alone_until = 0.0
        self._retrying: asyncio.Task[None] | None = None
        self._successor: Publisher | None = None

    def metrics(self) -> dict[str, Any]:
        """Return what health reports: the policy, what waits, and what is lost."""
        return {
            "policy": self.policy,
            "backlog_events": len(self.backlog),
            "dropped_events": self.dropped,
        }

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
        if waiting and (successor is None or successor.policy == "raise"):
            raise errors.ConfigurationError(
                f"{waiting} events wait for the event broker "
                f"{type(self.broker).__name__} and would be lost: close the store, "
                "which sends them, or set a broker whose on_publish_error is "
                "'best_effort'"
            )
        self._successor = successor
        if successor is None:
            return
        successor.dropped = self.dropped
        if waiting:
            logger.warning(
                "%d events that wait for the event broker %s go to its successor %s.",
                waiting,
                type(self.broker).__name__,
                type(successor.broker).__name__,
            )
            successor.backlog.extend(self.backlog)
            self.backlog.clear()
            successor._retry_later()

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
        if self.policy == "raise":
            await self._publish_or_raise(sender_id, messages)
        else:
            await self._publish_or_keep(messages)
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

    async def _publish_or_raise(
        self, sender_id: str, messages: list[EventMessage]
    ) -> None:
        try:
            await self.broker.publish_many(messages)
        except Exception as error:
            raise errors.PublishError(
                f"the event broker {type(self.broker).__name__} did not confirm the "
                f"events of conversation {sender_id!r} ({_reason(error)}); "
                "nothing was stored: save the tracker again once the broker is back, "
                "or set on_publish_error='best_effort'"
            ) from error

    async def _publish_or_keep(self, messages: list[EventMessage]) -> None:
        if self.backlog or self._backlog_turn.locked():
            # Newer events wait for the older ones, whoever is sending those.
            async with self._backlog_turn:
                if self._is_left_alone() or not await self.flush_backlog():
                    self._keep(messages)
                    return
                await self._send_or_keep(messages)
        else:
            await self._send_or_keep(messages)

    async def _send_or_keep(self, messages: list[EventMessage]) -> None:
        started = time.monotonic()
        try:
            await self.broker.publish_many(messages)
            self._note_success()
        except asyncio.CancelledError:
            # The save is given up, so nobody would send these again in order.
            raise
        except Exception as error:  # noqa: BLE001  any failure of a foreign broker
            self._keep(messages)
            self._note_failure(error, started)

    def _note_failure(self, error: Exception, started: float) -> None:
        """Leave the broker alone for as long as the failure took; tell the log once.

        Else every conversation would wait in turn for a broker that is down.
        """
        now = time.monotonic()
        self._leave_alone_until = now + (now - started)
        if self._is_failing:
            return
        self._is_failing = True
        logger.warning(
            "The event broker %s failed (%s): events wait in the backlog until it is "
            "back; there are %d so far.",
            type(self.broker).__name__,
            _reason(error),
            len(self.backlog),
            extra=fields("broker_failed", backlog_events=len(self.backlog)),
        )

    def _note_success(self) -> None:
        if self._is_failing and not self.backlog:
            self._is_failing = False
            logger.warning(
                "The event broker %s is back: nothing waits in the backlog any more.",
                type(self.broker).__name__,
                extra=fields("broker_back", dropped_events=self.dropped),
            )

    def _is_left_alone(self) -> bool:
        return bool(self.backlog) and time.monotonic() < self._leave_alone_until

    async def flush_backlog(self) -> bool:
        """Send the backlog, oldest first; return whether nothing of it is left."""
        while self.backlog:
            batch = list(islice(self.backlog, FLUSH_BATCH))
            started = time.monotonic()
            try:
                await self.broker.publish_many(batch)
            except Exception as error:  # noqa: BLE001  any failure of a foreign broker
                self._note_failure(error, started)
                return False
            for message in batch:
                if self.backlog and self.backlog[0] is message:
                    self.backlog.popleft()
        self._note_success()
        return True

    async def drain(self) -> None:
        """Send what is left of the backlog, and say in the log what could not be."""
        retrying, self._retrying = self._retrying, None
        if retrying is not None and retrying.get_loop() is asyncio.get_running_loop():
            retrying.cancel()
            await asyncio.wait({retrying})
        try:
            async with asyncio.timeout(DRAIN_SECONDS), self._backlog_turn:
                await self.flush_backlog()
        except TimeoutError:
            pass  # what is left is counted below
        if self.backlog:
            logger.error(
                "%d events that are stored were never published: the event broker "
                "%s did not come back before the store was closed.",
                len(self.backlog),
                type(self.broker).__name__,
                extra=fields("backlog_lost", backlog_events=len(self.backlog)),
            )

    def _keep(self, messages: list[EventMessage]) -> None:
        heir = self._successor
        if heir is not None and heir.policy == "best_effort":
            heir._keep(messages)  # replaced while this save was under way
            return
        self.backlog.extend(messages)
        excess = len(self.backlog) - BACKLOG_LIMIT
        if excess > 0:
            for _ in range(excess):
                self.backlog.popleft()
            self.dropped += excess
            logger.error(
                "The backlog of unpublished events is full: dropped the %d oldest "
                "(%d so far). They are stored, but no consumer will see them.",
                excess,
                self.dropped,
                extra=fields("backlog_full", dropped_events=self.dropped),
            )
        self._retry_later()

    def _retry_later(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # called from no loop: the next save sends it
            return
        task = self._retrying
        if task is None or task.done() or task.get_loop() is not loop:
            self._retrying = loop.create_task(self._retry())

    async def _retry(self) -> None:
        """Send the backlog once the broker is back, although nobody saves."""
        pause = FIRST_RETRY_SECONDS
        while self.backlog:
            await asyncio.sleep(pause)
            async with self._backlog_turn:
                if self.backlog and not self._is_left_alone():
                    await self.flush_backlog()
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)


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
    """Return what an outbox is to keep of a tracker's unsaved events.

    Args:
        tracker: The tracker.
        publisher: What it has published already is left out.
        rows: The first of the events as they are stored: encoded already.
        with_bodies: Whether the messages are stored, or only where they stand.
    """
    messages = [
        message_of(tracker.sender_id, position, entry, tracker.user_id, row)
        for position, (entry, row) in enumerate(
            zip_longest(tracker._log.pending, rows), tracker._log.version or 0
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


def _reason(error: Exception) -> str:
    """Say what went wrong; only our own errors are known to hold no secret."""
    ours = isinstance(error, errors.TrackerStoreError)
    return str(error) if ours else type(error).__name__
