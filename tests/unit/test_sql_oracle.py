"""Oracle, compiled: every statement that the store would send, in Oracle's dialect.

No server is at hand. What runs here is the real code, on a connection that compiles
each statement and answers as the database would.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.dialects import mysql, oracle, postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateIndex, CreateTable

from tests.sql_databases import NOW, SENDER, append, read
from tracker_store_async.backends.sql import SQLTrackerStore
from tracker_store_async.backends.sql.oracle import OracleOperations
from tracker_store_async.backends.sql.schema import build_tables
from tracker_store_async.backends.sql.upgrade import oracle as upgrade
from tracker_store_async.backends.sql.upgrade.common import conversations_from_events
from tracker_store_async.rows import Listing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

DIALECT = oracle.dialect()
TABLES = build_tables(DIALECT)


def compiled(statement: Any, dialect: Any = DIALECT, **options: Any) -> str:
    """Return a statement's text on one line."""
    return " ".join(str(statement.compile(dialect=dialect, **options)).split())


class Answer:
    """What a statement returned."""

    def __init__(self, rows: Sequence[Any] = (), rowcount: int = 1) -> None:
        self._rows = list(rows)
        self.rowcount = rowcount

    def all(self) -> list[Any]:
        return self._rows

    def first(self) -> Any:
        return self._rows[0] if self._rows else None

    def scalar(self) -> Any:
        return self._rows[0][0]


class Recorder(OracleOperations):
    """Oracle's primitives on a connection that compiles and answers from a list."""

    def __init__(self, *answers: Answer | Exception) -> None:
        super().__init__(None, TABLES)  # type: ignore[arg-type]
        self.answers = list(answers)
        self.sent: list[str] = []

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        yield self

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        yield self
        if self.sent[-1] != "ROLLBACK":
            self.sent.append("COMMIT")

    async def rollback(self) -> None:
        """Note it."""
        self.sent.append("ROLLBACK")

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        """Note a statement and return the next answer."""
        if parameters is None:
            self.sent.append(compiled(statement))
        else:
            text = compiled(statement, column_keys=list(parameters[0]))
            self.sent.append(f"{text} x{len(parameters)}")
        answer = self.answers.pop(0) if self.answers else Answer()
        if isinstance(answer, Exception):
            raise answer
        return answer


def row(position: int | None) -> Any:
    return SimpleNamespace(
        version=4,
        first_position=0,
        session_start=2,
        snapshot="{}",
        created_at=NOW,
        updated_at=NOW,
        expires_at=None,
        user_id=None,
        position=position,
        event_id="i",
        data="{}",
    )


async def test_append_to_a_conversation() -> None:
    operations = Recorder()
    assert await operations.append(append(3, 2))
    update, insert, commit = operations.sent
    assert update.startswith(
        "UPDATE conversations SET version=:version, session_start="
    )
    assert "WHERE conversations.sender_id = :sender_id_1 AND" in update
    assert "conversations.version = :version_1" in update
    assert insert.startswith("INSERT INTO events (sender_id, type_name, timestamp,")
    assert insert.endswith(" x2")
    assert commit == "COMMIT"


async def test_append_at_another_version() -> None:
    operations = Recorder(Answer(rowcount=0))
    assert not await operations.append(append(3, 2))
    assert len(operations.sent) == 2
    assert "INSERT" not in "".join(operations.sent)


async def test_new_conversation() -> None:
    operations = Recorder()
    assert await operations.append(append(0, 2))
    first, second, _ = operations.sent
    assert first.startswith("INSERT INTO conversations (sender_id, version, ")
    assert second.startswith("INSERT INTO events ")


@pytest.mark.parametrize("expired", [True, False])
async def test_conversation_that_is_there_already(expired: bool) -> None:
    taken = IntegrityError("INSERT", {}, Exception("ORA-00001"))
    looked_at = Answer([row(None)] if expired else [])
    operations = Recorder(taken, looked_at, Answer(rowcount=1))
    assert await operations.append(append(0, 2)) is expired
    where = (
        "FROM conversations WHERE conversations.sender_id = :sender_id_1"
        " AND conversations.expires_at <= :expires_at_1"
    )
    assert operations.sent[1] == f"SELECT conversations.sender_id {where}"
    assert (f"DELETE {where}" in operations.sent) is expired
    assert (len(operations.sent) > 4) is expired


@pytest.mark.parametrize("last", [None, 2])
@pytest.mark.parametrize("start", [None, 0])
async def test_read_is_one_statement(start: int | None, last: int | None) -> None:
    first = 2 if start is None or last else 0
    operations = Recorder(Answer([row(position) for position in range(first, 4)]))
    found = await operations.read(read(start=start, last=last))
    assert found is not None
    assert (found.first_position, len(found.rows)) == (first, 4 - first)
    (statement,) = operations.sent
    assert "FROM conversations LEFT OUTER JOIN events ON" in statement
    assert "ORDER BY events.position" in statement
    assert ("conversations.session_start" in statement.partition("ON")[2]) is (
        start is None
    )


async def test_read_of_the_header_alone() -> None:
    operations = Recorder(Answer([row(None)]))
    found = await operations.read(read(last=0))
    assert found is not None
    assert (found.first_position, found.rows) == (4, [])
    assert "events" not in operations.sent[0]


async def test_delete_list_and_version() -> None:
    operations = Recorder(Answer([SimpleNamespace(expires_at=None, version=1)]))
    assert await operations.delete(SENDER, None, NOW)
    assert operations.sent[0].endswith("FOR UPDATE")
    assert [text.split()[2] for text in operations.sent[1:3]] == [
        "conversations",
        "events",
    ]
    operations = Recorder()
    assert await operations.delete(SENDER, 2, NOW)
    assert operations.sent[1].startswith("DELETE FROM events WHERE events.sender_id")
    operations = Recorder(Answer([("a", 1, NOW, NOW, None)]))
    listed = await operations.list(Listing(NOW, 5, "a", "u", 1.0, 2.0))
    assert listed[0].cursor == "a"
    assert "OFFSET" not in operations.sent[0]
    assert "ORDER BY conversations.sender_id" in operations.sent[0]
    assert "FETCH FIRST" in operations.sent[0]
    operations = Recorder(Answer([("23.5",)]))
    assert await operations.server_version() == "23.5"


def test_tables() -> None:
    ddl = {name: compiled(CreateTable(table)) for name, table in _tables().items()}
    events = ddl["events"]
    assert "id NUMBER(19) GENERATED BY DEFAULT AS IDENTITY" in events
    assert "sender_id VARCHAR2(255 CHAR) NOT NULL" in events
    assert "timestamp DOUBLE PRECISION" in events
    assert "data CLOB" in events
    assert "position INTEGER NOT NULL" in events
    assert "UNIQUE (sender_id, position)" in events
    assert "snapshot CLOB" in ddl["conversations"]
    assert "created_at DOUBLE PRECISION NOT NULL" in ddl["conversations"]
    assert "PRIMARY KEY (version)" in ddl["tracker_store_schema"]
    (index,) = TABLES.conversations.indexes
    assert compiled(CreateIndex(index)) == (
        "CREATE INDEX ix_conversations_user_id ON conversations (user_id, sender_id)"
    )


def _tables() -> dict[str, Any]:
    return dict(TABLES.metadata.tables)


def test_names_fit_old_servers() -> None:
    names = [*_tables(), "uq_events_sender_id_position", "ix_conversations_user_id"]
    assert all(len(name) <= 30 for name in names)


def test_upgrade() -> None:
    text = compiled(conversations_from_events(TABLES, NOW, "oracle"))
    assert text.startswith("SELECT events.sender_id, max(events.position) + ")
    assert "LEFT OUTER JOIN events" in text
    assert text.endswith("GROUP BY events.sender_id")
    assert "length(events.sender_id) > " in text
    assert "row_number() OVER" in upgrade.NUMBER
    assert [step.__name__ for step in upgrade.STEPS] == [
        "create_other_tables",
        "add_columns",
        "number_events",
        "fill_conversations",
    ]


def test_engine_is_made_with_the_asyncio_driver() -> None:
    pytest.importorskip("oracledb", reason="the extra oracle is not installed")
    from tracker_store_async.backends.sql.engine import make_engine

    store = SQLTrackerStore(
        dialect="oracle", host="h", port=1521, db="orcl", username="u", password="p"
    )
    connector = store._connector
    engine = make_engine(connector._url, connector.options, None)
    assert engine.dialect.name == "oracle"
    assert engine.dialect.is_async
    assert connector.where == "oracle at h:1521/orcl"


# -- MySQL and MariaDB differ, and only MariaDB is at hand everywhere ------------------


@pytest.mark.parametrize(
    ("is_mariadb", "collation"),
    [(True, "utf8mb4_nopad_bin"), (False, "utf8mb4_0900_bin")],
)
def test_collation_that_tells_trailing_spaces_apart(
    is_mariadb: bool, collation: str
) -> None:
    dialect = mysql.dialect(is_mariadb=is_mariadb)
    tables = build_tables(dialect)
    for table in (tables.events, tables.conversations):
        text = compiled(CreateTable(table), dialect)
        assert f"COLLATE {collation}" in text
        assert "CHARSET=utf8mb4" in text
        assert "ENGINE=InnoDB" in text
    assert "data LONGTEXT" in compiled(CreateTable(tables.events), dialect)
    assert "timestamp DOUBLE" in compiled(CreateTable(tables.events), dialect)


def test_collation_on_postgresql() -> None:
    dialect = postgresql.dialect()
    text = compiled(CreateTable(build_tables(dialect, "s").conversations), dialect)
    assert text.startswith("CREATE TABLE s.conversations")
    assert 'sender_id VARCHAR(255) COLLATE "C" NOT NULL' in text
