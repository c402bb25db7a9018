"""A lock for an object that may move from one event loop to another."""

from __future__ import annotations

import asyncio

from tracker_store_async import errors


class LoopLock:
    """An `asyncio.Lock` that can be used on one event loop after another.

    The one of asyncio stays with the loop on which it was first waited for, and is of
    no use to an object that is closed there and opened on another loop.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return self._lock.locked()

    async def __aenter__(self) -> None:
        """Wait until nobody else holds it.

        Raises:
            WrongLoopError: It is held on another event loop.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._lock.locked() and self._loop and not self._loop.is_closed():
                raise errors.WrongLoopError(
                    "the store is in use on another event loop: make one store for "
                    "each loop, or share one through SyncTrackerStore"
                )
            self._lock, self._loop = asyncio.Lock(), loop
        await self._lock.acquire()

    async def __aexit__(self, *exc_info: object) -> None:
        """Let the next one in."""
        self._lock.release()
