"""Append, read, delete and list on each SQL database, below the shared bodies."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from tests.sql_databases import (
    ALL,
    NOW,
    SENDER,
    ReusedDatabases,
    append,
    ids,
    read,
    rows,
)
from tracker_store_async.backends.sql import store as store_module
from tracker_store_async.backends.sql.postgresql import PostgresqlOperations
from tracker_store_async.errors import CorruptEventError
from tracker_store_async.rows import Listing, NewRow, Read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.servers import Servers
    from tests.sql_databases import Database
    from tracker_store_async.backends.sql import SQLTrackerStore
    from tracker_store_async.backends.sql.core import CoreOperations

CORE = pytest.param(
    "postgresql-core", marks=pytest.mark.backend("postgresql"), id="postgresql-core"
)
"""PostgreSQL with the statements for drivers other than asyncpg."""


@pytest.fixture(scope="module")
def databases(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ReusedDatabases]:
    found = ReusedDatabases(servers, tmp_path_factory.mktemp("databases"))
    yield found
    found.close()


@pytest.fixture(params=[*ALL, CORE])
async def target(
    request: pytest.FixtureRequest,
    databases: ReusedDatabases,
    monkeypatch: pytest.MonkeyPatch,
) -> Database:
    key = request.param
    if key == "postgresql-core":

        def core(engine: Any, tables: Any, *_: Any, **__: Any) -> CoreOperations:
            return PostgresqlOperations(engine, tables)

        monkeypatch.setattr(store_module, "operations_for", core)
        key = "postgresql"
    return await databases.get(key)


@pytest.fixture
async def store(target: Database) -> AsyncIterator[SQLTrackerStore]:
    async with target.store() as opened:
        yield opened


async def orphans(target: Database) -> int:
    """Return the number of events without a conversation."""
    found = await target.arun(
        "SELECT count(*) FROM events WHERE sender_id NOT IN"
        " (SELECT sender_id FROM conversations)"
    )
    return int(found[0][0])


# -- append ----------------------------------------------------------------------------


async def test_append_only_at_the_stored_version(store: SQLTrackerStore) -> None:
    assert await store._append(append(0, 3))
    assert not await store._append(append(0, 3))
    assert not await store._append(append(2, 3))
    assert not await store._append(append(4, 3))
    assert await store._append(append(3, 2))
    assert ids(await store._read(read())) == [f"id-{number}" for number in range(5)]


async def test_append_to_nothing_needs_version_0(store: SQLTrackerStore) -> None:
    assert not await store._append(append(3))
    assert await store._read(read()) is None


@pytest.mark.parametrize("count", [0, 1, 32, 33, 3000])
async def test_any_number_of_rows(store: SQLTrackerStore, count: int) -> None:
    assert await store._append(append(0, 2))
    assert await store._append(append(2, count))
    found = await store._read(read())
    assert found is not None
    assert found.version == count + 2
    assert ids(found) == [f"id-{number}" for number in range(count + 2)]


@pytest.mark.parametrize("bounds", [{}, {"last": 2}, {"limit": 2}], ids=str)
async def test_a_read_without_ids_leaves_out_nothing_else(
    store: SQLTrackerStore, bounds: dict[str, int]
) -> None:
    await store._append(append(0, 3, user_id="u", snapshot='{"a":1}'))
    whole = await store._read(read(**bounds))
    found = await store._read(read(ids=False, **bounds))
    assert whole is not None
    assert found is not None
    assert {row[0] for row in found.rows} <= {None, *ids(whole)}
    assert [row[1] for row in found.rows] == [row[1] for row in whole.rows]
    assert (found.version, found.snapshot, found.user_id) == (3, '{"a":1}', "u")


async def test_header_is_what_the_last_append_said(store: SQLTrackerStore) -> None:
    await store._append(append(0, 2, user_id="u", expires_at=NOW + 9))
    await store._append(
        append(2, 2, session_start=3, snapshot="{}", now=NOW + 5, expires_at=NOW + 20)
    )
    found = await store._read(read(start=None, now=NOW + 6))
    assert found is not None
    header = (found.version, found.session_start, found.snapshot, found.user_id)
    assert header == (4, 3, "{}", "u")
    assert (found.created_at, found.updated_at, found.expires_at) == (
        (NOW, NOW + 5, NOW + 20)
    )
    assert (found.first_position, ids(found)) == (3, ["id-3"])


async def test_columns_too_narrow_or_too_strict_for_an_event_do_not_stop_it(
    store: SQLTrackerStore, target: Database
) -> None:
    odd = NewRow("i", "{}", "t" * 300, math.inf, "\N{WINKING FACE}" * 300, "a\0b")
    nan = NewRow("j", "{}", "\ud800", math.nan, None, None)
    assert await store._append(append(0, rows=[odd, nan]))
    found = await target.arun(
        "SELECT type_name, timestamp, intent_name, action_name FROM events"
        " ORDER BY position"
    )
    assert tuple(found[0]) == (
        ("t" * 255, None, "\N{WINKING FACE}" * 255, "a\N{REPLACEMENT CHARACTER}b")
    )
    assert tuple(found[1]) == ("?", None, None, None)


async def test_one_of_many_creates_a_conversation(
    store: SQLTrackerStore, target: Database
) -> None:
    requests = [
        append(0, 1, rows=[NewRow(f"w{n}", "{}", "slot", 1.0, None, None)])
        for n in range(12)
    ]
    results = await asyncio.gather(*(store._append(request) for request in requests))
    assert results.count(True) == 1
    winner = requests[results.index(True)].rows[0].event_id
    assert ids(await store._read(read())) == [winner]
    assert await orphans(target) == 0


async def test_many_conversations_are_created_at_once(store: SQLTrackerStore) -> None:
    names = [f"s{number}" for number in range(40)]
    results = await asyncio.gather(
        *(store._append(append(0, 2, sender_id=name)) for name in names)
    )
    assert all(results)


async def test_writers_of_one_conversation_lose_nothing(
    store: SQLTrackerStore,
) -> None:
    async def write(writer: int) -> None:
        for number in range(5):
            row = NewRow(f"{writer}-{number}", "{}", "slot", 1.0, None, None)
            while True:
                header = await store._read(read(last=0))
                version = 0 if header is None else header.version
                if await store._append(append(version, rows=[row])):
                    break

    await asyncio.gather(*(write(writer) for writer in range(6)))
    found = ids(await store._read(read()))
    expected = {f"{writer}-{number}" for writer in range(6) for number in range(5)}
    assert (set(found), len(found)) == (expected, 30)
    for writer in range(6):
        mine = [name for name in found if str(name).startswith(f"{writer}-")]
        assert mine == sorted(mine, key=str)


# -- read ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "last", "expected"),
    [
        (None, None, range(4, 8)),
        (0, None, range(8)),
        (6, None, range(6, 8)),
        (8, None, range(8, 8)),
        (99, None, range(8, 8)),
        (None, 2, range(6, 8)),
        (None, 99, range(4, 8)),
        (0, 3, range(5, 8)),
        (0, 2**40, range(8)),
        (2**40, 3, range(8, 8)),
        (None, 0, range(8, 8)),
        (3, 0, range(8, 8)),
    ],
)
async def test_read_gives_the_rows_that_were_asked_for(
    store: SQLTrackerStore, start: int | None, last: int | None, expected: range
) -> None:
    await store._append(append(0, 8, session_start=4))
    found = await store._read(read(start=start, last=last))
    assert found is not None
    assert ids(found) == [f"id-{number}" for number in expected]
    assert found.first_position == expected.start
    assert (found.version, found.session_start) == (8, 4)


async def test_conversation_without_snapshot_and_ids(
    store: SQLTrackerStore, target: Database
) -> None:
    await store._append(append(0, 2))
    await target.arun("UPDATE conversations SET snapshot = NULL")
    await target.arun("UPDATE events SET event_id = NULL")
    found = await store._read(read())
    assert found is not None
    assert found.snapshot is None
    assert ids(found) == [None, None]


@pytest.mark.parametrize("gone", ["position = 0", "position = 2", "position >= 0"])
async def test_rows_that_somebody_removed_are_missed(
    store: SQLTrackerStore, target: Database, gone: str
) -> None:
    await store._append(append(0, 4))
    await target.arun(f"DELETE FROM events WHERE {gone}")
    with pytest.raises(CorruptEventError, match=r"events are needed from here on"):
        await store._read(read())


# -- expiry ----------------------------------------------------------------------------


async def test_expired_conversation_is_as_good_as_none(
    store: SQLTrackerStore, target: Database
) -> None:
    await store._append(append(0, 3, expires_at=NOW + 1))
    later = NOW + 1
    assert await store._read(read(now=later)) is None
    assert await store._read(read(now=later, last=0)) is None
    assert await store._list(Listing(later, 10)) == []
    assert not await store._append(append(3, 1, now=later))
    assert not await store._delete(SENDER, 1, later)
    new = [NewRow("new", "{}", "slot", 1.0, None, None)]
    assert await store._append(append(0, rows=new, now=later))
    found = await store._read(read(now=later))
    assert found is not None
    assert (ids(found), found.created_at, found.expires_at) == (["new"], later, None)
    assert len(await target.arun("SELECT 1 FROM events")) == 1


async def test_expired_conversation_is_replaced_by_one_of_many(
    store: SQLTrackerStore, target: Database
) -> None:
    await store._append(append(0, 3, expires_at=NOW))
    results = await asyncio.gather(
        *(store._append(append(0, 2, now=NOW + 1)) for _ in range(8))
    )
    assert results.count(True) == 1
    assert len(await target.arun("SELECT 1 FROM events")) == 2


async def test_deleting_what_has_expired_erases_it_and_says_no(
    store: SQLTrackerStore, target: Database
) -> None:
    await store._append(append(0, 3, expires_at=NOW))
    assert not await store._delete(SENDER, None, NOW)
    assert await target.arun("SELECT 1 FROM events") == []
    assert await target.arun("SELECT 1 FROM conversations") == []


# -- delete ----------------------------------------------------------------------------


async def test_delete_takes_one_conversation_whole(
    store: SQLTrackerStore, target: Database
) -> None:
    neighbours = [SENDER.lower(), SENDER.strip(), SENDER + " ", "%", "_"]
    for name in (SENDER, *neighbours):
        await store._append(append(0, 2, sender_id=name))
    assert await store._delete(SENDER, None, NOW)
    assert not await store._delete(SENDER, None, NOW)
    assert await store._read(read()) is None
    for name in neighbours:
        assert len(ids(await store._read(Read(name, NOW, start=0)))) == 2
    assert await orphans(target) == 0


async def test_cut_takes_the_beginning_up_to_the_latest_session(
    store: SQLTrackerStore,
) -> None:
    await store._append(append(0, 8, session_start=4))
    assert not await store._delete(SENDER, 0, NOW)
    assert await store._delete(SENDER, 3, NOW)
    assert not await store._delete(SENDER, 3, NOW)
    assert not await store._delete(SENDER, 5, NOW)
    found = await store._read(read())
    assert found is not None
    assert (found.version, found.first_position) == (8, 3)
    assert ids(found) == [f"id-{number}" for number in range(3, 8)]
    assert await store._append(append(8, 1))


async def test_delete_and_append_leave_no_event_alone(
    store: SQLTrackerStore, target: Database
) -> None:
    async def write() -> None:
        for _ in range(25):
            header = await store._read(read(last=0))
            await store._append(append(0 if header is None else header.version, 2))

    async def erase() -> None:
        for _ in range(25):
            await store._delete(SENDER, None, NOW)

    await asyncio.gather(write(), write(), erase(), erase())
    assert await orphans(target) == 0
    found = await store._read(read())
    assert found is None or len(found.rows) == found.version


# -- list ------------------------------------------------------------------------------


async def test_pages_go_on_behind_the_last_id_in_the_order_of_code_points(
    store: SQLTrackerStore,
) -> None:
    names = ["b", "B", "a", "a ", "A", "ä", "\N{WINKING FACE}", "Ω", "a%", "a\\"]
    for name in names:
        await store._append(append(0, 1, sender_id=name))
    found, after = [], None
    while page := await store._list(Listing(NOW, 3, after=after)):
        assert len(page) <= 3
        found += [summary.sender_id for summary in page]
        after = page[-1].cursor
    assert found == sorted(names, key=lambda name: name.encode())


async def test_filters(store: SQLTrackerStore) -> None:
    for number, user in enumerate(["u", "U", "u", None]):
        name = f"s{number}"
        request = append(0, 2, sender_id=name, now=NOW + number, user_id=user)
        await store._append(request)

    async def names(**bounds: Any) -> list[str]:
        page = await store._list(Listing(NOW + 9, 10, **bounds))
        return [summary.sender_id for summary in page]

    assert await names(user_id="u") == ["s0", "s2"]
    assert await names(user_id="nobody") == []
    assert await names(updated_from=NOW + 1) == ["s1", "s2", "s3"]
    assert await names(updated_before=NOW + 1) == ["s0"]
    assert await names(user_id="u", updated_from=NOW + 1, after="s0") == ["s2"]
    summary = (await store._list(Listing(NOW + 9, 1)))[0]
    assert (summary.version, summary.created_at, summary.user_id) == (2, NOW, "u")


# -- the rest --------------------------------------------------------------------------


async def test_health_says_what_answers(store: SQLTrackerStore) -> None:
    health = await store.health()
    assert health.reachable
    assert health.backend == store.backend_name
    assert health.schema_version == 1
    assert health.details["schema"] == "current (1)"
    assert 0 < health.latency_seconds < 5
    assert health.server_version is not None
    assert health.server_version[0].isdigit()
    assert health.details["pool"].get("checked_out", 0) == 0


async def test_close_and_open_again(store: SQLTrackerStore) -> None:
    await store._append(append(0, 2))
    await store.close()
    await store.open()
    assert len(ids(await store._read(read()))) == 2


async def test_large_events_and_long_ids(store: SQLTrackerStore) -> None:
    name = "\N{WINKING FACE}" * 255
    data = '{"text": "' + "é" * 1_000_000 + '"}'
    assert await store._append(append(0, sender_id=name, rows=rows(2, data=data)))
    found = await store._read(Read(name, NOW, start=0))
    assert found is not None
    assert [text for _, text in found.rows] == [data, data]
