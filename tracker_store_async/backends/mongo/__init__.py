"""Conversations in MongoDB, through Motor or PyMongo's own asyncio client.

Nothing is imported before it is used, so that the configuration of this backend can be
read without a driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracker_store_async.backends.mongo.store import MongoTrackerStore

__all__ = ["MongoTrackerStore"]


def __getattr__(name: str) -> object:
    """Import the store at its first use (PEP 562)."""
    if name == "MongoTrackerStore":
        from tracker_store_async.backends.mongo.store import MongoTrackerStore

        return MongoTrackerStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
