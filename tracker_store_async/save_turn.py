"""One task at a time saves a tracker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracker_store_async.tracker import DialogueStateTracker


class SaveTurn:
    """Keeps other tasks from saving the same tracker object meanwhile."""

    __slots__ = ("_done", "_tracker")

    def __init__(self, tracker: DialogueStateTracker) -> None:
        self._tracker = tracker

    async def __aenter__(self) -> None:
        """Wait until no other task saves it."""
        tracker, loop = self._tracker, asyncio.get_running_loop()
        while (other := tracker._save_under_way) is not None:
            if other.get_loop() is not loop:
                break  # what was under way on a loop that is gone never ends
            await asyncio.wait([other])
        self._done = tracker._save_under_way = loop.create_future()

    async def __aexit__(self, *exc_info: object) -> None:
        """Let the next one."""
        self._tracker._save_under_way = None
        self._done.set_result(None)
