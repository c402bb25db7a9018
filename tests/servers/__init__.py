"""Find or start each real server that the tests run against.

A server is looked for in this order; the first that answers is used:

1. the URL in `TRACKER_STORE_TEST_POSTGRESQL_URL`, `..._MYSQL_URL`, `..._PGBOUNCER_URL`,
   `..._DYNAMO_URL`;
2. one that runs on its usual port of 127.0.0.1 and lets the test user in;
3. a private one from programs that are installed, then from a package of Python;
4. a container of `compose.yaml`, if a Docker engine answers.

`TRACKER_STORE_REQUIRE=postgresql,mysql` (or `all`) turns a missing server into a
failure. `TRACKER_STORE_TEST_IGNORE_RUNNING=1` skips step 2 and installed programs.

Whatever the server, tests work in databases of their own (`fresh_database`), so runs
beside each other never meet and nothing else on the server is touched.

A new backend is one context manager here: it takes the `Servers`, yields a `Server`
or raises `ServerMissingError`, and gets a line in `MANAGERS`. Fixture, marker,
summary line and `TRACKER_STORE_REQUIRE` follow from that line.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.servers import (
    browser,
    dynamo,
    kafka,
    libraries,
    mongo,
    mysql,
    nats,
    pgbouncer,
    postgresql,
    rabbitmq,
    redis,
)
from tests.servers.base import Server, ServerMissingError, Servers, fresh_database
from tests.servers.browser import BrowserServer
from tests.servers.dynamo import DynamoServer, PrivateDynamo, private_dynamo
from tests.servers.mongo import MongoServer, PrivateMongo, private_mongo
from tests.servers.mysql import MySQLServer, PrivateMariaDB, private_mariadb
from tests.servers.postgresql import (
    PostgreSQLServer,
    PrivatePostgreSQL,
    private_postgresql,
)
from tests.servers.redis import (
    PrivateRedis,
    RedisServer,
    private_cluster,
    private_redis,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

MANAGERS: Mapping[str, Callable[[Servers], AbstractContextManager[Server]]] = {
    "memory": libraries.memory,
    "sqlite": libraries.sqlite,
    "postgresql": postgresql.find_or_start,
    "mysql": mysql.find_or_start,
    "pgbouncer": pgbouncer.find_or_start,
    "mongo": mongo.find_or_start,
    "redis": redis.find_or_start,
    "redis8": redis.newer_redis,
    "redis_cluster": redis.cluster,
    "valkey": redis.valkey,
    "oracle": libraries.oracle,
    "dynamo": dynamo.find_or_start,
    "rabbitmq": rabbitmq.find_or_start,
    "nats": nats.find_or_start,
    "kafka": kafka.find_or_start,
    "browser": browser.find_or_start,
}

ALIASES = {
    "dynamodb": "dynamo",
    "mariadb": "mysql",
    "postgres": "postgresql",
    "in_memory": "memory",
    "chromium": "browser",
}


@contextmanager
def available_servers() -> Iterator[Servers]:
    """Yield the servers for a script; what it started is stopped at the end."""
    servers = Servers(MANAGERS)
    try:
        yield servers
    finally:
        servers.close()


def required_keys(text: str) -> list[str]:
    """Return the keys that `TRACKER_STORE_REQUIRE` names.

    Raises:
        ValueError: It names something that is no server.
    """
    if text.strip() == "all":
        return list(MANAGERS)
    names = [name.strip() for name in text.split(",") if name.strip()]
    keys = [ALIASES.get(name, name) for name in names]
    for name, key in zip(names, keys, strict=True):
        if key not in MANAGERS:
            known = ", ".join(MANAGERS)
            raise ValueError(
                f"TRACKER_STORE_REQUIRE names {name!r}: use all, or some of {known}"
            )
    return keys


__all__ = [
    "MANAGERS",
    "BrowserServer",
    "DynamoServer",
    "MongoServer",
    "MySQLServer",
    "PostgreSQLServer",
    "PrivateDynamo",
    "PrivateMariaDB",
    "PrivateMongo",
    "PrivatePostgreSQL",
    "PrivateRedis",
    "RedisServer",
    "Server",
    "ServerMissingError",
    "Servers",
    "available_servers",
    "fresh_database",
    "private_cluster",
    "private_dynamo",
    "private_mariadb",
    "private_mongo",
    "private_postgresql",
    "private_redis",
    "required_keys",
]
