"""The circuit breaker: whether the primary is asked at all, and calls that are."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from tracker_store_async.errors import StoreTimeoutError, StoreUnavailableError
from tracker_store_async.settling import SETTLE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]


class CircuitBreaker:
    """Calls the primary, and stops calling it once it is unavailable.

    `closed`: the primary is asked. `open`: it is not, but by a probe now and then.
    `half_open`: it answered a probe; it is asked, and what waits is being replayed.

    When it opens, every call that is under way is given up at once: none waits for a
    timeout of its own. What such a call does may still be done.

    Args:
        name: What errors call the primary.
        timeout_seconds: Longest time that a call may take; None is no limit.

    Attributes:
        state: One of the three.
        error: What it opened for, or the latest failure of a probe; None when closed.
        opened_at: When it opened, by the loop's clock.
    """

    def __init__(self, name: str, timeout_seconds: float | None) -> None:
        self._name = name
        self._timeout_seconds = timeout_seconds
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._tripped: asyncio.Future[None] = asyncio.Future()
        self.state: BreakerState = "closed"
        self.error: StoreUnavailableError | None = None
        self.opened_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the primary is not asked."""
        return self.state == "open"

    @property
    def outage_seconds(self) -> float:
        """For how long not all has been well; 0 when closed."""
        if self.state == "closed":
            return 0.0
        return asyncio.get_running_loop().time() - self.opened_at

    def open(self, error: StoreUnavailableError) -> bool:
        """Stop asking the primary; return whether it was closed before."""
        was_closed = self.state == "closed"
        if was_closed:
            self.opened_at = asyncio.get_running_loop().time()
        self.state, self.error = "open", error
        if not self._tripped.done():
            self._tripped.set_result(None)
        return was_closed

    def half_open(self) -> None:
        """Ask the primary again."""
        self.state = "half_open"
        self._tripped = asyncio.get_running_loop().create_future()

    def close(self) -> float:
        """Note that all is well; return for how many seconds it was not."""
        self.state, self.error = "closed", None
        return asyncio.get_running_loop().time() - self.opened_at

    async def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what a call of the primary returns, unless the breaker opens.

        Raises:
            StoreTimeoutError: It took too long; what it does may still be done.
            StoreUnavailableError: The primary is unavailable, or another call found
                out that it is.
        """
        if self._tripped.done():
            raise self._unavailable()
        return await self._bounded(work, self._tripped)

    async def probe(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what a call returns although the breaker is open.

        Raises:
            StoreUnavailableError: The primary is unavailable.
        """
        return await self._bounded(work)

    async def _bounded(
        self,
        work: Callable[[], Coroutine[Any, Any, T]],
        *other: asyncio.Future[None],
    ) -> T:
        task = asyncio.ensure_future(work())
        waited_for: set[asyncio.Future[Any]] = {task, *other}
        try:
            await asyncio.wait(
                waited_for,
                timeout=self._timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
        except asyncio.CancelledError:
            await self._settle(task)
            raise
        if task.done():
            return task.result()
        self._abandon(task)
        if any(future.done() for future in other):
            raise self._unavailable()
        raise StoreTimeoutError(
            f"{self._name} did not answer within {self._timeout_seconds:g} s; what it "
            "was asked to do may be done"
        )

    def refusal(self, what: str) -> StoreUnavailableError:
        """Return the error for what only the primary can do.

        Args:
            what: What was not done, as a clause.
        """
        error = StoreUnavailableError(
            f"{self._name} is unavailable, so {what}: try again once it is back"
        )
        error.__cause__ = self.error
        return error

    def _unavailable(self) -> StoreUnavailableError:
        return StoreUnavailableError(f"{self._name} is unavailable")

    async def _settle(self, task: asyncio.Task[Any]) -> None:
        """Cancel a call as its caller was, and wait until it is settled."""
        task.cancel()
        self._abandon(task)
        await asyncio.wait({task}, timeout=SETTLE_SECONDS)

    def _abandon(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # nobody waits for it any more

    async def give_up(self) -> None:
        """Cancel what is still under way although nobody waits for it."""
        left = set(self._abandoned)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=SETTLE_SECONDS)


def pause_seconds(attempt: int, shortest: float, longest: float) -> float:
    """Return how long to wait before a probe, in seconds.

    It doubles with each attempt, and varies so that many processes do not come at once.

    Args:
        attempt: Number of probes before, from 0.
        shortest: The first pause at most, in seconds.
        longest: The longest pause, in seconds.
    """
    pause: float = min(longest, shortest * 2.0 ** min(attempt, 60))
    return pause * random.uniform(0.5, 1.0)  # noqa: S311
