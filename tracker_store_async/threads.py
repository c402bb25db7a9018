"""Calling what blocks, in a thread as long as there are any."""

from __future__ import annotations

import asyncio
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
    has_begun = False

    def call() -> T:
        nonlocal has_begun
        has_begun = True
        return function(*arguments)

    try:
        return await asyncio.to_thread(call)
    except RuntimeError:
        if has_begun:  # it is the function's own
            raise
    return call()
