"""What the real Rasa stored, migrated to every backend, answers as Rasa did."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests import golden
from tests.conformance.backends import BACKENDS, RedisStorage
from tests.moving.kit import contents
from tests.sql_databases import database, golden_rows, make_rasa_database
from tests.unit.test_golden_answers import (
    METHODS,
    STORES,
    VERBOSITIES,
    comparable,
    domain,
    our_start,
    rasas_start,
    rasas_state,
    state_of,
)
from tracker_store_async import InMemoryTrackerStore, errors
from tracker_store_async.moving import as_source, migrate
from tracker_store_async.rows import Read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.servers import Servers
    from tracker_store_async import TrackerStore

TARGETS = ("in_memory", "sqlite", "postgresql", "mariadb", "redis", "mongo", "dynamo")
SERVERS_OF_SOURCES = {
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "redis": "redis",
    "mongo": "mongo",
    "dynamo": "dynamo",
}
PAIRS = [
    *(("sqlite", target) for target in TARGETS),
    *((source, "sqlite") for source in SERVERS_OF_SOURCES if source != "sqlite"),
    *(("redis", "mongo"), ("mongo", "dynamo"), ("dynamo", "postgresql")),
    *(("postgresql", "mariadb"), ("mysql", "redis")),
]
"""Every source and every target. Any other pair reads as one of these and writes as
another: what lies between is the same rows."""

PAIR_PARAMS = [
    pytest.param(
        source,
        target,
        marks=[
            pytest.mark.backend(SERVERS_OF_SOURCES[source]),
            pytest.mark.backend(BACKENDS[target].server),
        ],
        id=f"{source}-to-{target}",
    )
    for source, target in PAIRS
]
SOURCE_PARAMS = [
    pytest.param(name, marks=pytest.mark.backend(server), id=f"from_{name}")
    for name, server in SERVERS_OF_SOURCES.items()
]


@asynccontextmanager
async def rasas(
    name: str, servers: Servers, directory: Path
) -> AsyncIterator[tuple[TrackerStore, Callable[[], Any]]]:
    """Yield a store on what Rasa wrote, and what shows everything that lies there."""
    maker = {"redis": _redis, "mongo": _mongo, "dynamo": _dynamo}.get(name, _sql)
    with ExitStack() as stack:
        store, dump = maker(name, servers, directory, stack)
        async with as_source(store):
            yield store, dump


def _sql(name: str, servers: Servers, directory: Path, stack: ExitStack) -> Any:
    found = stack.enter_context(database(name, servers, directory))
    if name == "sqlite":
        path = directory / "conversations.db"
        path.write_bytes(golden.path("sqlite/rasa.db").read_bytes())
        return found.store(), path.read_bytes
    make_rasa_database(found, golden_rows())
    return found.store(), lambda: found.run("SELECT * FROM events ORDER BY id")


def _redis(name: str, servers: Servers, directory: Path, stack: ExitStack) -> Any:
    storage = stack.enter_context(BACKENDS["redis"].storage(servers, directory))
    assert isinstance(storage, RedisStorage)
    for key, value in golden.load("redis")["strings"].items():
        storage.client.set(f"{storage.prefix}:{key}", value)
    return storage._make(domain=domain()), storage.raw


def _mongo(name: str, servers: Servers, directory: Path, stack: ExitStack) -> Any:
    from bson import json_util

    from tests.mongo_databases import mongo_database

    found = stack.enter_context(mongo_database(servers))
    found.raw.conversations.insert_many(json_util.loads(golden.text("mongo")))

    def dump() -> Any:
        names = sorted(found.raw.list_collection_names())
        return {each: list(found.raw[each].find()) for each in names}

    return found.store(), dump


def _dynamo(name: str, servers: Servers, directory: Path, stack: ExitStack) -> Any:
    storage: Any = stack.enter_context(BACKENDS["dynamo"].storage(servers, directory))
    for item in golden.load("dynamo"):
        storage._server.call("put_item", TableName=storage._name, Item=item)

    def dump() -> Any:
        names = storage._server.call("list_tables")["TableNames"]
        return sorted(name for name in names if name.startswith(storage._name)), str(
            storage._items(storage._name)
        )

    return storage._make(), dump


@pytest.mark.parametrize(("source_name", "target_name"), PAIR_PARAMS)
async def test_it_answers_as_rasa_did(
    source_name: str, target_name: str, servers: Servers, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    async with rasas(source_name, servers, tmp_path / "source") as (source, dump):
        before = dump()
        with BACKENDS[target_name].storage(servers, tmp_path) as storage:
            async with storage._make(domain=domain()) as target:
                report = await migrate(source, target, page_events=25, check=True)
                assert report.problems == []
                assert report.copied == len(golden.sender_ids())
                again = await migrate(source, target)
                assert (again.unchanged, again.events) == (report.copied, 0)
                assert sorted(await target.keys()) == sorted(golden.sender_ids())
                assert await contents(target) == await contents(source)
                await assert_answers(target, source_name)
        assert dump() == before


async def assert_answers(store: TrackerStore, source_name: str) -> None:
    rounds = "dynamo" if source_name == "dynamo" else ""
    for sender_id in golden.sender_ids():
        for method in METHODS:
            start = our_start(sender_id, method)
            alike = [s for s in STORES if rasas_start(s, sender_id, method) == start]
            tracker = await getattr(store, method)(sender_id)
            for verbosity in VERBOSITIES:
                ours = state_of(tracker, verbosity)
                rasas_store = alike[0]
                theirs = rasas_state(rasas_store, sender_id, method, verbosity)
                how = rounds or rasas_store
                assert comparable(ours, how) == comparable(theirs, how)


@pytest.mark.parametrize("name", SOURCE_PARAMS[:3])
async def test_rasas_tables_are_read_as_the_upgrade_reads_them(
    name: str, servers: Servers, tmp_path: Path
) -> None:
    with database(name, servers, tmp_path) as found:
        rows = golden_rows()
        rows += [{**rows[0], "id": 10**6 + n} for n in range(2)]  # ids have gaps
        make_rasa_database(found, rows)
        async with as_source(found.store()) as store:
            listed = [summary async for summary in store.conversations(page_size=3)]
            theirs = [await _read(store, each.sender_id) for each in listed]
            pages = [await _pages(store, each.sender_id) for each in listed]
            with pytest.raises(errors.SchemaUpgradeRequiredError):
                await store.delete(listed[0].sender_id)
            tracker = await store.retrieve(listed[0].sender_id)
            assert tracker is not None
            tracker.update(tracker.events[0])
            with pytest.raises(errors.SchemaUpgradeRequiredError):
                await store.save(tracker)
        async with found.store(auto_upgrade=True) as store:
            ours = [await _read(store, each.sender_id) for each in listed]
            assert [s.sender_id async for s in store.conversations()] == [
                each.sender_id for each in listed
            ]
        for mine, other, page in zip(ours, theirs, pages, strict=True):
            for moment in ("created_at", "updated_at"):
                assert getattr(mine, moment) == pytest.approx(
                    getattr(other, moment), abs=1e-6
                )
                setattr(mine, moment, getattr(other, moment))
            assert mine == other
            assert page == mine.rows


async def _read(store: TrackerStore, sender_id: str) -> Any:
    return await store._read(Read(sender_id, 0.0, start=0))


async def _pages(store: TrackerStore, sender_id: str) -> list[Any]:
    rows: list[Any] = []
    while True:
        page = await store._read(Read(sender_id, 0.0, start=len(rows), limit=7))
        assert page is not None
        rows += page.rows
        if len(rows) == page.version:
            return rows


def test_there_is_golden_data_to_migrate() -> None:
    assert len(golden.sender_ids()) > 3
    assert json.dumps(golden.load("dynamo"))


@pytest.mark.backend("redis")
async def test_what_rasa_let_expire_expires_in_the_copy(
    servers: Servers, tmp_path: Path
) -> None:
    with BACKENDS["redis"].storage(servers, tmp_path) as storage:
        assert isinstance(storage, RedisStorage)
        value = json.dumps({"events": [{"event": "user", "timestamp": 5.0}]})
        storage.client.set(f"{storage.prefix}:tracker:alice", value, ex=1000)
        async with as_source(storage._make()) as source:
            target = InMemoryTrackerStore()
            before = time.time()
            report = await migrate(source, target, check=True)
            assert report.problems == []
            copied = target._conversations["alice"]
            assert copied.expires_at is not None
            assert before + 990 < copied.expires_at <= time.time() + 1000.1
            again = await migrate(source, target)
            assert (again.unchanged, again.events) == (1, 0)


async def test_a_store_that_is_open_is_no_source_any_more() -> None:
    store = InMemoryTrackerStore()
    assert as_source(store) is store
    await store.open()
    with pytest.raises(errors.ConfigurationError, match="not open"):
        as_source(store)
