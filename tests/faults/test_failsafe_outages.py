"""A real server that dies, hangs, flaps and comes back under a load that goes on."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import FailingBroker, add, said, turn, update
from tests.faults.proxy import FaultProxy
from tests.outages import Load, caught_up, check_all_there, check_gapless, is_open
from tests.servers import (
    ServerMissingError,
    fresh_database,
    private_mariadb,
    private_postgresql,
)
from tracker_store_async import FailSafeTrackerStore, SQLTrackerStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.servers import PrivateMariaDB, PrivatePostgreSQL, Server

NAMES = [f"conversation-{number}" for number in range(16)]
OPTIONS = {
    "timeout_seconds": 0.5,
    "probe_min_seconds": 0.05,
    "probe_max_seconds": 0.3,
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.backend(name), id=name)
        for name in ("postgresql", "mysql")
    ],
)
def private(
    request: pytest.FixtureRequest,
) -> Iterator[PrivatePostgreSQL | PrivateMariaDB]:
    start = private_postgresql if request.param == "postgresql" else private_mariadb
    try:
        with start() as server:
            yield server
    except ServerMissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def database(private: PrivatePostgreSQL | PrivateMariaDB) -> Iterator[str]:
    with fresh_database(private.server) as name:
        yield name


def sql_store(server: Server, database: str, **options: Any) -> SQLTrackerStore:
    """Return a store on the database, through a proxy if one is named."""
    values: dict[str, Any] = {
        "dialect": "postgresql" if server.name == "PostgreSQL" else "mysql",
        "host": server.host,
        "port": server.port,
        "db": database,
        "username": server.username,
        "password": server.password or None,
    }
    return SQLTrackerStore(**{**values, **options})


@asynccontextmanager
async def safe_store(
    server: Server, database: str, journal: str | None = None, **address: Any
) -> AsyncIterator[tuple[FailSafeTrackerStore, FailingBroker]]:
    """Yield a fail-safe on the database, with a broker."""
    broker = FailingBroker()
    primary = sql_store(server, database, event_broker=broker, **address)
    async with FailSafeTrackerStore(primary, journal=journal, **OPTIONS) as store:
        yield store, broker


@pytest.mark.parametrize("with_journal", [False, True], ids=["memory", "journal"])
async def test_killed_and_restarted_under_load(
    private: PrivatePostgreSQL | PrivateMariaDB,
    database: str,
    tmp_path: Path,
    with_journal: bool,
) -> None:
    journal = str(tmp_path / "journal.db") if with_journal else None
    async with safe_store(private.server, database, journal) as (store, broker):
        async with Load(store, NAMES) as load:
            await load.turns_more(100)
            await asyncio.to_thread(private.process.kill)
            await is_open(store)
            await load.turns_more(100)
            await asyncio.to_thread(private.process.start)
            await caught_up(store)
            await load.turns_more(100)
        await caught_up(store)
        assert store._replayer.replayed.conversations >= len(NAMES) / 2
        async with sql_store(private.server, database) as primary:
            await check_all_there(primary, load, broker)


async def test_the_log_and_the_metrics_tell_the_same_story(
    private: PrivatePostgreSQL | PrivateMariaDB,
    database: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("opentelemetry.exporter.prometheus")
    from benchmarks.outage_story import Story, watch

    server, story = private.server, Story()
    async with FaultProxy(server.host, server.port) as proxy:
        address = {"host": proxy.host, "port": proxy.port}
        async with safe_store(server, database, **address) as (store, _):
            counted: list[list[str]] = []
            tell = watch(store, lambda *words: counted.append([*map(str, words)]))
            async with Load(store, NAMES) as load:
                await load.turns_more(50)
                await proxy.refuse()
                proxy.cut()
                await load.turns_more(100)  # each of the 16 writers fails over
                await proxy.accept()
                await caught_up(store)
                await load.turns_more(50)
            await caught_up(store)
            replayed = store._replayer.replayed
        tell()
    for words in counted:
        story.note(words)
    story.turns = len(load.turns)
    assert (story.opened, story.closed) == (1, 1)
    assert story.replayed == replayed.events > 0
    assert story.metrics.keys() == {"opened", "closed", "replayed", "turns"}
    assert story.problems() == []
    events = [getattr(record, "event", None) for record in caplog.records]
    assert events.count("breaker_opened") == events.count("breaker_closed") == 1


@pytest.mark.parametrize("end", ["cut", "unfreeze"])
async def test_black_holed_under_load(
    private: PrivatePostgreSQL | PrivateMariaDB, database: str, end: str
) -> None:
    server = private.server
    async with FaultProxy(server.host, server.port) as proxy:
        address = {"host": proxy.host, "port": proxy.port}
        async with safe_store(server, database, **address) as (store, broker):
            async with Load(store, NAMES) as load:
                await load.turns_more(50)
                proxy.freeze()
                await is_open(store)
                await load.turns_more(200)
                if end == "cut":
                    proxy.cut()
                # else what was under way arrives now, late
                proxy.unfreeze()
                await caught_up(store)
                await load.turns_more(50)
            await caught_up(store)
            longest = max(seconds for _, seconds in load.turns)
            assert longest < 4 * OPTIONS["timeout_seconds"]
            async with sql_store(server, database) as primary:
                await check_all_there(primary, load, broker)


async def test_flapping_under_load(
    private: PrivatePostgreSQL | PrivateMariaDB, database: str
) -> None:
    server, chance = private.server, random.Random(5)
    async with FaultProxy(server.host, server.port) as proxy:
        address = {"host": proxy.host, "port": proxy.port}
        async with safe_store(server, database, **address) as (store, broker):
            async with Load(store, NAMES) as load:
                for _ in range(15):
                    await load.turns_more(chance.randrange(30))
                    fault = chance.choice(["cut", "refuse", "reply", "append"])
                    if fault == "refuse":
                        await proxy.refuse()
                    elif fault == "reply":
                        proxy.cut_reply_after(chance.randrange(2000))
                    elif fault == "append":
                        proxy.cut_request(b"INSERT", when="after")
                    if fault in ("cut", "refuse"):
                        proxy.cut()
                    await load.turns_more(chance.randrange(30))
                    await proxy.accept()
            await caught_up(store)
            async with sql_store(server, database) as primary:
                await check_all_there(primary, load, broker)


async def test_the_answer_that_was_lost_as_the_outage_began(
    private: PrivatePostgreSQL | PrivateMariaDB, database: str
) -> None:
    server = private.server
    async with FaultProxy(server.host, server.port) as proxy:
        address = {"host": proxy.host, "port": proxy.port}
        async with safe_store(server, database, **address) as (store, broker):
            async with Load(store, ["alice"]) as load:
                await load.turns_more(3)
            words = b"alice 777" if server.name == "PostgreSQL" else b"COMMIT"
            proxy.cut_request(words, when="after")
            tracker = await store.get_or_create_tracker("alice")
            before = list(load.acknowledged["alice"])
            if proxy.struck.is_set():  # MariaDB ends a read so, too
                await caught_up(store)
                proxy.cut_request(words, when="after")
            update(tracker, turn("alice 777"))
            ids = [entry.identify() for entry in tracker._log.pending]
            await store.save(tracker)
            assert proxy.struck.is_set()
            await caught_up(store)
            assert store._replayer.replayed.landed == len(ids)
            assert store.conflict_count == 0
            load.acknowledged["alice"] = before + ids
            async with sql_store(server, database) as primary:
                await check_all_there(primary, load, broker)


async def test_two_that_fail_over_and_replay_against_one_primary(
    private: PrivatePostgreSQL | PrivateMariaDB, database: str
) -> None:
    server = private.server
    names = [f"shared-{number}" for number in range(4)]
    async with (
        FaultProxy(server.host, server.port) as one,
        FaultProxy(server.host, server.port) as other,
        safe_store(server, database, host=one.host, port=one.port) as first,
        safe_store(server, database, host=other.host, port=other.port) as second,
    ):
        loads = [SharedLoad(store, names) for store, _ in (first, second)]
        async with loads[0], loads[1]:
            for proxy in (one, other, one):
                await asyncio.gather(*(load.turns_more(10) for load in loads))
                await proxy.refuse()
                proxy.cut()
                await asyncio.gather(*(load.turns_more(10) for load in loads))
                await proxy.accept()
            await asyncio.gather(*(load.turns_more(10) for load in loads))
        for store, _ in (first, second):
            await caught_up(store)
        async with sql_store(server, database) as primary:
            await check_shared(
                primary, loads, [broker for _, broker in (first, second)]
            )


class SharedLoad(Load):
    """Writers that are not alone in their conversations."""

    def check_seen(self, name: str, tracker: Any) -> None:
        """Others write too."""


async def check_shared(
    primary: SQLTrackerStore, loads: list[SharedLoad], brokers: list[FailingBroker]
) -> None:
    """Check that each writer's events are all there, once and in its order."""
    for name in loads[0].names:
        tracker = await primary.retrieve(name)
        found = await check_gapless(primary, name)
        assert tracker is not None
        ids = [event_id for event_id, _ in found.rows]
        assert len(ids) == len(set(ids))
        assert len(ids) == sum(len(load.acknowledged[name]) for load in loads)
        for load, broker in zip(loads, brokers, strict=True):
            mine = set(load.acknowledged[name])
            assert [i for i in ids if i in mine] == load.acknowledged[name]
            published = [m.message_id for m in broker.messages if m.sender_id == name]
            assert published == load.acknowledged[name]
    assert [load.failures for load in loads] == [[], []]


async def test_the_state_after_a_replay_is_that_of_the_whole_log(
    private: PrivatePostgreSQL | PrivateMariaDB, database: str
) -> None:
    from tests.conformance.kit import new_session, slot, state

    server = private.server
    async with (
        FaultProxy(server.host, server.port) as proxy,
        sql_store(server, database) as direct,
        safe_store(server, database, host=proxy.host, port=proxy.port) as (store, _),
    ):
        await add(store, "x", *new_session(), slot("a", 1), *turn("before"))
        await proxy.refuse()
        proxy.cut()
        await add(store, "x", slot("b", 2), *turn("ours"))
        await add(direct, "x", slot("c", 3), *turn("theirs"))
        await proxy.accept()
        await caught_up(store)
        tracker = await store.retrieve("x")
        assert said(tracker) == ["before", "theirs", "ours"]
        windowed = await direct.get_or_create_tracker("x", max_event_history=5)
        assert [windowed.get_slot(name) for name in "abc"] == [1, 2, 3]
        assert state(windowed)["slots"] == state(tracker)["slots"]
        assert store.conflict_count == 1
