"""Servers that the outage benchmark may kill: private ones, one entry each."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.servers import (
    fresh_database,
    private_dynamo,
    private_mariadb,
    private_mongo,
    private_postgresql,
    private_redis,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
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


@contextmanager
def dynamo() -> Iterator[OutageServer]:
    """Start a DynamoDB Local of our own, which keeps its tables on disk."""
    with private_dynamo(on_disk=True) as running:
        server = running.server
        section = {
            "type": "dynamo",
            "endpoint_url": f"http://{server.host}:{server.port}",
            "aws_access_key_id": server.username,
            "aws_secret_access_key": server.password,
            "read_rasa_data": False,
            "retry_budget_seconds": 2,
        }
        yield OutageServer(section, running.process.kill, running.process.start)


SERVERS: Mapping[str, Callable[[], AbstractContextManager[OutageServer]]] = {
    "postgresql": postgresql,
    "mariadb": mariadb,
    "redis": redis,
    "mongo": mongo,
    "dynamo": dynamo,
}
"""Backend to what starts its server. One that is added here is measured like these."""
