"""The keys of the RabbitMQ event broker in `endpoints.yml`."""

from __future__ import annotations

from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, unquote

from pydantic import field_validator, model_validator

from tracker_store_async.brokers.config import (
    ConnectedBrokerConfig,
    split_addresses,
    split_url,
)
from tracker_store_async.settings import (
    HostName,
    Name,
    Port,
    RequiredDriver,
    Secret,
    merge_url_parts,
)

_QUERY_KEYS = {
    "cacertfile": "ssl_cafile",
    "cafile": "ssl_cafile",
    "certfile": "ssl_certfile",
    "keyfile": "ssl_keyfile",
}
"""What a RabbitMQ URL may say after the `?`, to the key that says the same."""


class PikaConfig(ConnectedBrokerConfig):
    """Rasa's keys: `PikaEventBroker` of 3.6.21; below `exchange_name`, our own.

    Attributes:
        host: Host name, or an `amqp://` or `amqps://` URL; its parts become the keys of
            their own.
        port: Port; 5671 for `amqps://`, else 5672, unless given.
        username: User name.
        password: Password.
        queues: Queues that get every event.
        should_keep_unpublished_messages: What happens to a message that was not
            confirmed, where no error is raised: kept and sent later, or dropped.
        raise_on_failure: Whether a message that is not confirmed is an error.
        exchange_name: The fanout exchange that the queues are bound to.
        exchange_durable: Whether an exchange that is not there yet is made durable.
        virtual_host: The virtual host.
        use_ssl: Whether to use TLS.
        ssl_cafile: File with the certificates that the server is checked against.
        ssl_certfile: File with the client's certificate.
        ssl_keyfile: File with the client's private key. These three may also stand in
            Rasa's environment variables: see `pika_tls.py`.
        ssl_check_hostname: Whether the certificate must name the host.
        ssl_verify: Whether the certificate is checked at all.
        confirm_each_event: Whether an event waits for the confirmation of the one
            before it in its conversation.
    """

    aliases: ClassVar = {"url": "host"}

    host: HostName = "localhost"
    port: Port | None = None
    username: Name = "guest"
    password: Secret | None = None
    queues: tuple[str, ...] = ("rasa_core_events",)
    should_keep_unpublished_messages: bool | None = None
    raise_on_failure: bool | None = None
    exchange_name: Name = "rasa-exchange"
    exchange_durable: bool = True
    virtual_host: Name = "/"
    use_ssl: bool | None = None
    ssl_cafile: Name | None = None
    ssl_certfile: Name | None = None
    ssl_keyfile: Name | None = None
    ssl_check_hostname: bool = True
    ssl_verify: bool = True
    confirm_each_event: bool = True

    def required_driver(self) -> RequiredDriver:
        """Return aio-pika."""
        return RequiredDriver("aio_pika", "pika")

    @model_validator(mode="before")
    @classmethod
    def _take_url_apart(cls, values: Any) -> Any:
        host = values.get("host") if isinstance(values, dict) else None
        if not isinstance(host, str) or "://" not in host:
            return values
        rest = {key: value for key, value in values.items() if key != "host"}
        return merge_url_parts(rest, _url_parts(host))

    @field_validator("queues", mode="before")
    @classmethod
    def _split_queues(cls, value: Any) -> Any:
        # a name may hold a comma: Rasa takes text for one queue
        return split_addresses([value] if isinstance(value, str) else value)

    @model_validator(mode="after")
    def _policies_agree(self) -> Self:
        keep, raises = self.should_keep_unpublished_messages, self.raise_on_failure
        wish = self.on_publish_error
        key = None
        if raises is not None and raises != (wish == "raise"):
            key = f"raise_on_failure: {str(raises).lower()}"
        elif not raises and keep is not None and keep != (wish == "best_effort"):
            key = f"should_keep_unpublished_messages: {str(keep).lower()}"
        if wish is not None and key is not None:
            raise ValueError(
                f"'{key}' and 'on_publish_error: {wish}' contradict each other: keep "
                "one of them"
            )
        return self

    def constructor_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of the constructor.

        Where `on_publish_error` is given, Rasa's keys agree with it and say no more.
        """
        arguments = super().constructor_kwargs()
        if self.on_publish_error is not None:
            for name in ("should_keep_unpublished_messages", "raise_on_failure"):
                arguments.pop(name, None)
        return arguments


def _url_parts(url: str) -> dict[str, Any]:
    """Return the keys that an AMQP URL stands for."""
    parts = split_url(url)
    if parts.scheme not in ("amqp", "amqps"):
        raise ValueError("the url must begin with amqp:// or amqps://")
    path = unquote(parts.path[1:])
    return {
        "host": parts.hostname or "localhost",
        "port": parts.port,
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "virtual_host": path or None,
        "use_ssl": parts.scheme == "amqps",
        **_query_parts(parts.query),
    }


def _query_parts(query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query):
        if name in _QUERY_KEYS:
            found[_QUERY_KEYS[name]] = value
        elif name == "verify" and value in ("verify_peer", "verify_none"):
            found["ssl_verify"] = value == "verify_peer"
        else:
            known = ", ".join([*_QUERY_KEYS, "verify=verify_peer or verify_none"])
            raise ValueError(f"the url may have these options after '?': {known}")
    return found
