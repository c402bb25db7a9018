"""Redis Streams: one script call a save, pipelined over one connection."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis import exceptions as redis_errors
from redis.asyncio.connection import Connection, SSLConnection

from tracker_store_async import errors
from tracker_store_async.brokers.connected import (
    DEFAULT_TIMEOUT_SECONDS,
    ConnectedBroker,
    explain_connection_error,
)
from tracker_store_async.brokers.envelope import encode_body, headers_of
from tracker_store_async.options import check_host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.broker import EventMessage

DEFAULT_STREAM = "rasa_core_events"
DEFAULT_MAX_LENGTH = 1_000_000

_SCRIPT = """
local at = 2
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*',
             unpack(ARGV, at + 1, at + count))
  at = at + count + 1
end
"""
"""All events of a save or none: the server refuses the script before it writes."""

_OF_A_SCRIPT = re.compile(
    r"(?:ERR )?Error running script \(call to f_\w+\): (?:@\w+: ?\d+: ?)+-?([A-Z]+) "
)
"""What Redis before 7 wraps around the answer to a command of a script."""

_ACCESS_CODES = {"NOAUTH", "WRONGPASS", "NOPERM", "DENIED"}
_BUSY_CODES = {"OOM", "LOADING", "READONLY", "MASTERDOWN", "NOREPLICAS", "BUSY"}
_BUSY_CODES |= {"MISCONF", "CLUSTERDOWN"}


class _Link:
    """A connection that answers in the order in which it was asked."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._outgoing: deque[bytes] = deque()
        self._answers: deque[asyncio.Future[Any]] = deque()
        self._asked = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._keep(work)) for work in (self._write, self._read)
        ]
        self.is_alive = True

    def ask(self, *command: Any) -> asyncio.Future[Any]:
        """Send a command; the future is cancelled if the connection is lost."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self.is_alive:
            answer.cancel()
            return answer
        self._outgoing.extend(self.connection.pack_command(*command))
        self._answers.append(answer)
        self._asked.set()
        return answer

    async def _write(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            pieces = list(self._outgoing)
            self._outgoing.clear()
            await self.connection.send_packed_command(pieces, check_health=False)

    async def _read(self) -> None:
        while True:
            try:
                found = await self.connection.read_response(timeout=None)
            except redis_errors.ResponseError as error:
                found = error
            answer = self._answers.popleft()
            if answer.done():  # its publish was given up
                continue
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

    async def _keep(self, work: Any) -> None:
        """Do half of the work until the connection is lost."""
        try:
            await work()
        except (redis_errors.RedisError, OSError, EOFError, IndexError):
            pass  # it is lost; whoever waits is told below
        finally:
            self.is_alive = False
            while self._answers:
                self._answers.popleft().cancel()

    async def end(self) -> None:
        """Disconnect, and tell everybody who waits."""
        self.is_alive = False
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await _disconnect(self.connection)


async def _disconnect(connection: Connection) -> None:
    """Close the connection, and let the loop close its socket."""
    with suppress(redis_errors.RedisError, OSError):
        await connection.disconnect(nowait=True)
    for _ in range(2):
        await asyncio.sleep(0)


class RedisEventBroker(ConnectedBroker[_Link, list[Any]]):
    """Appends events to a Redis stream of bounded length.

    The events of one save are appended together, all or none, in one round trip. The
    entry's fields are `sender_id`, `message_id`, `position`, `type`, `RASA_ENVIRONMENT`
    where it is set, and `body`, Rasa's message as JSON. How durable a confirmed event
    is, is the server's `appendfsync`.

    Args:
        host: Host name.
        port: Port.
        db: Number of the database.
        username: Name of the ACL user; it needs EVAL and XADD on the stream.
        password: Password.
        stream: Key of the stream.
        max_length: About how many events the stream keeps; the oldest go first.
        use_ssl: Whether to use TLS.
        ssl_cafile: Certificates to check the server against; None is the system's.
        ssl_certfile: The client's certificate.
        ssl_keyfile: Its private key.
        ssl_check_hostname: Whether the certificate must name the host.
        timeout_seconds: Longest time that one publish takes, reconnecting included.
        connection_attempts: Attempts to connect before `open` gives up.
        retry_delay_in_seconds: Longest pause between two attempts.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 6379,
        db: int = 0,
        username: str | None = None,
        password: str | None = None,
        *,
        stream: str = DEFAULT_STREAM,
        max_length: int = DEFAULT_MAX_LENGTH,
        use_ssl: bool = False,
        ssl_cafile: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        ssl_check_hostname: bool = True,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        connection_attempts: int = 20,
        retry_delay_in_seconds: float = 5.0,
    ) -> None:
        super().__init__(
            "Redis",
            f"{check_host(host)}:{port}",
            timeout_seconds,
            connection_attempts,
            retry_delay_in_seconds,
        )
        self.stream = stream
        self.max_length = max_length
        self._arguments: dict[str, Any] = {
            "host": host,
            "port": port,
            "db": db,
            "username": username,
            "password": password,
            "socket_timeout": None,
            "socket_connect_timeout": timeout_seconds,
            "protocol": 2,
        }
        self._tls: dict[str, Any] = {
            "ssl_ca_certs": ssl_cafile,
            "ssl_certfile": ssl_certfile,
            "ssl_keyfile": ssl_keyfile,
            "ssl_check_hostname": ssl_check_hostname,
        }
        self._use_ssl = use_ssl

    async def _connect(self) -> _Link:
        # In a thread: making one reads redis-py's own metadata from the disk.
        connection: Connection
        if self._use_ssl:
            connection = encrypted = await asyncio.to_thread(
                SSLConnection, **self._arguments, **self._tls
            )
            await self._load_tls_files(encrypted)
        else:
            connection = await asyncio.to_thread(Connection, **self._arguments)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await _disconnect(connection)
            raise
        return _Link(connection)

    async def _load_tls_files(self, connection: SSLConnection) -> None:
        """Load the files in a thread: redis-py would do so on the loop."""
        try:
            await asyncio.to_thread(connection.ssl_context.get)
        except OSError as error:
            raise errors.ConfigurationError(
                "event_broker: the TLS files cannot be loaded: 'ssl_cafile', "
                "'ssl_certfile' and 'ssl_keyfile' must exist and hold PEM certificates "
                "and the matching key"
            ) from error

    async def _disconnect(self, link: _Link) -> None:
        await link.end()

    def _is_alive(self, link: _Link) -> bool:
        return link.is_alive

    def _prepare(self, message: EventMessage) -> list[Any]:
        fields = {
            "sender_id": message.sender_id,
            **headers_of(message),
            "body": encode_body(message),
        }
        pairs = [part for pair in fields.items() for part in pair]
        return [len(pairs), *pairs]

    async def _send(self, link: _Link, batch: Sequence[list[Any]]) -> int:
        arguments = [part for prepared in batch for part in prepared]
        answer = link.ask("EVAL", _SCRIPT, 1, self.stream, self.max_length, *arguments)
        try:
            await asyncio.wait({answer})
        finally:
            answer.cancel()  # given up, or settled already
        if answer.cancelled():
            return 0  # the connection is lost
        error = answer.exception()
        if error is not None:
            if _code(error) == "READONLY":
                # A replica by now: the address may be that of the new master.
                await self._forget(link)
            raise self._explain_reply(error) from error
        return len(batch)

    def _explain(self, error: Exception) -> errors.PublishError:
        if isinstance(error, redis_errors.AuthenticationError | redis_errors.DataError):
            return errors.BrokerAccessError(
                f"{self._where} refused the credentials: check 'username' and "
                "'password'"
            )
        if isinstance(error, redis_errors.ResponseError):
            return self._explain_reply(error)
        return explain_connection_error(self._where, _network_error(error))

    def _explain_reply(self, error: BaseException) -> errors.PublishError:
        """Say what the server refused; its text may quote what it was sent."""
        code = _code(error)
        if code in _ACCESS_CODES or isinstance(error, redis_errors.NoPermissionError):
            return errors.BrokerAccessError(
                f"{self._where} refused the rights: the user needs EVAL and XADD on "
                f"the stream {self.stream!r}"
            )
        if code == "WRONGTYPE":
            return errors.BrokerRefusedError(
                f"{self._where} has something else than a stream under the key "
                f"{self.stream!r}: name another 'stream'"
            )
        if code in _BUSY_CODES:
            return errors.BrokerUnavailableError(
                f"{self._where} takes no events at the moment ({code})"
            )
        return errors.BrokerRefusedError(f"{self._where} refused an event ({code})")


def _code(error: BaseException) -> str:
    """Return the code that the server's answer began with, such as `WRONGTYPE`."""
    names = {"OutOfMemoryError": "OOM", "ReadOnlyError": "READONLY"}
    names |= {"BusyLoadingError": "LOADING", "NoPermissionError": "NOPERM"}
    within = _OF_A_SCRIPT.match(str(error))
    if within is not None:
        return within[1]
    word = names.get(type(error).__name__) or str(error).partition(" ")[0]
    return word if word.isupper() and word.isalpha() else type(error).__name__


def _network_error(error: Exception) -> Exception:
    """Return what lies below redis-py's own error about the connection."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError | OSError):
            return seen
        seen = seen.__cause__ or seen.__context__
    if isinstance(error, redis_errors.TimeoutError):
        return TimeoutError()
    return error
