"""Calling what blocks, in a thread as long as there are any."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Return what a function returns that blocks.

    While the interpreter exits Python gives no work to threads any more, and an exit
    handler that saves through the sync facade has a loop of its own to block: then the
    function is called there.

    Args:
        function: The function.
        *arguments: What it is called with.
    """
    begun = threading.Lock()

    def call() -> T:
        if not begun.acquire(blocking=False):
            raise RuntimeError("it was called elsewhere")  # nobody waits for this
        return function(*arguments)

    try:
        return await asyncio.to_thread(call)
    except RuntimeError:
        # Else it is the function's own. What could get no thread may still be queued.
        if not begun.acquire(blocking=False):
            raise
    return function(*arguments)
