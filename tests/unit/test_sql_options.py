"""Options of the SQL store that only a real server can tell apart."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import uuid
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.faults.proxy import FaultProxy
from tests.sql_databases import NOW, SENDER, append, database, ids, params, read
from tracker_store_async import errors
from tracker_store_async.backends.sql import SQLTrackerStore, opening, sqlite_lane
from tracker_store_async.rows import Listing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.servers import PostgreSQLServer, Servers
    from tests.sql_databases import Database


@pytest.fixture
def postgresql(
    servers: Servers, tmp_path: Path, postgresql_server: PostgreSQLServer
) -> Iterator[Database]:
    with database("postgresql", servers, tmp_path) as found:
        yield found


@pytest.fixture(params=params("postgresql", "mysql"))
def server_database(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[Database]:
    with database(request.param, servers, tmp_path) as found:
        yield found


# -- round trips -----------------------------------------------------------------------


@asynccontextmanager
async def counted(target: Database, **options: Any) -> AsyncIterator[Any]:
    """Yield a store with one warm connection, and its proxy."""
    server = target.options
    async with (
        FaultProxy(server["host"], server["port"]) as proxy,
        target.store(host=proxy.host, port=proxy.port, pool_size=1, **options) as store,
    ):
        for _ in range(2):
            await store._append(append(0, 3, sender_id="warm"))
            await store._append(append(3, 3, sender_id="warm"))
            await store._read(read(sender_id="warm", start=None))
            await store._read(read(sender_id="warm"))
            await store._read(read(sender_id="warm", last=0))
            await store._list(Listing(NOW, 5))
            await store._delete("warm", None, NOW)
        yield store, proxy


async def test_one_round_trip_to_append_and_one_to_read_on_postgresql(
    postgresql: Database,
) -> None:
    async with counted(postgresql) as (store, proxy):
        trips = [proxy.round_trips]
        assert await store._append(append(0, 3))
        trips.append(proxy.round_trips)
        assert await store._append(append(3, 3))
        trips.append(proxy.round_trips)
        assert not await store._append(append(3, 3))
        trips.append(proxy.round_trips)
        assert len(ids(await store._read(read(start=None)))) == 6
        trips.append(proxy.round_trips)
        assert len(await store._list(Listing(NOW, 5))) == 1
        trips.append(proxy.round_trips)
        assert await store._append(append(6, 3, session_start=8))
        assert await store._delete(SENDER, 2, NOW)
        trips.append(proxy.round_trips)
        assert len(ids(await store._read(read()))) == 7
        trips.append(proxy.round_trips)
    steps = [after - before for before, after in pairwise(trips)]
    assert steps.pop(5) > 1  # what is rare may take more
    assert steps == [1, 1, 1, 1, 1, 1]


@pytest.mark.backend("mysql")
async def test_round_trips_on_mysql(servers: Servers, tmp_path: Path) -> None:
    with database("mysql", servers, tmp_path) as target:
        async with counted(target) as (store, proxy):
            trips = [proxy.round_trips]
            assert await store._append(append(0, 3))
            trips.append(proxy.round_trips)
            assert await store._append(append(3, 3))
            trips.append(proxy.round_trips)
            assert len(ids(await store._read(read()))) == 6
            trips.append(proxy.round_trips)
    steps = [after - before for before, after in pairwise(trips)]
    assert steps == [3, 3, 2]


async def test_ping_costs_its_round_trip_only_when_asked_for(
    postgresql: Database,
) -> None:
    async with counted(postgresql, pool_pre_ping=True) as (store, proxy):
        before = proxy.round_trips
        await store._read(read())
        assert proxy.round_trips > before + 1


# -- the pool --------------------------------------------------------------------------


async def sessions(target: Database) -> int:
    found = await target.arun(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()"
    )
    return int(found[0][0])


async def test_no_more_connections_than_the_pool_may_have(
    postgresql: Database,
) -> None:
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, await sessions(postgresql))
            await asyncio.sleep(0)

    async with postgresql.store(pool_size=2, max_overflow=2) as store:
        watcher = asyncio.create_task(watch())
        for turn in range(20):  # until the watcher has looked in the middle of one
            work = [
                store._append(append(0, sender_id=f"{turn}-{n}")) for n in range(60)
            ]
            work += [store._list(Listing(NOW, 5)) for _ in range(20)]  # type: ignore[list-item]
            results = await asyncio.gather(*work)
            assert all(result is True for result in results[:60])
            if most >= 2:
                break
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        assert 2 <= most <= 5  # one is the watcher's last
        await asyncio.sleep(0.2)
        assert await sessions(postgresql) <= 2
        health = await store.health()
        assert health.details["pool"]["size"] == 2


async def test_full_pool_says_which_options_to_raise(postgresql: Database) -> None:
    async with postgresql.store(pool_size=1, pool_timeout_seconds=0.2) as store:
        await store._append(append(0))
        operations: Any = store._operations
        pooled = await operations._checkout.take()
        with pytest.raises(errors.StoreTimeoutError, match="pool_size"):
            await store._read(read())
        await operations._checkout.give_back(pooled)
        assert len(ids(await store._read(read()))) == 3


async def test_connection_that_the_server_closed_is_not_used_again(
    postgresql: Database,
) -> None:
    async with postgresql.store(pool_size=3) as store:
        await store._append(append(0))
        await asyncio.gather(*(store._read(read()) for _ in range(6)))
        await postgresql.arun(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await asyncio.sleep(0.1)
        found = await asyncio.gather(*(store._read(read()) for _ in range(6)))
        assert [len(ids(conversation)) for conversation in found] == [3] * 6


@pytest.mark.parametrize("pre_ping", [True, False])
@pytest.mark.backend("mysql")
async def test_pre_ping_spares_mysql_the_first_failure(
    servers: Servers, tmp_path: Path, pre_ping: bool
) -> None:
    with database("mysql", servers, tmp_path) as target:
        async with target.store(pool_size=1, pool_pre_ping=pre_ping) as store:
            await store._append(append(0))
            found = await target.arun(
                "SELECT id FROM information_schema.processlist"
                f" WHERE db = '{target.options['db']}' AND id <> connection_id()"
            )
            for (number,) in found:
                await target.arun(f"KILL {number}")
            if not pre_ping:
                with pytest.raises(errors.StoreUnavailableError):
                    await store._read(read())
            assert len(ids(await store._read(read()))) == 3


async def test_old_connections_are_replaced(postgresql: Database) -> None:
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    async with postgresql.store(pool_size=1, pool_recycle_seconds=0.05) as store:
        await store._append(append(0))
        old = set(await postgresql.arun(query))
        await asyncio.sleep(0.1)
        await store._read(read())
        new = set(await postgresql.arun(query + " AND pid <> pg_backend_pid()"))
        assert new
        assert not old & new


async def test_command_that_takes_too_long(postgresql: Database) -> None:
    async with postgresql.store(command_timeout_seconds=0.3, pool_size=1) as store:
        await store._append(append(0))
        engine = create_async_engine(postgresql.url)
        async with engine.begin() as blocker:
            await blocker.execute(text("LOCK TABLE conversations"))
            with pytest.raises(errors.StoreTimeoutError, match="may be done"):
                await store._append(append(3))
        await engine.dispose()
        assert (await store._read(read())).version in (3, 6)  # type: ignore[union-attr]


async def test_server_keeps_its_plans(postgresql: Database) -> None:
    for pgbouncer, expected in ((False, "force_generic_plan"), (True, "auto")):
        async with postgresql.store(pgbouncer=pgbouncer) as store:
            operations: Any = store._operations
            async with operations.connection() as connection:
                found = await connection.execute(text("SHOW plan_cache_mode"))
                assert found.scalar() == expected


@pytest.mark.backend("mysql")
async def test_mysql_locks_no_gaps(servers: Servers, tmp_path: Path) -> None:
    with database("mysql", servers, tmp_path) as target:
        async with target.store() as store:
            operations: Any = store._operations
            async with operations.connection() as connection:
                await connection.execute(text("SELECT 1"))
                assert await connection.get_isolation_level() == "READ COMMITTED"


async def test_rare_operations_get_a_connection_too(postgresql: Database) -> None:
    async with postgresql.store(pool_size=1, pool_timeout_seconds=5) as store:
        await store._append(append(0))
        await store._list(Listing(NOW, 5))  # the one connection lies at hand
        for _ in range(5):
            results = await asyncio.gather(
                store._read(read()),
                store._list(Listing(NOW, 5)),
                store._read(read()),
                store._delete("nobody", None, NOW),
                store.health(),
                store._read(read()),
            )
            assert len(ids(results[5])) == 3


# -- schema, database, rights ----------------------------------------------------------


async def test_tables_in_a_schema(postgresql: Database) -> None:
    await postgresql.arun('CREATE SCHEMA "My Schema"')
    async with postgresql.store(schema="My Schema") as store:
        assert await store._append(append(0))
        assert await store._append(append(3, 40))
        assert len(ids(await store._read(read()))) == 43
        assert len(await store._list(Listing(NOW, 5))) == 1
        assert await store._delete("nobody", None, NOW) is False
    found = await postgresql.arun(
        "SELECT table_schema, table_name FROM information_schema.tables"
        " WHERE table_name IN ('events', 'conversations', 'tracker_store_schema')"
    )
    assert {row[0] for row in found} == {"My Schema"}
    assert len(found) == 3
    assert await postgresql.store().schema_state() == "not created"


async def test_schema_that_does_not_exist(postgresql: Database) -> None:
    with pytest.raises(errors.SchemaError, match=r"'nowhere' does not exist.*CREATE"):
        await postgresql.store(schema="nowhere").open()
    state = await postgresql.store(schema="nowhere").schema_state()
    assert "does not exist" in state


@pytest.mark.parametrize("at_once", [1, 4])
async def test_login_db_creates_the_database(
    postgresql: Database, at_once: int
) -> None:
    name = f'tracker "store" %{uuid.uuid4().hex[:8]}'
    stores = [
        postgresql.store(db=name, login_db=postgresql.options["db"])
        for _ in range(at_once)
    ]
    server: Any = postgresql.server
    try:
        await asyncio.gather(*(store.open() for store in stores))
        assert await stores[0]._append(append(0))
        assert len(ids(await stores[-1]._read(read()))) == 3
    finally:
        for store in stores:
            await store.close()
        quoted = name.replace('"', '""')
        server.execute(f'DROP DATABASE IF EXISTS "{quoted}" WITH (FORCE)')


async def test_role_without_the_right_to_create_tables(
    postgresql: Database, postgresql_server: PostgreSQLServer
) -> None:
    role = f"tracker_store_test_{uuid.uuid4().hex[:8]}"
    postgresql_server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'")
    try:
        limited = {"username": role, "password": "pw", "create_tables": False}
        with pytest.raises(errors.SchemaError, match="create_tables"):
            await postgresql.store(**limited).open()
        with pytest.raises(errors.StoreAccessError):
            await postgresql.store(username=role, password="pw").open()
        await postgresql.store().upgrade_schema()
        await postgresql.arun(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES"
            f" IN SCHEMA public TO {role}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
        )
        async with postgresql.store(**limited) as store:
            assert await store._append(append(0))
        await postgresql.arun(f"REVOKE INSERT ON events FROM {role}")
        async with postgresql.store(**limited) as store:
            with pytest.raises(errors.StoreAccessError, match="42501"):
                await store._append(append(3))
            assert len(ids(await store._read(read()))) == 3
    finally:
        await postgresql.arun(f"DROP OWNED BY {role}")
        postgresql_server.execute(f"DROP ROLE {role}")


async def test_looking_changes_nothing(server_database: Database) -> None:
    assert await server_database.store().schema_state() == "not created"
    store = server_database.store(create_tables=False)
    with pytest.raises(errors.SchemaError, match="tables are missing"):
        await store.open()
    assert await store.schema_state() == "not created"
    await store.upgrade_schema()
    assert await store.schema_state() == "current (1)"
    await store.upgrade_schema()


@pytest.mark.backend("sqlite")
async def test_a_file_in_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/folder/store.db"
    engine = create_async_engine(url)
    for store in (SQLTrackerStore(host=url), SQLTrackerStore(engine=engine)):
        for using in (store.open, store.schema_state, store.upgrade_schema):
            with pytest.raises(errors.StoreUnavailableError, match="create it first"):
                await using()
        await store.close()
    await engine.dispose()
    assert not list(tmp_path.iterdir())


@pytest.mark.backend("sqlite")
async def test_looking_makes_no_file(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    assert await SQLTrackerStore(db=str(file)).schema_state() == "not created"
    assert list(tmp_path.iterdir()) == []


async def test_layout_of_a_newer_version(server_database: Database) -> None:
    await server_database.store().upgrade_schema()
    await server_database.arun("UPDATE tracker_store_schema SET version = 2")
    with pytest.raises(errors.SchemaTooNewError, match="layout version 2"):
        await server_database.store().open()
    state = await server_database.store().schema_state()
    assert state == "newer than this library (2)"


@pytest.mark.parametrize(
    "ddl",
    [
        "CREATE TABLE conversations (id integer, title varchar(20))",
        "CREATE TABLE events (id integer, happened_at date)",
        "CREATE TABLE tracker_store_schema (id integer)",
    ],
)
async def test_tables_of_somebody_else_are_left_alone(
    server_database: Database, ddl: str
) -> None:
    await server_database.arun(ddl)
    with pytest.raises(errors.SchemaError, match="other tables by our names"):
        await server_database.store(auto_upgrade=True).open()


async def test_creating_that_was_cut_short_goes_on(server_database: Database) -> None:
    await server_database.store().upgrade_schema()
    await server_database.arun(
        "DELETE FROM tracker_store_schema", "DROP TABLE conversations"
    )
    async with server_database.store() as store:
        assert await store._append(append(0))


# -- your own engine -------------------------------------------------------------------


async def test_own_engine_is_used_and_left_open(server_database: Database) -> None:
    engine = create_async_engine(
        server_database.url, pool_size=1, max_overflow=0, pool_timeout=1
    )
    connected = []
    event.listen(engine.sync_engine, "connect", lambda *_: connected.append(1))
    for _ in range(2):
        async with SQLTrackerStore(engine=engine) as store:
            header = await store._read(read(last=0))
            version = 0 if header is None else header.version
            assert await store._append(append(version))
            assert not await store._append(append(version))
            await store._list(Listing(NOW, 5))
            await store.health()
            async with engine.connect() as connection:  # it is not kept from its owner
                await connection.execute(text("SELECT 1"))
    assert len(connected) == 1
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await engine.dispose()


@pytest.mark.backend("sqlite")
async def test_own_engine_in_memory(tmp_path: Path) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    for version in (0, 3):
        async with SQLTrackerStore(engine=engine) as store:
            assert await store._append(append(version))
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT count(*) FROM events"))
        assert found.scalar() == 6
    await engine.dispose()


# -- SQLite ----------------------------------------------------------------------------


@pytest.mark.backend("sqlite")
@pytest.mark.parametrize(
    "options", [{"db": ":memory:"}, {"host": "sqlite://"}, {"db": None}]
)
async def test_database_in_memory(options: dict[str, Any]) -> None:
    async with SQLTrackerStore(**options) as store, SQLTrackerStore(**options) as other:
        assert await store._append(append(0))
        assert len(ids(await store._read(read()))) == 3
        assert await other._read(read()) is None
        results = await asyncio.gather(
            *(store._append(append(0, sender_id=f"s{n}")) for n in range(9)),
            *(store._read(read()) for _ in range(9)),
        )
        assert all(results)


@pytest.mark.backend("sqlite")
async def test_file_is_in_wal_mode_and_synced(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    async with SQLTrackerStore(db=str(file)) as store:
        driver: Any = store._operations._writer.driver  # type: ignore[union-attr]
        cursor = await driver.execute("PRAGMA synchronous")
        assert await cursor.fetchone() == (2,)  # FULL
        await cursor.close()
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.backend("sqlite")
async def test_another_process_that_holds_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    async with SQLTrackerStore(db=str(file), connect_timeout_seconds=0.2) as store:
        await store._append(append(0))
        other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(errors.StoreTimeoutError, match="locked"):
            await store._append(append(3))
        assert len(ids(await store._read(read()))) == 3  # readers do not wait
        other.execute("ROLLBACK")
        other.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.1, other.execute, "ROLLBACK")
        assert await store._append(append(3))
        other.close()


@pytest.mark.backend("sqlite")
async def test_one_creates_the_tables_while_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_layout = opening.create_layout

    async def slowly(*arguments: Any) -> None:
        await asyncio.sleep(0.05)
        await create_layout(*arguments)

    monkeypatch.setattr(opening, "create_layout", slowly)
    stores = [SQLTrackerStore(db=str(tmp_path / "x.db")) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    assert await stores[0]._append(append(0))
    await asyncio.gather(*(store.close() for store in stores))


@pytest.mark.backend("sqlite")
async def test_reads_do_not_wait_behind_writes(tmp_path: Path) -> None:
    async with SQLTrackerStore(db=str(tmp_path / "x.db")) as store:
        await store._append(append(0))
        operations: Any = store._operations
        held = asyncio.Event()

        async def hold() -> None:
            import time

            await operations.write(lambda _: time.sleep(0.5))
            held.set()

        task = asyncio.create_task(hold())
        await asyncio.sleep(0.05)
        assert len(ids(await store._read(read()))) == 3
        assert not held.is_set()
        await task


@pytest.mark.backend("sqlite")
async def test_what_we_use_of_aiosqlite_is_there(tmp_path: Path) -> None:
    async with SQLTrackerStore(db=str(tmp_path / "x.db")) as store:
        driver: Any = store._operations._writer.driver  # type: ignore[union-attr]
        assert isinstance(driver._conn, sqlite3.Connection)
        assert driver._running
        assert driver._connection is driver._conn
        done = threading.Event()
        driver._tx.put_nowait((sqlite_lane._NOBODY, done.set))
        assert await asyncio.to_thread(done.wait, 10)
        assert driver._thread.is_alive()


# -- PgBouncer -------------------------------------------------------------------------


@pytest.mark.backend("pgbouncer")
async def test_statements_of_others_do_not_get_in_between_behind_pgbouncer(
    servers: Servers, tmp_path: Path
) -> None:
    with database("pgbouncer", servers, tmp_path) as target:
        async with target.store(pool_size=12) as store:
            for number in range(10):
                name = f"s{number}"
                await store._append(append(0, number + 1, sender_id=name))

            async def mixed(number: int) -> None:
                name, count = f"s{number % 10}", number % 10 + 1
                for _ in range(8):
                    found = await store._read(read(sender_id=name))
                    assert len(ids(found)) == count
                    found = await store._read(read(sender_id=name, last=1))
                    assert ids(found) == [f"id-{count - 1}"]
                    assert not await store._append(append(99, 3, sender_id=name))
                    assert len(await store._list(Listing(NOW, 4))) == 4

            await asyncio.gather(*(mixed(number) for number in range(24)))
            await store._delete("s1", None, NOW)
            operations: Any = store._operations
            for _ in range(9):
                async with operations.connection() as connection:
                    left = await connection.execute(
                        text("SELECT name FROM pg_prepared_statements")
                    )
                    assert left.all() == []


@pytest.mark.backend("pgbouncer")
async def test_many_at_once_behind_pgbouncer(servers: Servers, tmp_path: Path) -> None:
    with database("pgbouncer", servers, tmp_path) as target:
        async with target.store(pool_size=12) as store, target.store() as other:
            for version in range(0, 9, 3):
                results = await asyncio.gather(
                    *(
                        each._append(append(version, sender_id=f"{each is store}{n}"))
                        for n in range(20)
                        for each in (store, other)
                    )
                )
                assert all(results)
            found = await asyncio.gather(
                *(store._read(read(sender_id=f"False{n}")) for n in range(20))
            )
            assert all(len(ids(conversation)) == 9 for conversation in found)


async def test_only_pgbouncer_goes_without_prepared_statements(
    postgresql: Database,
) -> None:
    prepared = {}
    for pgbouncer in (True, False):
        async with postgresql.store(pgbouncer=pgbouncer, pool_size=1) as store:
            await store._append(append(0, sender_id=str(pgbouncer)))
            operations: Any = store._operations
            pooled = await operations._checkout.take()
            found = await pooled.driver_connection.fetch(
                "SELECT statement FROM pg_prepared_statements"
            )
            prepared[pgbouncer] = [row[0] for row in found if "unnest" in row[0]]
            prepared[pgbouncer] += [row[0] for row in found if "VALUES" in row[0]]
            await operations._checkout.give_back(pooled)
    assert prepared[True] == []
    assert len(prepared[False]) == 1


async def test_two_stores_on_one_fresh_database(server_database: Database) -> None:
    stores = [server_database.store() for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    assert await stores[0]._append(append(0))
    assert len(ids(await stores[3]._read(read()))) == 3
    await asyncio.gather(*(store.close() for store in stores))
