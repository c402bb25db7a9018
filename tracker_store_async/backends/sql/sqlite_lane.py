"""The thread of an aiosqlite connection, and what waits for it.

A hop to a thread and back takes as long as what is done there. So whatever has come to
wait while the thread was busy is done in one hop, and of that, what the connection can
do together is done together: appends, in one transaction that is synced once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    Together = Callable[[Any, Sequence[tuple[Any, ...]]], Sequence[Any] | None]

T = TypeVar("T")

MOST_TOGETHER = 32
"""Most calls that are done together: the first one waits until all are done."""

PASS_SECONDS = 0.002
"""Work on the thread after which who has an answer gets it, and the others wait: while
it goes on the event loop has to ask for the interpreter again and again."""


class _Job(NamedTuple):
    """A call that waits for the thread, and who waits for what it returns."""

    result: asyncio.Future[Any]
    work: Callable[..., Any]
    arguments: tuple[Any, ...]


class Lane:
    """Runs functions on the thread of an aiosqlite connection, in the order of asking.

    A caller who is cancelled leaves what was asked for: it is done all the same.

    `_execute` and `_conn` are aiosqlite's own way to that thread, the same since its
    first releases; SQLAlchemy's dialect leans on its inside as well. There is no public
    one. The range of versions is bounded, and a test watches over the two names.

    Args:
        driver: The connection.
        one: The function of which several calls may be done together, or None.
        together: What does so: it is given the connection and the arguments of each
            call, and returns for each what it would return or raise, or None where they
            have to be done one by one. Then it must have changed nothing.
    """

    def __init__(
        self,
        driver: Any,
        one: Callable[..., T] | None = None,
        together: Together | None = None,
    ) -> None:
        self.driver = driver
        self._one, self._together = one, together
        self._waiting: deque[_Job] = deque()
        self._under_way = 0
        self._is_called = False  # whether the thread will look at what waits
        self._passes: set[asyncio.Task[None]] = set()

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return what `work(connection, *arguments)` returns on the thread."""
        if self._under_way:
            job = _Job(asyncio.get_running_loop().create_future(), work, arguments)
            self._waiting.append(job)
            if not self._is_called:
                self._is_called = True
                passing = asyncio.ensure_future(self._pass())
                self._passes.add(passing)
                passing.add_done_callback(self._passes.discard)
            return await job.result  # type: ignore[no-any-return]
        connection = self.driver._conn
        # aiosqlite's thread holds on to what it returned last until it is asked again:
        # a long history would stay in memory, and the next call would pay to free it.
        box: list[T] = []

        def put() -> None:  # without arguments: aiosqlite writes them to its debug log
            box.append(work(connection, *arguments))

        self._under_way += 1
        try:
            await self.driver._execute(put)
        finally:
            self._under_way -= 1
        return box.pop()

    async def _pass(self) -> None:
        """Have the thread do what waits by the time it gets there."""
        while True:
            done: list[tuple[_Job, Any, BaseException | None]] = []

            def work(done: Any = done) -> None:  # no arguments: see `run`
                self._do(done)

            self._under_way += 1
            try:
                await self.driver._execute(work)
            except BaseException as error:
                self._is_called = False
                done += [(job, None, error) for job in self._waiting]
                self._waiting.clear()
                if not isinstance(error, Exception):
                    raise
            finally:
                self._under_way -= 1
                for job, value, problem in done:
                    _settle(job.result, value, problem)
            if self._is_called or not self._waiting:
                return
            self._is_called = True  # there was no time for all of it

    def _do(self, done: list[tuple[_Job, Any, BaseException | None]]) -> None:
        connection: sqlite3.Connection = self.driver._conn
        self._is_called = False  # who comes from now on calls again
        left = len(self._waiting)
        end = time.perf_counter() + PASS_SECONDS
        while left and (not done or time.perf_counter() < end):
            jobs = [self._waiting.popleft()]
            work = jobs[0].work
            if work is self._one:
                while (
                    len(jobs) < min(left, MOST_TOGETHER)
                    and self._waiting[0].work is self._one
                ):
                    jobs.append(self._waiting.popleft())
            left -= len(jobs)
            if len(jobs) == 1 or not self._done_together(connection, jobs, done):
                for job in jobs:
                    try:
                        done.append((job, work(connection, *job.arguments), None))
                    except BaseException as error:  # noqa: BLE001  it is handed over
                        done.append((job, None, error))

    def _done_together(
        self,
        connection: sqlite3.Connection,
        jobs: list[_Job],
        done: list[tuple[_Job, Any, BaseException | None]],
    ) -> bool:
        """Do calls together; False if they have to be done one by one."""
        assert self._together is not None  # noqa: S101
        values: Sequence[Any] | None
        try:
            values = self._together(connection, [job.arguments for job in jobs])
        except BaseException as error:  # noqa: BLE001  or they would wait for good
            values = [error] * len(jobs)
        if values is None:
            return False
        done += map(_outcome, jobs, values)
        return True


def _outcome(job: _Job, found: Any) -> tuple[_Job, Any, BaseException | None]:
    if isinstance(found, BaseException):
        return job, None, found
    return job, found, None


def _settle(
    result: asyncio.Future[Any], value: Any, problem: BaseException | None
) -> None:
    """Tell who waits, unless nobody does any more."""
    if result.done():
        return
    if problem is None:
        result.set_result(value)
    elif isinstance(problem, asyncio.CancelledError):
        result.cancel()
    else:
        result.set_exception(problem)
