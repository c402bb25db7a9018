"""The keys of the Redis Streams event broker in `endpoints.yml`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self
from urllib.parse import unquote

from pydantic import BeforeValidator, Field, model_validator

from tracker_store_async.brokers.broker_config import BrokerConfig
from tracker_store_async.brokers.config import split_url
from tracker_store_async.settings import (
    Count,
    HostName,
    Name,
    Port,
    RequiredDriver,
    Seconds,
    Secret,
    merge_url_parts,
    reject_true_and_false,
)

DatabaseNumber = Annotated[int, Field(ge=0), BeforeValidator(reject_true_and_false)]


class RedisBrokerConfig(BrokerConfig):
    """The keys are ours: Rasa has no such broker.

    Attributes:
        host: Host name, or a `redis://` or `rediss://` URL; its parts become the keys
            of their own.
        port: Port.
        db: Number of the database.
        username: Name of the ACL user.
        password: Password.
        stream: Key of the stream.
        max_length: About how many events the stream keeps; the oldest go first.
        use_ssl: Whether to use TLS.
        ssl_cafile: File with the certificates that the server is checked against.
        ssl_certfile: File with the client's certificate.
        ssl_keyfile: File with the client's private key.
        ssl_check_hostname: Whether the certificate must name the host.
        connection_attempts: Attempts to connect before opening the broker fails.
        retry_delay_in_seconds: Longest pause between two attempts.
    """

    aliases: ClassVar = {"url": "host"}

    host: HostName = "localhost"
    port: Port = 6379
    db: DatabaseNumber = 0
    username: Name | None = None
    password: Secret | None = None
    stream: Name = "rasa_core_events"
    max_length: Count = 1_000_000
    use_ssl: bool = False
    ssl_cafile: Name | None = None
    ssl_certfile: Name | None = None
    ssl_keyfile: Name | None = None
    ssl_check_hostname: bool = True
    connection_attempts: Count = 20
    retry_delay_in_seconds: Seconds = 5.0

    @model_validator(mode="before")
    @classmethod
    def _take_url_apart(cls, values: Any) -> Any:
        host = values.get("host") if isinstance(values, dict) else None
        if not isinstance(host, str) or "://" not in host:
            return values
        rest = {key: value for key, value in values.items() if key != "host"}
        return merge_url_parts(rest, _url_parts(host))

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        files = (self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile)
        if any(files) and not self.use_ssl:
            raise ValueError("the ssl_ files need 'use_ssl: true' or a rediss:// url")
        if self.ssl_keyfile and not self.ssl_certfile:
            raise ValueError("'ssl_keyfile' needs 'ssl_certfile'")
        return self

    def required_driver(self) -> RequiredDriver | None:
        """Return redis-py and the extra that installs it."""
        return RequiredDriver("redis", "redis")


def _url_parts(url: str) -> dict[str, Any]:
    """Return the keys that a Redis URL stands for."""
    parts = split_url(url)
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError("the url must begin with redis:// or rediss://")
    if parts.query or parts.fragment:
        raise ValueError("the url must not have options after '?'; use keys")
    database = parts.path.strip("/")
    if database and not database.isdecimal():
        raise ValueError("the path of the url must be the number of the database")
    return {
        "host": parts.hostname or "localhost",
        "port": parts.port,
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "db": int(database) if database else None,
        "use_ssl": True if parts.scheme == "rediss" else None,
    }
