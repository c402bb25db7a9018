"""A broker behind a connection: connects, notices a loss, and sends again in order."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from abc import abstractmethod
from collections import defaultdict
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tracker_store_async import errors
from tracker_store_async.broker import EventBroker
from tracker_store_async.redaction import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracker_store_async.broker import EventMessage
    from tracker_store_async.options import OnPublishError

logger = get_logger(__name__)

DEFAULT_TIMEOUT_SECONDS = 10.0
FIRST_DELAY_SECONDS = 0.05
"""Pause after the first failed attempt to connect; each further pause is twice it."""

CLOSE_SECONDS = 5.0
"""Longest time that an orderly goodbye to the server may take."""

CAREFUL_SECONDS = 60.0
"""How long after a refusal each event waits for the confirmation of the one before.

A server that is full takes an event again as soon as a consumer has made room: of
events that are under way together it might refuse one and take the next.
"""

LinkT = TypeVar("LinkT")
PreparedT = TypeVar("PreparedT")


class ConnectedBroker(EventBroker, Generic[LinkT, PreparedT]):
    """Publishes over one connection, which is made again when it is lost.

    What is published at once is sent together, in order, and awaited together; with
    `confirm_each_event` of each conversation one event at a time. What a lost
    connection left without confirmation is sent again from the first such event on, so
    that a consumer that drops repeats sees every event once and in order.

    Args:
        product: What people call the server, for errors.
        address: Where it is, without any secret, for errors.
        timeout_seconds: Longest time that one publish takes, reconnecting included.
        connection_attempts: Attempts to connect before `open` gives up.
        retry_delay_in_seconds: Longest pause between two attempts.
        confirm_each_event: Whether an event is sent only once the one before it in
            its conversation is confirmed. False does so for a minute after a refusal.

    Attributes:
        repeats: Number of messages that were sent again after a lost connection.
        overtaken: Number of messages that the server took although it had refused an
            earlier one of the same conversation: consumers see them too early.
        connections: Number of connections made so far.
        on_publish_error: What a store does about a failure unless it was told itself;
            None leaves it to the store.
    """

    on_publish_error: OnPublishError | None = None
    manages_connection = True

    def __init__(
        self,
        product: str,
        address: str,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        connection_attempts: int = 20,
        retry_delay_in_seconds: float = 5.0,
        *,
        confirm_each_event: bool = False,
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self.connection_attempts = connection_attempts
        self.retry_delay_in_seconds = retry_delay_in_seconds
        self.confirm_each_event = confirm_each_event
        self.repeats = 0
        self.overtaken = 0
        self.connections = 0
        self._careful_until = 0.0
        self._where = f"{product} at {address}"
        self._link: LinkT | None = None
        self._connecting: asyncio.Task[LinkT] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._problem: errors.PublishError | None = None
        self._closed = False
        self._goodbyes: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        """Show where it publishes to, and no secret."""
        return f"<{type(self).__name__} to {self._where}>"

    # -- what a broker fills in --------------------------------------------------------

    @abstractmethod
    async def _connect(self) -> LinkT:
        """Connect once, and declare what is published to."""

    @abstractmethod
    async def _disconnect(self, link: LinkT) -> None:
        """Say goodbye to the server and release everything."""

    @abstractmethod
    def _is_alive(self, link: LinkT) -> bool:
        """Whether the connection is usable as far as is known."""

    @abstractmethod
    def _prepare(self, message: EventMessage) -> PreparedT:
        """Encode one message, once, however often it is sent."""

    def _check(self, link: LinkT, batch: Sequence[PreparedT]) -> None:
        """Refuse as a whole what is known not to be taken.

        Raises:
            BrokerRefusedError: A message is larger than the server takes.
        """
        return

    @abstractmethod
    async def _send(self, link: LinkT, batch: Sequence[PreparedT]) -> int:
        """Send a batch in order; return how many from its start are confirmed.

        Fewer than all means that the connection is lost.

        Raises:
            PublishError: The server refused a message.
        """

    @abstractmethod
    def _explain(self, error: Exception) -> errors.PublishError:
        """Return one sentence about a failed attempt to connect, without secrets."""

    # -- the face of a broker ----------------------------------------------------------

    async def open(self) -> None:
        """Connect, with as many attempts as are configured.

        Raises:
            BrokerUnavailableError: No attempt succeeded.
            BrokerAccessError: The credentials, the rights or TLS were refused.
        """
        self._closed = False
        await self._connected()

    async def close(self) -> None:
        """Disconnect; a publish under way fails."""
        self._closed = True
        connecting, self._connecting = self._connecting, None
        link, self._link = self._link, None
        if self._loop is not asyncio.get_running_loop():
            return  # its connection ended with its loop
        if connecting is not None:
            connecting.cancel()
            await asyncio.wait({connecting})
            if not connecting.cancelled() and connecting.exception() is None:
                link = connecting.result()
        if link is not None:
            await self._disconnect_in_time(link)
        if self._goodbyes:
            await asyncio.wait(self._goodbyes, timeout=CLOSE_SECONDS)

    def is_ready(self) -> bool:
        """Whether there is a connection, or there may be one at the next publish."""
        if self._closed:
            return False
        return self._link is None or self._is_alive(self._link)

    async def publish(self, message: EventMessage) -> None:
        """Send one message and wait until the server has confirmed it.

        Raises:
            PublishError: It was refused, or not confirmed within `timeout_seconds`.
        """
        await self.publish_many([message])

    async def publish_many(self, messages: Sequence[EventMessage]) -> None:
        """Send the events of one save together, and wait for all confirmations.

        Raises:
            PublishError: One was refused, or not confirmed within `timeout_seconds`.
        """
        batch = [(each.sender_id, self._prepare(each)) for each in messages]
        careful = False
        losses = 0  # in a row, with nothing confirmed between them
        link: LinkT | None = None
        checked: LinkT | None = None
        try:
            async with asyncio.timeout(self.timeout_seconds):
                while batch:
                    link = await self._connected()
                    if checked is not link:  # before its beginning is on its way
                        self._check(link, [each for _, each in batch])
                        checked = link
                    if not careful and self._is_careful(link):
                        batch, careful = in_waves(batch), True
                    length = wave_length(batch) if careful else len(batch)
                    wave = [each for _, each in batch[:length]]
                    confirmed = await self._send(link, wave)
                    batch = batch[confirmed:]
                    if confirmed < length:
                        self.repeats += length - confirmed
                        await self._forget(link)
                        losses = 0 if confirmed else losses + 1
                        await asyncio.sleep(self._pause_seconds(losses))
        except TimeoutError as error:
            if link is not None:
                self._abandon_if_silent(link)
            raise self._too_late(len(messages) - len(batch), len(messages)) from error

    def _pause_seconds(self, losses: int) -> float:
        """Return how long to wait before another connection is tried.

        The first one is likely to do: not so after one that was lost at once.
        """
        if losses < 2:
            return 0.0
        delay = FIRST_DELAY_SECONDS * 2.0 ** min(losses - 2, 20)
        return min(delay, self.retry_delay_in_seconds)

    def _is_careful(self, link: LinkT) -> bool:
        """Whether an event waits for the confirmation of the one before it."""
        return self.confirm_each_event or time.monotonic() < self._careful_until

    def _note_refusal(self, overtaken: int) -> None:
        """Be careful from now on: the server refused an event.

        Args:
            overtaken: How many later ones of its conversation it took all the same.
        """
        self._careful_until = time.monotonic() + CAREFUL_SECONDS
        if not overtaken:
            return
        self.overtaken += overtaken
        logger.error(
            "%s refused an event and took %d later ones of the same conversation (%d "
            "so far): consumers see these too early. 'confirm_each_event: true' "
            "prevents it.",
            self._where,
            overtaken,
            self.overtaken,
        )

    def _too_late(self, confirmed: int, total: int) -> errors.PublishError:
        reason = "" if self._problem is None else f": {self._problem}"
        much = f"only {confirmed} of {total} events" if confirmed else "nothing"
        return errors.BrokerUnavailableError(
            f"{self._where} confirmed {much} within {self.timeout_seconds:g} s{reason}"
        )

    # -- the connection ----------------------------------------------------------------

    async def _connected(self) -> LinkT:
        """Return the connection; whoever needs a new one waits for the same attempt."""
        self._check_loop()
        if self._link is not None:
            if self._is_alive(self._link):
                return self._link
            await self._forget(self._link)
        self._check_open()
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect_until_it_works())
            self._connecting.add_done_callback(retrieve)
        connecting = self._connecting
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            if connecting.cancelled() and self._closed:
                self._check_open()
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise errors.BrokerClosedError(
                f"the broker for {self._where} was closed: call open() to use it again"
            )

    def _check_loop(self) -> None:
        """Start afresh on a new loop, unless the old one still runs.

        Raises:
            WrongLoopError: Another loop, which is not closed, has the connection.
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        held = self._link is not None or self._connecting is not None
        if self._loop is not None and held and not self._loop.is_closed():
            raise errors.WrongLoopError(
                f"the broker for {self._where} is in use on another event loop: make "
                "one broker for each loop"
            )
        self._loop, self._link, self._connecting = loop, None, None
        self._goodbyes.clear()

    async def _connect_until_it_works(self) -> LinkT:
        delay = min(FIRST_DELAY_SECONDS, self.retry_delay_in_seconds)
        for attempt in range(1, self.connection_attempts + 1):
            try:
                async with asyncio.timeout(self.timeout_seconds):
                    self._link = await self._connect()
            except Exception as error:
                problem = self._problem = self._as_problem(error)
                if (
                    isinstance(problem, errors.BrokerAccessError)
                    or attempt == self.connection_attempts
                ):
                    raise problem from error
                await asyncio.sleep(delay)
                delay = min(2 * delay, self.retry_delay_in_seconds)
            else:
                self._problem = None
                self.connections += 1
                return self._link
        raise AssertionError("there is at least one attempt")

    def _as_problem(self, error: Exception) -> errors.PublishError:
        if isinstance(error, errors.PublishError):
            return error
        if isinstance(error, errors.ConfigurationError):
            return errors.BrokerAccessError(str(error))
        return self._explain(error)

    async def _forget(self, link: LinkT) -> None:
        """Never use this connection again, and release what it holds."""
        if self._link is link:
            self._link = None
            await self._disconnect_in_time(link)

    async def _disconnect_in_time(self, link: LinkT) -> None:
        """Disconnect to the end, though the caller be cancelled meanwhile."""
        task = asyncio.create_task(self._disconnect(link))
        self._see_off(task)
        task.add_done_callback(retrieve)
        done, _ = await asyncio.wait({task}, timeout=CLOSE_SECONDS)
        if not done:
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)

    def _abandon_if_silent(self, link: LinkT) -> None:
        """Let the next publish connect anew: a dead route looks like a slow server.

        The old connection is closed behind our back, since the time is up.
        """
        if self._link is link:
            self._link = None
            self._see_off(asyncio.create_task(self._disconnect_in_time(link)))

    def _see_off(self, task: asyncio.Task[None]) -> None:
        """Let `close` wait for a disconnecting whose publish has ended before it."""
        self._goodbyes.add(task)
        task.add_done_callback(self._goodbyes.discard)


def in_waves(batch: Sequence[tuple[str, PreparedT]]) -> list[tuple[str, PreparedT]]:
    """Return messages so that of each conversation the first comes, then the second.

    So the longest beginning without two of one conversation may be sent together, and
    after it the next one.

    Args:
        batch: Sender id and message, each conversation's in order.
    """
    counts = defaultdict[str, int](int)
    numbered: list[tuple[int, tuple[str, PreparedT]]] = []
    for item in batch:
        numbered.append((counts[item[0]], item))
        counts[item[0]] += 1
    if len(counts) == 1:
        return list(batch)
    return [item for _, item in sorted(numbered, key=itemgetter(0))]


def wave_length(batch: Sequence[tuple[str, PreparedT]]) -> int:
    """Return how many messages stand before the second one of any conversation."""
    seen: set[str] = set()
    for sender_id, _ in batch:
        if sender_id in seen:
            break
        seen.add(sender_id)
    return len(seen)


def retrieve(task: asyncio.Future[Any]) -> None:
    """Take note of a task's error, for which nobody may be left to wait."""
    if not task.cancelled():
        task.exception()


def explain_connection_error(where: str, error: Exception) -> errors.PublishError:
    """Return the sentence about what can go wrong before any protocol begins."""
    for cause in _chain(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return errors.BrokerAccessError(
                f"the certificate of {where} was refused ({cause.verify_message}): "
                "check the CA file and the host name"
            )
        if isinstance(cause, ssl.SSLError):
            return errors.BrokerAccessError(
                f"{where} and we do not agree on TLS ({cause.reason or 'no reason'}): "
                "check that the port speaks TLS, and the client certificate"
            )
        for kind, sentence in _NETWORK_SENTENCES:
            if isinstance(cause, kind):
                return errors.BrokerUnavailableError(f"{where} {sentence}")
    return errors.BrokerUnavailableError(
        f"{where} cannot be reached ({type(error).__name__})"
    )


_NETWORK_SENTENCES = (
    (socket.gaierror, "has an unknown host name: check the name"),
    (
        (ConnectionRefusedError, ConnectionResetError, BrokenPipeError),
        "refused or cut the connection: check that it runs, the port and TLS",
    ),
    (TimeoutError, "did not answer in time: check the address, the firewall and TLS"),
)
"""Kinds of errors, and what they say of a server."""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
