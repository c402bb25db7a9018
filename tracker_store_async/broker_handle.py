"""A broker as a store holds it: checked, opened in the background, bounded in time."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from tracker_store_async import errors
from tracker_store_async.broker import EventBroker
from tracker_store_async.options import (
    ON_PUBLISH_ERROR_POLICIES,
    check_choice,
    check_seconds,
)
from tracker_store_async.redaction import fields, get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracker_store_async.broker import EventMessage

logger = get_logger(__name__)

STOP_SECONDS = 5.0
"""Longest time that a broker may take to notice that opening it is given up."""

_METHODS = ("publish", "publish_many", "open", "close")
ACCESS_ERRORS = (errors.BrokerAccessError, errors.ConfigurationError)
"""What a retry does not mend."""


class BrokerHandle:
    """Opens a broker once, for everybody who needs it, and publishes to it.

    A store opens without waiting for it. If opening fails, the next publish tries it
    again.

    Args:
        broker: The broker.

    Attributes:
        broker: The broker.
        problem: Why it cannot be used at the moment, without any secret, or None.

    Raises:
        ConfigurationError: It is not an event broker.
    """

    def __init__(self, broker: EventBroker) -> None:
        check_broker(broker)
        self.broker = broker
        self.problem: str | None = None
        self._told: str | None = None
        self._is_open = False
        self._is_stopped = False
        self._opening: asyncio.Task[None] | None = None
        self._when_open: Callable[[], None] | None = None

    @property
    def name(self) -> str:
        """What it is called in errors and in the log."""
        return type(self.broker).__name__

    @property
    def timeout_seconds(self) -> float:
        """Longest time that a publish takes, waiting for an open broker included."""
        return self.broker.timeout_seconds

    @property
    def is_open(self) -> bool:
        """Whether it has been opened, or needs no opening."""
        opens = getattr(self.broker.open, "__func__", None)
        return self._is_open or opens is EventBroker.open

    def when_open(self, call: Callable[[], None]) -> None:
        """Have something called whenever the broker has been opened."""
        self._when_open = call

    def start(self, *, opens: bool = True) -> None:
        """Let it be used, again; begin to open it in the background.

        Args:
            opens: Whether to open it now; else the first publish does.
        """
        self._is_stopped = False
        if opens:
            self._begin()

    def _begin(self) -> None:
        """Begin to open it, unless it is open or being opened.

        Raises:
            BrokerUnavailableError: It was stopped.
        """
        if self.is_open:
            return
        if self._is_stopped:
            raise self._stopped()
        loop = asyncio.get_running_loop()
        task = self._opening
        if task is None or task.done() or task.get_loop() is not loop:
            self._opening = loop.create_task(self._open())
            self._opening.add_done_callback(_retrieve)

    async def _open(self) -> None:
        try:
            await self.broker.open()
        except Exception as error:
            self._note_problem(error)
            if not isinstance(error, ACCESS_ERRORS):
                logger.warning(
                    "The event broker %s cannot be opened (%s): the next publish "
                    "tries it again.",
                    self.name,
                    reason_of(error),
                )
            raise
        self._note_success()
        if self._when_open is not None:
            self._when_open()

    async def opened(self) -> None:
        """Wait until it is open; whoever waits, waits for the same attempt.

        Raises:
            BrokerUnavailableError: Opening it was given up meanwhile.
            Exception: Whatever went wrong.
        """
        if self.is_open:
            return
        self._begin()
        opening = self._opening
        assert opening is not None  # noqa: S101 - it was begun
        await asyncio.wait({opening})
        if opening.cancelled():
            raise self._stopped()
        opening.result()

    def _stopped(self) -> errors.BrokerUnavailableError:
        return errors.BrokerUnavailableError(
            f"the event broker {self.name} was closed or replaced meanwhile"
        )

    async def stop(self) -> None:
        """Give up opening it; it counts as closed until `start`."""
        opening = self.let_go()
        if opening is not None and opening.get_loop() is asyncio.get_running_loop():
            await asyncio.wait({opening}, timeout=STOP_SECONDS)

    def let_go(self) -> asyncio.Task[None] | None:
        """Give up opening it; return the task if it has not ended yet."""
        opening, self._opening = self._opening, None
        self._is_open, self._is_stopped = False, True
        return cancelled(opening)

    async def send(self, messages: Sequence[EventMessage]) -> None:
        """Publish, within `timeout_seconds`, and wait until it is confirmed.

        Raises:
            BrokerUnavailableError: It was not confirmed in time, or not even opened.
            Exception: Whatever else the broker raises.
        """
        try:
            await self._send(messages)
        except Exception as error:
            if not isinstance(error, errors.BrokerRefusedError):
                self._note_problem(error)
            raise
        self._note_success()

    async def _send(self, messages: Sequence[EventMessage]) -> None:
        try:
            if self.broker.manages_connection:
                await self._begun()
                await self.broker.publish_many(messages)
            else:
                await self._send_in_time(messages)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody has cancelled us: a client ends what it awaits with a connection.
            # Taken for a cancellation, it would end whoever sends in the background.
            raise errors.BrokerUnavailableError(
                f"the event broker {self.name} gave up: its connection may be lost"
            ) from error

    async def _begun(self) -> None:
        """Let `open` have begun: it makes a closed broker usable again."""
        if not self.is_open:
            self._begin()
            await asyncio.sleep(0)

    async def _send_in_time(self, messages: Sequence[EventMessage]) -> None:
        scope = asyncio.timeout(self.timeout_seconds)
        try:
            async with scope:
                await self.opened()
                await self.broker.publish_many(messages)
        except TimeoutError as error:
            if not scope.expired():
                raise
            did = "confirmed nothing" if self.is_open else "was not opened"
            raise errors.BrokerUnavailableError(
                f"the event broker {self.name} {did} within {self.timeout_seconds:g} s"
            ) from error

    # -- what became of it -------------------------------------------------------------

    def _note_problem(self, error: Exception) -> None:
        """Remember what is wrong; what nobody but a person can mend is told once."""
        self.problem = reason_of(error)
        if isinstance(error, ACCESS_ERRORS) and self._told != self.problem:
            self._told = self.problem
            logger.error(
                "The event broker %s cannot be used before somebody mends this: %s",
                self.name,
                self.problem,
                extra=fields("broker_refuses_access"),
            )

    def _note_success(self) -> None:
        self._is_open = not self._is_stopped
        self.problem = self._told = None


class CurrentBroker(EventBroker):
    """The broker that a store has at the moment, as a relay publishes to it.

    Args:
        current: Returns it, or None if there is none any more.
    """

    def __init__(self, current: Callable[[], BrokerHandle | None]) -> None:
        self._current = current
        self.timeout_seconds = self._handle().timeout_seconds

    def _handle(self) -> BrokerHandle:
        handle = self._current()
        if handle is None:
            raise errors.BrokerUnavailableError("there is no event broker any more")
        return handle

    def __getattr__(self, name: str) -> Any:
        """Return what only some brokers have."""
        return getattr(self._handle().broker, name)

    async def publish(self, message: EventMessage) -> None:
        """Publish one message; it raises what `publish_many` does."""
        await self.publish_many([message])

    async def publish_many(self, messages: Sequence[EventMessage]) -> None:
        """Publish messages; it raises what `BrokerHandle.send` does."""
        await self._handle().send(messages)

    async def open(self) -> None:
        """Wait until the broker is open; it raises what that does."""
        await self._handle().opened()


def check_broker(broker: Any) -> None:
    """Check that an object is an event broker: here, and not when a save needs it.

    Raises:
        ConfigurationError: It is not; the text says what to do.
    """
    advice = (
        "subclass tracker_store_async.EventBroker and write 'async def publish(self, "
        "message)'"
    )
    if isinstance(broker, type):
        raise errors.ConfigurationError(
            f"event_broker is the class {broker.__name__}, not a broker: call it first"
        )
    name = type(broker).__name__
    lacking = [each for each in _METHODS if not callable(getattr(broker, each, None))]
    if lacking:
        raise errors.ConfigurationError(
            f"event_broker {name} is no event broker, since it has no "
            f"{' and no '.join(lacking)}: {advice}"
        )
    for each in _METHODS:
        if not _is_async(getattr(broker, each)):
            # Awaiting what it returns would fail, after it has published.
            raise errors.ConfigurationError(
                f"event_broker {name} has a method {each} that is not async: "
                f"{advice}. A sync client is called with asyncio.to_thread"
            )
    for each in ("on_publish_error", "timeout_seconds", "manages_connection"):
        if not hasattr(broker, each):
            raise errors.ConfigurationError(
                f"event_broker {name} has no attribute {each}: {advice}"
            )
    if broker.on_publish_error is not None:
        where = f"on_publish_error of the event broker {name}"
        check_choice(where, broker.on_publish_error, ON_PUBLISH_ERROR_POLICIES)
    check_seconds(f"timeout_seconds of the event broker {name}", broker.timeout_seconds)


def _is_async(method: Any) -> bool:
    """Whether a method is a coroutine function, under whatever decorators."""
    innermost = inspect.unwrap(method)
    return inspect.iscoroutinefunction(innermost) or inspect.iscoroutinefunction(
        getattr(innermost, "__call__", None)  # noqa: B004 - not whether, but how
    )


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the broker is away, whoever's events they are."""
    kinds = (errors.BrokerUnavailableError, errors.StoreUnavailableError, OSError)
    return isinstance(error, (*kinds, *ACCESS_ERRORS))


def reason_of(error: BaseException) -> str:
    """Say what went wrong; only our own errors are known to hold no secret."""
    ours = isinstance(error, errors.TrackerStoreError)
    return str(error) if ours else type(error).__name__


def cancelled(task: asyncio.Task[None] | None) -> asyncio.Task[None] | None:
    """Cancel a task, from whatever thread; return it if it has not ended yet."""
    if task is None or task.done() or task.get_loop().is_closed():
        return None
    try:
        is_ours = task.get_loop() is asyncio.get_running_loop()
    except RuntimeError:
        is_ours = False
    if is_ours:
        task.cancel()
    else:
        task.get_loop().call_soon_threadsafe(task.cancel)
    return task


def _retrieve(task: asyncio.Task[None]) -> None:
    """Take note of an error, for which nobody may be left to wait."""
    if not task.cancelled():
        task.exception()
