"""MongoDB databases for tests: stores of both drivers, and a client of its own."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.servers import fresh_database
from tests.servers.mongo import MongoServer
from tests.sql_databases import SENDER
from tracker_store_async import MongoTrackerStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import Servers

EACH_DRIVER = [
    pytest.param("motor", marks=pytest.mark.backend("mongo"), id="motor"),
    pytest.param("pymongo", marks=pytest.mark.backend("mongo"), id="pymongo"),
]
LAYOUT_DOCUMENT = {"_id": {"layout": 1}, "version": 1}


@dataclass(frozen=True, slots=True)
class MongoTarget:
    """An empty database, and the bare driver's view of it.

    Attributes:
        raw: The database, through PyMongo's blocking client.
    """

    server: MongoServer
    name: str
    raw: Any

    def store(self, **options: Any) -> MongoTrackerStore:
        """Return a new store on the database."""
        host = self.server.url()
        return MongoTrackerStore(**{"host": host, "db": self.name, **options})

    def header(self, sender_id: str = SENDER) -> dict[str, Any]:
        """Return what is stored for a conversation in `conversations_log`."""
        found = self.raw.conversations_log.find_one({"_id": sender_id})
        assert found is not None
        return cast("dict[str, Any]", found)

    def buckets(self) -> list[dict[str, Any]]:
        """Return all buckets and placeholders, in order."""
        return list(self.raw.conversations_events.find().sort([("first", 1)]))

    def is_clean(self) -> bool:
        """Whether nothing is stored but the version of the layout."""
        names = self.raw.list_collection_names()
        found = [each for name in names for each in self.raw[name].find()]
        return found == [LAYOUT_DOCUMENT]

    def add_rasas(self, events: list[Any], sender_id: Any = SENDER) -> dict[str, Any]:
        """Store a document as Rasa does; return it."""
        document = {"sender_id": sender_id, "slots": {}, "events": events}
        self.raw.conversations.create_index("sender_id")
        self.raw.conversations.insert_one(document)
        return document

    def rasas(self) -> list[dict[str, Any]]:
        """Return Rasa's documents."""
        return list(self.raw.conversations.find())


@contextmanager
def mongo_database(servers: Servers) -> Iterator[MongoTarget]:
    """Yield an empty database that is dropped at the end."""
    server = cast(MongoServer, servers.get("mongo"))
    with fresh_database(server) as name, server.client() as client:
        yield MongoTarget(server, name, client[name])


def rasa_events(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Return events as Rasa stores them; a session starts at every tenth."""
    return [
        {
            "event": "session_started" if number % 10 == 0 else "slot",
            "timestamp": 1_600_000_000.125 + number,
            "name": "n",
            "value": number,
        }
        for number in range(first, first + count)
    ]


def values(found: Any) -> list[Any]:
    """Return the values that the events set, which tell them apart."""
    return [json.loads(data)["value"] for _, data in found.rows]
