"""A bound on how long operations take, with one timer for all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")


class _Operation:
    __slots__ = ("cancelling", "end", "is_over", "task")

    def __init__(self, task: asyncio.Task[object], end: float) -> None:
        self.task, self.end = task, end
        self.cancelling = task.cancelling()
        self.is_over = False


class Deadlines:
    """Bounds each operation by the same time; used on one event loop.

    It does what `asyncio.timeout` does around an await. That makes a timer for each
    operation, which almost always is taken back: some thirty calls of Python functions.
    All operations here may take as long, so they end in the order in which they began,
    and one timer that waits for the oldest is enough.

    Args:
        seconds: Longest time that an operation may take.

    Attributes:
        seconds: The same.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._under_way: dict[_Operation, None] = {}  # in the order of their ends
        self._timer: asyncio.TimerHandle | None = None

    async def bound(self, work: Awaitable[T]) -> T:
        """Return what an operation returns.

        Args:
            work: The operation.

        Raises:
            TimeoutError: It took longer. It was cancelled.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("operations are awaited in a task")
        operation = _Operation(task, loop.time() + self.seconds)
        self._under_way[operation] = None
        if self._timer is None:
            self._timer = loop.call_at(operation.end, self._ring, loop)
        try:
            return await work
        except asyncio.CancelledError as error:
            # As in asyncio: somebody else may have cancelled the task as well.
            was_over, operation.is_over = operation.is_over, False
            if was_over and task.uncancel() <= operation.cancelling:
                raise TimeoutError from error
            raise
        finally:
            del self._under_way[operation]
            if operation.is_over:
                task.uncancel()  # it ended in another way

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel what has taken too long, and wait for the next one."""
        self._timer = None
        now = loop.time()
        for operation in self._under_way:
            if operation.is_over:
                continue
            if operation.end > now:
                self._timer = loop.call_at(operation.end, self._ring, loop)
                return
            operation.is_over = True
            operation.task.cancel()

    def close(self) -> None:
        """Take the timer back, unless something is still under way."""
        if self._timer is not None and not self._under_way:
            self._timer.cancel()
            self._timer = None
