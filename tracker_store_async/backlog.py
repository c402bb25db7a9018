"""The backlog of `best_effort`: what the broker has not taken yet, by conversation."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from tracker_store_async.broker import EventMessage


class Backlog:
    """Messages that wait, those of each conversation in order.

    They are sent conversation by conversation, the one that began to wait first comes
    first. What is dropped is the oldest of all.
    """

    def __init__(self) -> None:
        # By `id`, which is unique among objects that are alive, as these are.
        self._by_age: OrderedDict[int, EventMessage] = OrderedDict()
        self._lines: OrderedDict[str, OrderedDict[int, EventMessage]] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        """Return the number of messages."""
        return len(self._by_age)

    def __iter__(self) -> Iterator[EventMessage]:
        """Return the messages, oldest first."""
        return iter(self._by_age.values())

    def has_some_of(self, sender_id: str) -> bool:
        """Whether messages of a conversation wait."""
        return sender_id in self._lines

    def has(self, message: EventMessage) -> bool:
        """Whether this message waits still."""
        return id(message) in self._by_age

    def add(self, messages: Iterable[EventMessage], limit: int) -> list[EventMessage]:
        """Append messages, and return the oldest ones if they are dropped for it.

        Args:
            messages: The messages.
            limit: Most that wait.
        """
        for message in messages:
            self._by_age[id(message)] = message
            line = self._lines.setdefault(message.sender_id, OrderedDict())
            line[id(message)] = message
        excess = max(0, len(self._by_age) - limit)
        oldest = list(islice(self._by_age.values(), excess))
        self.discard(oldest)
        return oldest

    def discard(self, messages: Iterable[EventMessage]) -> None:
        """Remove messages; one that is not here any more is passed over."""
        for message in messages:
            if self._by_age.pop(id(message), None) is None:
                continue
            line = self._lines[message.sender_id]
            del line[id(message)]
            if not line:
                del self._lines[message.sender_id]
                self.let_go([message.sender_id])

    def next_batch(
        self, limit: int, leave_out: Collection[str] = ()
    ) -> list[EventMessage]:
        """Return what is to be sent next.

        Args:
            limit: Most messages.
            leave_out: Conversations that are passed over.
        """
        passed_over = set(leave_out)
        batch: list[EventMessage] = []
        for sender_id, line in self._lines.items():
            if sender_id not in passed_over:
                batch += islice(line.values(), limit - len(batch))
            if len(batch) == limit:
                break
        return batch

    async def until_sent(self, sender_id: str, seconds: float) -> None:
        """Wait until nothing of a conversation waits, or it is let go, or for so long.

        Args:
            sender_id: The conversation.
            seconds: Longest time.
        """
        if sender_id not in self._lines:
            return
        waiting = self._waiting.get(sender_id)
        if waiting is None:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting[sender_id] = waiting
        await asyncio.wait({waiting}, timeout=seconds)

    def let_go(self, sender_ids: Iterable[str] | None = None) -> None:
        """End the waiting of those who wait for some conversations; None means all."""
        for sender_id in list(self._waiting) if sender_ids is None else sender_ids:
            waiting = self._waiting.pop(sender_id, None)
            if waiting is not None and not waiting.get_loop().is_closed():
                waiting.set_result(None)


class BatchSize:
    """How many events are sent together: half after a failure, twice after a success.

    Args:
        most: Most of them.

    Attributes:
        size: The number.
    """

    def __init__(self, most: int) -> None:
        self.size = self._most = self._largest = most

    def note_failure(self, count: int, *, is_slow: bool) -> None:
        """Note that so many could not be sent; a slow broker is given less for longer.

        Args:
            count: How many.
            is_slow: Whether the broker needs too long for as many.
        """
        self.size = max(1, count // 2)
        if is_slow:
            self._largest = self.size

    def note_success(self, count: int) -> None:
        """Note that so many were sent.

        Args:
            count: How many.
        """
        if count == self._largest:  # perhaps it is slow no more
            self._largest = min(self._most, self._largest + 1)
        self.size = min(2 * self.size, self._largest)


async def set_within(event: asyncio.Event, seconds: float) -> None:
    """Wait for something, but only for so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
