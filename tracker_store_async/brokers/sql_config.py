"""The keys of the SQL event broker in `endpoints.yml`."""

from __future__ import annotations

from typing import ClassVar, Literal

from tracker_store_async.brokers.config import ConnectedBrokerConfig
from tracker_store_async.settings import Name, Port, RequiredDriver, Secret

SslMode = Literal["disable", "require", "verify-ca", "verify-full"]

_DRIVERS = {
    "postgresql": RequiredDriver("asyncpg", "postgresql"),
    "postgres": RequiredDriver("asyncpg", "postgresql"),
    "mysql": RequiredDriver("asyncmy", "mysql"),
    "mariadb": RequiredDriver("asyncmy", "mysql"),
}


class SQLBrokerConfig(ConnectedBrokerConfig):
    """Rasa's keys (`SQLEventBroker` of 3.6.21) and those of TLS.

    Attributes:
        dialect: `sqlite`, `postgresql`, `mysql` or `mariadb`; a driver after a `+` is
            replaced by the asyncio driver of the dialect.
        host: Host name, `host:port`, or a whole database URL.
        port: Port; None is the dialect's usual one.
        db: Name of the database; with SQLite the path of the file.
        username: Name to log in with.
        password: Password to log in with.
        ssl_mode: What TLS has to prove, by PostgreSQL's names.
        ssl_ca_certs: File with the certificates that the server is checked against.
        ssl_certfile: File with the client's certificate.
        ssl_keyfile: File with the client's private key.
    """

    aliases: ClassVar = {"url": "host"}

    dialect: Name = "sqlite"
    host: Name | None = None
    port: Port | None = None
    db: Name = "events.db"
    username: Name | None = None
    password: Secret | None = None
    ssl_mode: SslMode | None = None
    ssl_ca_certs: Name | None = None
    ssl_certfile: Name | None = None
    ssl_keyfile: Name | None = None

    def required_driver(self) -> RequiredDriver | None:
        """Return the asyncio driver of the dialect and the extra that installs it."""
        written = self.host if self.host and "://" in self.host else self.dialect
        return _DRIVERS.get(written.partition(":")[0].partition("+")[0].lower())
