"""Databases of a test's own, on each SQL server, and ways past the store into them."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests import golden
from tests.servers import fresh_database
from tests.servers.base import run_now
from tracker_store_async.backends.sql import SQLTrackerStore
from tracker_store_async.rows import Append, NewRow, Read, StoredConversation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.servers import Server, Servers

SENDER = "Zoë \N{WINKING FACE} '\"%_\\ "
NOW = 1_700_000_000.5

RASA_DDL = {
    "sqlite": (
        "CREATE TABLE events (id INTEGER NOT NULL, sender_id VARCHAR(255) NOT NULL,"
        " type_name VARCHAR(255) NOT NULL, timestamp FLOAT, intent_name VARCHAR(255),"
        " action_name VARCHAR(255), data TEXT, PRIMARY KEY (id))"
    ),
    "postgresql": (
        "CREATE TABLE events (id SERIAL PRIMARY KEY, sender_id VARCHAR(255) NOT NULL,"
        " type_name VARCHAR(255) NOT NULL, timestamp DOUBLE PRECISION,"
        " intent_name VARCHAR(255), action_name VARCHAR(255), data TEXT)"
    ),
    "mysql": (
        "CREATE TABLE events (id INTEGER NOT NULL AUTO_INCREMENT,"
        " sender_id VARCHAR(255) NOT NULL, type_name VARCHAR(255) NOT NULL,"
        " timestamp FLOAT, intent_name VARCHAR(255), action_name VARCHAR(255),"
        " data TEXT, PRIMARY KEY (id))"
    ),
}
"""The table as Rasa's SQLAlchemy model creates it."""

RASA_INDEX_DDL = "CREATE INDEX ix_events_sender_id ON events (sender_id)"


@dataclass(frozen=True)
class Database:
    """An empty database.

    Attributes:
        dialect: `sqlite`, `postgresql` or `mysql`.
        options: Arguments of `SQLTrackerStore`.
        url: For an engine that goes past the store.
        server: Where it is; None with SQLite.
    """

    dialect: str
    options: dict[str, Any]
    url: str
    server: Server | None = None
    stores: list[SQLTrackerStore] = field(default_factory=list)

    def store(self, **options: Any) -> SQLTrackerStore:
        """Return a store on it."""
        return SQLTrackerStore(**{**self.options, **options})

    def run(self, *statements: str, rows: Sequence[Any] = ()) -> list[Any]:
        """Run statements past the store; return the rows of the last."""
        return run_now(self.arun(*statements, rows=rows))

    async def arun(self, *statements: str, rows: Sequence[Any] = ()) -> list[Any]:
        """Run statements past the store; return the rows of the last."""
        engine = create_async_engine(self.url, poolclass=NullPool)
        found: list[Any] = []
        try:
            async with engine.begin() as connection:
                for statement in statements:
                    parameters = list(rows) or None
                    result = await connection.execute(text(statement), parameters)
                    found = list(result.all()) if result.returns_rows else []
        finally:
            await engine.dispose()
        return found


@contextmanager
def database(key: str, servers: Servers, directory: Path) -> Iterator[Database]:
    """Yield an empty database.

    Args:
        key: `sqlite`, `postgresql`, `mysql` or `pgbouncer`.
        servers: The servers of the run.
        directory: For files.
    """
    if key == "sqlite":
        file = directory / "conversations.db"
        yield Database("sqlite", {"db": str(file)}, f"sqlite+aiosqlite:///{file}")
        return
    server = servers.get("postgresql" if key == "pgbouncer" else key)
    front = servers.get(key)
    dialect = "mysql" if key == "mysql" else "postgresql"
    scheme = "mysql+asyncmy" if key == "mysql" else "postgresql+asyncpg"
    with fresh_database(server) as name:
        options: dict[str, Any] = {
            "dialect": dialect,
            "host": front.host,
            "port": front.port,
            "db": name,
            "username": front.username,
            "password": front.password or None,
            "pgbouncer": key == "pgbouncer",
        }
        yield Database(dialect, options, server.url(scheme, name), server)


class ReusedDatabases:
    """Databases whose tables are emptied, not created, for each test.

    Args:
        servers: The servers of the run.
        directory: For files.
    """

    def __init__(self, servers: Servers, directory: Path) -> None:
        self._servers = servers
        self._directory = directory
        self._stack = ExitStack()
        self._made: dict[str, Database] = {}

    async def get(self, key: str) -> Database:
        """Return the database with empty tables."""
        if key not in self._made:
            directory = self._directory / key
            directory.mkdir()
            made = database(key, self._servers, directory)
            self._made[key] = self._stack.enter_context(made)
            await self._made[key].store().upgrade_schema()
        found = self._made[key]
        await found.arun("DELETE FROM events", "DELETE FROM conversations")
        return found

    def close(self) -> None:
        """Drop them."""
        self._stack.close()


def params(*keys: str) -> list[Any]:
    """Return a parameter for each key of :func:`database`, with its server's mark."""
    return [pytest.param(key, marks=pytest.mark.backend(key), id=key) for key in keys]


ALL = params("sqlite", "postgresql", "mysql", "pgbouncer")
EACH_DIALECT = params("sqlite", "postgresql", "mysql")


def rows(count: int, first: int = 0, data: str | None = None) -> list[NewRow]:
    """Return encoded events; the ids tell them apart."""
    return [
        NewRow(
            f"id-{number}",
            data or json.dumps({"event": "slot", "name": "n", "value": number}),
            "slot",
            NOW + number,
            None,
            "n",
        )
        for number in range(first, first + count)
    ]


def append(version: int, count: int = 3, **changes: Any) -> Append:
    """Return a request to append `count` events at `version`."""
    values: dict[str, Any] = {
        "sender_id": SENDER,
        "expected_version": version,
        "rows": rows(count, version),
        "session_start": 0,
        "snapshot": '{"slots": {}}',
        "now": NOW,
    }
    return Append(**{**values, **changes})


def read(**changes: Any) -> Read:
    """Return a request to read the whole conversation."""
    return Read(**{"sender_id": SENDER, "now": NOW, "start": 0, **changes})


def ids(conversation: StoredConversation | None) -> list[str | None]:
    """Return the ids of the events that were read."""
    assert conversation is not None
    return [event_id for event_id, _ in conversation.rows]


def golden_rows() -> list[dict[str, Any]]:
    """Return every row that Rasa wrote."""
    with sqlite3.connect(golden.path("sqlite/rasa.db")) as connection:
        connection.row_factory = sqlite3.Row
        found = connection.execute("SELECT * FROM events ORDER BY id").fetchall()
    connection.close()
    return [dict(row) for row in found]


def make_rasa_database(target: Database, found: Sequence[dict[str, Any]]) -> None:
    """Make Rasa's table, with Rasa's DDL and these rows."""
    run_now(_make_rasa_database(target, found))


async def _make_rasa_database(
    target: Database, found: Sequence[dict[str, Any]]
) -> None:
    await target.arun(RASA_DDL[target.dialect], RASA_INDEX_DDL)
    if found:
        names = ", ".join(found[0])
        values = ", ".join(f":{name}" for name in found[0])
        insert = f"INSERT INTO events ({names}) VALUES ({values})"
        await target.arun(insert, rows=found)
    if target.dialect == "postgresql":
        await target.arun("SELECT setval('events_id_seq', max(id)) FROM events")


def copy_golden_file(target: Database) -> None:
    """Put the very file that Rasa wrote in the place of an SQLite database."""
    shutil.copy(golden.path("sqlite/rasa.db"), target.options["db"])


async def wait_for(condition: Any, seconds: float = 10.0) -> None:
    """Wait until `condition()` is true."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
