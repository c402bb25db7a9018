"""Which TLS files RabbitMQ is reached with: those of the keys, and Rasa's variables.

Rasa 3.6.21 (`rasa/core/brokers/pika.py`) turns TLS on where both
`RABBITMQ_SSL_CLIENT_CERTIFICATE` and `RABBITMQ_SSL_CLIENT_KEY` are set and the host is
no `amqp://` URL; there it goes without TLS, which is an error here. It warns that it no
longer reads `RABBITMQ_SSL_CA_FILE` and `RABBITMQ_SSL_KEY_PASSWORD`; here they count.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.redaction import get_logger

logger = get_logger(__name__)

CLIENT_CERTIFICATE = "RABBITMQ_SSL_CLIENT_CERTIFICATE"
CLIENT_KEY = "RABBITMQ_SSL_CLIENT_KEY"
CA_FILE = "RABBITMQ_SSL_CA_FILE"
KEY_PASSWORD = "RABBITMQ_SSL_KEY_PASSWORD"  # noqa: S105  its name, not a password


class Files(NamedTuple):
    """The files of a TLS connection; None is none.

    Attributes:
        cafile: Certificates to check the server against.
        certfile: The client's certificate.
        keyfile: Its private key.
    """

    cafile: str | None
    certfile: str | None
    keyfile: str | None


def tls_of(use_ssl: bool | None, keys: Files) -> tuple[bool, Files]:
    """Return whether to use TLS, and with which files.

    Args:
        use_ssl: What the configuration says, or None.
        keys: The files that it names.

    Raises:
        ConfigurationError: Keys and variables contradict each other, or one is missing.
    """
    certificate, key = _variable(CLIENT_CERTIFICATE), _variable(CLIENT_KEY)
    if use_ssl is None:
        use_ssl = bool(certificate and key)
        if not use_ssl and (certificate or key):
            raise ConfigurationError(
                f"event_broker: {CLIENT_CERTIFICATE} and {CLIENT_KEY} turn TLS on "
                "together, and one of them is set alone: set both, write 'use_ssl: "
                "true', or unset it"
            )
    elif not use_ssl and (certificate or key):
        raise ConfigurationError(
            f"event_broker: {CLIENT_CERTIFICATE} and {CLIENT_KEY} want TLS, and "
            "'use_ssl: false' or an amqp:// url wants none: write 'use_ssl: true' or "
            "amqps://, or unset the variables"
        )
    if use_ssl:
        return True, _files(keys, Files(_variable(CA_FILE), certificate, key))
    _check_unused(keys)
    return False, keys


def key_password() -> str | None:
    """Return the password of the private key, or None."""
    return _variable(KEY_PASSWORD)


def _variable(name: str) -> str | None:
    return os.environ.get(name) or None


def _files(keys: Files, variables: Files) -> Files:
    names = (CA_FILE, CLIENT_CERTIFICATE, CLIENT_KEY)
    for field, name, key, variable in zip(
        Files._fields, names, keys, variables, strict=True
    ):
        if key and variable and key != variable:
            raise ConfigurationError(
                f"event_broker: 'ssl_{field}' and the environment variable {name} "
                "name different files: give it in one place"
            )
    pairs = zip(keys, variables, strict=True)
    found = Files(*(key or variable for key, variable in pairs))
    if found.keyfile and not found.certfile:
        raise ConfigurationError(
            f"event_broker: 'ssl_keyfile' needs 'ssl_certfile' (or {CLIENT_KEY} needs "
            f"{CLIENT_CERTIFICATE})"
        )
    return found


def _check_unused(keys: Files) -> None:
    """Say what counts for nothing without TLS."""
    if any(keys):
        raise ConfigurationError(
            "event_broker: the ssl_ files need 'use_ssl: true' or an amqps:// url"
        )
    for name in (CA_FILE, KEY_PASSWORD):
        if _variable(name):
            logger.warning(
                "%s is set, but RabbitMQ is used without TLS: write 'use_ssl: true' or "
                "amqps://, or unset it.",
                name,
            )
