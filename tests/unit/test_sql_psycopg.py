"""An engine of one's own with psycopg, which no store makes by itself."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.servers import fresh_database
from tests.sql_databases import NOW, SENDER, append, ids, read
from tracker_store_async import errors
from tracker_store_async.backends.sql import SQLTrackerStore
from tracker_store_async.backends.sql.errors import translate
from tracker_store_async.backends.sql.postgresql import PostgresqlOperations
from tracker_store_async.events import UserUttered
from tracker_store_async.rows import Listing

psycopg = pytest.importorskip("psycopg", reason="the group test is not installed")

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.servers import PostgreSQLServer


@pytest.fixture
async def engine(postgresql_server: PostgreSQLServer) -> AsyncIterator[AsyncEngine]:
    with fresh_database(postgresql_server) as name:
        made = create_async_engine(postgresql_server.url("postgresql+psycopg", name))
        yield made
        await made.dispose()


@pytest.fixture
async def store(engine: AsyncEngine) -> AsyncIterator[SQLTrackerStore]:
    async with SQLTrackerStore(engine=engine) as opened:
        yield opened


async def count(engine: AsyncEngine, table: str) -> int:
    async with engine.connect() as connection:
        found = await connection.exec_driver_sql(f"SELECT count(*) FROM {table}")
        return int(found.scalar_one())


async def test_a_new_conversation_is_kept(
    store: SQLTrackerStore, engine: AsyncEngine
) -> None:
    tracker = await store.get_or_create_tracker("x")
    tracker.update(UserUttered("hi"))
    await store.save(tracker)
    found = await store.retrieve("x")
    assert found is not None
    assert found.version == tracker.version == await count(engine, "events")
    assert await store.keys() == ["x"]
    assert await store.delete("x")
    assert await count(engine, "events") == await count(engine, "conversations") == 0


async def test_refused_append_changes_nothing(
    store: SQLTrackerStore, engine: AsyncEngine
) -> None:
    assert await store._append(append(0, 3))
    assert not await store._append(append(0, 3))
    assert not await store._append(append(2, 3))
    assert not await store._append(append(3, 1, created_at=NOW - 1))
    assert len(ids(await store._read(read()))) == await count(engine, "events") == 3


async def test_append_that_says_no_is_rolled_back(
    store: SQLTrackerStore, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store._append(append(0, 3, expires_at=NOW))
    insert = PostgresqlOperations._insert_header

    async def insert_and_deny(self: PostgresqlOperations, *arguments: Any) -> bool:
        await insert(self, *arguments)
        return False

    monkeypatch.setattr(PostgresqlOperations, "_insert_header", insert_and_deny)
    assert not await store._append(append(0, 2, now=NOW + 1))
    assert await count(engine, "events") == 3
    assert await count(engine, "conversations") == 1


async def test_writers_who_begin_at_once(store: SQLTrackerStore) -> None:
    results = await asyncio.gather(*(store._append(append(0, 2)) for _ in range(10)))
    assert results.count(True) == 1
    assert len(ids(await store._read(read()))) == 2


async def test_writers_who_replace_what_has_expired(
    store: SQLTrackerStore, engine: AsyncEngine
) -> None:
    assert await store._append(append(0, 3, expires_at=NOW))
    results = await asyncio.gather(
        *(store._append(append(0, 2, now=NOW + 1)) for _ in range(8))
    )
    assert results.count(True) == 1
    assert await count(engine, "events") == 2
    assert not await store._delete("nobody", None, NOW)


async def test_deleting_what_has_expired_erases_it(
    store: SQLTrackerStore, engine: AsyncEngine
) -> None:
    await store._append(append(0, 3, expires_at=NOW))
    assert not await store._delete(SENDER, None, NOW)
    assert await count(engine, "events") == await count(engine, "conversations") == 0


@pytest.mark.parametrize("level", ["READ COMMITTED", "SERIALIZABLE"])
async def test_writers_of_one_conversation(engine: AsyncEngine, level: str) -> None:
    engine = create_async_engine(engine.url, isolation_level=level)

    async def write(store: SQLTrackerStore, number: int) -> None:
        tracker = await store.get_or_create_tracker("x")
        tracker.update(UserUttered(f"{number}"))
        await store.save(tracker)

    async with SQLTrackerStore(engine=engine) as store:
        await asyncio.gather(*(write(store, number) for number in range(8)))
        found = await store.retrieve_full_tracker("x")
    await engine.dispose()
    assert found is not None
    texts = [e.text for e in found.events if isinstance(e, UserUttered)]
    assert sorted(texts, key=str) == [f"{number}" for number in range(8)]


async def test_list_health_and_cut(store: SQLTrackerStore) -> None:
    assert await store._append(append(0, 8, session_start=4))
    assert await store._delete(SENDER, 3, NOW)
    assert not await store._delete(SENDER, 3, NOW)
    assert [one.version for one in await store._list(Listing(NOW, 5))] == [8]
    assert (await store.health()).reachable


# -- errors ----------------------------------------------------------------------------

SECRET = "my doctor says"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            psycopg.OperationalError(
                'connection failed: connection to server at "127.0.0.1", port 1'
                " failed: Connection refused"
            ),
            errors.StoreUnavailableError,
        ),
        (
            psycopg.OperationalError("[Errno -2] Name or service not known"),
            errors.StoreUnavailableError,
        ),
        (
            psycopg.OperationalError("the connection is closed"),
            errors.StoreUnavailableError,
        ),
        (
            psycopg.OperationalError("consuming input failed: server closed"),
            errors.StoreUnavailableError,
        ),
        (
            psycopg.errors.ConnectionTimeout("connection timeout expired"),
            errors.StoreUnavailableError,
        ),
        (
            psycopg.OperationalError(
                'connection failed: FATAL:  password authentication failed for "u"'
            ),
            errors.StoreAccessError,
        ),
        (psycopg.errors.AdminShutdown(SECRET), errors.StoreUnavailableError),
        (psycopg.errors.QueryCanceled(SECRET), errors.StoreTimeoutError),
        (psycopg.errors.SerializationFailure(SECRET), errors.StoreUnavailableError),
        (psycopg.errors.UndefinedTable(SECRET), errors.SchemaError),
        (psycopg.errors.NotNullViolation(SECRET), errors.StoreDataError),
        (psycopg.DataError(SECRET), errors.StoreDataError),
        (psycopg.InterfaceError(SECRET), errors.StoreDataError),
    ],
    ids=repr,
)
def test_table(error: Exception, expected: type[errors.TrackerStoreError]) -> None:
    ours = translate(error, "here")
    assert type(ours) is expected
    assert SECRET not in str(ours)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid"])
async def test_server_that_is_not_there(host: str) -> None:
    url = f"postgresql+psycopg://u:sesame@{host}/rasa"
    engine = create_async_engine(url)
    with pytest.raises(errors.StoreUnavailableError, match="cannot be reached") as said:
        await SQLTrackerStore(engine=engine).open()
    assert "sesame" not in "".join(traceback.format_exception(said.value))
    health = await SQLTrackerStore(engine=engine).health()
    assert not health.reachable
    await engine.dispose()


async def test_unknown_database(engine: AsyncEngine) -> None:
    gone = create_async_engine(engine.url.set(database="no_such_database"))
    with pytest.raises(errors.StoreUnavailableError, match="no such database"):
        await SQLTrackerStore(engine=gone).open()
    await gone.dispose()


async def test_connections_that_the_server_ended(
    store: SQLTrackerStore, engine: AsyncEngine, postgresql_server: Any
) -> None:
    assert await store._append(append(0, 3))
    postgresql_server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{engine.url.database}'",
        "postgres",
    )
    with pytest.raises(errors.StoreUnavailableError):
        await store._read(read())
    assert len(ids(await store._read(read()))) == 3
