"""Connecting to a server, a cluster or sentinels, and sending one command whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.asyncio import ConnectionPool, Redis, RedisCluster, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import (
    ConnectionError,  # noqa: A004
    NoScriptError,
    ResponseError,
)

from tracker_store_async.backends.redis.credentials import login_options
from tracker_store_async.backends.redis.errors import is_read_only
from tracker_store_async.backends.redis.kept import (
    IS_POSSIBLE,
    KeptConnections,
    encoded,
)
from tracker_store_async.backends.redis.options import split
from tracker_store_async.deadlines import Deadlines
from tracker_store_async.errors import StoreClosedError
from tracker_store_async.settling import settled

try:
    from redis.driver_info import DriverInfo
except ImportError:  # a redis-py before 7.2, which knows its version by now
    DriverInfo = None  # type: ignore[assignment, misc]

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from tracker_store_async.backends.redis.options import ConnectionOptions
    from tracker_store_async.backends.redis.scripts import Script

SETTLE_SECONDS = 1.0
"""Longest time that a cancelled caller waits for the answer of its command."""

READ_BYTES = 1 << 18
"""Most bytes that are taken from a socket at once: what asyncio takes."""

SMALL_BYTES = 32_768
"""Most bytes that a command may have to be sent without a task of its own: fewer than a
socket takes at once, so that a cancelled caller never leaves half of it unsent."""

MOST_LONG_ANSWERS = 8
"""Most long answers that are waited for at a time: all that have come by the time the
loop looks are taken apart in one pass of it, each for some 0.3 ms."""

CLUSTER_RETRIES = 3
"""Times that a command is sent again to a cluster that is changing."""


class Connector:
    """Makes clients of redis-py, which connect when they are used.

    Args:
        options: Where and how to connect.
    """

    def __init__(self, options: ConnectionOptions) -> None:
        self._options = options

    def connect(self) -> tuple[Redis | RedisCluster, list[Any]]:
        """Return a client, which connects later, and what to close with it."""
        if self._options.deployment_mode == "cluster":
            return self._cluster(), []
        if self._options.deployment_mode == "sentinel":
            return self._behind_sentinels()
        return self._standalone(), []

    @property
    def _timeouts(self) -> dict[str, Any]:
        return {
            "socket_timeout": self._options.command_timeout_seconds,
            "socket_connect_timeout": self._options.connect_timeout_seconds,
        }

    @property
    def _shared(self) -> dict[str, Any]:
        options = self._options
        login = login_options(
            options.username, options.password, options.credential_provider
        )
        return login | self._timeouts | {"redis_connect_func": _logged_in}

    @property
    def _introduction(self) -> dict[str, Any]:
        """What all connections of a pool tell the server of the client library.

        Without it redis-py 7.2 and newer look up their own version, in a file, for each
        connection: 64 conversations that begin at once stop the loop for 40 ms.
        """
        return {} if DriverInfo is None else {"driver_info": DriverInfo()}

    def _standalone(self) -> Redis:
        options = {
            **self._shared,
            **self._introduction,
            "db": self._options.db,
            "retry": Retry(NoBackoff(), 0),
            # `Commands` bounds each of them; redis-py takes a task and two timers
            "socket_timeout": None,
            "socket_read_size": READ_BYTES,
        }
        if self._options.unix_socket_path is not None:
            options |= {
                "connection_class": UnixDomainSocketConnection,
                "path": self._options.unix_socket_path,
            }
        else:
            options |= {
                "host": self._options.host,
                "port": self._options.port,
                "socket_keepalive": True,
            }
            if self._options.tls:
                options |= {"connection_class": SSLConnection, **self._options.tls}
        pool = ConnectionPool(max_connections=self._options.max_connections, **options)
        return Redis.from_pool(pool)

    def _cluster(self) -> RedisCluster:
        endpoints = self._options.endpoints or (
            f"{self._options.host}:{self._options.port}",
        )
        tls = {"ssl": True, **self._options.tls} if self._options.tls else {}
        shared = self._shared
        log_in = shared.pop("redis_connect_func")
        client = RedisCluster(
            startup_nodes=[ClusterNode(*split(each)) for each in endpoints],
            retry=Retry(ExponentialBackoff(1.0, 0.05), CLUSTER_RETRIES),
            # the turns of `Commands` are the bound: a node raises at its own
            max_connections=2**31,
            **shared,
            **tls,
        )
        ours: list[Any] = [client, *client.nodes_manager.startup_nodes.values()]
        for each in ours:  # there is no argument for it
            each.connection_kwargs["redis_connect_func"] = log_in
        return client

    def _behind_sentinels(self) -> tuple[Redis, list[Any]]:
        tls = {"ssl": True, **self._options.tls} if self._options.tls else {}
        login = login_options(
            self._options.sentinel_username, self._options.sentinel_password
        )
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            [split(each) for each in self._options.endpoints],
            sentinel_kwargs={
                **login,
                "redis_connect_func": _logged_in,
                **self._timeouts,
                # one that hangs must not take all the time there is
                "socket_timeout": self._options.connect_timeout_seconds,
                "retry": Retry(NoBackoff(), 0),
                **tls,
            },
        )
        client = sentinel.master_for(
            self._options.sentinel_service,
            db=self._options.db,
            max_connections=self._options.max_connections,
            retry=Retry(NoBackoff(), 0),
            **self._shared,
            **self._introduction,
            **tls,
        )
        return client, list(sentinel.sentinels)


async def _logged_in(connection: Any) -> None:
    """Log in, or close the connection.

    redis-py keeps one whose login was cut off while a password was fetched, and uses
    it: as the user, and in the database, that everybody has who never logged in.
    """
    try:
        await connection.on_connect()
    except BaseException as error:
        await connection.disconnect(nowait=True)
        # What a server says against a certificate may be lost as it hangs up.
        if type(error) is ConnectionError and isinstance(connection, SSLConnection):
            raise ConnectionError(f"{error}; {_HUNG_UP}") from error
        raise


_HUNG_UP = "over TLS a server does so, too, that refuses the client's certificate"


class Commands:
    """Sends commands, each to its end, and at most so many at a time.

    redis-py loses or mixes up a connection when a command is cancelled at the wrong
    moment. So a command runs in a task of its own and a cancelled caller waits for it;
    if no answer comes, redis-py drops the connection as it reads.

    Args:
        client: A client of redis-py whose answers are bytes.
        max_connections: Most commands under way.
        timeout_seconds: Longest time that one may take, waiting for its turn included.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        max_connections: int,
        timeout_seconds: float,
        *,
        keep: bool = False,
    ) -> None:
        self.client = client
        self.is_cluster = isinstance(client, RedisCluster)
        self._turns = asyncio.Semaphore(max_connections)
        self._long_turns = asyncio.Semaphore(MOST_LONG_ANSWERS)
        self._max_connections = max_connections
        self._under_way = 0
        self._is_closed = False
        self._deadlines = Deadlines(timeout_seconds)
        keeps = keep and IS_POSSIBLE and isinstance(client, Redis)
        self._kept = KeptConnections(client.connection_pool) if keeps else None  # type: ignore[union-attr]

    def close(self) -> None:
        """Let nobody begin any more, and keep no connection; the client stays open."""
        self._is_closed = True
        self._deadlines.close()
        if self._kept is not None:
            self._kept.is_closed = True

    def pool_use(self) -> dict[str, int]:
        """Return how many connections there may be, and how many are in use."""
        return {"size": self._max_connections, "checked_out": self._under_way}

    async def run(self, script: Script, keys: Sequence[bytes], *args: Any) -> Any:
        """Run a script: one round trip, two where the server does not know it yet."""
        words = (len(keys), *keys, *args)
        if self._kept is None:
            return await self._whole(self._script(script, words))
        [answer] = await self.ask(encoded(words, head=script.head, given=2), 1)
        if isinstance(answer, NoScriptError):
            [answer] = await self.ask(encoded(("EVAL", script.text, *words)), 1)
        if isinstance(answer, Exception):
            if is_read_only(answer):
                await self._reconnect()
            raise answer
        return answer

    async def run_many(
        self, script: Script, calls: Sequence[tuple[Sequence[bytes], Sequence[Any]]]
    ) -> list[Any]:
        """Run a script several times: one round trip, to each node of a cluster.

        Args:
            script: The script.
            calls: Keys and arguments of each.

        Returns:
            The answers; an error that the server gave stands in its place.
        """
        if not calls:
            return []
        commands = [(len(keys), *keys, *arguments) for keys, arguments in calls]
        return list(await self._whole(self._scripts(script, commands)))

    async def send(self, *command: Any, **options: Any) -> Any:
        """Send one command and return the answer."""
        return await self._whole(self.client.execute_command(*command, **options))

    async def info(self, **options: Any) -> dict[str, Any]:
        """Return what the server says of itself."""

        async def ask() -> dict[str, Any]:
            return dict(await self.client.info("server", **options))

        answer: dict[str, Any] = await self._whole(ask())
        return answer

    async def send_all(
        self, commands: Sequence[Sequence[Any]], *, is_long: bool = False
    ) -> list[Any]:
        """Send commands together, in order, and return their answers.

        Args:
            commands: The commands.
            is_long: Whether the answers are; see `ask`.
        """
        if not commands:
            return []
        if self._kept is not None:
            data = b"".join(encoded(command) for command in commands)
            answers = await self.ask(data, len(commands), is_long=is_long)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
            return answers
        return list(await self._whole(self._pipeline(commands)))

    async def _script(self, script: Script, rest: tuple[Any, ...]) -> Any:
        send = self.client.execute_command
        try:
            try:
                return await send("EVALSHA", script.sha, *rest)
            except NoScriptError:
                return await send("EVAL", script.text, *rest)
        except ResponseError as error:
            if is_read_only(error) and not self.is_cluster:
                await self._reconnect()
            raise

    async def _reconnect(self) -> None:
        """Use no connection again: the server has become a replica.

        It may leave them open, though its address is that of the new master by now.
        """
        if self._kept is not None:
            await self._kept.drop_idle()
        pool: Any = self.client.connection_pool  # type: ignore[union-attr]
        await pool.disconnect(inuse_connections=False)

    async def _scripts(
        self, script: Script, commands: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        sent = [("EVALSHA", script.sha, *command) for command in commands]
        answers = list(await self._pipeline(sent, raise_on_error=False))
        unknown = [
            at for at, each in enumerate(answers) if isinstance(each, NoScriptError)
        ]
        if unknown:
            # Rare: the server, or a node, was started a moment ago.
            sent = [("EVAL", script.text, *commands[at]) for at in unknown]
            again = await self._pipeline(sent, raise_on_error=False)
            for at, answer in zip(unknown, again, strict=True):
                answers[at] = answer
        return answers

    async def _pipeline(
        self, commands: Sequence[Sequence[Any]], *, raise_on_error: bool = True
    ) -> Any:
        async with self.client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return await pipeline.execute(raise_on_error=raise_on_error)

    @property
    def keeps_connections(self) -> bool:
        """Whether there are connections at hand that `ask` can use."""
        return self._kept is not None

    async def ask(self, data: bytes, count: int, *, is_long: bool = False) -> list[Any]:
        """Send encoded commands on a connection that is kept; return their answers.

        Args:
            data: The commands.
            count: How many answers there are. An error stands in the place of one.
            is_long: Whether they are long, so that few are to come at a time.
        """
        assert self._kept is not None  # noqa: S101
        asking = (
            self._ask_in_long_turn(data, count)
            if is_long
            else self._in_turn(self._kept.ask(data, count))
        )
        if len(data) <= SMALL_BYTES:
            return list(await self._deadlines.bound(asking))
        return list(await settled(self._deadlines.bound(asking), SETTLE_SECONDS))

    async def _ask_in_long_turn(self, data: bytes, count: int) -> Any:
        assert self._kept is not None  # noqa: S101
        async with self._long_turns:
            return await self._in_turn(self._kept.ask(data, count))

    async def _whole(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def spared() -> Any:
            try:
                if self._kept is not None:
                    await self._kept.spare()
            except BaseException:
                work.close()
                raise
            return await work

        bounded = self._deadlines.bound(self._in_turn(spared(), work))
        return await settled(bounded, SETTLE_SECONDS)

    async def _in_turn(self, *work: Coroutine[Any, Any, Any]) -> Any:
        """Await the first one once it is our turn; close all of them if that fails."""
        try:
            await self._turns.acquire()
        except BaseException:
            for each in work:
                each.close()
            raise
        self._under_way += 1
        try:
            if self._is_closed:  # redis-py would connect once more
                for each in work:
                    each.close()
                raise StoreClosedError("the store was closed while it was in use")
            return await work[0]
        finally:
            self._under_way -= 1
            self._turns.release()
