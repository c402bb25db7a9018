"""Where there can be an outbox, and what may stand around a store that has one."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.conformance.kit import FailingBroker, add, stored_ids, user
from tests.outboxes import idle, until
from tracker_store_async import (
    CachedTrackerStore,
    FailSafeTrackerStore,
    InMemoryTrackerStore,
    SQLTrackerStore,
    create_tracker_store,
    errors,
    relay_holds,
)
from tracker_store_async.brokers.file import FileEventBroker
from tracker_store_async.brokers.recording import RecordingBroker
from tracker_store_async.relay import BATCH, Relay
from tracker_store_async.relay_holds import MOST_HOLDS
from tracker_store_async.rows import OutboxEntry, OutboxItem
from tracker_store_async.wrappers.base import WrapperTrackerStore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("type_name", ["in_memory", "redis", "dynamo"])
def test_a_type_without_one_says_so(type_name: str, strict: bool) -> None:
    if type_name != "in_memory":
        driver = {"redis": "redis", "dynamo": "aioboto3"}[type_name]
        pytest.importorskip(driver, reason=f"the extra {type_name} is not installed")
    section = {"type": type_name, "strict": strict}
    with pytest.raises(
        errors.ConfigurationError,
        match=rf"^tracker_store.outbox: type {type_name} cannot store messages",
    ):
        create_tracker_store({**section, "outbox": True})
    assert not create_tracker_store({**section, "outbox": False}).outbox


def test_a_section_with_one(tmp_path: Path) -> None:
    section: dict[str, Any] = {"type": "sql", "db": str(tmp_path / "db")}
    assert create_tracker_store({**section, "outbox": True}).outbox
    pytest.importorskip("motor", reason="the extra mongo is not installed")
    assert create_tracker_store({"type": "mongod", "outbox": True}).outbox
    wrapped = {**section, "outbox": True, "retry": True, "cache": True}
    assert create_tracker_store(wrapped).outbox
    assert create_tracker_store({**wrapped, "audit": {"sink": "logger"}}).outbox
    with pytest.raises(errors.ConfigurationError, match="has an outbox"):
        create_tracker_store({**wrapped, "fail_safe": True})


async def test_retries_and_the_cache_go_with_one(tmp_path: Path) -> None:
    broker = FailingBroker()
    section = {"type": "sql", "db": str(tmp_path / "db"), "outbox": True}
    for retry, cache in ((True, False), (False, True), (True, True)):
        broker.messages.clear()
        store: Any = create_tracker_store(
            {**section, "retry": retry, "cache": cache}, event_broker=broker
        )
        name = f"user {retry} {cache}"
        async with store:
            broker.is_down = True
            for n in range(3):
                await add(store, name, user(str(n)))
            assert (await store.health()).details["outbox"]["waiting"] == 3
            broker.is_down = False
            await until(broker, 3)
            inner = store
            while isinstance(inner, WrapperTrackerStore):
                inner = inner._wrapped
                assert inner._relay is None  # the outermost has it alone
            await idle(inner)
            assert broker.ids == await stored_ids(store, name)
            broker.is_down = True
            await add(store, name, user("secret"))
            assert await store.delete(name)
            assert (await store.health()).details["outbox"]["waiting"] == 0


def test_others_do_not_go_with_one(tmp_path: Path) -> None:
    def with_outbox() -> SQLTrackerStore:
        return SQLTrackerStore(db=str(tmp_path / "db"), outbox=True)

    for wrap in (
        FailSafeTrackerStore,
        WrapperTrackerStore,
        lambda store: CachedTrackerStore(FailSafeTrackerStore(store)),
        lambda store: FailSafeTrackerStore(CachedTrackerStore(store)),
        lambda store: FailSafeTrackerStore(InMemoryTrackerStore(), fallback=store),
    ):
        with pytest.raises(errors.ConfigurationError, match="has an outbox"):
            wrap(with_outbox())


class Waiting:
    """An outbox with one event that notes for how long it is leased."""

    def __init__(self) -> None:
        self.items = [OutboxItem(1, "alice", OutboxEntry("id", 0, "{}"))]
        self.leases: list[float] = []

    async def lease(self, owner: str, seconds: float) -> bool:
        self.leases.append(seconds)
        return True

    async def release(self, owner: str) -> None:
        pass

    async def read(self, limit: int, leave_out: Any = (), after: Any = None) -> Any:
        return self.items

    async def remove(self, items: Any) -> None:
        self.items = []

    async def count(self, limit: int) -> int:
        return len(self.items)


@pytest.mark.parametrize(
    ("timeout_seconds", "publish", "lease"),
    [(10.0, 15.0, 30.0), (40.0, 45.0, 90.0), (145.0, 150.0, 300.0)],
)
async def test_a_relay_waits_as_long_as_the_broker_does(
    monkeypatch: pytest.MonkeyPatch,
    timeout_seconds: float,
    publish: float,
    lease: float,
) -> None:
    limits: list[float | None] = []
    timeout = asyncio.timeout

    def noted(seconds: float | None) -> asyncio.Timeout:
        limits.append(seconds)
        return timeout(seconds)

    monkeypatch.setattr(asyncio, "timeout", noted)
    broker: Any = RecordingBroker()
    broker.timeout_seconds = timeout_seconds
    outbox: Any = Waiting()
    relay = Relay(outbox, broker)
    await relay.stop()
    assert outbox.leases == [lease]
    assert limits.count(publish) == 2  # to open the broker, and to publish
    assert len(broker.messages) == 1


def test_a_relay_cannot_wait_for_ever(tmp_path: Path) -> None:
    broker = FileEventBroker(tmp_path / "events", timeout_seconds=146)
    section = {"type": "sql", "db": str(tmp_path / "db"), "outbox": True}
    with pytest.raises(errors.ConfigurationError, match="make it 145 or less"):
        create_tracker_store(section, event_broker=broker)


async def test_what_drops_events_is_refused_in_code_too(tmp_path: Path) -> None:
    pytest.importorskip("aio_pika", reason="the extra pika is not installed")
    from tracker_store_async.brokers.pika import PikaEventBroker

    broker = PikaEventBroker(
        raise_on_failure=False, should_keep_unpublished_messages=False
    )
    store = SQLTrackerStore(db=str(tmp_path / "db"), event_broker=broker, outbox=True)
    with pytest.raises(errors.ConfigurationError, match="'raise_on_failure: false'"):
        await store.open()
    await store.close()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
async def test_stopping_a_relay_can_be_cancelled() -> None:
    class Silent(RecordingBroker):
        asked = asyncio.Event()

        async def publish_many(self, messages: Any) -> None:
            self.asked.set()
            await asyncio.Event().wait()

    broker = Silent()
    relay = Relay(cast("Any", Waiting()), broker)
    await broker.asked.wait()
    broker.asked.clear()
    stopping = asyncio.create_task(relay.stop())
    await broker.asked.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    del stopping
    gc.collect()  # a step that was made and not begun would be complained of


class Many:
    """An outbox where more conversations wait than a query can leave out."""

    def __init__(self, extra: int = 300) -> None:
        self.items = [
            OutboxItem(n, f"c{n}", OutboxEntry(f"id-{n}", 0, "{}"), place=n)
            for n in range(MOST_HOLDS + extra)
        ]

    async def lease(self, owner: str, seconds: float) -> bool:
        return True

    async def release(self, owner: str) -> None: ...

    async def read(
        self, limit: int, leave_out: Any = (), after: Any = None
    ) -> list[OutboxItem]:
        left = set(leave_out)
        assert len(left) <= MOST_HOLDS
        assert limit <= BATCH
        left |= {i.sender_id for i in self.items if i.place <= (after or -1)}
        return [item for item in self.items if item.sender_id not in left][:limit]

    async def remove(self, items: Any) -> None:
        self.items = [item for item in self.items if item not in items]

    async def count(self, limit: int) -> int:
        return len(self.items)


class Full(RecordingBroker):
    """Refuses whoever was there from the beginning."""

    asked = 0
    is_full = True

    async def publish(self, message: Any) -> None:
        """Keep the message, or refuse it."""
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_full and message.sender_id.startswith("c"):
            raise errors.BrokerRefusedError("full")
        await super().publish(message)


def item(place: int, sender_id: str, position: int) -> OutboxItem:
    entry = OutboxEntry(f"id-{place}", position, "{}")
    return OutboxItem(place, sender_id, entry, place=place)


async def ended(relay: Relay) -> None:
    relay._task.cancel()
    await asyncio.wait({relay._task})


async def test_a_queue_that_is_full_for_all_is_not_asked_without_a_pause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, outbox = Full(), Many()
    relay = Relay(cast("Any", outbox), broker)
    await asyncio.sleep(1.5)
    await ended(relay)  # before anything can fail: it may never stop by itself
    # Once each, and those in front again, a batch a second.
    assert len(outbox.items) <= broker.asked < 2500
    assert caplog.text.count("of 1000 conversations and more are refused") == 1


async def test_who_waits_behind_more_of_them_than_can_be_held_gets_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_holds, "FIRST_SWEEP_SECONDS", 0.01)
    broker, outbox = Full(), Many(1000)
    outbox.items += [item(5000, "healthy", 0), item(5001, "c3", 1)]
    relay = Relay(cast("Any", outbox), broker)
    async with asyncio.timeout(10):
        while not broker.messages:
            await asyncio.sleep(0.01)
        # What begins later does not wait for those in front either.
        outbox.items.append(item(6000, "later", 0))
        asked = broker.asked
        relay.wake()
        while len(broker.messages) < 2:
            await asyncio.sleep(0.01)
        assert broker.asked - asked <= BATCH + 2
        assert relay.held_count == MOST_HOLDS
        # They are tried again: in order, once there is room.
        broker.is_full = False
        while outbox.items:
            relay.wake()
            await asyncio.sleep(0.01)
    await ended(relay)
    assert [m.sender_id for m in broker.messages[:2]] == ["healthy", "later"]
    assert [m.position for m in broker.messages if m.sender_id == "c3"] == [0, 1]
    assert len({m.message_id for m in broker.messages}) == 2003
    assert relay._passage.passed is None
    assert not relay.held_count


async def test_who_was_refused_and_erased_is_not_held_for_ever() -> None:
    broker, outbox = Full(), Many(1 - MOST_HOLDS)
    relay = Relay(cast("Any", outbox), broker)
    async with asyncio.timeout(10):
        while not relay.held_count:
            await asyncio.sleep(0.01)
        outbox.items.clear()
        while relay.held_count:
            await asyncio.sleep(0.01)
    await ended(relay)
