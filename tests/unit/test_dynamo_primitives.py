"""What the conformance suite does not reach: sizes, expiry, tables, throttling."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("aioboto3", reason="the extra dynamo is not installed")

from tests.dynamo_tables import (
    NOW,
    RASAS_KEYS,
    SENDER,
    Tables,
    answering_proxy,
    append,
    fresh_tables,
    ids,
    read,
    rows,
)
from tracker_store_async import errors
from tracker_store_async.backends.dynamo.layout import HEAD_KEY, item_key
from tracker_store_async.rows import Listing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.servers import DynamoServer
    from tracker_store_async import DynamoTrackerStore

DAY = 86_400.0


@pytest.fixture
async def tables(dynamo_server: DynamoServer) -> AsyncIterator[Tables]:
    async with fresh_tables(dynamo_server) as found:
        yield found


@pytest.fixture
async def store(tables: Tables) -> AsyncIterator[DynamoTrackerStore]:
    async with tables.store() as opened:
        yield opened


def names(first: int, end: int) -> list[str]:
    return [f"id-{n}" for n in range(first, end)]


# -- sizes --


async def test_a_save_of_many_megabytes(
    store: DynamoTrackerStore, tables: Tables
) -> None:
    assert await store._append(append(0))
    assert await store._append(append(3, count=60, size=100_000))  # 6 MB
    assert await store._append(append(63, session_start=63))
    found = await store._read(read())
    assert ids(found) == names(0, 66)
    assert found is not None
    assert found.rows[3][1] == rows(3, 1, 100_000)[0].data
    assert ids(await store._read(read(start=50))) == names(50, 66)
    assert ids(await store._read(read(start=None, last=5))) == names(63, 66)
    assert ids(await store._read(read(start=0, last=5))) == names(61, 66)
    # refused after it was staged: nothing of it is left
    before = await tables.positions()
    assert not await store._append(append(63, count=60, size=100_000))
    assert await tables.positions() == before
    assert await store._delete(SENDER, 63, NOW)
    assert ids(await store._read(read())) == names(63, 66)
    left = [key for key in await tables.positions() if key not in (-1, HEAD_KEY)]
    assert left == [63]
    assert await store._delete(SENDER, None, NOW)
    assert await tables.items() == []


async def test_one_event_of_ten_megabytes_and_a_state_of_ten(
    store: DynamoTrackerStore,
) -> None:
    snapshot = json.dumps("s" * 10_000_000)
    huge = append(0, count=1, size=10_000_000, snapshot=snapshot)
    assert await store._append(huge)
    assert await store._append(append(1, snapshot=snapshot))
    found = await store._read(read())
    assert ids(found) == names(0, 4)
    assert found is not None
    assert found.rows[0][1] == huge.rows[0].data
    assert found.snapshot == snapshot
    header = await store._read(read(last=0))
    assert header is not None
    assert header.snapshot == snapshot


async def test_what_is_too_large_is_refused_before_it_is_published(
    store: DynamoTrackerStore,
) -> None:
    with pytest.raises(errors.InvalidInputError, match="an event of type 'x' has 16"):
        store._check_size(SENDER, rows(0, 1, 16 * 1024 * 1024), "{}")
    with pytest.raises(errors.InvalidInputError, match="the state of the conversation"):
        store._check_size(SENDER, [], "é" * 34_000_000)
    store._check_size(SENDER, rows(0, 1, 15_000_000), "{}")


async def test_a_cut_through_a_save(store: DynamoTrackerStore, tables: Tables) -> None:
    await store._append(append(0, count=10, session_start=7))
    assert await store._delete(SENDER, 5, NOW)
    assert ids(await store._read(read())) == names(5, 10)
    assert await tables.positions() == [5, HEAD_KEY]
    assert await store._append(append(10, session_start=7))
    assert ids(await store._read(read(start=None))) == names(7, 13)


async def test_a_cut_through_a_large_save(
    store: DynamoTrackerStore, tables: Tables
) -> None:
    snapshot = json.dumps("s" * 400_000)
    large = append(0, count=10, size=200_000, session_start=8, snapshot=snapshot)
    await store._append(large)
    assert await store._delete(SENDER, 6, NOW)
    found = await store._read(read())
    assert ids(found) == names(6, 10)
    assert found is not None
    assert found.snapshot == snapshot
    kept = [key for key in await tables.positions() if key >= 0]
    assert kept == [6, HEAD_KEY]
    # 4 parts of 200,000 bytes, 2 of the state
    assert len([key for key in await tables.positions() if key < -10]) == 6


async def test_a_cut_of_more_saves_than_one_transaction_takes(
    store: DynamoTrackerStore, tables: Tables
) -> None:
    for n in range(120):
        assert await store._append(append(n, count=1, session_start=n))
    assert await store._delete(SENDER, 118, NOW)
    assert await tables.positions() == [118, 119, HEAD_KEY]
    assert "cutting" not in (await tables.items())[-1]
    assert ids(await store._read(read())) == names(118, 120)


async def test_a_cut_that_was_cut_short_is_finished_by_the_next(
    store: DynamoTrackerStore, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(100):
        await store._append(append(n, count=1, session_start=n))
    eraser = store._opened.eraser

    async def crash(*_: Any) -> None:
        raise errors.StoreUnavailableError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(eraser, "_finish_cut", crash)
        with pytest.raises(errors.StoreUnavailableError):
            await store._delete(SENDER, 99, NOW)
    assert ids(await store._read(read())) == ["id-99"]
    assert len(await tables.items()) == 101
    assert not await store._delete(SENDER, 99, NOW)
    assert await tables.positions() == [99, HEAD_KEY]


async def test_a_deletion_that_was_cut_short_is_finished_by_the_next_save(
    store: DynamoTrackerStore, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(100):
        await store._append(append(n, count=1))
    eraser = store._opened.eraser

    async def crash(*_: Any) -> None:
        raise errors.StoreUnavailableError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(eraser, "_sweep", crash)
        with pytest.raises(errors.StoreUnavailableError):
            await store._delete(SENDER, None, NOW)
    assert await store._read(read()) is None
    assert await store._list(Listing(NOW, 10)) == []
    assert not await store._append(append(100))
    assert await store._append(append(0, created_at=None, now=NOW + 1))
    assert await tables.positions() == [0, HEAD_KEY]
    assert ids(await store._read(read())) == names(0, 3)


async def test_a_slow_deletion_does_not_touch_the_next_log(
    store: DynamoTrackerStore, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(100):
        await store._append(append(n, count=1))
    table = store._opened.eraser._table
    delete_all_seen = table.delete_all_seen
    slow = []

    async def overtaken(sender_id: str, items: Any) -> None:
        if not slow:
            slow.append(True)
            assert await store._append(append(0, created_at=None, now=NOW + 1))
        await delete_all_seen(sender_id, items)

    monkeypatch.setattr(table, "delete_all_seen", overtaken)
    assert await store._delete(SENDER, None, NOW)
    assert ids(await store._read(read())) == names(0, 3)
    assert await tables.positions() == [0, HEAD_KEY]


async def test_a_large_save_that_crashed_is_cleaned_up_by_the_next(
    store: DynamoTrackerStore, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = store._opened.client

    async def crash(_: Any) -> None:
        raise errors.StoreUnavailableError("crash")

    await store._append(append(0))
    large = append(3, count=8, size=200_000)
    with monkeypatch.context() as patch:
        patch.setattr(client, "transact", crash)
        with pytest.raises(errors.StoreUnavailableError):
            await store._append(large)
    assert ids(await store._read(read())) == names(0, 3)
    assert len([key for key in await tables.positions() if key < -10]) == 8
    # somebody else's large save an hour later finds it
    later = replace(large, now=NOW + 3601)
    assert await store._append(later)
    assert len([key for key in await tables.positions() if key < -10]) == 8
    assert ids(await store._read(read())) == names(0, 11)
    register = next(i for i in await tables.items() if i["position"]["N"] == "-1")
    assert set(register) == {"sender_id", "position"}


async def test_a_large_save_that_counts_as_dead_is_refused(
    store: DynamoTrackerStore, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store._append(append(0))
    table = store._opened.appender._table
    write = table.write
    other = []

    async def overtaken(operation: Any) -> bool:
        if "Put" in operation and not other:
            other.append(True)
            slow = replace(append(3, count=8, size=200_000), now=NOW + 7200)
            assert await store._append(slow)
        return await write(operation)

    monkeypatch.setattr(table, "write", overtaken)
    assert not await store._append(append(3, count=8, size=200_000))
    assert ids(await store._read(read())) == names(0, 11)
    assert len([key for key in await tables.positions() if key < -10]) == 8


# -- expiry --


async def ttls(tables: Tables) -> set[str | None]:
    return {
        item.get("ttl", {}).get("N")
        for item in await tables.items()
        if item["position"]["N"] != str(HEAD_KEY)
    }


async def test_older_items_are_extended_once_in_a_grace_period(
    store: DynamoTrackerStore, tables: Tables
) -> None:
    now, extended = NOW, 0
    floors = set()
    for n in range(12):
        assert await store._append(
            append(n, count=1, now=now, expires_at=now + 3600.0, created_at=NOW)
        )
        [*_, head] = await tables.items()
        floor = int(head["ttl_floor"]["N"])
        extended += floor not in floors and bool(floors)
        floors.add(floor)
        for item in await tables.items():
            # no item goes before the conversation does
            assert int(item["ttl"]["N"]) >= now + 3600
        now += 3000.0 if n < 6 else 30_000.0
        if n >= 6:
            now -= 26_500.0
    assert extended <= 1


async def test_a_conversation_outlives_its_grace_period(
    store: DynamoTrackerStore, tables: Tables
) -> None:
    now = NOW
    for n in range(8):
        assert await store._append(
            append(n, count=1, now=now, expires_at=now + DAY, created_at=NOW)
        )
        assert all(int(i["ttl"]["N"]) >= now + DAY for i in await tables.items())
        now += DAY * 0.9
    assert ids(await store._read(read(now=now))) == names(0, 8)
    assert await store._read(read(now=now + DAY)) is None


async def test_expiry_that_ends_and_begins(
    store: DynamoTrackerStore, tables: Tables
) -> None:
    assert await store._append(append(0, expires_at=NOW + 60))
    assert None not in await ttls(tables)
    assert await store._append(append(3))
    assert await ttls(tables) == {None}
    assert await store._append(append(6, expires_at=NOW + 60))
    assert None not in await ttls(tables)
    assert await store._append(append(9, expires_at=NOW + 10 * DAY))
    assert min(map(int, filter(None, await ttls(tables)))) >= NOW + 10 * DAY
    # a store with a shorter life: its item does as the others do
    assert await store._append(append(12, expires_at=NOW + 60))
    assert min(map(int, filter(None, await ttls(tables)))) >= NOW + 10 * DAY
    assert ids(await store._read(read())) == names(0, 15)


async def test_an_extension_that_was_overtaken_changes_nothing(
    store: DynamoTrackerStore, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await store._append(append(0))
    table = store._opened.appender._table
    all_items, overtaken = table.all_items, []

    async def slow(*arguments: Any) -> Any:
        found = await all_items(*arguments)
        if not overtaken:
            overtaken.append(True)
            async with tables.store() as other:
                assert await other._append(append(3))  # which never expires
        return found

    monkeypatch.setattr(table, "all_items", slow)
    assert not await store._append(append(3, expires_at=NOW + 60))
    assert overtaken
    assert await ttls(tables) == {None}
    assert "extending" not in (await tables.items())[-1]
    assert ids(await store._read(read())) == names(0, 6)


async def test_what_dynamodb_has_not_removed_yet_is_passed_over(
    store: DynamoTrackerStore, tables: Tables
) -> None:
    for n in range(5):
        await store._append(append(n, count=1, expires_at=NOW + 60))
    # its time to live takes the head before the rest
    key = item_key(SENDER, HEAD_KEY)
    await tables.client.delete_item(TableName=tables.ours, Key=key)
    assert await store._read(read()) is None
    later = NOW + 100
    assert await store._append(append(0, count=2, now=later, created_at=None))
    assert await store._append(append(2, count=5, now=later, created_at=later))
    assert ids(await store._read(read(now=later))) == names(0, 7)
    assert await store._delete(SENDER, None, later)
    assert await tables.items() == []


# -- corruption --


async def test_a_save_that_is_gone_is_told(
    store: DynamoTrackerStore, tables: Tables
) -> None:
    for n in range(3):
        await store._append(append(n, count=1))
    key = item_key(SENDER, 1)
    await tables.client.delete_item(TableName=tables.ours, Key=key)
    with pytest.raises(errors.CorruptEventError) as raised:
        await store._read(read())
    assert raised.value.position == 1


# -- round trips and capacity --


async def test_one_request_to_append_and_one_to_read(tables: Tables) -> None:
    async with (
        answering_proxy(tables.server) as proxy,
        tables.store(endpoint_url=proxy.url) as store,
    ):
        await store._append(append(0))
        proxy.targets.clear()
        await store._append(append(3))
        assert proxy.targets == ["TransactWriteItems"]
        proxy.targets.clear()
        assert ids(await store._read(read(start=None))) == names(0, 6)
        assert ids(await store._read(read())) == names(0, 6)
        assert await store._read(read(last=0)) is not None
        assert proxy.targets == ["Query", "Query", "GetItem"]


@pytest.mark.parametrize("start", [100, 99], ids=["in a save", "in the one before"])
async def test_a_long_session_is_read_from_where_it_begins(
    store: DynamoTrackerStore, start: int
) -> None:
    used: list[float] = []
    client = store._opened.client
    for n in range(0, 200, 2):
        session_start = start if n >= 100 else 0
        assert await store._append(
            append(n, count=2, size=1000, session_start=session_start)
        )
    client.on_capacity = lambda spent: used.append(spent["CapacityUnits"])
    assert ids(await store._read(read(start=None))) == names(start, 200)
    assert sum(used) < 40  # 50 saves of 2.3 kB, and no more: 29 units
    used.clear()
    assert ids(await store._read(read(start=None, last=5))) == names(195, 200)
    assert ids(await store._read(read(start=195))) == names(195, 200)
    assert sum(used) < 30


# -- the table --


async def test_many_open_at_once(tables: Tables) -> None:
    stores = [tables.store() for _ in range(10)]
    await asyncio.gather(*(store.open() for store in stores))
    saved = await asyncio.gather(*(store._append(append(0)) for store in stores))
    assert sorted(saved) == [False] * 9 + [True]
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_table_that_is_not_created(tables: Tables) -> None:
    store = tables.store(create_table=False)
    with pytest.raises(errors.SchemaError, match="create_table: true"):
        await store.open()
    await store.close()


async def test_a_table_of_somebody_else(tables: Tables) -> None:
    await tables.client.create_table(TableName=tables.ours, **RASAS_KEYS)
    with pytest.raises(errors.SchemaError, match="events_table_name"):
        await tables.store().open()


async def test_a_newer_layout_is_refused(tables: Tables) -> None:
    async with tables.store():
        pass
    key = {"sender_id": {"S": "\0tracker_store_async"}, "position": {"N": "0"}}
    newer = {**key, "schema_version": {"N": "2"}}
    await tables.client.put_item(TableName=tables.ours, Item=newer)
    with pytest.raises(errors.SchemaTooNewError, match="version 2 of the layout"):
        await tables.store().open()


async def test_provisioned_capacity(tables: Tables) -> None:
    options = {"read_capacity_units": 7, "write_capacity_units": 9}
    async with tables.store(billing_mode="PROVISIONED", **options):
        pass
    answer = await tables.client.describe_table(TableName=tables.ours)
    given = answer["Table"]["ProvisionedThroughput"]
    assert (given["ReadCapacityUnits"], given["WriteCapacityUnits"]) == (7, 9)


async def test_a_client_of_ones_own_stays_open(tables: Tables) -> None:
    async with tables.store(client=tables.client) as store:
        assert await store._append(append(0))
    assert len(await tables.items()) == 2


async def test_a_name_of_ones_own(tables: Tables) -> None:
    own = f"{tables.rasas}-mine"
    async with tables.store(events_table_name=own) as store:
        await store._append(append(0))
    found = await tables.client.scan(TableName=own)
    assert found["Count"] == 3
