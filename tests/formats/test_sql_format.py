"""What the SQL store stores, byte by byte, read with the bare drivers.

A change here is a change of the layout: it needs a new version and an upgrade.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import asyncmy
import asyncpg
import pytest

from tests.sql_databases import SENDER, Database, database
from tracker_store_async.rows import Append, NewRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.servers import Servers

NEW_ROWS = [
    NewRow(
        "5e1bb2a8-3f0c-4c8e-9a37-2b1a35a0a3a1",
        '{"event":"user","timestamp":1700000000.123456,'
        '"text":"h\\u00e9 \\ud800 \\u0000 é \N{WINKING FACE}"}',
        "user",
        1700000000.123456,
        "greet",
        None,
    ),
    NewRow("own id ", '{"event":"action","name":"x"}', "action", None, None, "x"),
]

APPENDS = [
    Append(SENDER, 0, NEW_ROWS, 0, '{"slots":{"a":1.0}}', 1700000001.25),
    Append(SENDER, 2, NEW_ROWS[:1], 2, "{}", 1700000002.5, 1700086402.75, "user 1"),
]

EVENTS = [
    (
        SENDER,
        position,
        row.event_id,
        row.type_name,
        row.timestamp,
        row.intent_name,
        row.action_name,
        row.data,
    )
    for position, row in enumerate([*NEW_ROWS, NEW_ROWS[0]])
]
CONVERSATION = (
    SENDER,
    3,
    0,
    2,
    "{}",
    1700000001.25,
    1700000002.5,
    1700086402.75,
    "user 1",
)

SELECT_EVENTS = (
    "SELECT sender_id, position, event_id, type_name, timestamp, intent_name,"
    " action_name, data FROM events ORDER BY id"
)
SELECT_CONVERSATIONS = (
    "SELECT sender_id, version, first_position, session_start, snapshot, created_at,"
    " updated_at, expires_at, user_id FROM conversations"
)
SELECT_VERSION = "SELECT version FROM tracker_store_schema"
ROWS = (SELECT_EVENTS, SELECT_CONVERSATIONS, SELECT_VERSION)
EXPECTED = (EVENTS, [CONVERSATION], [(1,)])


@pytest.fixture
def of(servers: Servers, tmp_path: Path) -> Iterator[Callable[[str], Database]]:
    """Give a function that makes an empty database."""
    with ExitStack() as stack:
        yield lambda key: stack.enter_context(database(key, servers, tmp_path))


async def fill(target: Database) -> None:
    async with target.store() as store:
        for request in APPENDS:
            assert await store._append(request)


SQLITE_SCHEMA = [
    "CREATE INDEX ix_conversations_user_id ON conversations (user_id, sender_id)",
    "CREATE TABLE conversations ( sender_id VARCHAR(255) NOT NULL,"
    " version INTEGER NOT NULL, first_position INTEGER NOT NULL,"
    " session_start INTEGER NOT NULL, snapshot TEXT, created_at DOUBLE NOT NULL,"
    " updated_at DOUBLE NOT NULL, expires_at DOUBLE, user_id VARCHAR(255),"
    " PRIMARY KEY (sender_id) )",
    "CREATE TABLE events ( id INTEGER NOT NULL, sender_id VARCHAR(255) NOT NULL,"
    " type_name VARCHAR(255) NOT NULL, timestamp DOUBLE, intent_name VARCHAR(255),"
    " action_name VARCHAR(255), data TEXT, position INTEGER NOT NULL, event_id TEXT,"
    " PRIMARY KEY (id),"
    " CONSTRAINT uq_events_sender_id_position UNIQUE (sender_id, position) )",
    "CREATE TABLE tracker_store_schema ( version INTEGER NOT NULL,"
    " PRIMARY KEY (version) )",
]


@pytest.mark.backend("sqlite")
async def test_sqlite(of: Callable[[str], Database]) -> None:
    target = of("sqlite")
    await fill(target)
    connection = sqlite3.connect(target.options["db"])
    assert tuple(connection.execute(query).fetchall() for query in ROWS) == EXPECTED
    kinds = connection.execute(
        "SELECT DISTINCT typeof(data), typeof(position) FROM events"
    )
    assert kinds.fetchall() == [("text", "integer")]
    made = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
    assert sorted(" ".join(row[0].split()) for row in made) == SQLITE_SCHEMA
    connection.close()


POSTGRESQL_COLUMNS = [
    ("conversations", "sender_id", "character varying(255)", True, "C"),
    ("conversations", "version", "integer", True, None),
    ("conversations", "first_position", "integer", True, None),
    ("conversations", "session_start", "integer", True, None),
    ("conversations", "snapshot", "text", False, "default"),
    ("conversations", "created_at", "double precision", True, None),
    ("conversations", "updated_at", "double precision", True, None),
    ("conversations", "expires_at", "double precision", False, None),
    ("conversations", "user_id", "character varying(255)", False, "C"),
    ("events", "id", "bigint", True, None),
    ("events", "sender_id", "character varying(255)", True, "C"),
    ("events", "type_name", "character varying(255)", True, "default"),
    ("events", "timestamp", "double precision", False, None),
    ("events", "intent_name", "character varying(255)", False, "default"),
    ("events", "action_name", "character varying(255)", False, "default"),
    ("events", "data", "text", False, "default"),
    ("events", "position", "integer", True, None),
    ("events", "event_id", "text", False, "default"),
    ("tracker_store_schema", "version", "integer", True, None),
]
POSTGRESQL_INDEXES = [
    "CREATE UNIQUE INDEX conversations_pkey ON public.conversations"
    " USING btree (sender_id)",
    "CREATE UNIQUE INDEX events_pkey ON public.events USING btree (id)",
    "CREATE INDEX ix_conversations_user_id ON public.conversations"
    " USING btree (user_id, sender_id)",
    "CREATE UNIQUE INDEX tracker_store_schema_pkey ON public.tracker_store_schema"
    " USING btree (version)",
    "CREATE UNIQUE INDEX uq_events_sender_id_position ON public.events"
    ' USING btree (sender_id, "position")',
]


@pytest.mark.backend("postgresql")
async def test_postgresql(of: Callable[[str], Database]) -> None:
    target = of("postgresql")
    await fill(target)
    options = target.options
    connection = await asyncpg.connect(
        host=options["host"],
        port=options["port"],
        user=options["username"],
        password=options["password"],
        database=options["db"],
    )
    found = [list(map(tuple, await connection.fetch(query))) for query in ROWS]
    columns = await connection.fetch(
        "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod),"
        " a.attnotnull, l.collname FROM pg_attribute a"
        " JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_collation l"
        " ON l.oid = a.attcollation WHERE a.attnum > 0 AND c.relkind = 'r'"
        " AND c.relnamespace = 'public'::regnamespace ORDER BY c.relname, a.attnum"
    )
    indexes = await connection.fetch(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname"
    )
    options = await connection.fetchval(
        "SELECT reloptions FROM pg_class WHERE oid = 'conversations'::regclass"
    )
    await connection.close()
    assert options == ["fillfactor=70"]
    assert tuple(found) == EXPECTED
    assert list(map(tuple, columns)) == POSTGRESQL_COLUMNS
    assert [row[0] for row in indexes] == POSTGRESQL_INDEXES


MYSQL_COLUMNS = [
    ("conversations", "sender_id", "varchar(255)", "NO", True),
    ("conversations", "version", "int", "NO", False),
    ("conversations", "first_position", "int", "NO", False),
    ("conversations", "session_start", "int", "NO", False),
    ("conversations", "snapshot", "longtext", "YES", True),
    ("conversations", "created_at", "double", "NO", False),
    ("conversations", "updated_at", "double", "NO", False),
    ("conversations", "expires_at", "double", "YES", False),
    ("conversations", "user_id", "varchar(255)", "YES", True),
    ("events", "id", "bigint", "NO", False),
    ("events", "sender_id", "varchar(255)", "NO", True),
    ("events", "type_name", "varchar(255)", "NO", True),
    ("events", "timestamp", "double", "YES", False),
    ("events", "intent_name", "varchar(255)", "YES", True),
    ("events", "action_name", "varchar(255)", "YES", True),
    ("events", "data", "longtext", "YES", True),
    ("events", "position", "int", "NO", False),
    ("events", "event_id", "text", "YES", True),
    ("tracker_store_schema", "version", "int", "NO", False),
]


@pytest.mark.backend("mysql")
async def test_mysql(of: Callable[[str], Database]) -> None:
    target = of("mysql")
    await fill(target)
    options = target.options
    connection = await asyncmy.connect(
        host=options["host"],
        port=options["port"],
        user=options["username"],
        password=options["password"] or "",
        database=options["db"],
    )
    async with connection.cursor() as cursor:

        async def fetch(query: str) -> list[Any]:
            await cursor.execute(query)
            return list(await cursor.fetchall())

        found = [await fetch(query) for query in ROWS]
        columns = await fetch(
            "SELECT table_name, column_name, column_type, is_nullable, collation_name"
            " FROM information_schema.columns WHERE table_schema = database()"
            " ORDER BY table_name, ordinal_position"
        )
        engines = await fetch(
            "SELECT DISTINCT engine FROM information_schema.tables"
            " WHERE table_schema = database()"
        )
    await connection.ensure_closed()
    assert tuple(found) == EXPECTED
    binary = ("utf8mb4_nopad_bin", "utf8mb4_0900_bin")
    simplified = [
        # MariaDB shows a display width, which means nothing: int(11)
        (table, name, re.sub(r"int\(\d+\)", "int", kind), null, collation in binary)
        for table, name, kind, null, collation in columns
    ]
    assert simplified == MYSQL_COLUMNS
    assert engines == [("InnoDB",)]
