"""Run something to its end although the caller is cancelled meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")

SETTLE_SECONDS = 2.0
"""Longest time that a cancelled caller waits for its transaction to end.

A timeout cancels too, so that an operation may take this much longer than was asked."""

_unsettled: set[asyncio.Task[Any]] = set()


async def settled(work: Awaitable[T], seconds: float = SETTLE_SECONDS) -> T:
    """Return what `work` returns; once begun it ends, cancelled or not.

    A transaction that is cancelled between two statements would go back to the pool
    half done. So a cancellation waits until it is settled, and then goes on its way.

    Args:
        work: What to run.
        seconds: Longest time to wait after a cancellation; then `work` is cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            # Kept, since a second cancellation may end this wait as well.
            _unsettled.add(task)
            task.add_done_callback(_forget)
            await asyncio.wait({task}, timeout=seconds)
            if task.cancel():
                await asyncio.wait({task}, timeout=1.0)
        elif not task.cancelled():
            task.exception()  # it is settled; how no longer matters
        raise


def _forget(task: asyncio.Task[Any]) -> None:
    _unsettled.discard(task)
    if not task.cancelled():
        task.exception()
