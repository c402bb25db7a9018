"""Where and how to connect; redis-py is not needed to say so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.options import check_host

if TYPE_CHECKING:
    from redis.credentials import CredentialProvider

    from tracker_store_async.credentials import PasswordSource

DEPLOYMENT_MODES = ("standalone", "cluster", "sentinel")


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Where and how to connect; see `RedisTrackerStore`."""

    host: str
    port: int
    db: int
    username: str | None
    password: str | PasswordSource | None = field(repr=False)
    credential_provider: CredentialProvider | None = field(repr=False)
    tls: dict[str, Any]
    deployment_mode: str
    endpoints: tuple[str, ...]
    sentinel_service: str
    sentinel_username: str | None
    sentinel_password: str | PasswordSource | None = field(repr=False)
    unix_socket_path: str | None
    max_connections: int
    connect_timeout_seconds: float
    command_timeout_seconds: float

    @property
    def where(self) -> str:
        """Say where it connects, without credentials."""
        if self.deployment_mode == "sentinel":
            names = ", ".join(self.endpoints)
            return f"redis {self.sentinel_service!r} of sentinels {names}"
        if self.deployment_mode == "cluster":
            nodes = ", ".join(self.endpoints) or f"{self.host}:{self.port}"
            return f"redis cluster at {nodes}"
        return f"redis at {self.unix_socket_path or f'{self.host}:{self.port}'}"

    @property
    def renews_credentials(self) -> bool:
        """Whether they are asked for whenever a connection is made."""
        passwords = (self.password, self.sentinel_password)
        return self.credential_provider is not None or any(map(callable, passwords))

    def check(self) -> None:
        """Check that the options fit together.

        Raises:
            ConfigurationError: They do not.
        """
        if self.deployment_mode not in DEPLOYMENT_MODES:
            raise ConfigurationError(
                "deployment_mode must be standalone, cluster or sentinel"
            )
        if self.deployment_mode == "sentinel" and not self.endpoints:
            raise ConfigurationError("deployment_mode sentinel needs 'endpoints'")
        if self.deployment_mode == "cluster" and self.db:
            raise ConfigurationError("a Redis Cluster has only db 0")
        if self.credential_provider is not None and (self.username or self.password):
            raise ConfigurationError(
                "`credential_provider` brings username and password: keep one of them"
            )
        check_host(self.host)
        for endpoint in self.endpoints:
            check_host(endpoint)
            split(endpoint)


def tls_options(
    keyfile: str | None,
    certfile: str | None,
    ca_certs: str | None,
    check_hostname: bool,
) -> dict[str, Any]:
    """Return the arguments of redis-py for TLS."""
    return {
        "ssl_keyfile": keyfile,
        "ssl_certfile": certfile,
        "ssl_ca_certs": ca_certs,
        "ssl_check_hostname": check_hostname,
    }


def split(endpoint: str) -> tuple[str, int]:
    """Return host and port of `host:port`."""
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigurationError(f"{endpoint!r} is not 'host:port'")
    return host.strip("[]"), int(port)
