"""The outbox: events stored with the conversation, published in order afterwards.

For those who would rather have an event published late than one that was published and
never stored. The messages of a save are written in the transaction of its append; a
relay publishes them, waits until the broker has confirmed them, and removes them. After
a crash they are published again: at least once, as ever.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from abc import abstractmethod
from typing import TYPE_CHECKING, Protocol

from tracker_store_async.broker import EventMessage
from tracker_store_async.settling import settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.broker import EventBroker
    from tracker_store_async.rows import OutboxEntry

logger = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
"""How long one relay has the outbox to itself; each batch begins it anew."""

PUBLISH_SECONDS = LEASE_SECONDS / 2
"""Longest time that one batch may take: another relay must not begin meanwhile."""

BATCH = 200
POLL_SECONDS = 1.0
"""Pause after which a relay looks for what other processes have left."""

LONGEST_PAUSE_SECONDS = 10.0
DRAIN_SECONDS = 5.0
"""Longest time that closing a store spends on its outbox; the rest stays stored."""


class Outbox(Protocol):
    """What a backend that has an outbox provides."""

    @abstractmethod
    async def lease(self, owner: str, seconds: float) -> bool:
        """Return whether the outbox belongs to this relay alone for so long."""

    @abstractmethod
    async def release(self, owner: str) -> None:
        """Let another relay have it at once."""

    @abstractmethod
    async def read(self, limit: int) -> Sequence[tuple[int, str, OutboxEntry]]:
        """Return the oldest entries: key, sender id and entry."""

    @abstractmethod
    async def remove(self, keys: Sequence[int]) -> None:
        """Remove entries that are published."""


class Relay:
    """Publishes what stands in the outbox; one relay at a time, over all processes.

    It opens the broker when there is something to publish, so that a store can be
    opened while the broker is down. An event that the broker refuses for good stops the
    relay, which says so in the log: to leave it out would be to lose it.

    Args:
        outbox: Where the messages are.
        broker: Gets them.
    """

    def __init__(self, outbox: Outbox, broker: EventBroker) -> None:
        self._outbox = outbox
        self._broker = broker
        self._owner = uuid.uuid4().hex
        self._is_open = False
        self._is_wanted = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Say that there is something to publish."""
        self._is_wanted.set()

    async def stop(self) -> None:
        """Publish what is there, in a bounded time, and let another relay go on."""
        self._task.cancel()
        await asyncio.wait({self._task})
        for step in (self._publish_all(), self._outbox.release(self._owner)):
            try:
                async with asyncio.timeout(DRAIN_SECONDS):
                    await step
            except Exception as error:  # noqa: BLE001  what is left is stored
                logger.warning(
                    "The outbox may still hold events, which the next relay will "
                    "publish (%s).",
                    type(error).__name__,
                )

    async def _run(self) -> None:
        pause = 0.0
        while True:
            self._is_wanted.clear()
            try:
                await self._publish_all()
                pause = 0.0
            except Exception as error:  # noqa: BLE001  it goes on whatever happens
                pause = min(max(0.1, 2 * pause), LONGEST_PAUSE_SECONDS)
                logger.warning(
                    "The outbox could not be published (%s): it is tried again in "
                    "%g s. Its events are stored.",
                    type(error).__name__,
                    pause,
                )
                await asyncio.sleep(pause)
                continue
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._is_wanted.wait()
            except TimeoutError:
                pass  # another process may have left something

    async def _publish_all(self) -> None:
        while await self._outbox.lease(self._owner, LEASE_SECONDS):
            found = await self._outbox.read(BATCH)
            if not found:
                return
            messages = [
                EventMessage(
                    entry.message_id, sender_id, entry.position, json.loads(entry.body)
                )
                for _, sender_id, entry in found
            ]
            async with asyncio.timeout(PUBLISH_SECONDS):
                if not self._is_open:
                    await self._broker.open()
                    self._is_open = True
                await self._broker.publish_many(messages)
            await settled(self._outbox.remove([key for key, _, _ in found]))
