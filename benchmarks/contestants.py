"""What is compared: this library on a backend, and the raw driver doing the same work.

The raw contestants keep one row an event with the columns that Rasa's table has, a
position and an id, append the rows of a turn with one statement in autocommit, and read
them back with one statement and `json.loads` of each row. They check no version, keep
no state and detect no conflict.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks.contestant import Contestant, Event
from tracker_store_async import (
    DialogueStateTracker,
    InMemoryTrackerStore,
    MongoTrackerStore,
    SQLTrackerStore,
    TrackerStore,
)
from tracker_store_async.events import event_from_dict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@dataclass(frozen=True)
class Codec:
    """How the raw contestants read and write JSON.

    Attributes:
        loads: Turns a stored text into what `retrieve` returns of it.
        dumps: Turns an event into the text that is stored.
    """

    loads: Callable[[Any], Any]
    dumps: Callable[[Event], str]


STANDARD_JSON = Codec(json.loads, json.dumps)


class Ours(Contestant):
    """A tracker store of this library."""

    def __init__(self, store: TrackerStore) -> None:
        self.store = store

    async def open(self) -> None:
        await self.store.open()

    async def close(self) -> None:
        await self.store.close()

    async def retrieve(self, sender_id: str) -> Any:
        return await self.store.retrieve(sender_id)

    def prepare(self, loaded: Any, sender_id: str, events: list[Event]) -> Any:
        tracker: DialogueStateTracker = loaded or self.store.init_tracker(sender_id)
        for event in events:
            tracker.update(event_from_dict(event))
        return tracker

    async def save(self, prepared: Any) -> None:
        await self.store.save(prepared)


class OursOnPostgres(Ours):
    """The SQL store on PostgreSQL, in a schema that comes and goes."""

    def __init__(self, url: str, schema: str, **options: Any) -> None:
        super().__init__(SQLTrackerStore(host=url, schema=schema, **options))
        self.url = url
        self.schema = schema

    async def open(self) -> None:
        await run_on_postgres(self.url, f"CREATE SCHEMA IF NOT EXISTS {self.schema}")
        await super().open()

    async def close(self) -> None:
        await super().close()
        await run_on_postgres(self.url, f"DROP SCHEMA {self.schema} CASCADE")


async def run_on_postgres(dsn: str, statement: str) -> None:
    """Run one statement on a connection of its own."""
    import asyncpg

    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


class RawDict(Contestant):
    """A dict of lists of JSON texts."""

    def __init__(self) -> None:
        self.rows: dict[str, list[str]] = {}

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    async def retrieve(self, sender_id: str) -> Any:
        rows = self.rows[sender_id]
        return sender_id, len(rows), [json.loads(row) for row in rows]

    def prepare(self, loaded: Any, sender_id: str, events: list[Event]) -> Any:
        return sender_id, events

    async def save(self, prepared: Any) -> None:
        sender_id, events = prepared
        self.rows.setdefault(sender_id, []).extend(json.dumps(e) for e in events)


COLUMNS = (
    "sender_id, position, event_id, type_name, timestamp, intent_name, action_name, "
    "data"
)


def raw_rows(
    sender_id: str, position: int, events: list[Event], codec: Codec
) -> list[tuple[Any]]:
    """Encode events for the raw tables."""
    rows: list[Any] = []
    for offset, event in enumerate(events):
        intent = event.get("parse_data", {}).get("intent", {}).get("name")
        key = (sender_id, position + offset, str(uuid4()), event["event"])
        columns = (event["timestamp"], intent, event.get("name"), codec.dumps(event))
        rows.append((*key, *columns))
    return rows


class RawSqlite(Contestant):
    """aiosqlite, one file, WAL, one transaction an append."""

    def __init__(self, path: Path, codec: Codec = STANDARD_JSON) -> None:
        self.path, self.codec = path, codec

    async def open(self) -> None:
        import aiosqlite

        self.connection = await aiosqlite.connect(self.path, isolation_level=None)
        await self.connection.execute("PRAGMA journal_mode = WAL")
        await self.connection.execute("PRAGMA synchronous = FULL")
        await self.connection.execute(
            "CREATE TABLE raw (sender_id TEXT, position INTEGER, event_id TEXT, "
            "type_name TEXT, timestamp REAL, intent_name TEXT, action_name TEXT, "
            "data TEXT, PRIMARY KEY (sender_id, position))"
        )

    async def close(self) -> None:
        await self.connection.close()

    async def retrieve(self, sender_id: str) -> Any:
        rows = await self.connection.execute_fetchall(
            "SELECT data FROM raw WHERE sender_id = ? ORDER BY position", (sender_id,)
        )
        loads = self.codec.loads
        events = [loads(data) for (data,) in rows]
        return sender_id, len(events), events

    def prepare(self, loaded: Any, sender_id: str, events: list[Event]) -> Any:
        return sender_id, 0 if loaded is None else loaded[1], events

    async def save(self, prepared: Any) -> None:
        sender_id, position, events = prepared
        rows = raw_rows(sender_id, position, events, self.codec)
        values = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * len(rows))
        if len(rows) * 8 <= 30_000:  # SQLite takes 32,766 values at a time
            flat = [value for row in rows for value in row]
            await self.connection.execute(
                f"INSERT INTO raw ({COLUMNS}) VALUES {values}", flat
            )
        else:
            await self.connection.execute("BEGIN")
            await self.connection.executemany(
                f"INSERT INTO raw ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows
            )
            await self.connection.execute("COMMIT")


class RawPostgres(Contestant):
    """asyncpg, one statement an append; connections are lent without a reset."""

    def __init__(
        self,
        dsn: str,
        table: str,
        codec: Codec = STANDARD_JSON,
        connection_count: int = 1,
    ) -> None:
        self.dsn, self.table, self.codec = dsn, table, codec
        self.connection_count = connection_count
        self.free: list[Any] = []
        # fair, so that no conversation waits for all others to end
        self.turnstile = asyncio.Semaphore(connection_count)

    async def open(self) -> None:
        import asyncpg

        for _ in range(self.connection_count):
            self.free.append(await asyncpg.connect(self.dsn))
        await run_on_postgres(
            self.dsn,
            f"CREATE TABLE {self.table} (sender_id text, position bigint, event_id "
            "text, type_name text, timestamp float8, intent_name text, action_name "
            "text, data text, PRIMARY KEY (sender_id, position))",
        )

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Any]:
        """Lend a connection."""
        async with self.turnstile:
            connection = self.free.pop()
            try:
                yield connection
            finally:
                self.free.append(connection)

    async def close(self) -> None:
        while self.free:
            await self.free.pop().close()
        await run_on_postgres(self.dsn, f"DROP TABLE {self.table}")

    async def retrieve(self, sender_id: str) -> Any:
        async with self.lent() as connection:
            rows = await connection.fetch(
                f"SELECT data FROM {self.table} WHERE sender_id = $1 ORDER BY position",
                sender_id,
            )
        loads = self.codec.loads
        events = [loads(row[0]) for row in rows]
        return sender_id, len(events), events

    def prepare(self, loaded: Any, sender_id: str, events: list[Event]) -> Any:
        return sender_id, 0 if loaded is None else loaded[1], events

    async def save(self, prepared: Any) -> None:
        sender_id, position, events = prepared
        rows = raw_rows(sender_id, position, events, self.codec)
        columns = list(zip(*rows, strict=True))
        async with self.lent() as connection:
            await connection.execute(
                f"INSERT INTO {self.table} ({COLUMNS}) SELECT * FROM unnest($1::text[],"
                " $2::bigint[], $3::text[], $4::text[], $5::float8[], $6::text[], "
                "$7::text[], $8::text[])",
                *columns,
            )


class OursOnMongo(Ours):
    """The MongoDB store, in a database that comes and goes.

    Attributes:
        commands: Number of commands sent so far: the round trips.
    """

    def __init__(self, url: str, db: str) -> None:
        self.url, self.db, self.commands = url, db, 0

    async def open(self) -> None:
        from motor.motor_asyncio import AsyncIOMotorClient
        from pymongo.monitoring import CommandListener

        contestant = self

        class Counter(CommandListener):
            def started(self, event: Any) -> None:
                contestant.commands += 1

            def succeeded(self, event: Any) -> None: ...

            def failed(self, event: Any) -> None: ...

        self.client: Any = AsyncIOMotorClient(self.url, event_listeners=[Counter()])
        self.store = MongoTrackerStore(client=self.client, db=self.db)
        await super().open()

    async def close(self) -> None:
        await super().close()
        await self.client.drop_database(self.db)
        self.client.close()


class RawMongo(Contestant):
    """Motor, the same concerns, one document a row with ids and JSON text.

    A save inserts the rows of the turn with one command, as our save sends them with
    one; a retrieve reads them back in order with one `find`.
    """

    def __init__(self, url: str, db: str) -> None:
        self.url, self.db = url, db

    async def open(self) -> None:
        from motor.motor_asyncio import AsyncIOMotorClient
        from pymongo import WriteConcern

        self.client: Any = AsyncIOMotorClient(self.url)
        concern = WriteConcern(w="majority", j=True)
        database = self.client.get_database(self.db, write_concern=concern)
        self.rows = database["raw"]
        await self.rows.create_index([("sender_id", 1), ("position", 1)], unique=True)

    async def close(self) -> None:
        await self.client.drop_database(self.db)
        self.client.close()

    async def retrieve(self, sender_id: str) -> Any:
        cursor = self.rows.find({"sender_id": sender_id}).sort("position", 1)
        events = [json.loads(row["data"]) for row in await cursor.to_list(None)]
        return sender_id, len(events), events

    def prepare(self, loaded: Any, sender_id: str, events: list[Event]) -> Any:
        return sender_id, 0 if loaded is None else loaded[1], events

    async def save(self, prepared: Any) -> None:
        sender_id, first, events = prepared
        await self.rows.insert_many(
            {
                "sender_id": sender_id,
                "position": position,
                "id": str(uuid4()),
                "data": json.dumps(event),
            }
            for position, event in enumerate(events, first)
        )


def contestants(backend: str, url: str, folder: Path) -> tuple[Ours, Contestant]:
    """Return this library and the raw driver on one backend.

    Args:
        backend: One of `arguments.BACKENDS` or `arguments.ON_DEMAND`.
        url: URL of its server; databases and tables of random names come and go there.
        folder: Where the SQLite files go.
    """
    if backend == "in_memory":
        return Ours(InMemoryTrackerStore()), RawDict()
    if backend == "mongo":
        db = f"benchmark_{uuid4().hex[:8]}"
        return OursOnMongo(url, db), RawMongo(url, f"{db}_raw")
    if backend == "sqlite":
        ours = SQLTrackerStore(dialect="sqlite", db=str(folder / "ours.db"))
        return Ours(ours), RawSqlite(folder / "raw.db")
    if backend == "redis":
        from benchmarks.redis_contestants import OursOnRedis, RawRedis

        prefix = f"benchmark{uuid4().hex[:8]}"
        return OursOnRedis(url, prefix), RawRedis(url, f"{prefix}raw")
    schema = f"benchmark_{uuid4().hex[:8]}"
    if backend == "dynamo":
        from benchmarks.dynamo import OursOnDynamo, RawDynamo

        return OursOnDynamo(url, schema), RawDynamo(url, f"{schema}_raw")
    return OursOnPostgres(url, schema), RawPostgres(url, f"{schema}_raw")
