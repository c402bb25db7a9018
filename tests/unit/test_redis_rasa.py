"""What Rasa wrote to Redis is read, listed, taken over and erased."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests import golden
from tests.conformance.backends import RedisStorage, redis_storage
from tests.conformance.kit import said, user
from tests.unit.test_golden_answers import (
    METHODS,
    VERBOSITIES,
    comparable,
    domain,
    our_start,
    rasas_start,
    rasas_state,
    state_of,
)
from tracker_store_async import errors
from tracker_store_async.rows import Read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers

STRINGS: dict[str, str] = golden.load("redis")["strings"]
OLD = [
    {"event": "user", "timestamp": 10.5, "text": "old", "parse_data": {}},
    {"event": "action", "timestamp": 11.0, "name": "action_session_start"},
    {"event": "session_started", "timestamp": 11.5},
    {"event": "user", "timestamp": 12.25, "text": "xyzzy", "parse_data": {}},
]

MORE = {"event": "user", "timestamp": 13.0, "text": "more", "parse_data": {}}


@pytest.fixture(
    params=[
        pytest.param(
            ("redis", "standalone"), marks=pytest.mark.backend("redis"), id="redis"
        ),
        pytest.param(
            ("redis_cluster", "cluster"),
            marks=pytest.mark.backend("redis_cluster"),
            id="cluster",
        ),
    ]
)
def rasa(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[RedisStorage]:
    with redis_storage(servers, tmp_path, *request.param) as storage:
        yield cast(RedisStorage, storage)


def key_of(storage: RedisStorage, sender_id: str) -> str:
    return f"{storage.prefix}:tracker:{sender_id}"


def write(
    storage: RedisStorage, sender_id: str, events: Any = OLD, **options: Any
) -> None:
    value = json.dumps({"events": events, "name": sender_id})
    storage.client.set(key_of(storage, sender_id), value, **options)


async def test_golden_conversations_answer_as_rasas(rasa: RedisStorage) -> None:
    for key, value in STRINGS.items():
        rasa.client.set(f"{rasa.prefix}:{key}", value)
    sender_ids = [key.removeprefix("tracker:") for key in STRINGS]
    async with rasa.store(domain=domain()) as store:
        assert sorted(await store.keys()) == sorted(sender_ids)
        for sender_id in sender_ids:
            for method in METHODS:
                if rasas_start("redis", sender_id, method) != our_start(
                    sender_id, method
                ):
                    continue
                tracker = await getattr(store, method)(sender_id)
                for verbosity in VERBOSITIES:
                    theirs = rasas_state("redis", sender_id, method, verbosity)
                    ours = state_of(tracker, verbosity)
                    assert comparable(ours, "redis") == comparable(theirs, "redis")


@pytest.mark.parametrize("sender_id", ["a", "a}b", "{a}b", "{}a}", "}{", "a{b", "é:'"])
async def test_it_is_taken_over_by_the_first_save(
    rasa: RedisStorage, sender_id: str
) -> None:
    write(rasa, sender_id)
    before = rasa.client.get(key_of(rasa, sender_id))
    async with rasa.store() as store:
        tracker = await store.retrieve(sender_id)
        assert said(tracker) == ["xyzzy"]
        assert tracker is not None
        tracker.update(user("new"))
        await store.save(tracker)
        assert said(await store.retrieve_full_tracker(sender_id)) == [
            *("old", "xyzzy", "new")
        ]
        assert rasa.client.get(key_of(rasa, sender_id)) == before
        assert list(await store.keys()) == [sender_id]
        found = await store._read(Read(sender_id, 1.0, last=0))
        assert found is not None
        assert found.created_at == 10.5
        assert await store.delete(sender_id)
        assert not await store.exists(sender_id)
        assert list(await store.keys()) == []
    assert "xyzzy" not in rasa.raw()
    left = rasa.keys()
    assert [key for key in left if not key.endswith(b":layout")] == []


async def test_the_old_value_goes_when_told(rasa: RedisStorage) -> None:
    write(rasa, "a")
    async with rasa.store(delete_rasa_data=True) as store:
        tracker = await store.get_or_create_tracker("a")
        tracker.update(user("new"))
        await store.save(tracker)
        assert rasa.client.get(key_of(rasa, "a")) is None
        assert len(await _rows(store, "a")) == 5


async def _rows(store: Any, sender_id: str) -> Any:
    return (await store._read(Read(sender_id, 1.0, start=0))).rows


async def test_rasa_wrote_meanwhile(rasa: RedisStorage) -> None:
    write(rasa, "a")
    async with rasa.store() as store:
        tracker = await store.get_or_create_tracker("a")
        write(rasa, "a", [*OLD, MORE])
        tracker.update(user("new"))
        await store.save(tracker)
        assert said(await store.retrieve("a")) == ["xyzzy", "more", "new"]


async def test_many_take_it_over_at_once(rasa: RedisStorage) -> None:
    write(rasa, "a")
    stores = [rasa.store() for _ in range(5)]
    trackers = [await store.get_or_create_tracker("a") for store in stores]
    for number, tracker in enumerate(trackers):
        tracker.update(user(str(number)))
    await asyncio.gather(
        *(store.save(each) for store, each in zip(stores, trackers, strict=True))
    )
    assert sorted(said(await stores[0].retrieve("a")))[:5] == list("01234")
    assert len(await _rows(stores[0], "a")) == 9
    await rasa.close()


async def test_expiry_reaches_the_old_value(rasa: RedisStorage) -> None:
    write(rasa, "a")
    async with rasa.store(record_exp=100) as store:
        tracker = await store.get_or_create_tracker("a")
        tracker.update(user("new"))
        await store.save(tracker)
        assert 0 < rasa.client.ttl(key_of(rasa, "a")) <= 100
        store._now = lambda: 1e11
        assert not await store.exists("a")  # and not Rasa's value instead
        assert list(await store.keys()) == []


async def test_what_expires_with_rasa_says_so(rasa: RedisStorage) -> None:
    write(rasa, "a", ex=50)
    async with rasa.store() as store:
        found = await store._read(Read("a", 1000.0, last=0))
        assert found is not None
        assert found.expires_at is not None
        assert 1000 < found.expires_at <= 1050


async def test_cutting_it_erases_the_old_value(rasa: RedisStorage) -> None:
    events = [{"event": "user", "timestamp": 1.0, "text": "secret"}, *OLD]
    write(rasa, "a", events)
    async with rasa.store() as store:
        assert await store.delete("a", before_position=2)
        assert said(await store.retrieve_full_tracker("a")) == ["xyzzy"]
    assert "secret" not in rasa.raw()


@pytest.mark.parametrize("value", ["", "no JSON", "[]", '{"events": 1}', '{"a": []}'])
async def test_what_is_not_rasas_is_named(rasa: RedisStorage, value: str) -> None:
    rasa.client.set(key_of(rasa, "a"), value)
    async with rasa.store() as store:
        with pytest.raises(errors.TrackerDeserialisationError, match="Rasa stored"):
            await store.retrieve("a")
        assert list(await store.keys()) == []
        assert await store.delete("a")
        assert not await store.exists("a")
