"""Work on the conversations of a store, some at a time, and remember how far it is.

One task lists, several work. What is remembered is the cursor of the last conversation
before which all are done: whoever goes on from there leaves none out.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from tracker_store_async.rows import ConversationSummary

WORKERS = 4
"""Batches under way at once, at most."""

BATCH_EVENTS = 4000
"""Events from which a batch takes no more conversations."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Conversations that are worked on together.

    Attributes:
        number: Its place in the order of the listing.
        summaries: The conversations.
    """

    number: int
    summaries: Sequence[ConversationSummary]

    @property
    def cursor(self) -> str:
        """The cursor behind it."""
        return self.summaries[-1].cursor


class Frontier:
    """Knows up to which cursor everything is done, in whatever order it is done."""

    def __init__(self) -> None:
        self._next = 0
        self._done: dict[int, str] = {}
        self._held: int | None = None
        self.cursor: str | None = None

    def hold(self, batch: Batch) -> None:
        """Note that something of a batch is not done: the cursor never passes it."""
        if self._held is None or batch.number < self._held:
            self._held = batch.number

    def finish(self, batch: Batch) -> bool:
        """Note that a batch is done; return whether the cursor has moved."""
        if self._held is not None and batch.number >= self._held:
            return False
        self._done[batch.number] = batch.cursor
        before = self._next
        while self._next in self._done:
            self.cursor = self._done.pop(self._next)
            self._next += 1
        return self._next != before


async def batches_of(
    summaries: AsyncIterator[ConversationSummary], most: int
) -> AsyncIterator[Batch]:
    """Group conversations by number and by their events.

    Args:
        summaries: The listing.
        most: Most conversations of a batch.
    """
    number = 0
    batch: list[ConversationSummary] = []
    events = 0
    async for summary in summaries:
        batch.append(summary)
        events += summary.version
        if len(batch) >= most or events >= BATCH_EVENTS:
            yield Batch(number, batch)
            number, batch, events = number + 1, [], 0
    if batch:
        yield Batch(number, batch)


async def work_on(
    batches: AsyncIterator[Batch],
    work: Callable[[Batch], Awaitable[None]],
    workers: int = WORKERS,
) -> None:
    """Work on all batches, several at once; the first error ends it.

    What is under way when it ends is cancelled, and waited for.

    Args:
        batches: Where they come from.
        work: What to do with one.
        workers: How many at once.
    """
    queue: asyncio.Queue[Batch | None] = asyncio.Queue(workers)

    async def produce() -> None:
        async for batch in batches:
            await queue.put(batch)
        for _ in range(workers):
            await queue.put(None)

    async def consume() -> None:
        while (batch := await queue.get()) is not None:
            await work(batch)

    tasks = [asyncio.create_task(produce())]
    tasks += [asyncio.create_task(consume()) for _ in range(workers)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
