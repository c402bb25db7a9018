"""What the guarantees are written with: messages, and what a consumer makes of them."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tracker_store_async.broker import EventMessage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.brokers.channels import Delivery


def message(sender_id: str, position: int, **fields: Any) -> EventMessage:
    """Return the message of one event; its id says where it belongs."""
    body = {"sender_id": sender_id, "event": "user", "position": position, **fields}
    return EventMessage(f"{sender_id}-{position}", sender_id, position, body)


def batch(sender_id: str, first: int, count: int = 4) -> list[EventMessage]:
    """Return the messages of one save."""
    return [message(sender_id, first + n) for n in range(count)]


def ids(messages: Iterable[EventMessage]) -> list[str]:
    """Return the message ids."""
    return [each.message_id for each in messages]


def seen(deliveries: Iterable[Delivery], sender_id: str) -> list[str | None]:
    """Return the ids of a conversation, each once, as a consumer drops repeats."""
    mine = [each for each in deliveries if each.body["sender_id"] == sender_id]
    return list(dict.fromkeys(each.message_id for each in mine))


@contextmanager
def blocking_calls() -> Iterator[list[str]]:
    """Yield a list that gets the calls of this thread that wait for something.

    By the names of Python's audit events, so that no clock is needed to notice them.
    """
    if not _watched:
        sys.addaudithook(_note)
    calls: list[str] = []
    _watched[threading.get_ident()] = calls
    try:
        yield calls
    finally:
        _watched[threading.get_ident()] = None


_watched: dict[int, list[str] | None] = {}
_BLOCKING = {"time.sleep", "socket.getaddrinfo", "sqlite3.connect", "subprocess.Popen"}


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    calls = _watched.get(threading.get_ident())
    if calls is None:
        return
    if event in _BLOCKING or (
        (event == "open" and not str(arguments[0]).endswith((".py", ".pyc")))
        or (event == "socket.connect" and arguments[0].getblocking())
    ):
        calls.append(f"{event} {arguments[0]}")
