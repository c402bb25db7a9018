"""The keys that every broker with a connection has, and how addresses are read."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, urlsplit

from tracker_store_async.brokers.broker_config import BrokerConfig
from tracker_store_async.settings import (  # noqa: TC001 - pydantic
    Count,
    Seconds,
)


class ConnectedBrokerConfig(BrokerConfig):
    """The keys of a broker behind a connection.

    Attributes:
        connection_attempts: Attempts to connect before opening the broker fails.
        retry_delay_in_seconds: Longest pause between two attempts.
    """

    connection_attempts: Count = 20
    retry_delay_in_seconds: Seconds = 5.0


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
