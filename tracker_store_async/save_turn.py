"""One task at a time saves a tracker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracker_store_async.tracker import DialogueStateTracker


class SaveTurn:
    """Keeps other tasks from saving the same tracker object meanwhile.

    `async with` takes the turn. Where nearly nobody ever waits, half of that is saved
    by::

        if tracker._save_under_way is not None:
            await turn.wait()
        with turn:
            ...

    Args:
        tracker: The tracker.
        loop: The running loop, if it is known: to ask for it takes a system call.
    """

    __slots__ = ("_ended", "_loop", "_tracker")

    def __init__(
        self,
        tracker: DialogueStateTracker,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._tracker = tracker
        self._loop = loop or asyncio.get_running_loop()
        self._ended: asyncio.Future[None] | None = None  # made by who waits for it

    async def __aenter__(self) -> None:
        """Wait until no other task saves it."""
        await self.wait()
        self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        """Let the next one."""
        self.__exit__()

    async def wait(self) -> None:
        """Wait until no other task saves it."""
        while (other := self._tracker._save_under_way) is not None:
            if other._loop is not self._loop:
                break  # what was under way on a loop that is gone never ends
            if other._ended is None:
                other._ended = self._loop.create_future()
            await asyncio.wait([other._ended])

    def __enter__(self) -> None:
        """Take a turn that is free."""
        self._tracker._save_under_way = self

    def __exit__(self, *exc_info: object) -> None:
        """Let the next one."""
        self._tracker._save_under_way = None
        if self._ended is not None:
            self._ended.set_result(None)
