"""A private event loop in a thread of its own, and calls into it from other threads.

Three rules keep callers out of trouble. A call that takes too long is cancelled inside
the loop, and its caller hears of it once the cancellation has settled. The thread
belongs to the process that started it. And it is a daemon, stopped by an exit handler,
so that a forgotten `close()` cannot keep the interpreter alive.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

from tracker_store_async import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

SETTLE_SECONDS = 15.0
"""How long a caller waits for a cancelled call to settle before it gives up on it:
longer than a store goes on with a `close()` that was cancelled."""

EXIT_SECONDS = 3.0
"""How long the exit of the interpreter waits for stores that nobody closed."""

_MAY_HAVE_LANDED = (
    "what it was to store may be stored all the same, and saving the same tracker "
    "again is safe"
)


class LoopThread:
    """Runs coroutines for other threads; the constructor starts the thread.

    Args:
        name: Name of the thread.
        finish: Awaited inside the loop, as the last thing, when the thread is stopped.

    Raises:
        StoreUnavailableError: No thread can be started, as when the interpreter exits.
    """

    def __init__(self, name: str, finish: Callable[[], Awaitable[None]]) -> None:
        self._finish = finish
        self._pid = os.getpid()
        # Reentrant: a signal handler may call while its thread holds it.
        self._lock = threading.RLock()
        self._calls: set[asyncio.Task[None]] = set()
        self._last: _Call[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        # A daemon, and so are the threads that drivers start inside it: `threading`
        # waits for others before any exit handler can stop them.
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._started = started
        try:
            self._thread.start()
        except RuntimeError as error:
            raise errors.StoreUnavailableError(
                f"the thread of the event loop cannot be started: {error}"
            ) from error
        started.result()
        _live.add(self)

    @property
    def is_inherited(self) -> bool:
        """Whether the thread was started before a fork, and so is in the parent."""
        return self._pid != os.getpid()

    @property
    def has_ended(self) -> bool:
        """Whether the thread was stopped and is gone."""
        return not self._thread.is_alive()

    def check_caller(self) -> None:
        """Check that the caller can wait for this loop.

        Raises:
            WrongLoopError: It is the loop's own thread, or a forked process.
        """
        if self.is_inherited:
            raise errors.WrongLoopError(
                "this store was in use before a fork: its thread and its connections "
                "belong to the parent process. Make a new one in the child"
            )
        if self._thread is threading.current_thread():
            raise errors.WrongLoopError(
                "the sync facade was called from its own event loop, which would wait "
                "for itself forever: await the async store there"
            )

    def call(
        self, function: Callable[[], Awaitable[T]], timeout_seconds: float | None
    ) -> T:
        """Await `function()` inside the loop and return its result.

        Args:
            function: Called inside the loop.
            timeout_seconds: Time after which it is cancelled, or None for no limit.

        Raises:
            CallTimeoutError: It took too long.
            StoreClosedError: The thread is or was stopped.
            WrongLoopError: It is the loop's own thread, or a forked process.
            Exception: Whatever the function raises.
        """
        self.check_caller()
        call = _Call(function, timeout_seconds)
        with self._lock:
            if self._last is not None:
                raise errors.StoreClosedError(
                    "the store is being closed: open() it again once that is done"
                )
            # Under the lock, so that it is begun before the loop begins to stop.
            self._loop.call_soon_threadsafe(self._begin, call)
        try:
            return call.wait()
        except concurrent.futures.CancelledError:
            raise self._cancelled() from None
        except errors.CallTimeoutError:
            raise
        except BaseException:
            # Ctrl-C, or what else a signal handler raises in the middle of waiting.
            if not call.future.done():
                self._loop.call_soon_threadsafe(call.cancel)
                call.settle()
            raise

    def ask_to_stop(self, timeout_seconds: float | None) -> None:
        """Begin to stop: cancel the calls under way, finish, end the thread.

        Args:
            timeout_seconds: Time after which finishing is cancelled; None is no limit.
        """
        with self._lock:
            if self._last is None:
                self._last = _Call(self._finish, timeout_seconds)
                self._loop.call_soon_threadsafe(self._stop.set)

    def stop(self, timeout_seconds: float | None) -> None:
        """Stop and wait until the thread has ended; stopping twice does nothing.

        Args:
            timeout_seconds: Time after which finishing is cancelled; None is no limit.

        Raises:
            CallTimeoutError: Finishing took too long.
            WrongLoopError: It is the loop's own thread, or a forked process.
            Exception: Whatever `finish` raises.
        """
        self.check_caller()
        self.ask_to_stop(timeout_seconds)
        self.join(None if timeout_seconds is None else timeout_seconds + SETTLE_SECONDS)
        if self._thread.is_alive():
            raise errors.CallTimeoutError(
                "the store could not be closed in time: something blocks its event loop"
            )
        if self._last is not None and self._last.future.done():
            self._last.wait()

    def join(self, timeout_seconds: float | None) -> None:
        """Wait until the thread has ended, or for `timeout_seconds`."""
        self._thread.join(timeout_seconds)

    # -- inside the thread -------------------------------------------------------------

    def _main(self) -> None:
        try:
            with asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                runner.run(self._serve())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._started.set_result(None)
        await self._stop.wait()
        for task in self._calls:
            task.cancel()
        if self._calls:
            await asyncio.wait(self._calls, timeout=SETTLE_SECONDS)
        if self._last is not None:
            # However long the loop was busy, the store is given the time to close.
            self._last.begun_at = time.monotonic()
            with contextlib.suppress(asyncio.CancelledError):
                await self._last.run()

    def _begin(self, call: _Call[T]) -> None:
        call.task = self._loop.create_task(call.run())
        # A task that is cancelled before its first step never runs, so this cannot be
        # left to the coroutine. Cancelling what is done does nothing.
        call.task.add_done_callback(lambda _: call.future.cancel())
        call.task.add_done_callback(self._calls.discard)
        self._calls.add(call.task)

    def _cancelled(self) -> errors.TrackerStoreError:
        if self._last is None:
            return errors.StoreUnavailableError(
                f"the call was cancelled inside the event loop; {_MAY_HAVE_LANDED}"
            )
        return errors.StoreClosedError(
            f"the store was closed while this call was under way; {_MAY_HAVE_LANDED} "
            "after open()"
        )


class _Call(Generic[T]):
    """One call on its way through the loop."""

    def __init__(
        self, function: Callable[[], Awaitable[T]], timeout_seconds: float | None
    ) -> None:
        self._function = function
        self._timeout_seconds = timeout_seconds
        self.begun_at = time.monotonic()
        self.future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.task: asyncio.Task[None] | None = None

    def wait(self) -> T:
        """Wait for the outcome, in the calling thread.

        The loop keeps the time, so this gives up only if the loop does not answer.
        """
        seconds = self._timeout_seconds
        try:
            return self.future.result(
                None if seconds is None else seconds + SETTLE_SECONDS
            )
        except TimeoutError:
            if self.future.done():  # that was the call's own error
                return self.future.result()
        raise errors.CallTimeoutError(
            f"the call did not finish within {seconds:g} s and could not be cancelled: "
            f"something blocks the event loop. It is still under way; "
            f"{_MAY_HAVE_LANDED}"
        )

    def settle(self) -> None:
        """Wait until it is over, whatever its outcome, but not forever."""
        with contextlib.suppress(TimeoutError, concurrent.futures.CancelledError):
            self.future.exception(SETTLE_SECONDS)

    def cancel(self) -> None:
        """Cancel it, inside the loop."""
        if self.task is None:
            self.future.cancel()
        else:
            self.task.cancel()

    async def run(self) -> None:
        """Perform it, inside the loop, and hand the outcome to the waiting thread."""
        try:
            result = await self._perform()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001
            # SystemExit too: it is for the caller, and would end the loop here.
            self.future.set_exception(error)
        else:
            self.future.set_result(result)

    async def _perform(self) -> T:
        seconds = self._timeout_seconds
        if seconds is None:
            return await self._function()
        remaining = seconds - (time.monotonic() - self.begun_at)
        if remaining <= 0:
            raise errors.CallTimeoutError(
                f"the call could not begin within {seconds:g} s, because the event "
                "loop was busy: nothing was done"
            )
        try:
            async with asyncio.timeout(remaining) as limit:
                return await self._function()
        except TimeoutError as error:
            if not limit.expired() or isinstance(error, errors.TrackerStoreError):
                raise
            raise errors.CallTimeoutError(
                f"the call did not finish within {seconds:g} s and was cancelled; "
                f"{_MAY_HAVE_LANDED}"
            ) from None


_live: weakref.WeakSet[LoopThread] = weakref.WeakSet()


def _stop_all() -> None:
    deadline = time.monotonic() + EXIT_SECONDS + 1
    threads = [thread for thread in list(_live) if not thread.is_inherited]
    for thread in threads:
        thread.ask_to_stop(EXIT_SECONDS)
    for thread in threads:
        with contextlib.suppress(RuntimeError):
            thread.join(max(0.0, deadline - time.monotonic()))


# Registered when this module is imported, and so before any exit handler that uses a
# facade: exit handlers run last in, first out, and those handlers still find it open.
atexit.register(_stop_all)
