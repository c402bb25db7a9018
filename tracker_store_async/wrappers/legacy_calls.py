"""Calls into objects that are not ours: sync methods in threads, async ones awaited."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from tracker_store_async import errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


class LegacyCalls:
    """Keeps sync calls off the event loop, a bounded number of them at a time.

    Args:
        max_workers: Most threads, and so most sync calls at a time.

    Raises:
        ConfigurationError: `max_workers` is not a positive integer.
    """

    def __init__(self, max_workers: int) -> None:
        if isinstance(max_workers, bool) or not isinstance(max_workers, int):
            raise errors.ConfigurationError("max_workers must be a whole number")
        if max_workers < 1:
            raise errors.ConfigurationError("max_workers must be 1 or more threads")
        self.max_workers = max_workers
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._late: set[concurrent.futures.Future[Any]] = set()

    async def close(self) -> None:
        """Wait for the calls that were given up but still run, then end the threads."""
        while self._late:
            late = [asyncio.wrap_future(call) for call in self._late]
            await asyncio.gather(*late, return_exceptions=True)
            self._late = {call for call in self._late if not call.done()}
        if self._pool is not None:
            self._pool.shutdown()  # nothing runs any more: it does not block
            self._pool = None

    async def call(
        self,
        method: Callable[..., Any],
        *args: Any,
        then: Callable[[Any], Any] | None = None,
        turn: Turn | None = None,
    ) -> Any:
        """Call a method and return its result, off the loop if it is sync.

        Args:
            method: Sync, async, or sync but returning something to await.
            *args: Its arguments.
            then: Applied to the result, always in a thread.
            turn: The turn of the conversation, which lasts until the call is over.

        Raises:
            StoreUnavailableError: The method raised an `OSError`; a `TimeoutError` or
                a `ConnectionError` is one.
            Exception: Whatever else it raises, unchanged.
        """
        with translated(method):
            if inspect.iscoroutinefunction(method):
                result = await method(*args)
            else:

                def call_sync() -> tuple[Any, bool]:
                    # Here too: asyncio makes a new TimeoutError on the way back.
                    with translated(method):
                        found = method(*args)
                    if then is None or inspect.isawaitable(found):
                        return found, False
                    return then(found), True

                result, is_final = await self.run(call_sync, turn)
                if is_final:
                    return result
                if inspect.isawaitable(result):
                    result = await result
        if then is None:
            return result
        return await self.run(lambda: then(result))

    async def run(self, function: Callable[[], Any], turn: Turn | None = None) -> Any:
        """Call a function in a thread of the pool and return its result.

        Args:
            function: What to call.
            turn: The turn of the conversation, which lasts until the call is over.

        Raises:
            StoreUnavailableError: There are no more threads: the interpreter exits.
        """
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(
                self.max_workers, thread_name_prefix="legacy-tracker-store"
            )
        context = contextvars.copy_context()
        try:
            running = self._pool.submit(context.run, _without_stop_iteration, function)
        except RuntimeError as error:
            raise errors.StoreUnavailableError(
                f"the legacy tracker store cannot be called: {error}"
            ) from error
        try:
            return await asyncio.wrap_future(running)
        finally:
            if not running.done():  # cancelled, but nothing stops a thread
                self._late.add(running)
                running.add_done_callback(self._late.discard)
                if turn is not None:
                    turn.late = running


def _without_stop_iteration(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except StopIteration as error:
        # asyncio cannot carry it from a thread to a task.
        raise RuntimeError("a legacy method raised StopIteration") from error


@contextmanager
def translated(method: Callable[..., Any]) -> Iterator[None]:
    """Turn the errors that say "not reachable" into ours; others pass unchanged."""
    try:
        yield
    except errors.TrackerStoreError:
        raise
    except OSError as error:
        name = getattr(method, "__qualname__", type(method).__name__)
        kind = type(error).__name__
        if isinstance(error, TimeoutError):
            raise errors.StoreTimeoutError(
                f"{name} of the legacy tracker store did not answer in time ({kind}); "
                "what it was asked to do may be done"
            ) from error
        raise errors.StoreUnavailableError(
            f"{name} of the legacy tracker store failed ({kind}): is its storage up?"
        ) from error


class Turn:
    """One caller's turn at one conversation.

    Attributes:
        late: A call that its caller gave up but that still runs in its thread.
    """

    def __init__(self) -> None:
        self.late: concurrent.futures.Future[Any] | None = None


class ConversationTurns:
    """Lets callers have each conversation one at a time, in the order they came."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}

    @asynccontextmanager
    async def turn(self, sender_id: str) -> AsyncIterator[Turn]:
        """Wait for the turn at a conversation.

        A turn whose sync call was cancelled goes on until that call has returned, so
        that nobody reads or writes what is half written.
        """
        lock = self._locks.setdefault(sender_id, asyncio.Lock())
        self._users[sender_id] = self._users.get(sender_id, 0) + 1
        try:
            await lock.acquire()
        except BaseException:
            self._leave(sender_id)
            raise
        turn = Turn()
        try:
            yield turn
        finally:
            loop = asyncio.get_running_loop()

            def release() -> None:
                lock.release()
                self._leave(sender_id)

            if turn.late is None:
                release()
            else:
                turn.late.add_done_callback(lambda _: _call_soon(loop, release))

    def _leave(self, sender_id: str) -> None:
        self._users[sender_id] -= 1
        if not self._users[sender_id]:
            del self._users[sender_id], self._locks[sender_id]


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(function)
