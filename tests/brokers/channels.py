"""The brokers that the suite runs on: one entry in `BROKERS` each.

An entry makes a `Channel`: how to make a broker, how to read back what a consumer would
see, with the raw client, and which server there is to be stopped, killed or cut off.
Nothing else in this directory knows of any broker.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import uuid
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from tests.brokers import redis_server
from tests.servers import fresh_database, private_mariadb, private_postgresql
from tests.servers.base import run_now
from tracker_store_async.brokers.file import FileEventBroker
from tracker_store_async.brokers.sql import SQLEventBroker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.servers.process import ServerProcess
    from tests.servers.tls import Certificates
    from tracker_store_async import EventBroker


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as a consumer sees it; headers are None where it has none."""

    message_id: str | None
    position: int | None
    type: str | None
    environment: str | None
    body: dict[str, Any]


class Channel(ABC):
    """One queue, stream, table or file, and the brokers that publish to it.

    Attributes:
        process: The server, which is ours alone, or None.
        address: Where the server listens, or None.
        certificates: What its TLS is made of, or None.
        round_trips: Round trips of one publish of several events on a connection that
            is open, or None where that is not to be counted.
        in_one_batch: Options with which a save is one round trip.
        drops_repeats: Whether the server drops repeats by itself.
        any_host: Options of a broker that takes a certificate for another host.
        environment_not_set: What a consumer sees where `RASA_ENVIRONMENT` is not set.
    """

    process: ServerProcess | None = None
    address: tuple[str, int] | None = None
    certificates: Certificates | None = None
    round_trips: int | None = 1
    in_one_batch: ClassVar[dict[str, Any]] = {}
    drops_repeats = False
    any_host: Mapping[str, Any] = MappingProxyType({"ssl_check_hostname": False})
    environment_not_set: str | None = None

    def __init__(self) -> None:
        self._brokers: list[EventBroker] = []
        self.name = ""
        self.renew()

    def broker(self, **options: Any) -> EventBroker:
        """Return a new broker; `close` closes it.

        Args:
            options: `host` and `port` of a proxy before the server, `password` (a wrong
                one), `cafile`, `timeout_seconds`, `connection_attempts`.
        """
        broker = self._make(**options)
        self._brokers.append(broker)
        return broker

    async def close(self) -> None:
        """Close every broker that was made."""
        while self._brokers:
            await self._brokers.pop().close()

    def renew(self) -> None:
        """Go on with another queue, of a new name, which is empty."""
        self.name = f"events_{uuid.uuid4().hex[:12]}"

    async def read(self) -> list[Delivery]:
        """Return everything that a consumer would see from the beginning, in order."""
        return await asyncio.to_thread(self._read)

    @asynccontextmanager
    async def slow_consumer(self) -> AsyncIterator[asyncio.Event]:
        """Have a consumer take one event and keep it; the event says that it did.

        Where consumers only read, and no server knows of them, nobody can be slow.
        """
        await self.read()
        taken = asyncio.Event()
        taken.set()
        yield taken

    @abstractmethod
    def _make(self, **options: Any) -> EventBroker:
        """Return a new broker."""

    @abstractmethod
    def _read(self) -> list[Delivery]:
        """Read everything with the raw client."""


class FileChannel(Channel):
    """A file, a new one for each test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        super().__init__()

    @property
    def path(self) -> Path:
        """The file of this test."""
        return self._directory / f"{self.name}.log"

    def _make(self, **options: Any) -> EventBroker:
        options.pop("connection_attempts", None)
        return FileEventBroker(self.path, with_headers=True, **options)

    def _read(self) -> list[Delivery]:
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="ascii").splitlines()
        return [_from_line(json.loads(line)) for line in lines]


def _from_line(line: dict[str, Any]) -> Delivery:
    return Delivery(
        line["message_id"],
        int(line["position"]),
        line["type"],
        line.get("RASA_ENVIRONMENT"),
        line["body"],
    )


_SELECT = "SELECT message_id, position, {type}, environment, data FROM events"
_SELECT += " ORDER BY id"


class SQLiteChannel(FileChannel):
    """The table in an SQLite file, a new one for each test."""

    def _make(self, **options: Any) -> EventBroker:
        return SQLEventBroker(db=str(self.path), **options)

    def _read(self) -> list[Delivery]:
        if not self.path.exists():
            return []
        connection = sqlite3.connect(self.path)
        try:
            return [_from_row(row) for row in connection.execute(select("type"))]
        except sqlite3.OperationalError:  # there is no table yet
            return []
        finally:
            connection.close()


def select(type_column: str) -> str:
    """Return the statement that reads the table, for any database."""
    return _SELECT.format(type=type_column)


def _from_row(row: Any) -> Delivery:
    message_id, position, type_name, environment, data = row
    return Delivery(message_id, position, type_name, environment, json.loads(data))


class SQLServerChannel(Channel):
    """The table in a database of a private server, emptied for each test."""

    def __init__(self, private: Any, dialect: str, database: str) -> None:
        self._server, self._dialect, self._database = private.server, dialect, database
        self.process = private.process
        self.address = (private.server.host, private.server.port)
        self.certificates = private.certificates
        self.any_host = {"ssl_mode": "verify-ca"}
        super().__init__()

    def _make(self, **options: Any) -> EventBroker:
        given = {
            "retry_delay_in_seconds": 0.1,
            "host": self._server.host,
            "port": self._server.port,
            "password": self._server.password or None,
            "ssl_ca_certs": options.pop("cafile", self._own_ca()),
        } | options
        return SQLEventBroker(
            self._dialect, db=self._database, username=self._server.username, **given
        )

    def _own_ca(self) -> str | None:
        return None if self.certificates is None else str(self.certificates.ca)

    def renew(self) -> None:
        """Empty the table, if there is one."""
        self._server.execute("DROP TABLE IF EXISTS events", self._database)

    def _read(self) -> list[Delivery]:
        return [_from_row(row) for row in run_now(self._rows())]

    async def _rows(self) -> list[Any]:
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import create_async_engine
        from sqlalchemy.pool import NullPool

        driver = {"postgresql": "asyncpg", "mysql": "asyncmy"}[self._dialect]
        url = self._server.url(f"{self._dialect}+{driver}", self._database)
        engine = create_async_engine(url, poolclass=NullPool)
        try:
            async with engine.connect() as connection:
                rows = await connection.execute(text(select("type")))
                return list(rows)
        finally:
            await engine.dispose()


class RedisChannel(Channel):
    """A stream of a private Redis, a new one for each test."""

    def __init__(self, private: redis_server.PrivateRedis) -> None:
        self._private = private
        self.process = private.process
        self.address = ("127.0.0.1", private.port)
        self.certificates = private.certificates
        super().__init__()

    def _make(self, **options: Any) -> EventBroker:
        from tracker_store_async.brokers.redis import RedisEventBroker

        cafile = options.pop("cafile", None)
        if self.certificates is not None and "use_ssl" not in options:
            options["use_ssl"] = True
            options["ssl_cafile"] = cafile or str(self.certificates.ca)
        given = {
            "host": "127.0.0.1",
            "port": self._private.port,
            "password": redis_server.PASSWORD,
            "stream": self.name,
            "retry_delay_in_seconds": 0.1,
        }
        return RedisEventBroker(**(given | options))

    def _read(self) -> list[Delivery]:
        client: Any = self._private.raw()
        try:
            entries = client.xrange(self.name)
        finally:
            client.close()
        return [_from_entry(fields) for _, fields in entries]


def _from_entry(fields: dict[bytes, bytes]) -> Delivery:
    text = {name.decode(): value.decode() for name, value in fields.items()}
    return Delivery(
        text["message_id"],
        int(text["position"]),
        text["type"],
        text.get("RASA_ENVIRONMENT"),
        json.loads(text["body"]),
    )


@dataclass(frozen=True, slots=True)
class Broker:
    """One entry of the table.

    Attributes:
        channel: Starts what it needs and makes its channel; it raises
            `ServerMissingError` where there is no server to run against.
        has_server: Whether there is a server to be stopped, killed and cut off.
        tls: The same with a server that takes only TLS connections, or None.
    """

    channel: Callable[[Path], AbstractContextManager[Channel]]
    has_server: bool = True
    tls: Callable[[Path], AbstractContextManager[Channel]] | None = None


@contextmanager
def file_channel(directory: Path) -> Iterator[Channel]:
    """Yield a directory with files."""
    yield FileChannel(directory)


@contextmanager
def sqlite_channel(directory: Path) -> Iterator[Channel]:
    """Yield a directory with SQLite files."""
    yield SQLiteChannel(directory)


def redis_channel(*, tls: bool = False) -> Any:
    """Return what yields streams of a private Redis."""

    @contextmanager
    def start(directory: Path) -> Iterator[Channel]:
        with redis_server.private_redis(tls=tls) as private:
            yield RedisChannel(private)

    return start


def postgresql_channel(*, tls: bool = False) -> Any:
    """Return what yields a table on a private PostgreSQL."""

    @contextmanager
    def start(directory: Path) -> Iterator[Channel]:
        with (
            private_postgresql(tls=tls) as private,
            fresh_database(private.server) as n,
        ):
            yield SQLServerChannel(private, "postgresql", n)

    return start


def mysql_channel(*, tls: bool = False) -> Any:
    """Return what yields a table on a private MariaDB."""

    @contextmanager
    def start(directory: Path) -> Iterator[Channel]:
        with private_mariadb(tls=tls) as own, fresh_database(own.server) as name:
            yield SQLServerChannel(own, "mysql", name)

    return start


BROKERS: dict[str, Broker] = {
    "file": Broker(file_channel, has_server=False),
    "sqlite": Broker(sqlite_channel, has_server=False),
    "redis": Broker(redis_channel(), tls=redis_channel(tls=True)),
    "postgresql": Broker(postgresql_channel(), tls=postgresql_channel(tls=True)),
    "mariadb": Broker(mysql_channel(), tls=mysql_channel(tls=True)),
}
