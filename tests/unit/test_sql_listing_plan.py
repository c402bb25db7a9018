"""A listing by user goes through the index of users, and never sorts."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.sql_databases import NOW, append
from tracker_store_async import SQLTrackerStore
from tracker_store_async.backends.sql.sqlite import _list
from tracker_store_async.rows import Listing

if TYPE_CHECKING:
    from pathlib import Path


class Explaining:
    """A connection that has its plan told in place of an answer."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.plan: list[str] = []

    def execute(self, statement: str, values: Any) -> list[Any]:
        rows = self._connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
        self.plan = [row[-1] for row in rows]
        return []


@pytest.mark.parametrize(
    ("listing", "index"),
    [
        (Listing(NOW, 10, None, "u"), "ix_conversations_user_id (user_id=?"),
        (Listing(NOW, 10, "c", "u"), "ix_conversations_user_id (user_id=? AND sender"),
        (Listing(NOW, 10, "c"), "(sender_id>?)"),
    ],
    ids=["user", "user-cursor", "cursor"],
)
async def test_a_page_is_one_run_through_an_index(
    tmp_path: Path, listing: Listing, index: str
) -> None:
    async with SQLTrackerStore(db=str(tmp_path / "a.db")) as store:
        assert await store._append(append(0))
    connection = sqlite3.connect(tmp_path / "a.db")
    explaining: Any = Explaining(connection)
    assert _list(explaining, listing) == []
    connection.close()
    [plan] = explaining.plan
    assert plan.startswith("SEARCH conversations USING")
    assert index in plan
