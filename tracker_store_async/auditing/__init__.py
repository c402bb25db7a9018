"""The audit trail: who read, changed, exported or deleted which conversation, and when.

Whoever acts is named in a context variable, which tasks and threads of the sync facade
inherit::

    with acting_as("support:maria", purpose="export"):
        tracker = await store.retrieve_full_tracker("alice")
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from tracker_store_async.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

UNKNOWN_ACTOR = "unknown"
MAX_LENGTH = 255


class Actor(NamedTuple):
    """Who acts, and what reads are for."""

    name: str
    purpose: str = "read"


_actor: ContextVar[Actor | None] = ContextVar("tracker_store_actor", default=None)


def current_actor() -> Actor | None:
    """Return who acts in this context, or None if nobody has said."""
    return _actor.get()


@contextmanager
def acting_as(name: str, purpose: str = "read") -> Iterator[None]:
    """Say who acts within the block.

    Args:
        name: Who: a user, a service, a job.
        purpose: What a read is recorded as: `read`, `export` or a word of your own.

    Raises:
        InvalidInputError: One of them is empty, or longer than 255 characters.
    """
    for text in (name, purpose):
        if not isinstance(text, str) or not 0 < len(text) <= MAX_LENGTH:
            raise InvalidInputError(
                f"an actor and a purpose are texts of 1 to {MAX_LENGTH} characters"
            )
    token = _actor.set(Actor(name, purpose))
    try:
        yield
    finally:
        _actor.reset(token)
