"""`RedisTrackerStore`: options, opening and closing; the work is in the other files."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from tracker_store_async.backends.redis.keys import Keys
from tracker_store_async.backends.redis.options import ConnectionOptions, tls_options
from tracker_store_async.backends.redis.scripts import SCHEMA_VERSION
from tracker_store_async.credentials import one_password
from tracker_store_async.errors import (
    ConfigurationError,
    MissingExtraError,
    SchemaError,
    StoreClosedError,
    StoreUnavailableError,
)
from tracker_store_async.rows import Health
from tracker_store_async.saving_many import settled_alone
from tracker_store_async.serialization import SerializedTrackerAsText
from tracker_store_async.settling import settled
from tracker_store_async.store import TrackerStore
from tracker_store_async.stored_layout import check_version, climb
from tracker_store_async.translation import Translated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractContextManager

    from redis.asyncio import Redis, RedisCluster
    from redis.credentials import CredentialProvider

    from tracker_store_async.backends.redis.client import Commands
    from tracker_store_async.backends.redis.operations import Operations
    from tracker_store_async.backends.redis.users import Users
    from tracker_store_async.broker import EventBroker
    from tracker_store_async.credentials import PasswordSource
    from tracker_store_async.domain import Domain
    from tracker_store_async.options import OnConflict, OnPublishError
    from tracker_store_async.rows import (
        Append,
        ConversationSummary,
        Listing,
        Read,
        Rewrite,
        StoredConversation,
        Upkeep,
    )

COMMAND_SECONDS = 60.0
CONNECT_SECONDS = 10.0
DEFAULT_MAX_CONNECTIONS = 50
CLOSE_SECONDS = 5.0


async def _find_users(users: Users) -> None:
    """Make the sets of what each user has, which version 1 did not keep."""
    await users.find_all()


LAYOUT_STEPS: dict[int, Callable[[Users], Awaitable[None]]] = {1: _find_users}
"""What leads from a version of the layout to the next one."""


class RedisTrackerStore(TrackerStore, SerializedTrackerAsText):
    """Keeps conversations in Redis or Valkey: one server, a cluster, or with sentinels.

    What Rasa wrote is read, and taken over by the first save in the same step.

    Args:
        domain: Gives new trackers their slots.
        host: Host name.
        port: Port.
        db: Number of the database.
        username: Name of the ACL user.
        password: Password, or a function, sync or async, that returns it: it is asked
            whenever a connection is made.
        event_broker: Gets every event before it is stored, or None.
        record_exp: Seconds after its latest save when a conversation expires, or None.
        key_prefix: Letters and digits in front of every key.
        use_ssl: Whether to use TLS.
        ssl_keyfile: File with the client's private key.
        ssl_certfile: File with the client's certificate.
        ssl_ca_certs: File with the certificates that the server is checked against;
            None takes the system's.
        ssl_check_hostname: Whether the certificate must name the host.
        deployment_mode: `standalone`, `cluster` or `sentinel`.
        endpoints: `host:port` of cluster nodes or sentinels.
        sentinel_service: Name of the master that the sentinels watch.
        sentinel_username: Name to log in to the sentinels with, or None.
        sentinel_password: Password to log in to the sentinels with, or None.
        unix_socket_path: Path of the server's socket, in place of host and port.
        max_connections: Most connections, and commands under way; None is 50.
        connect_timeout_seconds: Longest time to connect; None is 10.
        command_timeout_seconds: Longest time that one command may take; None is 60.
        delete_rasa_data: Whether taking a conversation over removes Rasa's value.
        client: A `redis.asyncio.Redis` or `RedisCluster` of your own in place of all
            that says where and how to connect. It is never closed here, and must not
            decode responses.
        password_file: File that holds the password, in place of `password`; it is read
            again for each new connection.
        sentinel_password_file: The same for the sentinels.
        credential_provider: A `redis.credentials.CredentialProvider` in place of
            `username` and `password`, for a login whose name changes as well.
        max_event_history: Most events that `retrieve` reads and holds, or None.
        on_conflict: What a save does about another writer's events.
        on_publish_error: What a save does when the broker fails.

    Raises:
        ConfigurationError: An option is wrong or contradicts another one.
    """

    backend_name = "redis"

    def __init__(
        self,
        domain: Domain | None = None,
        host: str = "localhost",
        port: int = 6379,
        db: int = 0,
        username: str | None = None,
        password: str | PasswordSource | None = None,
        event_broker: EventBroker | None = None,
        record_exp: float | None = None,
        key_prefix: str | None = None,
        use_ssl: bool = False,
        ssl_keyfile: str | None = None,
        ssl_certfile: str | None = None,
        ssl_ca_certs: str | None = None,
        *,
        ssl_check_hostname: bool = True,
        deployment_mode: Literal["standalone", "cluster", "sentinel"] = "standalone",
        endpoints: Sequence[str] = (),
        sentinel_service: str = "mymaster",
        sentinel_username: str | None = None,
        sentinel_password: str | PasswordSource | None = None,
        unix_socket_path: str | None = None,
        max_connections: int | None = None,
        connect_timeout_seconds: float | None = None,
        command_timeout_seconds: float | None = None,
        delete_rasa_data: bool = False,
        client: Redis | RedisCluster | None = None,
        password_file: str | None = None,
        sentinel_password_file: str | None = None,
        credential_provider: CredentialProvider | None = None,
        max_event_history: int | None = None,
        on_conflict: OnConflict = "rebase",
        on_publish_error: OnPublishError = "raise",
    ) -> None:
        super().__init__(
            domain,
            event_broker,
            max_event_history=max_event_history,
            on_conflict=on_conflict,
            on_publish_error=on_publish_error,
            record_exp=record_exp,
        )
        if key_prefix is not None and not key_prefix.isalnum():
            raise ConfigurationError("key_prefix must be letters and digits only")
        tls = tls_options(ssl_keyfile, ssl_certfile, ssl_ca_certs, ssl_check_hostname)
        self._options = ConnectionOptions(
            host=host,
            port=int(port),
            db=db,
            username=username,
            password=one_password(password, password_file),
            credential_provider=credential_provider,
            tls=tls if use_ssl else {},
            deployment_mode=deployment_mode,
            endpoints=tuple(endpoints),
            sentinel_service=sentinel_service,
            sentinel_username=sentinel_username,
            sentinel_password=one_password(
                sentinel_password, sentinel_password_file, "sentinel_password"
            ),
            unix_socket_path=unix_socket_path,
            max_connections=max_connections or DEFAULT_MAX_CONNECTIONS,
            connect_timeout_seconds=connect_timeout_seconds or CONNECT_SECONDS,
            command_timeout_seconds=command_timeout_seconds or COMMAND_SECONDS,
        )
        self._options.check()
        self._renews_credentials = self._options.renews_credentials
        self._where = self._options.where if client is None else "redis, own client,"
        self._translated: AbstractContextManager[None] = nullcontext()
        self._keys = Keys(key_prefix)
        self._key_prefix = key_prefix
        self._delete_rasa_data = delete_rasa_data
        self._own_client = client
        self._operations: Operations | None = None
        self._to_close: list[Any] = []
        if client is not None and client.get_encoder().decode_responses:
            raise ConfigurationError("`client` must not decode responses")

    def __repr__(self) -> str:
        """Say where it connects, without credentials."""
        database = f", database {self._options.db}" if self._options.db else ""
        prefix = f", key prefix {self._key_prefix}" if self._key_prefix else ""
        return f"<{type(self).__name__}: {self._where}{database}{prefix}>"

    # -- opening and closing -----------------------------------------------------------

    async def _open(self) -> None:
        try:
            await settled(self._open_whole())
        except asyncio.CancelledError:
            await self._close()  # it may have come up after all
            raise

    async def _open_whole(self) -> None:
        try:
            # Only here, so that the public name can be imported without the driver.
            from tracker_store_async.backends.redis import client as clients
            from tracker_store_async.backends.redis import errors as error_table
            from tracker_store_async.backends.redis.operations import Operations
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "redis":
                raise
            raise MissingExtraError(
                "RedisTrackerStore needs the package 'redis': "
                "pip install 'tracker-store-async[redis]'"
            ) from error
        self._translated = Translated(self._where, error_table, self._options.password)
        client = self._own_client
        to_close: list[Any] = []
        if client is None:
            with self._translated:
                client, to_close = clients.Connector(self._options).connect()
            to_close = [client, *to_close]
        self._to_close = to_close
        try:
            commands = clients.Commands(
                client,
                self._options.max_connections,
                self._options.command_timeout_seconds,
                keep=self._keeps_connections,
            )
            with self._translated:
                if commands.is_cluster:
                    await client.initialize()
                operations = Operations(
                    commands,
                    self._keys,
                    delete_rasa_data=self._delete_rasa_data,
                    only_looks=not self._creates_layout,
                )
                await self._check_layout(commands, operations.index.users)
        except BaseException:
            await self._close()
            raise
        self._operations = operations

    @property
    def _keeps_connections(self) -> bool:
        """Whether connections stay at hand: ours, to one server, with a fixed login."""
        options = self._options
        is_ours = self._own_client is None and options.deployment_mode == "standalone"
        return is_ours and options.credential_provider is None

    async def _check_layout(self, commands: Commands, users: Users) -> None:
        """Refuse a layout that another version wrote, or upgrade it if told so."""
        found = await commands.send("GET", self._keys.layout)
        if found is None:
            if self._creates_layout:
                await commands.send("SETNX", self._keys.layout, SCHEMA_VERSION)
            found = b"%d" % SCHEMA_VERSION
        if not found.isdigit():
            raise SchemaError(
                f"{self._where} has no version of a layout under "
                f"{self._keys.layout.decode()}: set another key_prefix"
            )
        version, may_upgrade = int(found), self._upgrades_layout
        check_version(version, SCHEMA_VERSION, self._where, may_upgrade=may_upgrade)
        await climb(
            version,
            SCHEMA_VERSION,
            LAYOUT_STEPS,
            users,
            partial(commands.send, "SET", self._keys.layout),
        )

    async def _close(self) -> None:
        to_close, self._to_close = self._to_close, []
        operations, self._operations = self._operations, None
        if operations is not None:
            operations.commands.close()
        for each in to_close:
            with self._translated:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await each.aclose()

    # -- primitives --------------------------------------------------------------------

    async def _append(self, append: Append) -> bool:
        with self._translated:
            return await self._opened.append(append)

    async def _append_many(
        self, appends: Sequence[Append]
    ) -> list[bool | BaseException]:
        try:
            with self._translated:
                answers = await self._opened.append_many(appends)
        except StoreUnavailableError as error:
            if self._opened.commands.is_cluster:  # it may be one node of many
                return await super()._append_many(appends)
            return [error] * len(appends)  # any of them may have landed
        # One that has to look closer, or that the server refused, goes alone.
        return await settled_alone(answers, self._append, appends)

    async def _read(self, read: Read) -> StoredConversation | None:
        with self._translated:
            return await self._opened.read(read)

    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        with self._translated:
            # On a cluster it is several commands: once begun they all run.
            return await settled(self._opened.delete(sender_id, before, now, version))

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        with self._translated:
            return await settled(self._opened.rewrite(rewrite))

    async def _list(self, listing: Listing) -> list[ConversationSummary]:
        with self._translated:
            return await self._opened.page(listing)

    async def _upkeep(self, *, apply: bool) -> Upkeep:
        from tracker_store_async.backends.redis.maintenance import redis_upkeep

        with self._translated:
            return await redis_upkeep(self._opened, self._keys, apply=apply)

    async def _health(self) -> Health:
        commands = self._opened.commands
        options = {"target_nodes": "random"} if commands.is_cluster else {}
        started = time.perf_counter()
        from tracker_store_async.backends.redis.operations import version_of

        with self._translated:
            answer = await commands.info(**options)
            latency_seconds = time.perf_counter() - started
            layout = await commands.send("GET", self._keys.layout)
        return Health(
            backend=self.backend_name,
            reachable=True,
            latency_seconds=latency_seconds,
            server_version=version_of(answer),
            schema_version=int(layout) if layout else None,
            details={
                "deployment_mode": self._options.deployment_mode,
                "pool": self._pool_use(),
            },
        )

    def _pool_use(self) -> dict[str, int]:
        operations = self._operations
        return {} if operations is None else operations.commands.pool_use()

    @property
    def _opened(self) -> Operations:
        if self._operations is None:
            raise StoreClosedError("the store was closed while it was in use")
        return self._operations
