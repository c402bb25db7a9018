"""Stored samples of each layout that was ever released: written, and put back.

`python -m pytest tests/formats/test_layouts.py --write-layouts` is not needed: a sample
is written once, with `TRACKER_STORE_WRITE_LAYOUTS=1`, when its version is new, and
never again.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex, CreateTable

from tests.conformance.backends import (
    DynamoStorage,
    MongoStorage,
    RedisStorage,
    SQLiteStorage,
    SQLServerStorage,
    Storage,
)
from tests.servers.base import run_now
from tracker_store_async.backends.sql.schema import build_tables
from tracker_store_async.rows import Append, NewRow

if TYPE_CHECKING:
    from tracker_store_async import TrackerStore

DIRECTORY = Path(__file__).parent / "data" / "layouts"
NOW = 1_800_000_000.5
SENDERS = ("alice", "Zoë {x}", "long")


def requests(sender_id: str) -> list[Append]:
    """Return what was appended to a conversation of the samples."""
    sizes = [2, 1, 3] if sender_id != "long" else [1] * 40 + [600]
    found: list[Append] = []
    version = 0
    for n, size in enumerate(sizes):
        rows = [row(sender_id, version + i) for i in range(size)]
        found.append(
            Append(
                sender_id=sender_id,
                expected_version=version,
                rows=rows,
                session_start=2 if version >= 2 else 0,
                snapshot=json.dumps({"format": 1, "n": n, "é": "😀"}),
                now=NOW + n,
                expires_at=None,
                user_id="user-1" if sender_id == "alice" else None,
                created_at=NOW if n else None,
            )
        )
        version += size
    return found


def row(sender_id: str, position: int) -> NewRow:
    """Return one event of the samples."""
    filling = "x" * (900 if sender_id == "long" else 3)
    data = f'{{"event": "user", "text": "{position} é {filling}", "timestamp": 5.25}}'
    return NewRow(f"{sender_id}-{position}", data, "user", 5.25, None, None)


async def fill(store: TrackerStore) -> None:
    """Append what the samples hold, and cut the beginning off one of them."""
    await store.open()
    for sender_id in SENDERS:
        for request in requests(sender_id):
            assert await store._append(request)
    assert await store._delete("Zoë {x}", 1, NOW)


def dump(storage: Storage) -> Any:
    """Return what lies in a storage, as JSON can hold it."""
    match storage:
        case SQLiteStorage():
            connection = sqlite3.connect(storage._file)
            script = list(connection.iterdump())
            connection.close()
            return script
        case SQLServerStorage():
            return run_now(_dump_sql(storage))
        case RedisStorage():
            return [_dump_key(storage, key) for key in storage.keys()]  # noqa: SIM118
        case MongoStorage():
            return _dump_mongo(storage)
        case DynamoStorage():
            return storage._items(f"{storage._name}_events")
    raise NotImplementedError(type(storage).__name__)


def restore(storage: Storage, found: Any) -> None:
    """Put back what `dump` returned, into a storage that holds nothing else."""
    match storage:
        case SQLiteStorage():
            storage._file.unlink(missing_ok=True)  # what is put back brings its tables
            connection = sqlite3.connect(storage._file)
            connection.executescript("\n".join(found))
            connection.close()
        case SQLServerStorage():
            run_now(_restore_sql(storage, found))
        case RedisStorage():
            _restore_redis(storage, found)
        case MongoStorage():
            _restore_mongo(storage, found)
        case DynamoStorage():
            table = f"{storage._name}_events"
            for item in found:
                storage._server.call("put_item", TableName=table, Item=item)
        case _:
            raise NotImplementedError(type(storage).__name__)


# -- SQL -------------------------------------------------------------------------------


async def _dump_sql(storage: SQLServerStorage) -> Any:
    engine = create_async_engine(storage._direct_url, poolclass=NullPool)
    try:
        async with engine.connect() as conn:
            tables = build_tables(conn.dialect).metadata.sorted_tables
            ddl, rows = [], {}
            for table in tables:
                ddl.append(str(CreateTable(table).compile(dialect=conn.dialect)))
                ddl += [
                    str(CreateIndex(index).compile(dialect=conn.dialect))
                    for index in table.indexes
                ]
                found = (await conn.execute(table.select())).mappings()
                rows[table.name] = [dict(each) for each in found]
        return {"ddl": ddl, "rows": rows}
    finally:
        await engine.dispose()


async def _restore_sql(storage: SQLServerStorage, found: Any) -> None:
    engine = create_async_engine(storage._direct_url, poolclass=NullPool)
    try:
        async with engine.begin() as conn:
            there = await conn.run_sync(lambda sync: inspect(sync).get_table_names())
            for name in there:
                await conn.execute(text(f"DROP TABLE {name}"))
            for statement in found["ddl"]:
                await conn.execute(text(statement))
            for name, rows in found["rows"].items():
                for values in rows:
                    names = ", ".join(f'"{n}"' for n in values)
                    if conn.dialect.name != "postgresql":
                        names = names.replace('"', "`")
                    marks = ", ".join(f":{n}" for n in values)
                    insert = text(f"INSERT INTO {name} ({names}) VALUES ({marks})")
                    await conn.execute(insert, values)
    finally:
        await engine.dispose()


# -- the others ------------------------------------------------------------------------


def _dump_key(storage: RedisStorage, key: bytes) -> list[str]:
    name = key.decode().replace(storage.prefix, "PREFIX")
    content = storage.client.dump(key)
    return [name, base64.b64encode(content).decode()]


def _restore_redis(storage: RedisStorage, found: Any) -> None:
    for key in storage.keys():  # noqa: SIM118
        storage.client.delete(key)
    for name, content in found:
        key = name.replace("PREFIX", storage.prefix).encode()
        storage.client.restore(key, 0, base64.b64decode(content))


def _dump_mongo(storage: MongoStorage) -> Any:
    from bson import json_util

    database = storage._client[storage._database]
    names = ("conversations_log", "conversations_events")
    return {name: json.loads(json_util.dumps(database[name].find())) for name in names}


def _restore_mongo(storage: MongoStorage, found: Any) -> None:
    from bson import json_util

    database = storage._client[storage._database]
    for name, documents in found.items():
        database[name].delete_many({})
        for document in documents:
            database[name].insert_one(json_util.loads(json.dumps(document)))
