"""Stores with an outbox, on each backend that has one, and brokers that refuse."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import FailingBroker
from tests.servers import fresh_database
from tracker_store_async import MongoTrackerStore, SQLTrackerStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers
    from tracker_store_async import EventBroker
    from tracker_store_async.broker import EventMessage
    from tracker_store_async.relay import Relay

EACH_SQL = [
    pytest.param("sqlite", marks=pytest.mark.backend("sqlite")),
    pytest.param("postgresql", marks=pytest.mark.backend("postgresql")),
    pytest.param("mysql", marks=pytest.mark.backend("mysql")),
]
EACH_OUTBOX = [*EACH_SQL[:2], pytest.param("mongo", marks=pytest.mark.backend("mongo"))]


@dataclass(frozen=True, slots=True)
class Place:
    """Where stores with an outbox share a database.

    Attributes:
        url: Its URL.
        name: The name of a MongoDB database; empty for SQL.
    """

    url: str = field(repr=False)
    name: str = ""

    def store(self, broker: EventBroker | None = None, **options: Any) -> Any:
        """Return a new store on it."""
        given = {"host": self.url, "event_broker": broker, "outbox": True, **options}
        if self.name:
            return MongoTrackerStore(db=self.name, **given)
        return SQLTrackerStore(**given)


@contextmanager
def place_for(kind: str, servers: Servers, tmp_path: Path) -> Iterator[Place]:
    """Yield an empty database of a kind of `EACH_OUTBOX`."""
    if kind == "sqlite":
        yield Place(f"sqlite:///{tmp_path / 'store.db'}")
        return
    with ExitStack() as stack:
        server: Any = servers.get(kind)
        name = stack.enter_context(fresh_database(server))
        if kind == "mongo":
            yield Place(server.url(), name)
        else:
            yield Place(server.url(kind, name))


class RefusingBroker(FailingBroker):
    """Refuses single messages, by their text.

    Attributes:
        refused: The texts; None for the events that have none.
        error: What it raises for them.
        attempts: How often each was tried.
    """

    def __init__(self, *refused: str | None, error: Exception) -> None:
        super().__init__()
        self.refused = set(refused)
        self.error = error
        self.attempts: dict[str | None, int] = {}

    async def publish(self, message: EventMessage) -> None:
        """Keep the message, or refuse it."""
        text = message.body.get("text")
        if text in self.refused:
            self.attempts[text] = self.attempts.get(text, 0) + 1
            raise self.error
        await super().publish(message)


async def until(broker: FailingBroker, count: int) -> None:
    """Wait until so many messages are there."""
    async with asyncio.timeout(15):
        while len(broker.messages) < count:
            await asyncio.sleep(0.01)


def relay_of(store: Any) -> Relay:
    """Return the relay of an open store."""
    found: Relay | None = store._relay
    assert found is not None
    return found


async def idle(store: Any) -> None:
    """Wait until nothing waits any more, so that what is there stays as it is."""
    async with asyncio.timeout(15):
        while await store._outbox.count(1):
            await asyncio.sleep(0.01)


async def free(store: Any) -> None:
    """Take the lease from a process that is dead, as the passing of time does."""
    if isinstance(store, MongoTrackerStore):
        log = store._opened._collections.log
        # named here, since it comes with the driver
        from tracker_store_async.backends.mongo.outbox import LEASE_ID

        await log.update_one({"_id": LEASE_ID}, {"$unset": {"expires_at": ""}})
        return
    lease = store._outbox._tables.lease
    await store._outbox._execute(lease.update().values(expires_at=0.0), commit=True)
