"""Connections of redis-py's pool that stay at hand between two commands.

What redis-py's `execute_command` does around a short command takes longer than the
command: it lends a connection under a lock, dispatches events, records metrics, wraps
the command in its retries, makes a task and two timers of its own to bound it, and
encodes the arguments one by one. Here a connection stays at hand, and a command is
written to it and its answer read with redis-py's own methods for that. The pool stays
the one that opens, authenticates, counts and limits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.asyncio import Connection
from redis.exceptions import RedisError, ResponseError

from tracker_store_async.settling import settled
from tracker_store_async.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import ConnectionPool

IS_POSSIBLE = hasattr(Connection, "can_read")
"""Whether this redis-py has what is used here: 8 and newer have."""

SETTLE_SECONDS = 1.0
"""Longest time that a cancelled caller waits for the answer of its command."""

OPENING_SECONDS = 0.0003
"""What redis-py computes to open a connection: many begin in one pass of the loop."""


class KeptConnections:
    """Lends connections, and asks the server.

    Nobody may ask more at a time than the pool has connections, and whoever uses the
    pool itself calls `spare` before.

    Args:
        pool: The pool. Nothing here bounds how long a command takes.

    Attributes:
        is_closed: Whether a connection is closed once nobody uses it.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._idle: list[Any] = []
        self._left: set[asyncio.Task[None]] = set()  # opening, and nobody waits for it
        self._turns = Turns()
        self.is_closed = False

    async def ask(self, commands: bytes, answers: int = 1) -> list[Any]:
        """Send commands that are encoded already, and return their answers.

        Once they are sent a cancelled caller waits for the answers, so that it is
        settled what became of them. If none come, the connection is closed.

        Args:
            commands: The commands, see `encoded`. So few bytes that a socket takes
                them at once: else a cancelled caller would leave half a command.
            answers: How many there are.

        Returns:
            The answers; an error that the server gave stands in its place.
        """
        connection = await self._take()
        found: list[Any] = []
        try:
            await connection.send_packed_command(commands, check_health=False)
            found.append(await _answer(connection))
            # The others came with it, mostly: what a connection does before it asks
            # its parser, and after, takes four times as long as the parser.
            while len(found) < answers:
                found.append(await connection._parser.read_response())
        except asyncio.CancelledError:
            await self._settle(connection, answers - len(found))
            raise
        except BaseException:
            await self._drop(connection)
            raise
        await self._keep(connection)
        return found

    async def spare(self) -> None:
        """Give the pool a connection back that nobody uses, if there is one."""
        if self._left and not self._idle:
            await self._wait_for_one()
        if self._idle:
            await self._pool.release(self._idle.pop())

    async def _take(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if await _is_sound(connection):
                return connection
            await self._drop(connection)
        while not self._idle:  # somebody else may be faster
            await self._wait_for_one()
        return self._idle.pop()

    async def _wait_for_one(self) -> None:
        """Open a connection, or wait for one whose caller is gone: it counts, too."""
        opening = next(iter(self._left), None)
        if opening is None:
            opening = asyncio.ensure_future(self._open())
        self._left.discard(opening)
        try:
            # redis-py may lose a connection when its caller is cancelled meanwhile.
            await settled(opening, SETTLE_SECONDS)
        except BaseException:
            if self.is_closed:  # nobody will come for it
                await self.drop_idle()
            raise
        finally:
            if not opening.done():  # the caller was cancelled twice
                self._left.add(opening)
                opening.add_done_callback(self._left.discard)

    async def _open(self) -> None:
        """Get one from the pool, connected: whoever waited for it may be gone."""
        pool: Any = self._pool
        async with self._turns:
            self._turns.owe(OPENING_SECONDS)
        connection = await pool.get_connection()
        try:
            if not await _is_sound(connection):
                # redis-py does not look where it listens for maintenance of the server
                await connection.disconnect(nowait=True)
                await connection.connect()
        except BaseException:
            await self._drop(connection)
            raise
        self._idle.append(connection)
        if self.is_closed and asyncio.current_task() in self._left:
            await self.drop_idle()

    async def _settle(self, connection: Any, missing: int) -> None:
        """Wait for the answers of a command whose caller was cancelled."""
        reading = asyncio.ensure_future(_answers(connection, missing))
        try:
            await asyncio.wait({reading}, timeout=SETTLE_SECONDS)
        finally:
            if reading.done() and not reading.cancelled() and not reading.exception():
                await self._keep(connection)
            else:
                reading.cancel()
                await self._drop(connection)

    async def _keep(self, connection: Any) -> None:
        if self.is_closed:
            await self._drop(connection)
        else:
            self._idle.append(connection)

    async def drop_idle(self) -> None:
        """Close the connections that nobody uses at the moment."""
        while self._idle:
            await self._drop(self._idle.pop())

    async def _drop(self, connection: Any) -> None:
        """Close a connection at once; the pool may open another one."""
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)


async def _answer(connection: Any) -> Any:
    try:
        return await connection.read_response(disconnect_on_error=False)
    except ResponseError as error:
        return error


async def _answers(connection: Any, count: int) -> None:
    for _ in range(count):
        await _answer(connection)


async def _is_sound(connection: Any) -> bool:
    """Whether the server has neither closed it while it lay idle nor said anything."""
    if not connection.is_connected or connection.should_reconnect():
        return False
    try:
        return not await connection.can_read()
    except (RedisError, OSError):
        return False


def encoded(arguments: Sequence[Any], *, head: bytes = b"", given: int = 0) -> bytes:
    """Return a command as it is sent (RESP).

    Args:
        arguments: Its words: bytes, or what is written as its `str`.
        head: The first words, encoded already.
        given: How many these are.
    """
    words = [b"*%d\r\n%b" % (len(arguments) + given, head)]
    for argument in arguments:
        data = argument if type(argument) is bytes else str(argument).encode()
        words.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(words)
