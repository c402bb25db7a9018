"""The keys of the Kafka event broker in `endpoints.yml`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, field_validator, model_validator

from tracker_store_async.brokers.config import (
    ConnectedBrokerConfig,
    split_addresses,
    split_url,
)
from tracker_store_async.settings import (
    Count,
    Name,
    RequiredDriver,
    Secret,
)

DEFAULT_PORT = 9092


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


SecurityProtocol = Annotated[
    Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(_upper)
]
SaslMechanism = Annotated[
    Literal["PLAIN", "GSSAPI", "OAUTHBEARER", "SCRAM-SHA-256", "SCRAM-SHA-512"],
    BeforeValidator(_upper),
]


class KafkaConfig(ConnectedBrokerConfig):
    """Rasa's keys: `KafkaEventBroker` of 3.6.21; below `security_protocol`, our own.

    Attributes:
        url: `host:port` of servers of the cluster.
        topic: Topic that events go to.
        client_id: Name of this client in the server's log.
        partition_by_sender: Whether the sender id is the key of a message.
        sasl_username: User name.
        sasl_password: Password.
        sasl_mechanism: How user name and password are proved.
        ssl_cafile: File with the certificates that the server is checked against.
        ssl_certfile: File with the client's certificate.
        ssl_keyfile: File with the client's private key.
        ssl_check_hostname: Whether the certificate must name the host.
        security_protocol: Whether to use TLS, and whether to log in.
        queue_size: Most messages that wait for Kafka at a time; 0 is no limit, as in
            Rasa.
        enable_idempotence: Whether Kafka drops repeats of one connection by itself;
            None does where it can.
    """

    aliases: ClassVar = {"host": "url"}

    url: tuple[str, ...] = (f"localhost:{DEFAULT_PORT}",)
    topic: Name = "rasa_core_events"
    client_id: Name | None = None
    partition_by_sender: bool = False
    sasl_username: Name | None = None
    sasl_password: Secret | None = None
    sasl_mechanism: SaslMechanism = "PLAIN"
    ssl_cafile: Name | None = None
    ssl_certfile: Name | None = None
    ssl_keyfile: Name | None = None
    ssl_check_hostname: bool = False
    security_protocol: SecurityProtocol = "SASL_PLAINTEXT"
    queue_size: Count | None = None
    enable_idempotence: bool | None = None

    def required_driver(self) -> RequiredDriver:
        """Return aiokafka."""
        return RequiredDriver("aiokafka", "kafka")

    @field_validator("url", mode="before")
    @classmethod
    def _check_url(cls, value: Any) -> Any:
        return tuple(_address(item) for item in split_addresses(value))

    @field_validator("queue_size", mode="before")
    @classmethod
    def _zero_is_no_limit(cls, value: Any) -> Any:
        is_zero = isinstance(value, int) and not isinstance(value, bool) and value == 0
        return None if is_zero else value

    @field_validator("sasl_mechanism")
    @classmethod
    def _can_be_done(cls, mechanism: str) -> str:
        # Rasa documents these two, and has no key for what they need.
        if mechanism in ("GSSAPI", "OAUTHBEARER"):
            raise ValueError(
                f"{mechanism} needs a ticket or a token that no key can hold: make the "
                "KafkaEventBroker in code, with sasl_options"
            )
        return mechanism

    @model_validator(mode="after")
    def _login_is_whole(self) -> Self:
        wants = self.security_protocol.startswith("SASL")
        has = (self.sasl_username is not None, self.sasl_password is not None)
        if wants and not all(has):
            raise ValueError(
                f"security_protocol {self.security_protocol} needs 'sasl_username' and "
                "'sasl_password'; write 'security_protocol: PLAINTEXT' for neither "
                "login nor TLS"
            )
        if any(has) and not wants:
            raise ValueError(
                "'sasl_username' and 'sasl_password' need security_protocol "
                "SASL_PLAINTEXT or SASL_SSL"
            )
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        files = (self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile)
        if any(files) and not self.security_protocol.endswith("SSL"):
            raise ValueError("the ssl_ files need security_protocol SSL or SASL_SSL")
        if self.ssl_keyfile and not self.ssl_certfile:
            raise ValueError("'ssl_keyfile' needs 'ssl_certfile'")
        return self


def _address(item: str) -> str:
    parts = split_url(item if "://" in item else f"kafka://{item}")
    if not parts.hostname or parts.username or parts.path.strip("/"):
        raise ValueError("must be 'host:port', or a list of them")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port or DEFAULT_PORT}"
