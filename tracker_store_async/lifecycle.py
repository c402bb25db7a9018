"""Opening and closing: a store connects at first use and belongs to one event loop."""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, Self, cast

from tracker_store_async import errors
from tracker_store_async.broker_handle import CurrentBroker
from tracker_store_async.observation import observed
from tracker_store_async.redaction import fields, get_logger
from tracker_store_async.relay import Relay
from tracker_store_async.turns import Turns

if TYPE_CHECKING:
    from tracker_store_async.broker_handle import BrokerHandle
    from tracker_store_async.locks import LoopLock
    from tracker_store_async.publishing import Publisher
    from tracker_store_async.relay import Outbox
    from tracker_store_async.rows import Health
    from tracker_store_async.store import TrackerStore

logger = get_logger(__name__)

CLOSE_SECONDS = 10.0
"""Longest time that a cancelled `close()` goes on."""


class Lifecycle(Protocol):
    """The part of a store that opens it once, on one loop, and closes it whole."""

    backend_name: str
    owns_broker: bool
    _is_wrapped: bool = False  # then the broker is the wrapper's to open and close
    _publisher: Publisher | None
    _loop: asyncio.AbstractEventLoop | None
    _pid: int = 0  # of the process that has opened it
    _closed: bool
    _opening: LoopLock
    _reopens: int = 0  # how many wait to open it again
    _loop_turns: Turns
    _relay: Relay | None

    async def open(self) -> None:
        """Connect, create the layout where there is none, and open the broker.

        Calling it is optional: the first use does the same, but does not wait for the
        broker. A closed store is usable again after it. A broker that is away does not
        keep a store from opening: it is opened in the background, and waited for, for
        its `timeout_seconds` at most, unless `on_publish_error` is `best_effort`.

        Raises:
            BrokerAccessError: The broker refused the credentials, the rights or TLS.
                Under `best_effort` it is told in the log and by `health` instead.
            StoreUnavailableError: The storage cannot be reached.
            StoreAccessError: The storage refused the credentials.
            SchemaError: The stored layout is not one that this version can use.
            WrongLoopError: The store is open on another event loop.
        """
        self._reopens += 1
        try:
            async with self._opening:  # what is being closed is closed first
                self._closed = False
        finally:
            self._reopens -= 1
        await self._ensure_open(awaits_broker=True)

    async def _ensure_open(self, *, awaits_broker: bool = False) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None:
            raise self._wrong_loop()
        if self._closed and not self._reopens:  # closing it may take a while
            raise self._is_closed_error()
        async with self._opening:
            if self._closed:
                raise self._is_closed_error()
            if self._loop is None:
                self._loop_turns = Turns()  # those of a loop that is gone never end
                connecting = self._connect(awaits_broker=awaits_broker)
                if self._is_wrapped:  # its wrapper is watched already
                    await connecting
                else:
                    await observed(cast("TrackerStore", self), "open", connecting)
                self._loop, self._pid = loop, os.getpid()
                self._tell("opened")

    async def _connect(self, *, awaits_broker: bool) -> None:
        await self._open()
        publisher = self._publisher
        if publisher is None or self._is_wrapped:
            return
        try:
            outbox = self._open_outbox()
            if outbox is not None:
                watch = partial(observed, cast("TrackerStore", self), "publish")
                broker = CurrentBroker(self._broker_handle)
                self._relay = Relay(outbox, broker, watch)
            publisher.start(opens_broker=outbox is None)
            if outbox is None and awaits_broker:
                await publisher.opened()
        except BaseException:
            try:
                await publisher.handle.stop()
            finally:
                await self._close_to_the_end()
            raise

    def _broker_handle(self) -> BrokerHandle | None:
        """Return the broker as it is at the moment: another one may be set."""
        return None if self._publisher is None else self._publisher.handle

    def _open_outbox(self) -> Outbox | None:
        """Return the outbox of a store that has one and was told to use it."""
        return None

    def _is_closed_error(self) -> errors.StoreClosedError:
        return errors.StoreClosedError(
            f"this {type(self).__name__} is closed: call open() to use it again"
        )

    def _wrong_loop(self) -> errors.WrongLoopError:
        return errors.WrongLoopError(
            f"this {type(self).__name__} was opened on another event loop, or "
            "before a fork: a store belongs to one loop. Close it there first, "
            "make one store for each loop, or share one SyncTrackerStore"
        )

    async def close(self) -> None:
        """Disconnect and release everything; closing twice does nothing.

        Neither does closing in a forked process: the connections are its parent's.

        What `best_effort` still holds for the broker is sent, or counted as lost in
        the log. The broker is closed if the store owns it. A cancellation waits, for
        10 seconds at most, until the connections are released.

        Raises:
            WrongLoopError: The store is open on another event loop, which runs.
        """
        if self._loop is not None and self._pid != os.getpid():
            return  # the connections are the parent's: to close them here breaks them
        if self._is_open_elsewhere():
            raise self._wrong_loop()
        self._closed = True
        async with self._opening:
            if self._loop is None:
                return
            loop, self._loop = self._loop, None
            try:
                await self._close_publishing()
            finally:
                try:
                    await self._close_to_the_end()
                except RuntimeError:
                    # Connections end with their loop, and cannot be told goodbye.
                    if not loop.is_closed():
                        raise
            self._tell("closed")

    async def _close_publishing(self) -> None:
        if self._is_wrapped:
            return
        relay, self._relay = self._relay, None
        try:
            if relay is not None:
                await relay.stop()
        finally:
            closed, problem = None, None
            while self._publisher is not closed:  # another one may be set meanwhile
                closed = self._publisher
                if closed is not None:
                    try:
                        await closed.close(closes_broker=self.owns_broker)
                    except Exception as error:  # noqa: BLE001  that other one as well
                        problem = problem or error
            if problem is not None:
                raise problem

    async def _with_publishing(self, health: Health) -> Health:
        """Return health with what it says of events that are to be published."""
        if self._publisher is None or self._is_wrapped:
            return health
        details = {**health.details, "publishing": self._publisher.metrics()}
        if self._relay is not None:
            details["outbox"] = await self._relay.metrics()
        return replace(health, details=details)

    def _tell(self, what: str) -> None:
        """Tell the log of a change of state, once however many wrappers there are."""
        if not self._is_wrapped:
            logger.info(
                "The %s tracker store is %s.",
                self.backend_name,
                what,
                extra=fields(f"store_{what}", backend=self.backend_name),
            )

    def _is_open_elsewhere(self) -> bool:
        loop = self._loop
        if loop is None or loop is asyncio.get_running_loop():
            return False
        return loop.is_running()

    async def _close_to_the_end(self) -> None:
        """Release the connections even if the caller is cancelled meanwhile.

        Nobody else could: half of them are forgotten by then.
        """
        closing = asyncio.ensure_future(self._close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
            closing.cancel()
            raise

    async def __aenter__(self) -> Self:
        """Open the store."""
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the store."""
        await self.close()

    @abstractmethod
    async def _open(self) -> None:
        """Connect and make sure that the layout is there. Called once, under a lock."""

    @abstractmethod
    async def _close(self) -> None:
        """Release every connection. Called only after `_open` succeeded."""
