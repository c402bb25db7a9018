"""How what a thread has done gets back to the event loop, in as few steps as can be.

`loop.call_soon_threadsafe`, and a future that it settles, take some 200 us where caches
are cold: two reads from a socket, one of which fails, and two passes of the loop. Half
of that is left here: the thread adds one to a counter that the loop watches, and who
waits goes on within the same pass.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from contextvars import Context

    Resume = Callable[[Any], object]


class Answer:
    """What one task awaits; it goes on as soon as the answer is given.

    It keeps to what asyncio asks of futures that are not its own (`asyncio.isfuture`),
    and is awaited once. A task that is cancelled while it waits is told in the next
    pass of the loop, as with asyncio's futures: then somebody else is at work.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_context",
        "_is_done",
        "_loop",
        "_problem",
        "_resume",
        "_value",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asyncio_future_blocking = self._is_done = False
        self._value: Any = None
        self._problem: BaseException | None = None
        self._resume: Resume | None = None
        self._context: Context | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait until the answer is given, and return or raise it."""
        if not self._is_done:
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    def give(self, value: Any, problem: BaseException | None = None) -> None:
        """Give the answer, unless nobody waits for it any more.

        It is called by the loop and not by a task, since who waits goes on within.

        Args:
            value: What is returned to who waits.
            problem: What is raised in its place, or None.
        """
        if self._is_done:
            return
        self._value, self._problem, self._is_done = value, problem, True
        if self._resume is not None and self._context is not None:
            self._context.run(self._resume, self)

    # -- what a task calls -------------------------------------------------------------

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of who waits."""
        return self._loop

    def add_done_callback(
        self, resume: Resume, *, context: Context | None = None
    ) -> None:
        """Note how who waits goes on."""
        self._resume = resume
        self._context = copy_context() if context is None else context

    def result(self) -> Any:
        """Return or raise the answer."""
        if self._problem is not None:
            raise self._problem
        return self._value

    def cancel(self, msg: Any = None) -> bool:
        """Have who waits told that it is cancelled; False if it has its answer."""
        if self._is_done:
            return False
        self._problem = asyncio.CancelledError(*(() if msg is None else (msg,)))
        self._is_done = True
        if self._resume is not None:
            self._loop.call_soon(self._resume, self, context=self._context)
        return True


class Bell:
    """Calls a function on the event loop when another thread rings.

    Args:
        answer: The function.
    """

    def __init__(self, answer: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._answer = answer
        self._counter = _Counter.make()
        if self._counter is not None:
            try:
                self._loop.add_reader(self._counter.fd, self._heard)
            except NotImplementedError:  # not every loop can watch files
                self._counter = None

    def ring(self) -> None:
        """Have the function called; used on any thread."""
        counter = self._counter
        if counter is None:
            self._loop.call_soon_threadsafe(self._answer)
        else:
            os.eventfd_write(counter.fd, 1)

    def _heard(self) -> None:
        if self._counter is not None:
            os.eventfd_read(self._counter.fd)
        self._answer()

    def close(self) -> None:
        """Give the counter back; who rings from now on is heard all the same."""
        counter, self._counter = self._counter, None
        if counter is not None and not self._loop.is_closed():
            self._loop.remove_reader(counter.fd)


class _Counter:
    """A counter in the kernel (`eventfd`), for as long as somebody holds this.

    So a thread that is about to ring never writes to a file that is another's by now.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def make(cls) -> _Counter | None:
        """Return a new one, or None: Linux alone has them, up to a limit."""
        try:
            return cls(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        except (AttributeError, OSError):
            return None

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)


class Answers:
    """Answers that a thread has, on their way to who waits for them.

    Args:
        then: Called on the loop after answers were given.
    """

    def __init__(self, then: Callable[[], object]) -> None:
        self._given: deque[tuple[Answer, Any, BaseException | None]] = deque()
        self._then = then
        self._loop = asyncio.get_running_loop()
        self._bell = Bell(self._give)

    def send(self, found: Iterable[tuple[Answer, Any, BaseException | None]]) -> None:
        """Have answers given; used on the thread.

        Args:
            found: Who waits, the value, and the error in its place.
        """
        self._given.extend(found)
        self._bell.ring()

    def close(self) -> None:
        """Give what there is, and listen in the slow way from now on."""
        self._bell.close()
        if not self._loop.is_closed():  # else nobody waits any more
            self._loop.call_soon(self._give)

    def _give(self) -> None:
        given = self._given
        try:
            while given:
                answer, value, problem = given.popleft()
                answer.give(value, problem)
        finally:
            if given:  # Ctrl-C: the others wait all the same
                self._loop.call_soon(self._give)
            self._then()
