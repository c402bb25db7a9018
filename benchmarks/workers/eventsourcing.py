"""eventsourcing: its recorder, which is synchronous; an aggregate a conversation.

Recorders are the layer below its aggregates and applications, which only add to what is
measured here. Calls are made in threads, since a recorder would stop the event loop.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from benchmarks.contestant import Contestant, Event, Place
from benchmarks.workers.urls import address_of


class Recorder(Contestant):
    """An aggregate recorder."""

    def __init__(self, variables: dict[str, str]) -> None:
        self.variables = variables

    async def open(self) -> None:
        from eventsourcing.persistence import InfrastructureFactory, StoredEvent
        from eventsourcing.utils import Environment

        environment = Environment("benchmark", self.variables)
        self.event_type = StoredEvent
        self.factory: Any = InfrastructureFactory.construct(environment)
        self.recorder: Any = self.factory.aggregate_recorder()

    async def close(self) -> None:
        self.factory.close()

    async def retrieve(self, sender_id: str) -> Any:
        return await asyncio.to_thread(self._load, uuid5(NAMESPACE_URL, sender_id))

    def _load(self, originator_id: UUID) -> list[Event]:
        found = self.recorder.select_events(originator_id)
        return [json.loads(event.state) for event in found]

    def prepare(self, loaded: Any, sender_id: str, events: list[Event]) -> Any:
        return uuid5(NAMESPACE_URL, sender_id), len(loaded or ()), events

    async def save(self, prepared: Any) -> None:
        await asyncio.to_thread(self._append, *prepared)

    def _append(self, originator_id: UUID, first: int, events: list[Event]) -> None:
        self.recorder.insert_events(
            [
                self.event_type(
                    originator_id,
                    position,
                    event["event"],
                    json.dumps(event).encode(),
                )
                for position, event in enumerate(events, first)
            ]
        )


def make(variant: str, place: Place) -> Contestant:
    """Return the contestant of a variant."""
    if variant == "sqlite":
        return Recorder(
            {
                "PERSISTENCE_MODULE": "eventsourcing.sqlite",
                "SQLITE_DBNAME": f"{place.folder}/eventsourcing.db",
            }
        )
    address = address_of(place.url, 5432)
    return Recorder(
        {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": address["database"] or address["user"] or "",
            "POSTGRES_HOST": address["host"],
            "POSTGRES_PORT": str(address["port"]),
            "POSTGRES_USER": address["user"] or "",
            # it refuses an empty one, and a server that trusts ignores it
            "POSTGRES_PASSWORD": address["password"] or "none",
            "POSTGRES_SCHEMA": place.namespace,
            "POSTGRES_POOL_SIZE": str(place.connection_count),
            "POSTGRES_MAX_OVERFLOW": "0",
        }
    )
