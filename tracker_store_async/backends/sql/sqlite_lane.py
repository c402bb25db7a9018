"""The thread of an aiosqlite connection, and what waits for it.

A hop to a thread and back takes as long as what is done there. So whatever has come to
wait while the thread was busy is done in one hop, and of that, what the connection can
do together is done together: appends, in one transaction that is synced once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from tracker_store_async.backends.sql.sqlite_answers import Answer, Answers

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


class _Job(Answer):
    """A call that waits for the thread, and the answer to who waits for it."""

    __slots__ = ("arguments", "work")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        super().__init__(loop)
        self.work, self.arguments = work, arguments


_Outcome = tuple[_Job, Any, BaseException | None]


class _Nobody:
    """Stands where aiosqlite expects a future: who waits is told otherwise."""

    def get_loop(self) -> _Nobody:
        return self

    def call_soon_threadsafe(self, *_arguments: object) -> None:
        """Tell nobody."""


_NOBODY = _Nobody()


class Lane:
    """Runs functions on the thread of an aiosqlite connection, in the order of asking.

    A caller who is cancelled leaves what was asked for: it is done all the same.

    `_tx` and `_conn` are aiosqlite's own way to that thread, the same since its first
    releases; SQLAlchemy's dialect leans on its inside as well. There is no public one.
    The range of versions is bounded, and a test watches over the names.

    It is made, used and closed on one event loop.

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
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Job] = deque()
        self._is_called = False  # whether the thread will look at what waits
        self._has_left = False
        self._answers = Answers(self._go_on)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return what `work(connection, *arguments)` returns on the thread."""
        return await self.ask(work, *arguments)  # type: ignore[no-any-return]

    def ask(self, work: Callable[..., T], *arguments: Any) -> Answer:
        """Do what `run` does; what it returns is awaited at once, and once."""
        job = _Job(self._loop, work, arguments)
        self._waiting.append(job)
        if not self._is_called:
            self._call_thread()
        return job

    def close(self) -> None:
        """Give back what it takes to listen to the thread; it can still be asked."""
        self._answers.close()

    def _call_thread(self) -> None:
        """Have the thread do what waits by the time it gets there."""
        self._is_called = True
        driver = self.driver
        if driver._connection is None or not driver._running:
            self._is_called = False
            gone = ValueError("no active connection")
            while self._waiting:
                self._loop.call_soon(self._waiting.popleft().give, None, gone)
            return
        # Without arguments: aiosqlite writes them to its debug log. And it holds on to
        # what was returned until it is asked again, so nothing is.
        driver._tx.put_nowait((_NOBODY, self._pass))

    def _go_on(self) -> None:
        if self._has_left:
            self._has_left = False
            if self._waiting and not self._is_called:
                self._call_thread()

    # -- on the thread -----------------------------------------------------------------

    def _pass(self) -> None:
        done: list[_Outcome] = []
        try:
            self._do(done)
        except BaseException as error:  # noqa: BLE001  or they would wait for good
            self._is_called = False
            while self._waiting:  # one by one: more may come meanwhile
                done.append((self._waiting.popleft(), None, error))
        # for want of time: the loop calls again once it has given the answers
        self._has_left = bool(self._waiting) and not self._is_called
        self._answers.send(done)

    def _do(self, done: list[_Outcome]) -> None:
        connection: sqlite3.Connection = self.driver._conn
        self._is_called = False  # who comes from now on calls again
        left = len(self._waiting)
        end = time.perf_counter() + PASS_SECONDS
        while left and (not done or time.perf_counter() < end):
            jobs = [self._waiting.popleft()]
            work = jobs[0].work
            if left > 1 and work is self._one:
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
        done: list[_Outcome],
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


def _outcome(job: _Job, found: Any) -> _Outcome:
    if isinstance(found, BaseException):
        return job, None, found
    return job, found, None
