"""The outbox of the SQL store: its lease, its tables, and what a save costs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.roundtrips import counted_thread_hops
from tests.conformance.kit import (
    FailingBroker,
    add,
    new_session,
    stored_ids,
    turn,
    user,
)
from tests.faults.proxy import FaultProxy
from tests.outboxes import (
    EACH_SQL,
    Place,
    free,
    idle,
    place_for,
    relay_of,
    until,
)
from tests.servers import fresh_database
from tracker_store_async import SQLTrackerStore, errors, relay
from tracker_store_async.backends.sql.outbox import database_time
from tracker_store_async.rows import OutboxEntry, OutboxItem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers


@pytest.fixture(params=EACH_SQL)
def place(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[Place]:
    with place_for(request.param, servers, tmp_path) as found:
        yield found


async def leased_for(store: SQLTrackerStore, seconds: float) -> None:
    """Let the lease end so many seconds from now, by the database's clock."""
    assert store._outbox is not None
    lease = store._outbox._tables.lease
    end = database_time(store._outbox._engine.dialect.name) + seconds
    await store._outbox._execute(lease.update().values(expires_at=end), commit=True)


async def test_a_lease_ends_by_the_clock_of_the_database(place: Place) -> None:
    async with place.store(FailingBroker()) as store:
        outbox = store._outbox
        assert await outbox.lease("one", relay.LEASE_SECONDS)
        assert not await outbox.lease("other", relay.LEASE_SECONDS)
        await leased_for(store, 5)
        assert not await outbox.lease("other", relay.LEASE_SECONDS)
        await leased_for(store, -0.1)
        assert await outbox.lease("other", relay.LEASE_SECONDS)
        await leased_for(store, 3600)  # the clock was set back since
        assert await outbox.lease("one", relay.LEASE_SECONDS)
        assert not await outbox.lease("other", relay.LEASE_SECONDS)
        await outbox.release("one")
        assert await outbox.lease("other", relay.LEASE_SECONDS)


async def test_an_append_and_its_messages_are_one_transaction(place: Place) -> None:
    broker = FailingBroker()
    async with place.store(broker) as store:
        await add(store, "alice", *turn("one"))
        await idle(store)
        relay_of(store)._task.cancel()
        await drop_outbox(store)
        with pytest.raises(errors.TrackerStoreError):
            await add(store, "alice", *turn("two"))
        assert await stored_ids(store, "alice") == broker.ids
        await store._outbox.create(create_tables=True)


@pytest.mark.parametrize("before", [None, 1])
async def test_an_erasure_and_its_messages_are_one_transaction(
    place: Place, before: int | None
) -> None:
    async with place.store(FailingBroker()) as store:
        await add(store, "alice", user("one"), *new_session(), user("two"))
        await idle(store)
        relay_of(store)._task.cancel()
        await drop_outbox(store)
        with pytest.raises(errors.TrackerStoreError):
            await store._delete("alice", before, store._now())
        assert len(await stored_ids(store, "alice")) == 4
        await store._outbox.create(create_tables=True)
        assert await store._delete("alice", before, store._now())


async def drop_outbox(store: Any) -> None:
    """Take the table of the messages away: what writes to it fails."""
    async with store._engine.begin() as connection:
        await connection.run_sync(store._outbox._tables.messages.drop)


async def test_a_relay_that_slept_removes_nothing_of_another(tmp_path: Path) -> None:
    """SQLite gives the key of the newest row, once deleted, to the next one."""
    broker = FailingBroker()
    async with SQLTrackerStore(
        db=str(tmp_path / "db"), outbox=True, event_broker=broker
    ) as store:
        await add(store, "alice", user("one"))
        await idle(store)
        broker.is_down = True
        await add(store, "alice", user("two"))
        assert store._outbox is not None
        (waiting,) = await store._outbox.read(10)
        late = OutboxItem(1, "alice", OutboxEntry("x", 0, "{}"))
        await store._outbox.remove([late])
        assert await store._outbox.read(10) == [waiting]


async def test_many_events_and_some_that_were_streamed(place: Place) -> None:
    broker = FailingBroker()
    async with place.store(broker) as store:
        tracker = await store.get_or_create_tracker("alice", append_action_listen=False)
        for n in range(3):
            tracker.update(user(f"streamed {n}"))
        await store.stream_events(tracker)
        for n in range(40):
            tracker.update(user(str(n)))
        await store.save(tracker)
        await until(broker, 43)
        await idle(store)
        assert broker.ids == await stored_ids(store, "alice")
        assert [m.position for m in broker.messages] == list(range(43))


# -- what it costs ---------------------------------------------------------------------


async def saves_cost(store: Any, count: Any) -> int:
    """Return what a save of four events costs, in what is counted, without a relay."""
    tracker = await store.get_or_create_tracker("alice", append_action_listen=False)
    for _ in range(2):  # the first ones prepare the statement
        for event in turn():
            tracker.update(event)
        await store.save(tracker)
    before: int = count()
    for event in turn():
        tracker.update(event)
    await store.save(tracker)
    return int(count() - before)


async def test_sqlite_saves_in_one_transaction(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    async with counted_thread_hops() as hops, SQLTrackerStore(db=path) as store:
        assert await saves_cost(store, lambda: hops["hops"]) == 1
        await store.delete("alice")
    async with (
        counted_thread_hops() as hops,
        SQLTrackerStore(db=path, outbox=True) as store,
    ):
        assert await saves_cost(store, lambda: hops["hops"]) == 1
        assert store._outbox is not None
        assert len(await store._outbox.read(100)) == 12


@pytest.mark.parametrize(
    ("kind", "without", "trips"),
    [
        pytest.param("postgresql", 1, 1, marks=pytest.mark.backend("postgresql")),
        pytest.param("mysql", 3, 4, marks=pytest.mark.backend("mysql")),
        pytest.param("mongo", 1, 1, marks=pytest.mark.backend("mongo")),
    ],
)
async def test_a_save_costs_what_it_must(
    servers: Servers, kind: str, without: int, trips: int
) -> None:
    server: Any = servers.get(kind)
    with fresh_database(server) as name:
        async with FaultProxy(server.host, server.port) as proxy:
            through = replace(server, host=proxy.host, port=proxy.port)
            is_mongo = kind == "mongo"
            url = through.url() if is_mongo else through.url(kind, name)
            place = Place(url, name if is_mongo else "")
            async with place.store(outbox=False) as store:
                found = await saves_cost(store, lambda: proxy.round_trips)
                assert found == without
                await store.delete("alice")
            async with place.store() as store:
                assert await saves_cost(store, lambda: proxy.round_trips) == trips
                assert len(await store._outbox.read(100)) == 12


def test_where_there_can_be_none() -> None:
    for options in ({"db": ":memory:"}, {"dialect": "oracle", "host": "x"}):
        with pytest.raises(errors.ConfigurationError, match="outbox"):
            SQLTrackerStore(outbox=True, **options)  # type: ignore[arg-type]


async def test_a_file_that_an_earlier_relay_used(tmp_path: Path) -> None:
    """Opening again finds the tables and the lease as they are."""
    broker = FailingBroker()
    path = tmp_path / "db"
    for n in range(2):
        async with SQLTrackerStore(
            db=str(path), outbox=True, event_broker=broker
        ) as store:
            await free(store)
            await add(store, "alice", user(str(n)))
            await until(broker, n + 1)
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT count(*) FROM outbox_lease").fetchone() == (1,)
