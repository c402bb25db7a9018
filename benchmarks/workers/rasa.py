"""Rasa 3.6.21: its tracker stores, with and without an event broker."""

from __future__ import annotations

import logging
import os
from typing import Any

from benchmarks.contestant import Contestant, Event, Place
from benchmarks.workers.urls import address_of


class Rasa(Contestant):
    """A tracker store of Rasa."""

    def __init__(self, place: Place, with_broker: bool) -> None:
        self.place, self.with_broker = place, with_broker

    async def open(self) -> None:
        from rasa.shared.core.domain import Domain
        from rasa.shared.core.events import Event as RasaEvent
        from rasa.shared.core.trackers import DialogueStateTracker

        logging.disable(logging.WARNING)
        self.from_parameters = RasaEvent.from_parameters
        self.tracker_type = DialogueStateTracker
        slot = {"type": "any", "mappings": [{"type": "custom"}]}
        self.domain = Domain.from_dict(
            {"slots": {"cuisine": dict(slot), "num_people": dict(slot)}}
        )
        self.store = self._store(broker() if self.with_broker else None)

    def _store(self, event_broker: Any) -> Any:
        from rasa.core import tracker_store

        arguments: dict[str, Any] = {
            "domain": self.domain,
            "event_broker": event_broker,
        }
        if self.place.backend == "sqlite":
            name = "rasa_broker.db" if self.with_broker else "rasa.db"
            arguments |= {"dialect": "sqlite", "db": f"{self.place.folder}/{name}"}
            return tracker_store.SQLTrackerStore(**arguments)
        if self.place.backend == "in_memory":
            return tracker_store.InMemoryTrackerStore(**arguments)
        if self.place.backend == "redis":
            address = address_of(self.place.url, 6379)
            return tracker_store.RedisTrackerStore(
                host=address["host"],
                port=address["port"],
                db=int(address["database"] or 0),
                username=address["user"],
                password=address["password"],
                use_ssl=self.place.url.startswith("rediss:"),
                key_prefix=self.place.namespace,
                **arguments,
            )
        address = address_of(self.place.url, 5432)
        os.environ["POSTGRESQL_SCHEMA"] = self.place.namespace
        return tracker_store.SQLTrackerStore(
            dialect="postgresql",
            host=address["host"],
            port=address["port"],
            db=address["database"],
            username=address["user"],
            password=address["password"],
            **arguments,
        )

    async def close(self) -> None:
        return

    async def retrieve(self, sender_id: str) -> Any:
        return await self.store.retrieve(sender_id)

    def prepare(self, loaded: Any, sender_id: str, events: list[Event]) -> Any:
        tracker = loaded or self.tracker_type(sender_id, self.domain.slots)
        for event in events:
            tracker.update(self.from_parameters(event), self.domain)
        return tracker

    async def save(self, prepared: Any) -> None:
        await self.store.save(prepared)


def broker() -> Any:
    """Return an event broker that does nothing."""
    from rasa.core.brokers.broker import EventBroker

    class Nothing(EventBroker):
        """Takes events and drops them."""

        def publish(self, event: dict[str, Any]) -> None:
            """Drop an event."""

    return Nothing()


def make(variant: str, place: Place) -> Contestant:
    """Return the contestant of a variant."""
    return Rasa(place, with_broker={"plain": False, "broker": True}[variant])
