"""SQLite: which connection a read goes to, and what is left out of it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

from tests.sql_databases import append, ids, read, rows
from tracker_store_async import SQLTrackerStore, errors
from tracker_store_async.backends.sql.sqlite_lane import Lane
from tracker_store_async.backends.sql.sqlite_reading import (
    ROWS_A_STEP,
    SHORT_READ_ROWS,
    Reading,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

MANY = SHORT_READ_ROWS + 1


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLTrackerStore]:
    async with SQLTrackerStore(dialect="sqlite", db=str(tmp_path / "a.db")) as store:
        yield store


@pytest.fixture
def used(store: SQLTrackerStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the connections that are used from now on."""
    ask: Callable[..., Any] = Lane.ask
    operations: Any = store._opened
    found: list[str] = []

    def noted(lane: Any, *arguments: Any) -> Any:
        found.append("writer" if lane is operations._writer else "reader")
        return ask(lane, *arguments)

    monkeypatch.setattr(Lane, "ask", noted)
    return found


async def test_a_short_read_goes_to_the_connection_that_writes(
    store: SQLTrackerStore, used: list[str]
) -> None:
    assert await store._append(append(0, MANY))
    used.clear()
    assert await store._read(read(sender_id="nobody")) is None
    assert ids(await store._read(read(last=3))) == ids_of(MANY)[-3:]
    assert used == ["writer", "writer"]


async def test_a_long_read_does_not_keep_a_save_waiting(
    store: SQLTrackerStore, used: list[str]
) -> None:
    assert await store._append(append(0, MANY))
    used.clear()
    assert ids(await store._read(read())) == ids_of(MANY)
    assert used == ["writer", "reader"]
    assert ids(await store._read(read())) == ids_of(MANY)
    assert used == ["writer", "reader", "reader"]  # it is known to be long
    assert await store._append(append(MANY))


async def test_a_read_does_not_wait_for_a_save(
    store: SQLTrackerStore, used: list[str]
) -> None:
    assert await store._append(append(0))
    used.clear()
    saving = asyncio.ensure_future(store._append(append(3)))
    await asyncio.sleep(0)
    await store._read(read())
    assert await saving
    assert used == ["writer", "reader"]
    assert len(ids(await store._read(read()))) == 6
    assert used.pop() == "writer"


async def test_a_read_does_not_wait_for_a_write_that_nobody_waits_for(
    store: SQLTrackerStore, used: list[str]
) -> None:
    assert await store._append(append(0))
    operations: Any = store._opened
    begun, go_on = threading.Event(), threading.Event()

    def work(_: Any) -> None:
        begun.set()
        go_on.wait(10)

    writing = asyncio.ensure_future(operations.write(work))
    await asyncio.to_thread(begun.wait, 10)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    used.clear()
    assert len(ids(await store._read(read()))) == 3
    assert used == ["reader"]
    go_on.set()
    assert await store._append(append(3))
    await store._read(read())
    assert used.pop() == "writer"


async def test_ids_that_nobody_looks_at_are_not_read(store: SQLTrackerStore) -> None:
    texts = ['{"event": "bot", "text": "Grüße"}', '{"event": "action"}']
    new = [row._replace(data=text) for row, text in zip(rows(2, 0), texts, strict=True)]
    assert await store._append(append(0, rows=new))
    found = await store._read(read(ids=False))
    assert found is not None
    assert list(found.rows) == [(None, texts[0].encode()), (None, texts[1])]
    assert ids(await store._read(read())) == ids_of(2)


def ids_of(count: int) -> list[str]:
    return [row.event_id for row in rows(count, 0)]


async def test_a_commit_that_fails_leaves_no_transaction_open(tmp_path: Path) -> None:
    """As where there is no write-ahead log, and somebody reads all the while."""
    url = f"sqlite+aiosqlite:///{tmp_path}/a.db"
    engine = create_async_engine(url, connect_args={"timeout": 0})
    async with SQLTrackerStore(engine=engine) as store:
        assert await store._append(append(0))
        with closing(sqlite3.connect(tmp_path / "a.db")) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM events").fetchone()
            with pytest.raises(errors.StoreUnavailableError):
                await store._append(append(3))
        assert len(ids(await store._read(read()))) == 3
        assert await store._append(append(3))
        assert len(ids(await store._read(read()))) == 6
    await engine.dispose()


async def test_only_so_many_are_remembered_for_being_long(
    store: SQLTrackerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker_store_async.backends.sql.sqlite.MOST_LONG", 2)
    operations: Any = store._opened
    for name in "abc":
        assert await store._append(append(0, MANY, sender_id=name))
        await store._read(read(sender_id=name))
    assert list(operations._long) == ["b", "c"]


# -- rows whose texts SQLite joins -----------------------------------------------------


def told_to(connection: sqlite3.Connection) -> list[str]:
    told: list[str] = []
    connection.set_trace_callback(lambda said: told.append(said.split()[0]))
    return told


async def texts_of(store: SQLTrackerStore, **bounds: Any) -> list[Any]:
    found = await store._read(read(ids=False, **bounds))
    assert found is not None
    return [text for _, text in found.rows]


@pytest.mark.parametrize(
    ("count", "steps"),
    [
        (1, ["SELECT"]),
        (ROWS_A_STEP, ["SELECT"]),
        (2 * ROWS_A_STEP + 1, ["SELECT", "BEGIN", *["SELECT"] * 4, "COMMIT"]),
    ],
)
async def test_a_step_reads_many_rows(
    store: SQLTrackerStore, count: int, steps: list[str]
) -> None:
    """With a row a step, a thread waits for a busy loop as often as there are rows."""
    assert await store._append(append(0, count))
    operations: Any = store._opened
    told = told_to(operations._writer.driver._conn)
    assert await texts_of(store) == [row.data for row in rows(count, 0)]
    assert told == steps


async def test_a_header_is_one_step(store: SQLTrackerStore) -> None:
    assert await store._append(append(0))
    operations: Any = store._opened
    told = told_to(operations._writer.driver._conn)
    found = await store._read(read(last=0))
    assert found is not None
    assert (found.version, found.first_position) == (3, 3)
    assert await store._read(read(sender_id="nobody", last=0)) is None
    assert told == ["SELECT", "SELECT"]


async def test_a_step_writes_several_rows(store: SQLTrackerStore) -> None:
    assert await store._append(append(0, 1))
    operations: Any = store._opened
    told = told_to(operations._writer.driver._conn)
    assert await store._append(append(1, 40))
    assert told == ["BEGIN", "UPDATE", "INSERT", "INSERT", "INSERT", "COMMIT"]
    assert ids(await store._read(read())) == ids_of(41)


@pytest.mark.parametrize("count", [5, ROWS_A_STEP + 5])
@pytest.mark.parametrize(
    "odd",
    [
        '{"event": "action", "name": "a\x1eb"}',
        '\x1e{"event": "action"}\x1e',
        '{"event": "bot", "text": "Gr\u00fc\u00dfe \U0001f600"}',
        "",
        None,
    ],
)
async def test_odd_rows_stay_where_they_are(
    store: SQLTrackerStore, count: int, odd: str | None
) -> None:
    assert await store._append(append(0, count))
    operations: Any = store._opened

    def spoil(conn: sqlite3.Connection) -> None:
        with conn:
            conn.execute("UPDATE events SET data = ? WHERE position = 2", (odd,))

    await operations.write(spoil)
    found = await texts_of(store)
    expected: list[Any] = [row.data for row in rows(count, 0)]
    expected[2] = odd if odd is None or odd.isascii() else odd.encode()
    assert found == expected
    assert await texts_of(store, start=1, last=count - 2) == expected[2:]


@pytest.mark.parametrize("count", [5, ROWS_A_STEP + 5])
async def test_one_odd_row_does_not_make_up_for_another(
    store: SQLTrackerStore, count: int
) -> None:
    assert await store._append(append(0, count))
    operations: Any = store._opened

    def spoil(conn: sqlite3.Connection) -> None:
        with conn:
            conn.execute("UPDATE events SET data = NULL WHERE position = 1")
            conn.execute("UPDATE events SET data = 'a\x1eb' WHERE position = 3")

    await operations.write(spoil)
    found = await texts_of(store)
    assert found[:5] == [
        rows(1, 0)[0].data,
        None,
        rows(1, 2)[0].data,
        "a\x1eb",
        found[4],
    ]
    assert len(found) == count


@pytest.mark.parametrize("count", [5, ROWS_A_STEP + 5])
async def test_a_row_that_is_gone_is_told(store: SQLTrackerStore, count: int) -> None:
    assert await store._append(append(0, count))
    operations: Any = store._opened

    def spoil(conn: sqlite3.Connection) -> None:
        with conn:
            conn.execute("DELETE FROM events WHERE position = 3")

    await operations.write(spoil)
    with pytest.raises(errors.CorruptEventError, match="are needed from here on"):
        await store._read(read(ids=False))


@pytest.mark.parametrize("count", [5, ROWS_A_STEP + 5])
async def test_rows_that_do_not_fit_into_one_text_are_read_one_by_one(
    store: SQLTrackerStore, count: int
) -> None:
    texts = [f'{{"event": "bot", "text": "{number:0400}"}}' for number in range(count)]
    new = [
        row._replace(data=text) for row, text in zip(rows(count, 0), texts, strict=True)
    ]
    assert await store._append(append(0, rows=new))
    operations: Any = store._opened
    for lane in (operations._writer, operations._reader):
        lane.driver._conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1000)
    assert await texts_of(store) == texts


async def test_they_are_joined_in_order_whatever_a_connection_is_set_to(
    tmp_path: Path,
) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db")

    @event.listens_for(engine.sync_engine, "connect")
    def backwards(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA reverse_unordered_selects = ON")

    async with SQLTrackerStore(engine=engine) as store:
        assert await store._append(append(0, 5))
        assert await texts_of(store) == [row.data for row in rows(5, 0)]
    await engine.dispose()


def test_without_the_index_nothing_is_joined() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        conn.execute(
            "CREATE TABLE events (sender_id TEXT, position INTEGER, data TEXT)"
        )
        conn.execute(
            "CREATE TABLE conversations (sender_id TEXT, version INTEGER, "
            "first_position INTEGER, session_start INTEGER, snapshot TEXT, "
            "created_at REAL, updated_at REAL, expires_at REAL, user_id TEXT)"
        )
        conn.execute(
            "INSERT INTO conversations VALUES ('s', 2, 0, 0, '', 1, 1, 1e9, '')"
        )
        conn.execute("INSERT INTO events VALUES ('s', 1, 'b'), ('s', 0, 'a')")
        told = told_to(conn)
        found = Reading.of(conn).one(conn, read(sender_id="s", ids=False, now=2.0))
        assert found is not None
        assert list(found.rows) == [(None, "a"), (None, "b")]
        assert "BEGIN" in told
        told.clear()
        conn.execute('CREATE UNIQUE INDEX "a ""b""" ON events (sender_id, position)')
        for other in (  # which are looked at first
            "CREATE UNIQUE INDEX down ON events (sender_id, position DESC)",
            "CREATE UNIQUE INDEX part ON events (sender_id, position) WHERE data > 'a'",
            "CREATE INDEX wider ON events (sender_id, position, data)",
            "CREATE INDEX alike ON events (sender_id COLLATE NOCASE, position)",
        ):
            conn.execute(other)
        found = Reading.of(conn).one(conn, read(sender_id="s", ids=False, now=2.0))
        assert found is not None
        assert list(found.rows) == [(None, "a"), (None, "b")]
        assert told[-1] == "SELECT"
        assert "BEGIN" not in told
