"""Servers that the outage benchmark may kill: private ones, one entry each."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.faults.proxy import FaultProxy
from tests.servers import (
    fresh_database,
    private_dynamo,
    private_mariadb,
    private_mongo,
    private_postgresql,
    private_redis,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from contextlib import AbstractContextManager

    from tests.servers import PrivateMariaDB, PrivatePostgreSQL


@dataclass(frozen=True, slots=True)
class OutageServer:
    """A running server, and a store on it.

    Attributes:
        section: The `tracker_store` section of the store.
        kill: Ends the server as a crash would; it blocks.
        start: Starts it again and waits until it answers; it blocks.
    """

    section: dict[str, Any]
    kill: Callable[[], None]
    start: Callable[[], None]


@contextmanager
def _sql_server(
    dialect: str, private: AbstractContextManager[PrivatePostgreSQL | PrivateMariaDB]
) -> Iterator[OutageServer]:
    with private as running, fresh_database(running.server) as name:
        server = running.server
        section = {
            "type": "sql",
            "dialect": dialect,
            "host": server.host,
            "port": server.port,
            "db": name,
            "username": server.username,
            "password": server.password or None,
            "pool_size": 20,
            "max_overflow": 0,
        }
        yield OutageServer(section, running.process.kill, running.process.start)


def postgresql() -> AbstractContextManager[OutageServer]:
    """Start a PostgreSQL of our own."""
    return _sql_server("postgresql", private_postgresql())


def mariadb() -> AbstractContextManager[OutageServer]:
    """Start a MariaDB of our own."""
    return _sql_server("mysql", private_mariadb())


@contextmanager
def redis() -> Iterator[OutageServer]:
    """Start a Redis of our own, which writes each command through to its log."""
    with private_redis() as running:
        server = running.server
        section = {"type": "redis", "host": server.host, "port": server.port}
        yield OutageServer(section, running.process.kill, running.process.start)


@contextmanager
def mongo() -> Iterator[OutageServer]:
    """Start a server of our own that speaks MongoDB's protocol."""
    with private_mongo() as running, fresh_database(running.server) as name:
        section = {
            "type": "mongod",
            "url": running.server.url(),
            "db": name,
            "connect_timeout_seconds": 2,
        }
        yield OutageServer(section, running.process.kill, running.process.start)


SETTLE_SECONDS = 0.5
"""How long DynamoDB Local gets between the last answer and SIGKILL."""


@contextmanager
def dynamo() -> Iterator[OutageServer]:
    """Start a DynamoDB Local of our own, which keeps its tables on disk.

    The emulator answers a transaction before it is on the disk: killed at that moment,
    it has forgotten the last one (seen with boto3 alone). So the line to it is cut
    first, and it is killed half a second later.
    """
    with (
        private_dynamo(on_disk=True) as running,
        _line_to(running.server.host, running.server.port) as line,
    ):
        server = running.server

        def kill() -> None:
            line.refuse()
            time.sleep(SETTLE_SECONDS)
            running.process.kill()

        def start() -> None:
            running.process.start()
            line.accept()

        section = {
            "type": "dynamo",
            "endpoint_url": f"http://{line.proxy.host}:{line.proxy.port}",
            "aws_access_key_id": server.username,
            "aws_secret_access_key": server.password,
            "read_rasa_data": False,
            "retry_budget_seconds": 2,
        }
        yield OutageServer(section, kill, start)


class _Line:
    """A proxy on a loop of its own, for those who block."""

    def __init__(self, proxy: FaultProxy, loop: asyncio.AbstractEventLoop) -> None:
        self.proxy = proxy
        self._loop = loop

    def refuse(self) -> None:
        """Cut every connection, and refuse new ones."""
        self._wait_for(self._refuse())

    def accept(self) -> None:
        """Accept connections again."""
        self._wait_for(self.proxy.accept())

    async def _refuse(self) -> None:
        await self.proxy.refuse()
        self.proxy.cut()

    def _wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()


@contextmanager
def _line_to(host: str, port: int) -> Iterator[_Line]:
    started: Future[_Line] = Future()
    end = threading.Event()

    async def serve() -> None:
        async with FaultProxy(host, port) as proxy:
            started.set_result(_Line(proxy, asyncio.get_running_loop()))
            await asyncio.to_thread(end.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    try:
        yield started.result(timeout=10)
    finally:
        end.set()
        thread.join()


SERVERS: Mapping[str, Callable[[], AbstractContextManager[OutageServer]]] = {
    "postgresql": postgresql,
    "mariadb": mariadb,
    "redis": redis,
    "mongo": mongo,
    "dynamo": dynamo,
}
"""Backend to what starts its server. One that is added here is measured like these."""
