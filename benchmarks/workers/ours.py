"""This library, as a worker: plain, with every event touched, and with the cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contestants import Ours
from tracker_store_async import (
    CachedTrackerStore,
    InMemoryTrackerStore,
    SQLTrackerStore,
    TrackerStore,
)

if TYPE_CHECKING:
    from benchmarks.contestant import Contestant, Place


class Touched(Ours):
    """Looks at the state and at every event of what it retrieves."""

    async def retrieve(self, sender_id: str) -> Any:
        tracker = await super().retrieve(sender_id)
        if tracker is not None:
            assert tracker.latest_message is not None
            for _ in tracker.events:
                pass
        return tracker


def store_of(place: Place, name: str, **options: Any) -> TrackerStore:
    """Return the store of a place; `name` keeps files and keys apart."""
    if place.backend == "in_memory":
        return InMemoryTrackerStore(**options)
    if place.backend == "sqlite":
        path = Path(place.folder) / f"{name}.db"
        return SQLTrackerStore(dialect="sqlite", db=str(path), **options)
    if place.backend == "redis":
        from benchmarks.redis_contestants import OursOnRedis

        return OursOnRedis(place.url, place.namespace).store
    return SQLTrackerStore(
        host=place.url,
        schema=place.namespace,
        pool_size=place.connection_count,
        max_overflow=0,
        **options,
    )


def make(variant: str, place: Place) -> Contestant:
    """Return the contestant of a variant: `plain`, `touched` or `cached`."""
    store = store_of(place, f"ours_{variant}")
    if variant == "cached":
        return Ours(CachedTrackerStore(store))
    return {"plain": Ours, "touched": Touched}[variant](store)
