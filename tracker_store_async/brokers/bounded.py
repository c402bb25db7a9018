"""A time limit for brokers that do not have one of their own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import BrokerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tracker_store_async.broker import EventBroker


def bound(broker: EventBroker, seconds: float) -> None:
    """Have both publish methods of a broker fail after so long.

    Args:
        broker: A broker of somebody else's class; it stays what it is.
        seconds: Longest time that one publish takes.
    """
    name = type(broker).__name__
    for method in ("publish", "publish_many"):
        setattr(broker, method, _in_time(getattr(broker, method), name, seconds))
    broker.timeout_seconds = seconds  # type: ignore[attr-defined]


def _in_time(
    publish: Callable[[Any], Awaitable[None]], name: str, seconds: float
) -> Callable[[Any], Awaitable[None]]:
    async def publish_in_time(what: Any) -> None:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await publish(what)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise BrokerUnavailableError(
                f"the event broker {name} confirmed nothing within {seconds:g} s "
                "(timeout_seconds)"
            ) from error

    return publish_in_time
