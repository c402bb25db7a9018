"""Connections of the pool that stay at hand between two statements."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import greenlet_spawn

from tracker_store_async.backends.sql.admission import Admission
from tracker_store_async.backends.sql.lost import is_outdated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.pool import PoolProxiedConnection

CLOSE_SECONDS = 2.0
"""Longest time to take leave of a server after a cancellation."""


class Checkout:
    """Hands out pooled asyncpg connections.

    SQLAlchemy's pool runs in a greenlet of its own for each connection that it hands
    out: 40 of the 190 us of a short read. So a connection that nobody waits for is not
    given back but kept at hand. The pool stays the one that opens, counts and limits.

    Args:
        engine: The engine. Whoever else takes connections from its pool does so with
            `connection`: else those at hand would be missing there.
        keep: Whether to keep connections at hand. If not, each is given back at once:
            for an engine that others use too, and one that recycles or pings.
    """

    def __init__(self, engine: AsyncEngine, *, keep: bool) -> None:
        self._engine = engine
        self._admission = Admission(engine)
        self._idle: list[PoolProxiedConnection] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._waiting = 0
        # What was opened beyond the pool's size is closed after use, as ever.
        pool = engine.pool
        can_keep = keep and isinstance(pool, AsyncAdaptedQueuePool)
        self._most_idle = pool.size() if can_keep else 0  # type: ignore[attr-defined]

    @property
    def idle_count(self) -> int:
        """Number of connections at hand that nobody uses."""
        return len(self._idle)

    async def take(self) -> PoolProxiedConnection:
        """Return a connection that is open as far as one can see from here.

        Each ends with `give_back`, `drop` or `abandon`.
        """
        await self._admission.__aenter__()
        try:
            return await self._take()
        except BaseException:
            self._admission.leave()
            raise

    async def _take(self) -> PoolProxiedConnection:
        while self._idle:
            pooled = self._idle.pop()
            if not _is_closed(pooled) and not is_outdated(pooled, self._engine.pool):
                return pooled
            _terminate(pooled)
        while True:
            async with self._from_pool():
                pooled = await self._engine.raw_connection()
            if not _is_closed(pooled):
                return pooled
            _terminate(pooled)

    async def give_back(self, pooled: PoolProxiedConnection) -> None:
        """Take a sound connection back, outside of any transaction."""
        try:
            if len(self._idle) < self._most_idle and not self._waiting:
                self._idle.append(pooled)
            else:
                await greenlet_spawn(pooled.close)
        finally:
            self._admission.leave()

    def drop(self, pooled: PoolProxiedConnection) -> None:
        """Close a connection at once, without a word to a server who is gone."""
        _terminate(pooled)
        self._admission.leave()

    def abandon(self, pooled: PoolProxiedConnection) -> None:
        """Close a connection on which a command was cancelled.

        The pool is free to open another one now. Meanwhile, in the background and for a
        bounded time, asyncpg tells the server to cancel, and then to disconnect.
        """
        driver: Any = pooled.driver_connection
        pooled.detach()
        self._admission.leave()
        task = asyncio.ensure_future(_close(driver))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection of SQLAlchemy's."""
        async with self._admission, AsyncExitStack() as stack:
            async with self._from_pool():
                conn = await stack.enter_async_context(self._engine.connect())
            yield conn

    @asynccontextmanager
    async def _from_pool(self) -> AsyncIterator[None]:
        """Let the pool have what is at hand while somebody takes from it."""
        self._waiting += 1
        try:
            if self._idle:
                await greenlet_spawn(self._idle.pop().close)
            yield
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Give everything back to the pool."""
        self._most_idle = 0
        while self._idle:
            await greenlet_spawn(self._idle.pop().close)
        if self._closing:
            await asyncio.wait(self._closing)


def _terminate(pooled: PoolProxiedConnection) -> None:
    driver: Any = pooled.driver_connection
    driver.terminate()
    pooled.invalidate()
    pooled.close()


async def _close(driver: Any) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):  # its own may wait for ever
            await driver.close()
    except Exception:  # noqa: BLE001 - it is closed, one way or the other
        driver.terminate()


def _is_closed(pooled: PoolProxiedConnection) -> bool:
    # Whether the server closed it while it lay idle: asyncio has seen that already.
    driver: Any = pooled.driver_connection
    return bool(driver.is_closed())
