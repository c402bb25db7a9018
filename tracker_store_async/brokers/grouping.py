"""Writes what several conversations publish at once with one write, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from tracker_store_async import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

ItemT = TypeVar("ItemT")

GROUP_LIMIT = 500
"""Items after which no further batch joins a group."""

CLOSE_SECONDS = 5.0
"""Longest time that closing waits for what is under way."""


class GroupWriter(Generic[ItemT]):
    """One writer for everybody: a batch waits for the write before it, with others.

    What is being written is never cancelled, whatever happens to those who wait for it,
    so nothing is cut in the middle, and a retry comes behind what it repeats.

    Args:
        write: Writes items, in order, and returns once they are safe.
        is_apart: Whether a batch is to share its write with no other one for now.
    """

    def __init__(
        self,
        write: Callable[[list[ItemT]], Awaitable[None]],
        is_apart: Callable[[], bool] = lambda: False,
    ) -> None:
        self._write = write
        self._is_apart = is_apart
        self._queue: deque[tuple[Sequence[ItemT], asyncio.Future[None]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def put(self, items: Sequence[ItemT]) -> None:
        """Have a batch written, and wait until it is.

        Raises:
            Exception: What the write raised.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # whoever waited there is gone
            self._loop, self._task = loop, None
            self._queue.clear()
        written = loop.create_future()
        self._queue.append((items, written))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        await written

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Wait for what is under way, for a time; then whoever waits for it fails."""
        task = self._task
        if task is not None and self._loop is asyncio.get_running_loop():
            await asyncio.wait({task}, timeout=seconds)
            if task.cancel():
                await asyncio.wait({task}, timeout=1.0)

    async def _run(self) -> None:
        group: list[tuple[Sequence[ItemT], asyncio.Future[None]]] = []
        try:
            while self._queue:
                group = self._next_group()
                await self._write_group(group)
        except asyncio.CancelledError:
            lost = ConnectionError("closed while it was written to")
            for _, written in (*group, *self._queue):
                _settle(written, lost)
            self._queue.clear()
            raise

    def _next_group(self) -> list[tuple[Sequence[ItemT], asyncio.Future[None]]]:
        group, count = [], 0
        limit = 1 if self._is_apart() else GROUP_LIMIT
        while self._queue and count < limit:
            items, written = self._queue.popleft()
            if not written.done():  # else its publish was given up
                group.append((items, written))
                count += len(items)
        return group

    async def _write_group(
        self, group: list[tuple[Sequence[ItemT], asyncio.Future[None]]]
    ) -> None:
        if not group:
            return
        try:
            await self._write([item for items, _ in group for item in items])
        except errors.BrokerRefusedError as error:
            if len(group) == 1:
                _settle(group[0][1], error)
                return
            for single in group:  # the others are not to blame
                await self._write_group([single])
        except Exception as error:  # noqa: BLE001  they wait for it, whatever it is
            for _, written in group:
                _settle(written, error)
        else:
            for _, written in group:
                _settle(written, None)


def _settle(written: asyncio.Future[None], error: Exception | None) -> None:
    if written.done():
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)
        written.exception()  # nobody may be left to wait for it
