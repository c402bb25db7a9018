"""What can be compared: something that stores conversations and gives them back.

Imports nothing but the standard library, and nothing that Python 3.10 lacks: workers
of the peers import it in environments where this library is not installed.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

Event = dict[str, Any]


class Contestant(Protocol):
    """Something that stores conversations and gives them back."""

    @abstractmethod
    async def open(self) -> None:
        """Connect and create what is needed."""

    @abstractmethod
    async def close(self) -> None:
        """Remove what was created and disconnect."""

    @abstractmethod
    async def retrieve(self, sender_id: str) -> Any:
        """Return the conversation."""

    @abstractmethod
    def prepare(self, loaded: Any, sender_id: str, events: list[Event]) -> Any:
        """Return what `save` takes; not part of what is timed."""

    @abstractmethod
    async def save(self, prepared: Any) -> None:
        """Encode and store the events of one turn."""

    async def fill(self, sender_id: str, events: list[Event]) -> None:
        """Store a conversation to begin with."""
        await self.save(self.prepare(None, sender_id, events))


@dataclass(frozen=True)
class Place:
    """Where a contestant may store things.

    Attributes:
        backend: `postgresql`, `sqlite`, `redis` or `in_memory`.
        url: URL of the server; empty where there is none. May hold a password.
        namespace: Schema of PostgreSQL, which exists, or prefix of Redis keys. Whoever
            made the place removes the schema, and all keys that hold the prefix.
        folder: Where files go.
        connection_count: How many connections to PostgreSQL it may have, so that all
            contestants have as many, and together no more than the server allows.
    """

    backend: str
    url: str
    namespace: str
    folder: str
    connection_count: int = 5

    def __repr__(self) -> str:
        return f"Place({self.backend!r}, namespace={self.namespace!r})"
