"""The half of the sync facade that owns its thread: opening, calling, closing."""

from __future__ import annotations

import asyncio
import itertools
import threading
import warnings
from typing import TYPE_CHECKING, Self, TypeVar

from tracker_store_async import errors
from tracker_store_async.loop_thread import LoopThread
from tracker_store_async.store import TrackerStore, is_tracker_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_numbers = itertools.count(1)


class SyncLifecycle:
    """Calls a store inside a private loop, whose thread starts at first use.

    Args:
        store: The store, or a function that makes it.
        timeout_seconds: Limit of every call that is not given one; None is no limit.

    Raises:
        ConfigurationError: `store` is neither, or `timeout_seconds` is not positive.
    """

    def __init__(
        self,
        store: TrackerStore | Callable[[], TrackerStore],
        *,
        timeout_seconds: float | None = None,
    ) -> None:
        self._source = StoreSource(store)
        _check_timeout(timeout_seconds, errors.ConfigurationError)
        self._timeout_seconds = timeout_seconds
        self._thread: LoopThread | None = None
        self._closed = False
        # Both reentrant, for signal handlers. `_lifecycle` is held while closing.
        self._lock = threading.RLock()
        self._lifecycle = threading.RLock()

    def open(self, *, timeout_seconds: float | None = None) -> None:
        """Start the thread and connect, after `close()` too; see `TrackerStore.open`.

        Args:
            timeout_seconds: Limit of this call.
        """
        self._check_caller()
        with self._lifecycle, self._lock:
            self._forget_ended_thread()
            self._closed = False
        self._call(lambda store: store.open(), timeout_seconds)

    def close(self, *, timeout_seconds: float | None = None) -> None:
        """Cancel the calls under way, close the store and join the thread.

        Closing twice does nothing, and neither does closing in a forked process. A
        store that something else has opened, such as another facade, stays open.

        Args:
            timeout_seconds: Time after which closing the store is cancelled; the thread
                ends all the same.

        Raises:
            CallTimeoutError: Closing the store took too long.
            WrongLoopError: Called from within the facade's own loop.
        """
        limit = self._limit(timeout_seconds)
        if self._thread is not None and self._thread.is_inherited:
            return
        self._check_caller()
        with self._lifecycle:
            with self._lock:
                self._closed = True
                thread = self._thread
            if thread is None:
                return
            try:
                thread.stop(limit)
            finally:
                self._forget_ended_thread()

    def __enter__(self) -> Self:
        """Open the store."""
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the store."""
        self.close()

    def __del__(self) -> None:
        """Stop the thread of a facade that nobody can use any more."""
        thread: LoopThread | None = getattr(self, "_thread", None)
        if thread is None or thread.is_inherited or self._closed:
            return
        # Not joined: the collector may run in any thread, this very loop's included.
        thread.ask_to_stop(None)
        warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        """Name the store."""
        return f"<{type(self).__name__} of {self._source.name}>"

    def _call(
        self,
        function: Callable[[TrackerStore], Awaitable[T]],
        timeout_seconds: float | None,
    ) -> T:
        limit = self._limit(timeout_seconds)
        source = self._source

        async def perform() -> T:
            result = await function(source.get())
            source.was_used = True
            return result

        return self._running_thread().call(perform, limit)

    def _running_thread(self) -> LoopThread:
        # Before the lock: another thread may have held it when this process forked.
        self._check_caller()
        with self._lock:
            if self._closed:
                raise errors.StoreClosedError(
                    f"this {type(self).__name__} is closed: call open() to use it again"
                )
            if self._thread is None:
                name = f"{type(self).__name__}-{next(_numbers)}"
                self._thread = LoopThread(name, self._source.close)
            return self._thread

    def _forget_ended_thread(self) -> None:
        if self._thread is not None and self._thread.has_ended:
            self._thread = None

    def _check_caller(self) -> None:
        thread = self._thread
        if thread is not None:
            thread.check_caller()

    def _store(self) -> TrackerStore:
        if self._source.store is not None:
            return self._source.store

        async def made(store: TrackerStore) -> TrackerStore:
            return store

        return self._call(made, None)

    def _change(self, change: Callable[[TrackerStore], None]) -> None:
        """Change the store on its loop, where others use it, if there is one."""
        thread = self._thread
        if thread is None or self._closed or thread.has_ended or thread.is_inherited:
            change(self._store())
            return

        async def changed(store: TrackerStore) -> None:
            change(store)

        self._call(changed, None)

    def _limit(self, timeout_seconds: float | None) -> float | None:
        _check_timeout(timeout_seconds, errors.InvalidInputError)
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        # Beyond that, `threading` cannot wait; `math.inf` is one such.
        if seconds is None or seconds >= threading.TIMEOUT_MAX / 2:
            return None
        return seconds


class StoreSource:
    """The store, or what makes it. The thread holds this and never the facade."""

    def __init__(self, store: TrackerStore | Callable[[], TrackerStore]) -> None:
        self.store: TrackerStore | None = None
        self.was_used = False
        self._factory: Callable[[], TrackerStore] | None = None
        if is_tracker_store(store):
            self.store = store
        elif callable(store):
            self._factory = store
        else:
            raise _not_a_store(store)

    @property
    def name(self) -> str:
        """Name of the store's class, or of what makes it."""
        if self.store is not None:
            return type(self.store).__name__
        return str(getattr(self._factory, "__qualname__", type(self._factory).__name__))

    def get(self) -> TrackerStore:
        """Return the store; called inside the loop, so one call at a time makes it."""
        if self.store is None:
            assert self._factory is not None  # noqa: S101 - one of the two is set
            made: object = self._factory()
            if not is_tracker_store(made):
                raise _not_a_store(made)
            self.store = made
        return self.store

    async def close(self) -> None:
        """Close the store, unless it is open on another loop or was never open here.

        It is somebody else's then, such as another facade's, and closing it would hide
        the error of the call that found that out.
        """
        if self.store is None:
            return
        loop = self.store._loop
        is_opened_here = self.was_used or self._factory is not None
        if loop is asyncio.get_running_loop() or (loop is None and is_opened_here):
            await self.store.close()


def _not_a_store(given: object) -> errors.ConfigurationError:
    return errors.ConfigurationError(
        "SyncTrackerStore needs a TrackerStore or a function that returns one, not "
        f"{type(given).__name__}: wrap a store of Rasa's kind in AwaitableTrackerStore"
    )


def _check_timeout(
    timeout_seconds: float | None, error_class: type[errors.TrackerStoreError]
) -> None:
    if timeout_seconds is None:
        return
    is_number = isinstance(timeout_seconds, int | float)
    if not is_number or timeout_seconds is True or not timeout_seconds > 0:
        raise error_class(
            "timeout_seconds must be a positive number of seconds, or None, not "
            f"{timeout_seconds!r}"
        )
