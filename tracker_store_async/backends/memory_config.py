"""The keys of the in-memory tracker store in `endpoints.yml`."""

from __future__ import annotations

from tracker_store_async.settings import StoreConfig


class InMemoryConfig(StoreConfig):
    """The in-memory store has the keys that every store has, and no others."""
