"""The keys that every broker with a connection has, and the way from a section to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import TypeAdapter, ValidationError

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.settings import (
    Count,
    Seconds,
    SectionConfig,
    parse_settings,
)

if TYPE_CHECKING:
    from tracker_store_async.config import EndpointConfig

WHERE = "event_broker"


class ConnectedBrokerConfig(SectionConfig):
    """The keys of a broker behind a connection.

    Attributes:
        timeout_seconds: Longest time that one publish takes, reconnecting included.
        connection_attempts: Attempts to connect before opening the broker fails.
        retry_delay_in_seconds: Longest pause between two attempts.
    """

    timeout_seconds: Seconds = 10.0
    connection_attempts: Count = 20
    retry_delay_in_seconds: Seconds = 5.0


ConfigT = TypeVar("ConfigT", bound=SectionConfig)


def parse_section(
    model: type[ConfigT], section: EndpointConfig, type_name: str
) -> ConfigT:
    """Return the validated configuration of a broker.

    Args:
        model: The broker's configuration class.
        section: The `event_broker` section.
        type_name: The broker's type, for errors.

    Raises:
        ConfigurationError: A key is unknown, given twice, or has a wrong value.
    """
    settings = section.as_dict()
    settings.pop("type", None)
    try:
        strict = TypeAdapter(bool).validate_python(settings.pop("strict", True))
    except ValidationError:
        raise ConfigurationError(f"{WHERE}.strict: must be true or false") from None
    return parse_settings(
        model, settings, where=WHERE, type_name=type_name, strict=strict
    )


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL.

    Raises:
        ValueError: It is not one.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("the url is not valid; its port must be a number") from None
    return parts


def split_addresses(value: Any) -> tuple[str, ...]:
    """Return the items of a list, or of text with commas between them.

    Raises:
        ValueError: There is none, or one is no text.
    """
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items:
        raise ValueError("must be text, or a list of texts")
    if not all(isinstance(item, str) and item.strip() for item in items):
        raise ValueError("must be a list of texts that are not empty")
    return tuple(item.strip() for item in items)
