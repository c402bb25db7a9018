"""The keys of the NATS JetStream event broker in `endpoints.yml`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from tracker_store_async.brokers.config import (
    ConnectedBrokerConfig,
    split_addresses,
    split_url,
)
from tracker_store_async.settings import (
    Count,
    Name,
    RequiredDriver,
    Seconds,
    Secret,
)

DEFAULT_PORT = 4222


class NatsConfig(ConnectedBrokerConfig):
    """Keys of our own: Rasa has no broker for NATS.

    Attributes:
        servers: `nats://` or `tls://` URLs, or `host:port`, of servers of one cluster.
        stream: Name of the stream; it is created where it is missing.
        subject: Subject that events are published to.
        username: User name.
        password: Password.
        token: Token, in place of user name and password.
        use_ssl: Whether to use TLS.
        ssl_cafile: File with the certificates that the server is checked against.
        ssl_certfile: File with the client's certificate.
        ssl_keyfile: File with the client's private key.
        ssl_check_hostname: Whether the certificate must name the host.
        storage: Where a stream that is created keeps its messages.
        replicas: Number of servers that keep them.
        duplicate_window_seconds: How long such a stream recognises a repeat.
        confirm_each_event: Whether an event waits for the acknowledgement of the one
            before it in its conversation.
    """

    aliases: ClassVar = {"url": "servers", "host": "servers", "user": "username"}

    servers: tuple[str, ...] = (f"nats://localhost:{DEFAULT_PORT}",)
    stream: Name = "rasa_core_events"
    subject: Name = "rasa_core_events"
    username: Name | None = None
    password: Secret | None = None
    token: Secret | None = None
    use_ssl: bool = False
    ssl_cafile: Name | None = None
    ssl_certfile: Name | None = None
    ssl_keyfile: Name | None = None
    ssl_check_hostname: bool = True
    storage: Literal["file", "memory"] = "file"
    replicas: Count = 1
    duplicate_window_seconds: Seconds = 120.0
    confirm_each_event: bool = True

    def required_driver(self) -> RequiredDriver:
        """Return nats-py."""
        return RequiredDriver("nats", "nats")

    @field_validator("servers", mode="before")
    @classmethod
    def _check_servers(cls, value: Any) -> Any:
        return tuple(_server(item) for item in split_addresses(value))

    @field_validator("stream", "subject")
    @classmethod
    def _is_a_plain_name(cls, name: str) -> str:
        if any(character.isspace() or character in "*>" for character in name):
            raise ValueError("must not hold spaces, '*' or '>'")
        return name

    @field_validator("stream")
    @classmethod
    def _has_no_dots(cls, name: str) -> str:
        if set(name) & set("./\\"):
            raise ValueError("must not hold dots or slashes")
        return name

    @model_validator(mode="after")
    def _login_is_one(self) -> Self:
        if self.token is not None and self.username is not None:
            raise ValueError("give either 'token' or 'username' and 'password'")
        if (self.username is None) != (self.password is None):
            raise ValueError("'username' and 'password' need each other")
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        files = (self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile)
        secure = self.use_ssl or any(url.startswith("tls://") for url in self.servers)
        if any(files) and not secure:
            raise ValueError("the ssl_ files need 'use_ssl: true' or a tls:// url")
        if self.ssl_keyfile and not self.ssl_certfile:
            raise ValueError("'ssl_keyfile' needs 'ssl_certfile'")
        return self


def _server(address: str) -> str:
    """Return one URL; a login in it is refused, since it would be logged."""
    url = address if "://" in address else f"nats://{address}"
    parts = split_url(url)
    if parts.scheme not in ("nats", "tls") or not parts.hostname:
        raise ValueError("the url must begin with nats:// or tls:// and name a host")
    if parts.username or parts.password:
        raise ValueError("give username, password or token as keys, not in the url")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or DEFAULT_PORT}"
