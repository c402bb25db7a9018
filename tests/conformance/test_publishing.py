"""Events are published before they are stored: in order, and once if all goes well."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from tests.conformance.kit import (
    SENDER,
    FailingBroker,
    LostAcknowledgement,
    add,
    dicts,
    has,
    said,
    stored,
    stored_dicts,
    stored_ids,
    turn,
    update,
    user,
    version,
)
from tracker_store_async import DialogueStateTracker, best_effort, errors

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore
    from tracker_store_async.broker import EventMessage


class Watching(FailingBroker):
    """Notes how much was stored when each message was published."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self._store = storage.store()
        self.versions: list[int] = []

    async def publish(self, message: EventMessage) -> None:
        await super().publish(message)
        await self._store.open()
        self.versions.append(await version(self._store, message.sender_id))


async def test_in_order_before_anything_is_stored(storage: Storage) -> None:
    broker = Watching(storage)
    store = storage.store(event_broker=broker)
    first, second = turn("one"), turn("two")
    await add(store, SENDER, *first)
    await add(store, SENDER, *second)
    assert broker.versions == [0] * 4 + [4] * 4
    assert broker.bodies == [
        {"sender_id": SENDER, **d} for d in await stored_dicts(store)
    ]
    assert [message.position for message in broker.messages] == list(range(8))


async def test_a_message_is_rasas_and_its_id_is_the_stored_one(
    storage: Storage,
) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker)
    message = user("hi")
    message.event_id = "carried-1"
    events = [message, *turn("there")]
    await add(store, SENDER, *events)
    for published, fields in zip(broker.messages, dicts(events), strict=True):
        assert list(published.body) == ["sender_id", *fields]
        assert published.body == {"sender_id": SENDER, **fields}
        assert published.sender_id == SENDER
        assert published.type_name == fields["event"]
    assert broker.ids == await stored_ids(store)
    assert broker.ids[0] == "carried-1"


async def test_creating_publishes_the_action_listen(storage: Storage) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker)
    await store.get_or_create_tracker(SENDER)
    await store.get_or_create_tracker(SENDER)
    assert [body["name"] for body in broker.bodies] == ["action_listen"]
    assert broker.ids == await stored_ids(store)


async def test_nothing_is_published_without_changes(storage: Storage) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker)
    await add(store, SENDER, *turn())
    published = len(broker.messages)
    await store.save(await has(store))
    await store.stream_events(await has(store))
    await store.save(
        DialogueStateTracker.from_events(SENDER, (await has(store)).events)
    )
    assert len(broker.messages) == published


async def test_a_broker_that_fails_stores_nothing(storage: Storage) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker)
    tracker = await store.get_or_create_tracker(SENDER)
    broker.is_down = True
    update(tracker, turn("secret"))
    for _ in range(2):
        with pytest.raises(errors.PublishError) as raised:
            await store.save(tracker)
        assert "secret" not in str(raised.value)
        assert isinstance(raised.value.__cause__, ConnectionError)
    assert await version(store) == 1
    broker.is_down = False
    await store.save(tracker)
    assert said(await has(store)) == ["secret"]
    assert broker.ids == await stored_ids(store)


async def test_a_broker_that_fails_in_the_middle_gets_everything_in_order(
    storage: Storage,
) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker)
    tracker = await store.get_or_create_tracker(SENDER, append_action_listen=False)
    update(tracker, turn())
    broker.fails_at = 3
    with pytest.raises(errors.PublishError):
        await store.save(tracker)
    await store.save(tracker)
    ids = await stored_ids(store)
    # at least once, and whoever drops repeats by their id has each once, in order
    assert broker.ids == [*ids[:2], *ids]
    assert list(dict.fromkeys(broker.ids)) == ids


async def test_once_over_any_number_of_retries(storage: Storage) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker)
    tracker = await store.get_or_create_tracker(SENDER)
    LostAcknowledgement(store, times=2)
    for text in ("one", "two"):
        update(tracker, turn(text))
        with pytest.raises(errors.StoreUnavailableError):
            await store.save(tracker)
    await store.save(tracker.copy())
    await store.save(tracker)
    assert broker.ids == await stored_ids(store)


async def test_once_through_a_conflict(storage: Storage) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker)
    tracker = await store.get_or_create_tracker(SENDER)
    await add(storage.store(event_broker=broker), SENDER, *turn("theirs"))
    update(tracker, turn("mine"))
    await store.save(tracker)
    assert sorted(broker.ids) == sorted(map(str, await stored_ids(store)))
    assert broker.ids == await stored_ids(store)


async def test_streamed_events_are_not_published_again(storage: Storage) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker)
    tracker = await store.get_or_create_tracker(SENDER)
    update(tracker, turn("one"))
    await store.stream_events(tracker)
    assert len(broker.messages) == 5
    assert await version(store) == 1
    await store.stream_events(tracker)
    update(tracker, turn("two"))
    await store.save(tracker)
    assert broker.ids == await stored_ids(store)


async def test_streaming_a_tracker_built_by_hand_publishes_what_is_new(
    storage: Storage,
) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker)
    old, new = turn("one"), turn("two")
    await add(store, SENDER, *old)
    tracker = DialogueStateTracker.from_events(SENDER, [*old, *new])
    await store.stream_events(tracker)
    await store.save(tracker)
    assert broker.bodies == [{"sender_id": SENDER, **d} for d in dicts([*old, *new])]
    assert broker.ids == await stored_ids(store)


async def test_each_broker_gets_the_events(storage: Storage) -> None:
    one, other = FailingBroker(), FailingBroker()
    store = storage.store(event_broker=one)
    tracker = await store.get_or_create_tracker(SENDER)
    tracker.update(user())
    await store.stream_events(tracker)
    store.event_broker = other
    await store.save(tracker)
    assert other.ids == (await stored_ids(store))[1:] == one.ids[1:]


async def test_a_cancelled_publish_stores_nothing(storage: Storage) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker)
    tracker = await store.get_or_create_tracker(SENDER)
    update(tracker, turn())
    publish, begun = broker.publish, asyncio.Event()

    async def endless(message: EventMessage) -> None:
        begun.set()
        await asyncio.Event().wait()

    broker.publish = endless  # type: ignore[method-assign]
    saving = asyncio.create_task(store.save(tracker))
    await begun.wait()
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert await version(store) == 1
    broker.publish = publish  # type: ignore[method-assign]
    await store.save(tracker)
    assert broker.ids == await stored_ids(store)


# -- best effort --


async def test_best_effort_stores_although_the_broker_fails(storage: Storage) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker, on_publish_error="best_effort")
    await add(store, SENDER, *turn("before"))
    broker.is_down = True
    await add(store, SENDER, *turn("meanwhile"))
    await add(store, SENDER, *turn("meanwhile too"))
    assert said(await has(store)) == ["before", "meanwhile", "meanwhile too"]
    assert len(broker.messages) == 4
    broker.is_down = False
    await add(store, SENDER, *turn("after"))
    await sent_backlog(store)
    assert broker.ids == await stored_ids(store)


async def sent_backlog(store: TrackerStore) -> None:
    """Wait until nothing waits: a broker that failed is left alone for a moment."""
    async with asyncio.timeout(30):
        while store._publisher is not None and store._publisher.backlog:
            await asyncio.sleep(0.01)


async def test_best_effort_keeps_the_order_beside_others(storage: Storage) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker, on_publish_error="best_effort")
    broker.is_down = True
    names = [f"user-{n}" for n in range(6)]
    for text in ("one", "two"):
        await asyncio.gather(*(add(store, name, *turn(text)) for name in names))
    broker.is_down = False
    await asyncio.gather(*(add(store, name, *turn("three")) for name in names))
    await add(store, "last", user())
    await sent_backlog(store)
    for name in names:
        published = [m.message_id for m in broker.messages if m.sender_id == name]
        assert published == await stored_ids(store, name)


async def test_best_effort_keeps_what_it_can_not_send_in_the_middle(
    storage: Storage,
) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker, on_publish_error="best_effort")
    broker.fails_at = 3
    await add(store, SENDER, *turn("one"))
    await add(store, SENDER, *turn("two"))
    await sent_backlog(store)
    ids = await stored_ids(store)
    assert list(dict.fromkeys(broker.ids)) == ids


async def test_best_effort_sends_what_is_left_at_the_end(storage: Storage) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker, on_publish_error="best_effort")
    broker.is_down = True
    await add(store, SENDER, *turn("one"))
    ids = await stored_ids(store)
    broker.is_down = False
    await store.close()
    assert broker.ids == ids


async def test_best_effort_says_what_it_could_not_send(
    storage: Storage,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(best_effort, "DRAIN_SECONDS", 0.05)
    broker = FailingBroker()
    store = storage.store(event_broker=broker, on_publish_error="best_effort")
    broker.is_down = True
    await add(store, SENDER, *turn("secret"))
    with caplog.at_level(logging.WARNING, logger="tracker_store_async"):
        await store.close()
    assert "4 events" in caplog.text
    assert "secret" not in caplog.text


async def test_best_effort_holds_no_more_than_its_bound(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(best_effort, "BACKLOG_LIMIT", 10)
    broker = FailingBroker()
    store = storage.store(event_broker=broker, on_publish_error="best_effort")
    broker.is_down = True
    for n in range(6):
        await add(store, SENDER, *turn(str(n)))
    broker.is_down = False
    await sent_backlog(store)
    await add(store, SENDER, user("last"))
    ids = await stored_ids(store)
    assert len(ids) == 25
    assert broker.ids == ids[-11:]
    assert store._publisher is not None
    assert store._publisher.dropped == 14


async def test_a_refused_event_is_not_published(storage: Storage) -> None:
    broker = FailingBroker()
    store = storage.store(event_broker=broker, on_publish_error="best_effort")
    tracker = await store.get_or_create_tracker(SENDER)
    event = user()
    event.metadata = {"x": {1, 2}}
    tracker.update(event)
    before = await stored(store)
    with pytest.raises(errors.EventSerialisationError):
        await store.save(tracker)
    with pytest.raises(errors.EventSerialisationError):
        await store.stream_events(tracker)
    assert len(broker.messages) == 1
    assert await stored(store) == before


# -- the broker's life --


class Counting(FailingBroker):
    """Counts how often it is opened and closed."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = self.closed = 0
        self.refuses = False

    async def open(self) -> None:
        await asyncio.sleep(0)
        if self.refuses:
            raise errors.BrokerAccessError("no rights")
        self.opened += 1

    async def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("owned", [True, False])
async def test_a_broker_is_closed_by_its_owner(storage: Storage, owned: bool) -> None:
    broker = Counting()
    store = storage.store(event_broker=broker)
    store.owns_broker = owned
    await asyncio.gather(*(store.open() for _ in range(5)))
    await store.exists(SENDER)
    assert broker.opened == 1
    await store.close()
    await store.close()
    assert broker.closed == (1 if owned else 0)


def counted(store: TrackerStore, name: str) -> list[str]:
    """Return a list that grows whenever a method of the store is called."""
    calls: list[str] = []
    method = getattr(store, name)

    async def counting() -> None:
        calls.append(name)
        await method()

    setattr(store, name, counting)
    return calls


async def test_a_broker_that_does_not_open_is_tried_again(storage: Storage) -> None:
    broker = Counting()
    broker.refuses = True
    store = storage.store(event_broker=broker)
    opened, closed = counted(store, "_open"), counted(store, "_close")
    for _ in range(3):
        with pytest.raises(errors.BrokerAccessError):
            await store.open()
    assert len(opened) == len(closed)
    broker.refuses = False
    await add(store, SENDER, user("hi"))
    assert said(await has(store)) == ["hi"]
    assert broker.opened == 1
