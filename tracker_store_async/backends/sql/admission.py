"""A queue before the pool: connections go to who has waited longest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


class Admission:
    """Lets in as many as the pool has connections, in the order of asking.

    The pool's own queue wakes who has waited longest, but a connection is free until
    that one runs. Whoever has just given it back asks again before that and has it: a
    few conversations would go on turn after turn while the others wait for seconds.

    Args:
        engine: The engine. A pool that is not of a fixed size lets everybody in.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._places: asyncio.Semaphore | None = None
        pool = engine.pool
        if not isinstance(pool, AsyncAdaptedQueuePool):
            return
        self._seconds = pool.timeout()
        if pool.size() and pool._max_overflow >= 0:
            self._places = asyncio.Semaphore(pool.size() + pool._max_overflow)

    async def __aenter__(self) -> None:
        """Wait until a connection is free for us.

        Raises:
            PoolTimeoutError: None was for as long as the pool would have waited.
        """
        if self._places is None:
            return
        if not self._places.locked():
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self._places.acquire()
        except TimeoutError:
            raise PoolTimeoutError(
                f"no connection of the pool was free for {self._seconds} s"
            ) from None

    async def __aexit__(self, *exc_info: object) -> None:
        """Let the next one in."""
        self.leave()

    def leave(self) -> None:
        """Let the next one in, at the end of what began with `__aenter__`."""
        if self._places is not None:
            self._places.release()
