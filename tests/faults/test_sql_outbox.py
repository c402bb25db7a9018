"""The outbox: what is stored is published, in order, whoever crashes when."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import FailingBroker, add, stored_ids, turn, user
from tests.servers import fresh_database
from tracker_store_async import RepeatFilter, SQLTrackerStore, errors, relay
from tracker_store_async.backends.sql.outbox import database_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.backend("sqlite")),
        pytest.param("postgresql", marks=pytest.mark.backend("postgresql")),
        pytest.param("mysql", marks=pytest.mark.backend("mysql")),
    ]
)
def url(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[str]:
    """Give the URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'store.db'}"
        return
    with ExitStack() as stack:
        server: Any = servers.get(request.param)
        name = stack.enter_context(fresh_database(server))
        yield server.url(request.param, name)


def store_on(url: str, broker: FailingBroker, **options: Any) -> SQLTrackerStore:
    return SQLTrackerStore(host=url, event_broker=broker, outbox=True, **options)


async def until(broker: FailingBroker, count: int) -> None:
    async with asyncio.timeout(15):
        while len(broker.messages) < count:
            await asyncio.sleep(0.01)


async def test_stored_first_and_published_in_order(url: str) -> None:
    broker = FailingBroker()
    async with store_on(url, broker) as store:
        for name in ("alice", "bob"):
            for text in ("one", "two", "three"):
                await add(store, name, *turn(text))
        await until(broker, 24)
        for name in ("alice", "bob"):
            own = [m for m in broker.messages if m.sender_id == name]
            assert [m.message_id for m in own] == await stored_ids(store, name)
            assert [m.position for m in own] == list(range(12))
            assert all(m.body["sender_id"] == name for m in own)


async def test_a_save_does_not_wait_for_a_broker_that_is_down(url: str) -> None:
    broker = FailingBroker()
    async with store_on(url, broker) as store:
        broker.is_down = True
        await add(store, "alice", *turn("one"))
        await add(store, "alice", *turn("two"))
        assert len(await stored_ids(store, "alice")) == 8
        broker.is_down = False
        await until(broker, 8)
        assert broker.ids == await stored_ids(store, "alice")


async def test_what_a_closed_store_left_the_next_one_publishes(url: str) -> None:
    broker = FailingBroker()
    async with store_on(url, broker) as store:
        broker.is_down = True
        await add(store, "alice", *turn("one"))
    other = FailingBroker()
    async with store_on(url, other) as store:
        await until(other, 4)
        assert other.ids == await stored_ids(store, "alice")


async def test_a_store_opens_while_the_broker_is_down(url: str) -> None:
    class Closed(FailingBroker):
        async def open(self) -> None:
            if self.is_down:
                raise ConnectionError("no broker")

    broker = Closed()
    broker.is_down = True
    async with store_on(url, broker) as store:
        await add(store, "alice", user("one"))
        broker.is_down = False
        await until(broker, 1)


async def test_a_failed_save_publishes_nothing(url: str) -> None:
    broker = FailingBroker()
    async with store_on(url, broker, on_conflict="raise") as store:
        await add(store, "alice", user("one"))
        first = await store.get_or_create_tracker("alice")
        second = await store.get_or_create_tracker("alice")
        for tracker, text in ((first, "two"), (second, "never")):
            tracker.update(user(text))
        await store.save(first)
        with pytest.raises(errors.ConcurrentSaveError):
            await store.save(second)
        await until(broker, 2)
    assert [body["text"] for body in broker.bodies] == ["one", "two"]


async def test_two_relays_keep_the_order(url: str) -> None:
    broker = FailingBroker()
    async with store_on(url, broker) as one, store_on(url, broker) as other:
        for n in range(10):
            await add((one, other)[n % 2], "alice", user(str(n)))
        await until(broker, 10)
        assert broker.ids == await stored_ids(one, "alice")


async def test_a_relay_that_died_is_followed_by_another(url: str) -> None:
    broker = FailingBroker()
    async with store_on(url, broker) as store:
        assert store._outbox is not None
        assert store._relay is not None
        await add(store, "alice", user("one"))
        await until(broker, 1)
        store._relay._task.cancel()  # as if its process were gone
        await add(store, "alice", user("two"))
        assert not await store._outbox.lease("somebody else", relay.LEASE_SECONDS)
        await leased_for(store, -0.1)
        assert await store._outbox.lease("somebody else", relay.LEASE_SECONDS)


async def leased_for(store: SQLTrackerStore, seconds: float) -> None:
    """Let the lease end so many seconds from now, by the database's clock."""
    assert store._outbox is not None
    lease = store._outbox._tables.lease
    end = database_time(store._outbox._engine.dialect.name) + seconds
    await store._outbox._execute(lease.update().values(expires_at=end), commit=True)


class Hourly:
    """A clock that is an hour off."""

    def __init__(self, hours: float) -> None:
        self.hours = hours

    def __call__(self) -> float:
        return NOW() + self.hours * 3600


NOW = time.time


@pytest.mark.parametrize("hours", [-1, 1])
async def test_the_clocks_of_the_processes_do_not_matter(
    url: str, monkeypatch: pytest.MonkeyPatch, hours: float
) -> None:
    async with store_on(url, FailingBroker()) as store:
        outbox = store._outbox
        assert outbox is not None
        assert await outbox.lease("one", relay.LEASE_SECONDS)
        monkeypatch.setattr(time, "time", Hourly(hours))
        assert not await outbox.lease("other", relay.LEASE_SECONDS)
        assert await outbox.lease("one", relay.LEASE_SECONDS)
        await outbox.release("one")
        assert await outbox.lease("other", relay.LEASE_SECONDS)
        monkeypatch.undo()
        assert not await outbox.lease("one", relay.LEASE_SECONDS)


async def test_a_lease_of_a_clock_that_was_set_back_does_not_block(url: str) -> None:
    async with store_on(url, FailingBroker()) as store:
        assert store._outbox is not None
        assert await store._outbox.lease("gone", relay.LEASE_SECONDS)
        await leased_for(store, 3600)
        assert await store._outbox.lease("other", relay.LEASE_SECONDS)
        assert not await store._outbox.lease("gone", relay.LEASE_SECONDS)


async def test_what_is_erased_is_not_published(url: str) -> None:
    broker = FailingBroker()
    async with store_on(url, broker) as store:
        broker.is_down = True
        await add(store, "alice", user("secret"))
        await store.delete("alice")
        assert store._outbox is not None
        assert await store._outbox.read(10) == []


async def test_streamed_events_are_not_published_twice(url: str) -> None:
    broker = FailingBroker()
    async with store_on(url, broker) as store:
        tracker = await store.get_or_create_tracker("alice", append_action_listen=False)
        tracker.update(user("one"))
        await store.stream_events(tracker)
        tracker.update(user("two"))
        await store.save(tracker)
        await until(broker, 2)
    assert [body["text"] for body in broker.bodies] == ["one", "two"]


PROGRAM = """
import asyncio, os, signal, sys
from tracker_store_async import SQLTrackerStore
from tracker_store_async.brokers.file import FileEventBroker
from tracker_store_async.events import UserUttered

class Dying(FileEventBroker):
    left = int(sys.argv[3])
    async def publish_many(self, messages):
        await super().publish_many(messages)
        Dying.left -= 1
        if not Dying.left:
            os.kill(os.getpid(), signal.SIGKILL)

async def main(url, log):
    broker = Dying(log, with_headers=True)
    async with SQLTrackerStore(host=url, event_broker=broker, outbox=True) as store:
        tracker = await store.get_or_create_tracker("alice")
        for n in range(10):
            tracker.update(UserUttered(f"message {n}"))
            await store.save(tracker)
            await asyncio.sleep(0.02)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


async def test_killed_between_publishing_and_removing(url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for dies_at, ended in ((2, -signal.SIGKILL), (0, 0)):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, url, str(log), str(dies_at)
        )
        assert await process.wait() == ended
        async with SQLTrackerStore(host=url, outbox=True) as store:
            assert store._outbox is not None
            await free(store)
    broker = FailingBroker()
    async with store_on(url, broker) as store:
        await asyncio.sleep(0.2)
        ids = await stored_ids(store, "alice")
    lines = [json.loads(line)["message_id"] for line in log.read_text().splitlines()]
    repeats = RepeatFilter()
    consumed = [each for each in [*lines, *broker.ids] if repeats.is_new(each)]
    assert consumed == ids
    assert repeats.repeats


async def free(store: SQLTrackerStore) -> None:
    """Take the lease from a process that is dead, as the passing of time does."""
    assert store._outbox is not None
    lease = store._outbox._tables.lease
    await store._outbox._execute(lease.update().values(expires_at=0.0), commit=True)


def test_where_there_can_be_none() -> None:
    for options in ({"db": ":memory:"}, {"dialect": "oracle", "host": "x"}):
        with pytest.raises(errors.ConfigurationError, match="outbox"):
            SQLTrackerStore(outbox=True, **options)  # type: ignore[arg-type]
