"""What the real Rasa wrote into DynamoDB: read, taken over, listed and erased."""

from __future__ import annotations

import asyncio
import copy
import time
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("aioboto3", reason="the extra dynamo is not installed")

from tests import golden
from tests.conformance.kit import Clock, add, has, has_full, said, stored, user, version
from tests.dynamo_tables import (
    NOW,
    Tables,
    answering_proxy,
    fresh_tables,
    golden_items,
)
from tests.unit.test_golden_answers import (
    OTHER_STARTS,
    VERBOSITIES,
    comparable,
    domain,
    our_start,
    rasas_state,
    rows,
    state_of,
)
from tracker_store_async import errors
from tracker_store_async.backends.dynamo.rasa import decode_conversation, plain
from tracker_store_async.events import event_from_dict
from tracker_store_async.rows import Append, Listing, NewRow, Read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.servers import DynamoServer
    from tracker_store_async import DynamoTrackerStore

ITEMS = {item["sender_id"]["S"]: item for item in golden_items()}
MANY = next(name for name in golden.sender_ids() if our_start(name, "retrieve") > 1)
"""One with several sessions."""


@pytest.fixture(scope="module")
def item() -> dict[str, Any]:
    return copy.deepcopy(ITEMS[MANY])


@pytest.fixture
async def tables(dynamo_server: DynamoServer) -> AsyncIterator[Tables]:
    async with fresh_tables(dynamo_server) as found:
        await found.create_rasas()
        yield found


@pytest.fixture
async def store(tables: Tables) -> AsyncIterator[DynamoTrackerStore]:
    async with tables.store(domain=domain()) as opened:
        yield opened


def length(sender_id: str) -> int:
    return len(ITEMS[sender_id]["events"]["L"])


# -- reading --


@pytest.mark.parametrize("method", ["retrieve", "retrieve_full_tracker"])
async def test_golden_data_answers_as_rasa_does(
    tables: Tables, store: DynamoTrackerStore, method: str
) -> None:
    for sender_id, item in ITEMS.items():
        await tables.put_rasas(item)
        tracker = await getattr(store, method)(sender_id)
        if not item["events"]["L"]:
            assert tracker is None
            continue
        start = our_start(sender_id, method)
        dynamos = OTHER_STARTS.get((method, "dynamo"), {}).get(sender_id, start)
        for verbosity in VERBOSITIES:
            theirs = rasas_state("dynamo", sender_id, method, verbosity)
            ours = state_of(tracker, verbosity)
            if start != dynamos:
                # Rasa's DynamoDB store returns every session; the state is the same
                assert len(ours["events"]) <= len(theirs["events"])
                theirs["events"] = ours["events"]
            assert comparable(ours, "dynamo") == comparable(theirs, "dynamo")


def test_every_number_is_a_float_as_in_rasa() -> None:
    value = {"L": [{"N": "1.000000000"}, {"M": {"a": {"N": "-2"}}}, {"NULL": True}]}
    found = plain(value)
    assert found == [1.0, {"a": -2.0}, None]
    assert isinstance(found[0], float)
    assert isinstance(found[1]["a"], float)


@pytest.mark.parametrize(
    "events", [{"S": "x"}, {"L": [{"S": "x"}]}, {"L": [{"M": {"a": {"B": b"x"}}}]}]
)
def test_what_rasa_does_not_write(events: dict[str, Any]) -> None:
    with pytest.raises(errors.TrackerDeserialisationError, match="'alice'"):
        decode_conversation("alice", {"sender_id": {"S": "alice"}, "events": events})


async def test_without_rasas_table_nobody_looks_for_it(
    dynamo_server: DynamoServer,
) -> None:
    async with (
        fresh_tables(dynamo_server) as tables,
        answering_proxy(dynamo_server) as proxy,
        tables.store(endpoint_url=proxy.url) as store,
    ):
        proxy.targets.clear()
        assert await store.retrieve("alice") is None
        assert proxy.targets == ["Query"]


async def test_told_not_to_nobody_looks_at_it(
    tables: Tables, item: dict[str, Any]
) -> None:
    await tables.put_rasas(item)
    async with tables.store(read_rasa_data=False) as store:
        assert await store.retrieve(MANY) is None
        assert list(await store.keys()) == []


# -- taking over --


async def test_the_first_save_takes_it_over(
    tables: Tables, store: DynamoTrackerStore, item: dict[str, Any]
) -> None:
    await tables.put_rasas(item)
    before = await has_full(store, MANY)
    tracker = await has(store, MANY)
    tracker.update(user("new"))
    await store.save(tracker)
    assert await version(store, MANY) == length(MANY) + 1
    whole = [*before.events, tracker.events[-1]]
    assert list((await has_full(store, MANY)).events) == whole
    assert await tables.rasas_items() == [item]  # untouched
    kept = await stored(store, MANY)
    assert [event_id for event_id, _ in kept[:-1]] == [None] * length(MANY)
    # Rasa's item is never looked at again
    await tables.put_rasas({**item, "events": {"L": []}})
    await add(store, MANY, user("and on"))
    assert said(await has(store, MANY))[-2:] == ["new", "and on"]


async def test_told_to_it_deletes_rasas_item_in_the_same_step(
    tables: Tables, item: dict[str, Any]
) -> None:
    await tables.put_rasas(item)
    async with tables.store(delete_rasa_data=True) as store:
        assert await store.exists(MANY)
        assert len(await tables.rasas_items()) == 1
        await add(store, MANY, user("new"))
        assert await tables.rasas_items() == []
        assert await version(store, MANY) == length(MANY) + 1
        assert list(await store.keys()) == [MANY]


async def test_what_rasa_wrote_meanwhile_is_not_lost(
    tables: Tables, store: DynamoTrackerStore, item: dict[str, Any]
) -> None:
    await tables.put_rasas(item)
    tracker = await has(store, MANY)
    events = item["events"]["L"]
    written = copy.deepcopy(events[-1])
    await tables.put_rasas({**item, "events": {"L": [*events, written]}})
    tracker.update(user("new"))
    await store.save(tracker)
    assert await version(store, MANY) == len(events) + 2


async def test_rasas_item_that_changes_between_reading_and_writing(
    tables: Tables,
    store: DynamoTrackerStore,
    item: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await tables.put_rasas(item)
    rasa = store._opened.appender._rasa
    assert rasa is not None
    get, raced = rasa.get, []

    async def overtaken(sender_id: str) -> Any:
        found = await get(sender_id)
        if not raced:
            raced.append(True)
            changed = copy.deepcopy(item)
            changed["events"]["L"][0]["M"]["timestamp"] = {"N": "1"}
            await tables.put_rasas(changed)
        return found

    tracker = await has(store, MANY)
    monkeypatch.setattr(rasa, "get", overtaken)
    tracker.update(user("new"))
    await store.save(tracker)
    kept = await stored(store, MANY)
    assert '"timestamp": 1.0' in kept[0][1] or '"timestamp":1.0' in kept[0][1]
    assert len(kept) == length(MANY) + 1


async def test_many_take_it_over_at_once(tables: Tables, item: dict[str, Any]) -> None:
    await tables.put_rasas(item)
    stores = [tables.store() for _ in range(5)]
    trackers = [await has(store, MANY) for store in stores]
    for n, tracker in enumerate(trackers):
        tracker.update(user(f"new {n}"))
    await asyncio.gather(
        *(store.save(t) for store, t in zip(stores, trackers, strict=True))
    )
    assert await version(stores[0], MANY) == length(MANY) + 5
    assert len({i for i, _ in await stored(stores[0], MANY) if i}) == 5
    for store in stores:
        await store.close()


async def test_a_history_as_large_as_rasa_can_have(
    tables: Tables, store: DynamoTrackerStore
) -> None:
    event = {"M": {"event": {"S": "user"}, "text": {"S": "y" * 950}}}
    events = [
        {"M": {**event["M"], "timestamp": {"N": str(1_700_000_000 + n)}}}
        for n in range(390)
    ]
    await tables.put_rasas({"sender_id": {"S": "large"}, "events": {"L": events}})
    await add(store, "large", user("new"))
    assert await version(store, "large") == 391
    assert len((await has_full(store, "large")).events) == 391


async def test_an_append_at_another_version_changes_nothing(
    tables: Tables, store: DynamoTrackerStore, item: dict[str, Any]
) -> None:
    await tables.put_rasas(item)
    row = NewRow("a", '{"event": "x"}', "x", None, None, None)
    for expected in (0, 1, length(MANY) - 1, length(MANY) + 1):
        assert not await store._append(Append(MANY, expected, [row], 0, "{}", NOW))
    assert await tables.items() == []
    assert await store._append(Append(MANY, length(MANY), [row], 0, "{}", NOW))


# -- erasing, expiring --


async def test_a_deletion_erases_both(
    tables: Tables, store: DynamoTrackerStore, item: dict[str, Any]
) -> None:
    await tables.put_rasas(item)
    assert await store.delete(MANY)
    assert await tables.rasas_items() == []
    assert not await store.exists(MANY)
    assert not await store.delete(MANY)

    await tables.put_rasas(item)
    await add(store, MANY, user("new"))
    assert await store.delete(MANY)
    assert await tables.rasas_items() == await tables.items() == []
    assert not await store.exists(MANY)


async def test_what_expired_does_not_come_back_from_rasa(
    tables: Tables, item: dict[str, Any]
) -> None:
    await tables.put_rasas(item)
    clock = Clock()
    async with tables.store(record_exp=60) as store:
        clock.drive(store)
        await add(store, MANY, user("new"))
        clock.advance(60)
        assert not await store.exists(MANY)
        assert list(await store.keys()) == []
        # DynamoDB removes what has expired
        for each in await tables.items():
            if "ttl" in each:
                key = {name: each[name] for name in ("sender_id", "position")}
                await tables.client.delete_item(TableName=tables.ours, Key=key)
        assert [i["position"]["N"] for i in await tables.items()] == ["-2"]
        assert not await store.exists(MANY)
        assert await store.retrieve(MANY) is None
        assert list(await store.keys()) == []
        await add(store, MANY, user("again"))
        assert said(await has_full(store, MANY)) == ["again"]
        assert list(await store.keys()) == [MANY]
        clock.advance(60)
        await add(store, MANY, user("and again"))
        assert said(await has_full(store, MANY)) == ["and again"]
        assert len(await tables.rasas_items()) == 1
        assert await store.delete(MANY)
        assert await tables.items() == await tables.rasas_items() == []


async def test_a_cut_erases_the_beginning_of_rasas_item_too(
    tables: Tables, store: DynamoTrackerStore, item: dict[str, Any]
) -> None:
    await tables.put_rasas(item)
    latest = await has(store, MANY)
    start = our_start(MANY, "retrieve")
    assert await store.delete(MANY, before_position=start)
    assert await tables.rasas_items() == []
    assert (await has_full(store, MANY)).events == latest.events
    assert await version(store, MANY) == length(MANY)
    latest.update(user("on"))
    await store.save(latest)
    assert await version(store, MANY) == length(MANY) + 1


# -- listing --


async def test_those_of_rasa_are_listed_with_ours(
    tables: Tables, store: DynamoTrackerStore
) -> None:
    for item in ITEMS.values():
        await tables.put_rasas(item)
    await add(store, "ours", user())
    names = sorted([*(k for k in ITEMS if ITEMS[k]["events"]["L"]), "ours"])
    assert sorted(await store.keys()) == names
    for page_size in (1, 4, 500):
        pages = [s async for s in store.conversations(page_size=page_size)]
        assert sorted(s.sender_id for s in pages) == names
    [summary] = [s for s in pages if s.sender_id == MANY]
    assert summary.version == length(MANY)
    assert summary.updated_at == event_times(MANY)[-1]
    cut = [s async for s in store.conversations(updated_from=time.time() - 600)]
    assert [s.sender_id for s in cut] == ["ours"]


def event_times(sender_id: str) -> list[float]:
    events = [each["M"]["timestamp"]["N"] for each in ITEMS[sender_id]["events"]["L"]]
    return sorted(map(float, events))


async def test_those_taken_over_meanwhile_are_listed_once(
    tables: Tables, store: DynamoTrackerStore
) -> None:
    for item in ITEMS.values():
        await tables.put_rasas(item)
    names = [name for name in ITEMS if ITEMS[name]["events"]["L"]]
    seen: list[str] = []
    async for summary in store.conversations(page_size=2):
        seen.append(summary.sender_id)
        if len(seen) <= len(names):
            await add(store, names[-len(seen)], user())
    assert sorted(seen) == sorted(names)
    # when Rasa's items are gone, they are all listed as ours
    for name in names:
        key = {"sender_id": {"S": name}}
        await tables.client.delete_item(TableName=tables.rasas, Key=key)
    assert sorted(await store.keys()) == sorted(names)


@pytest.mark.parametrize("cursor", ["x", "rasa:", "user:a", "nonsense"])
async def test_what_is_no_cursor(store: DynamoTrackerStore, cursor: str) -> None:
    with pytest.raises(errors.InvalidInputError, match="cursor"):
        await store._list(Listing(NOW, 10, after=cursor))


def test_the_golden_events_are_those_of_the_sql_store() -> None:
    """Guard against golden data that hold nothing."""
    assert golden.sender_ids()
    for sender_id in golden.sender_ids():
        theirs = plain(ITEMS[sender_id]["events"])
        ours = [event_from_dict(each).as_dict() for each in theirs]
        assert len(ours) == len(rows(sender_id))


async def test_a_window_of_rasas_conversation(
    tables: Tables, store: DynamoTrackerStore, item: dict[str, Any]
) -> None:
    await tables.put_rasas(item)
    found = await store._read(Read(MANY, NOW, start=0, last=2))
    assert found is not None
    assert (found.version, len(found.rows)) == (length(MANY), 2)
    tracker = await store.get_or_create_tracker(MANY, max_event_history=2)
    assert len(tracker.events) == 2
    exact = await has(store, MANY)
    assert tracker.current_slot_values() == exact.current_slot_values()
