"""Publishing of unsaved events, in order, before they are persisted."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from tracker_store_async import errors
from tracker_store_async.broker import EventMessage
from tracker_store_async.locks import LoopLock
from tracker_store_async.redaction import fields, get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.broker import EventBroker
    from tracker_store_async.cursor import PendingEvent
    from tracker_store_async.options import OnPublishError

logger = get_logger(__name__)

BACKLOG_LIMIT = 10_000
"""Most events that `best_effort` keeps; beyond it the oldest are dropped, counted."""


class Publisher:
    """Publishes each unsaved event of a tracker once, in order, and awaits it.

    Attributes:
        backlog: Under `best_effort`, what the broker has not taken yet, oldest first.
        dropped: Number of events that the full backlog had to drop.
    """

    def __init__(self, broker: EventBroker, policy: OnPublishError) -> None:
        self.broker = broker
        self.policy = policy
        self.backlog: deque[EventMessage] = deque()
        self.dropped = 0
        self._is_failing = False
        self._backlog_turn = LoopLock()

    async def publish(
        self, sender_id: str, version: int, pending: Sequence[PendingEvent]
    ) -> None:
        """Publish the events that this publisher has not published yet.

        Args:
            sender_id: The conversation.
            version: Position where the first pending event is going to be stored.
            pending: The unsaved events, oldest first, each with its id.

        Raises:
            PublishError: The broker failed and the policy is `raise`.
        """
        messages, entries = [], []
        for offset, entry in enumerate(pending):
            if entry.published_by is self:
                continue
            body = {"sender_id": sender_id, **entry.event.as_dict()}
            messages.append(
                EventMessage(entry.identify(), sender_id, version + offset, body)
            )
            entries.append(entry)
        if not messages:
            return
        if self.policy == "raise":
            await self._publish_or_raise(sender_id, messages)
        else:
            await self._publish_or_keep(messages)
        for entry in entries:
            entry.published_by = self

    async def _publish_or_raise(
        self, sender_id: str, messages: list[EventMessage]
    ) -> None:
        try:
            await self.broker.publish_many(messages)
        except Exception as error:
            raise errors.PublishError(
                f"the event broker {type(self.broker).__name__} did not confirm the "
                f"events of conversation {sender_id!r} ({type(error).__name__}); "
                "nothing was stored: save the tracker again once the broker is back, "
                "or set on_publish_error='best_effort'"
            ) from error

    async def _publish_or_keep(self, messages: list[EventMessage]) -> None:
        if self.backlog or self._backlog_turn.locked():
            # Newer events wait for the older ones, whoever is sending those.
            async with self._backlog_turn:
                if not await self.flush_backlog():
                    self._keep(messages)
                    return
                await self._send_or_keep(messages)
        else:
            await self._send_or_keep(messages)

    async def _send_or_keep(self, messages: list[EventMessage]) -> None:
        try:
            await self.broker.publish_many(messages)
            self._note_success()
        except asyncio.CancelledError:
            # The save is given up, so nobody would send these again in order.
            raise
        except Exception as error:  # noqa: BLE001  any failure of a foreign broker
            self._keep(messages)
            self._note_failure(error)

    def _note_failure(self, error: Exception) -> None:
        """Tell the log once, not for every save while it lasts."""
        if self._is_failing:
            return
        self._is_failing = True
        logger.warning(
            "The event broker %s failed (%s): events wait in the backlog until it is "
            "back; there are %d so far.",
            type(self.broker).__name__,
            type(error).__name__,
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

    async def flush_backlog(self) -> bool:
        """Send the backlog, oldest first; return whether nothing of it is left."""
        while self.backlog:
            batch = [self.backlog[i] for i in range(min(len(self.backlog), 100))]
            try:
                await self.broker.publish_many(batch)
            except Exception:  # noqa: BLE001  any failure of a foreign broker
                return False
            for message in batch:
                if self.backlog and self.backlog[0] is message:
                    self.backlog.popleft()
        self._note_success()
        return True

    async def drain(self) -> None:
        """Send what is left of the backlog, and say in the log what could not be."""
        async with self._backlog_turn:
            if not await self.flush_backlog():
                logger.error(
                    "%d events that are stored were never published: the event broker "
                    "%s did not come back before the store was closed.",
                    len(self.backlog),
                    type(self.broker).__name__,
                    extra=fields("backlog_lost", backlog_events=len(self.backlog)),
                )

    def _keep(self, messages: list[EventMessage]) -> None:
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
