"""The keys of the Redis tracker store in `endpoints.yml`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tracker_store_async.aws_config import ElastiCacheIamKey, fill_elasticache
from tracker_store_async.settings import (
    HostName,
    Name,
    Port,
    RequiredDriver,
    Seconds,
    Secret,
    StoreConfig,
    merge_url_parts,
    reject_true_and_false,
)

DatabaseNumber = Annotated[int, Field(ge=0), BeforeValidator(reject_true_and_false)]

MaxConnections = Annotated[int, Field(ge=1), BeforeValidator(reject_true_and_false)]


class RedisConfig(StoreConfig):
    """Rasa's keys: `RedisTrackerStore` of 3.6.21, and high availability of later ones.

    Attributes:
        host: Host name, or a `redis://`, `rediss://` or `unix://` URL; its parts become
            the keys of their own.
        port: Port.
        db: Number of the database.
        username: Name of the ACL user.
        password: Password.
        password_file: File that holds the password; it is read again for each new
            connection, so that a rotated secret is survived.
        aws_iam: Log in to ElastiCache with tokens of AWS's IAM, in place of a password.
        key_prefix: Letters and digits in front of every key.
        use_ssl: Whether to use TLS.
        ssl_keyfile: File with the client's private key.
        ssl_certfile: File with the client's certificate.
        ssl_ca_certs: File with the certificates that the server is checked against.
        deployment_mode: What `host` or `endpoints` are.
        endpoints: `host:port` of cluster nodes or sentinels.
        sentinel_service: Name of the master that the sentinels watch.
        sentinel_username: Name to log in to the sentinels with.
        sentinel_password: Password to log in to the sentinels with.
        sentinel_password_file: File that holds it, in its place.
        unix_socket_path: Path of the server's socket, in place of host and port.
        ssl_check_hostname: Whether the server's certificate must name the host.
        max_connections: Most connections, and commands under way.
        connect_timeout_seconds: Longest time to connect.
        command_timeout_seconds: Longest time that one command may take.
        delete_rasa_data: Whether taking a conversation over removes Rasa's value.
    """

    aliases: ClassVar = {"url": "host"}

    host: HostName = "localhost"
    port: Port = 6379
    db: DatabaseNumber = 0
    username: Name | None = None
    password: Secret | None = None
    password_file: Name | None = None
    aws_iam: ElastiCacheIamKey = None
    key_prefix: Name | None = None
    use_ssl: bool = False
    ssl_keyfile: Name | None = None
    ssl_certfile: Name | None = None
    ssl_ca_certs: Name | None = None
    deployment_mode: Literal["standalone", "cluster", "sentinel"] = "standalone"
    endpoints: tuple[str, ...] = ()
    sentinel_service: Name = "mymaster"
    sentinel_username: Name | None = None
    sentinel_password: Secret | None = None
    sentinel_password_file: Name | None = None
    unix_socket_path: Name | None = None
    ssl_check_hostname: bool = True
    max_connections: MaxConnections | None = None
    connect_timeout_seconds: Seconds | None = None
    command_timeout_seconds: Seconds | None = None
    delete_rasa_data: bool = False

    def required_driver(self) -> RequiredDriver:
        """Return the driver: it is the same for every deployment."""
        return RequiredDriver("redis", "redis")

    @model_validator(mode="before")
    @classmethod
    def _take_url_apart(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        host = values.get("host")
        if isinstance(host, str) and ":" in host and not _is_ipv6(host):
            rest = {key: value for key, value in values.items() if key != "host"}
            values = merge_url_parts(rest, _url_parts(host))
        fill_elasticache(values)
        return values

    @field_validator("deployment_mode", mode="before")
    @classmethod
    def _standard_is_standalone(cls, mode: Any) -> Any:
        if isinstance(mode, str):
            return {"standard": "standalone"}.get(mode.lower(), mode.lower())
        return mode

    @field_validator("endpoints", mode="before")
    @classmethod
    def _split_endpoints(cls, value: Any) -> Any:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ValueError("must be a list of 'host:port'")
        return tuple(_endpoint(item) for item in items)

    @field_validator("key_prefix")
    @classmethod
    def _is_alphanumeric(cls, prefix: str | None) -> str | None:
        # Rasa logs and ignores any other prefix, so its keys lie where nobody looks.
        if prefix is not None and not prefix.isalnum():
            raise ValueError("must be letters and digits only")
        return prefix

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        for name in ("password", "sentinel_password"):
            file = f"{name}_file"
            if getattr(self, name) is not None and getattr(self, file) is not None:
                raise ValueError(f"'{name}' and '{file}' say the same; keep one")
        return self

    @model_validator(mode="after")
    def _iam_is_whole(self) -> Self:
        if self.aws_iam is None:
            return self
        if self.password is not None or self.password_file is not None:
            raise ValueError("'aws_iam' stands for the password; keep one")
        if not self.username:
            raise ValueError("'aws_iam' needs 'username'")
        if not self.use_ssl:
            raise ValueError(
                "'aws_iam' sends a token as the password, which needs TLS: set "
                "'use_ssl: true'"
            )
        return self

    def store_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of `RedisTrackerStore`."""
        kwargs = super().store_kwargs()
        if kwargs.pop("aws_iam", None) is not None and self.aws_iam is not None:
            kwargs["password"] = self.aws_iam.token(self.username or "")
        return kwargs

    @model_validator(mode="after")
    def _mode_has_its_keys(self) -> Self:
        mode = self.deployment_mode
        if mode == "standalone" and self.endpoints:
            raise ValueError("'endpoints' needs deployment_mode cluster or sentinel")
        if mode == "sentinel" and not self.endpoints:
            raise ValueError("deployment_mode sentinel needs 'endpoints'")
        if mode != "sentinel" and "sentinel_service" in self.model_fields_set:
            raise ValueError("'sentinel_service' needs deployment_mode sentinel")
        if mode == "cluster" and self.db != 0:
            raise ValueError("a Redis Cluster has only db 0")
        if mode != "standalone" and self.unix_socket_path is not None:
            raise ValueError("a unix socket needs deployment_mode standalone")
        return self

    @model_validator(mode="after")
    def _tls_is_on_and_whole(self) -> Self:
        files = (self.ssl_ca_certs, self.ssl_certfile, self.ssl_keyfile)
        if any(files) and not self.use_ssl:
            raise ValueError("the ssl_ files need 'use_ssl: true'")
        if self.ssl_keyfile and not self.ssl_certfile:
            raise ValueError("'ssl_keyfile' needs 'ssl_certfile'")
        return self


def _url_parts(host: str) -> dict[str, Any]:
    """Return the keys that a Redis URL, or `host:port`, stands for."""
    url = _split(host if "://" in host else f"redis://{host}")
    if url.query or url.fragment:
        raise ValueError("the url must not have options after '?'; use keys")
    parts: dict[str, Any] = {
        "username": unquote(url.username) if url.username else None,
        "password": unquote(url.password) if url.password else None,
    }
    if url.scheme == "unix":
        return parts | {"unix_socket_path": unquote(url.path)}
    if url.scheme not in ("redis", "rediss"):
        raise ValueError("the url must begin with redis://, rediss:// or unix://")
    if url.scheme == "rediss":
        parts["use_ssl"] = True
    database = url.path.strip("/")
    if database and not database.isdecimal():
        raise ValueError("the path of the url must be the number of the database")
    parts["db"] = int(database) if database else None
    return parts | {"host": url.hostname or "localhost", "port": url.port}


def _is_ipv6(host: str) -> bool:
    """Whether it is an IPv6 address alone, whose end is no port."""
    return host.count(":") > 1 and "://" not in host and not host.startswith("[")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("the url is not valid; its port must be a number") from None
    return parts


def _endpoint(item: Any) -> str:
    """Return `host:port`; what is no such text is refused."""
    if isinstance(item, dict) and item.keys() == {"host", "port"}:
        item = f"{item['host']}:{item['port']}"
    host, _, port = str(item).strip().rpartition(":")
    if not host or "@" in host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError("must be a list of 'host:port'")
    return f"{host}:{port}"
