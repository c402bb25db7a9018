"""Conversations in an SQL database: SQLite, PostgreSQL, MySQL, MariaDB or Oracle.

Nothing is imported before it is used, so that the configuration of this backend can be
read without SQLAlchemy or a driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracker_store_async.backends.sql.store import SQLTrackerStore

__all__ = ["SQLTrackerStore"]


def __getattr__(name: str) -> object:
    """Import the store at its first use (PEP 562)."""
    if name == "SQLTrackerStore":
        from tracker_store_async.backends.sql.store import SQLTrackerStore

        return SQLTrackerStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
