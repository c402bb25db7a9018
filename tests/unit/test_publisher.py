"""The publisher: user ids, whose policy counts, and a broker that stays down."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.conformance.kit import FailingBroker, add, user
from tests.outboxes import RefusingBroker
from tracker_store_async import (
    InMemoryTrackerStore,
    best_effort,
    errors,
    publishing,
    relay_holds,
)
from tracker_store_async.publishing import outbox_entries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async import DialogueStateTracker
    from tracker_store_async.broker import EventMessage
    from tracker_store_async.unsaved import Batch


class SlowToFail(FailingBroker):
    """A broker that is down and takes its time to say so."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.attempts = 0
        self.closed = False

    async def publish_many(self, messages: Sequence[EventMessage]) -> None:
        self.attempts += 1
        if self.is_down:
            await asyncio.sleep(self.seconds)
        await super().publish_many(messages)

    async def close(self) -> None:
        self.closed = True


class Failing(FailingBroker):
    """A broker that is back after some attempts."""

    def __init__(self, attempts: int) -> None:
        super().__init__()
        self.attempts_left = attempts

    async def publish_many(self, messages: Sequence[EventMessage]) -> None:
        if self.attempts_left:
            self.attempts_left -= 1
            raise ConnectionError("the broker is down")
        await super().publish_many(messages)


def keeping(broker: FailingBroker) -> InMemoryTrackerStore:
    return InMemoryTrackerStore(event_broker=broker, on_publish_error="best_effort")


async def test_the_user_of_a_conversation_is_in_the_body() -> None:
    broker = FailingBroker()
    store = InMemoryTrackerStore(event_broker=broker)
    tracker = await store.get_or_create_tracker("alice")
    tracker.user_id = "user-7"
    tracker.update(user("hi"))
    await store.save(tracker)
    first, second = broker.bodies
    assert "user_id" not in first
    assert second["user_id"] == "user-7"
    assert next(iter(second)) == "sender_id"


async def test_the_brokers_own_policy_comes_first() -> None:
    broker = FailingBroker()
    broker.is_down = True
    broker.on_publish_error = "best_effort"
    store = InMemoryTrackerStore(event_broker=broker)
    await add(store, "alice", user("hi"))
    assert await store.exists("alice")
    broker.on_publish_error = "raise"
    strict = keeping(broker)
    with pytest.raises(errors.PublishError):
        await add(strict, "alice", user("hi"))
    broker.is_down = False
    await store.close()


async def test_a_broker_that_is_down_is_not_waited_for_by_everybody() -> None:
    broker = SlowToFail(0.0)
    broker.is_down = True
    store = keeping(broker)
    await add(store, "first", user("hi"))
    broker.seconds = 60
    async with asyncio.timeout(10):
        await asyncio.gather(*(add(store, f"u{n}", user("hi")) for n in range(50)))
    assert broker.attempts <= 2
    broker.is_down = False
    await store.close()
    assert len(broker.messages) == 51


async def test_a_backlog_is_sent_although_nobody_saves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(best_effort, "FIRST_RETRY_SECONDS", 0.01)
    broker = SlowToFail(0)
    broker.is_down = True
    store = keeping(broker)
    await add(store, "alice", user("one"))
    await add(store, "alice", user("two"))
    broker.is_down = False
    async with asyncio.timeout(5):
        while len(broker.messages) < 2:
            await asyncio.sleep(0.01)
    assert [body["text"] for body in broker.bodies] == ["one", "two"]
    await store.close()


async def test_closing_spends_a_bounded_time_on_the_backlog(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(best_effort, "DRAIN_SECONDS", 0.05)
    broker = SlowToFail(0)
    broker.is_down = True
    store = keeping(broker)
    store.owns_broker = True
    await add(store, "alice", user("one"))
    broker.seconds = 60
    async with asyncio.timeout(5):
        await store.close()
    assert "1 events that are stored were never published" in caplog.text
    assert broker.closed


async def test_closing_waits_for_a_broker_that_comes_back() -> None:
    broker = Failing(attempts=3)
    store = keeping(broker)
    await add(store, "alice", user("one"), user("two"))
    async with asyncio.timeout(5):
        await store.close()
    assert [body["text"] for body in broker.bodies] == ["one", "two"]
    assert broker.attempts_left == 0


class Swallowing(FailingBroker):
    """A broker that takes a cancellation for a failure of its own."""

    manages_connection = True

    async def publish_many(self, messages: Sequence[EventMessage]) -> None:
        if self.is_down:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise ConnectionError("the connection was lost") from None
        await super().publish_many(messages)


async def swallowing() -> InMemoryTrackerStore:
    """Return a store with a backlog whose broker cannot be cancelled."""
    broker = Swallowing()
    broker.fails_at = 1
    store = keeping(broker)
    await add(store, "alice", user("one"))
    broker.is_down = True
    return store


async def test_closing_ends_although_the_broker_swallows_its_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(best_effort, "DRAIN_SECONDS", 0.05)
    store = await swallowing()
    async with asyncio.timeout(5):
        await store.close()


async def test_closing_ends_although_the_broker_swallows_a_cancellation() -> None:
    store = await swallowing()
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0.05)
    closing.cancel()
    done, _ = await asyncio.wait({closing}, timeout=best_effort.DRAIN_SECONDS / 2)
    assert done


@pytest.mark.parametrize(
    "error", [errors.BrokerClosedError("call open()"), TypeError("a bug")], ids=type
)
async def test_closing_waits_for_no_broker_that_will_not_come_back(
    error: Exception,
) -> None:
    class Broken(FailingBroker):
        async def publish(self, message: EventMessage) -> None:
            raise error

    store = keeping(Broken())
    await add(store, "alice", user("one"))
    async with asyncio.timeout(best_effort.DRAIN_SECONDS / 2):
        await store.close()


async def test_a_refused_event_is_tried_once_more_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_holds, "FIRST_HOLD_SECONDS", 0.0001)
    broker = RefusingBroker("one", error=errors.BrokerRefusedError("too large"))
    store = keeping(broker)
    broker.is_down = True
    for number in range(300):
        await add(store, str(number), user("one"))
    broker.is_down = False
    broker.attempts.clear()
    await store.close()
    batches = 300 / best_effort.FLUSH_BATCH
    assert broker.attempts["one"] <= 300 + batches


async def test_a_broker_that_is_set_while_the_store_closes_gets_what_waits() -> None:
    first, second = FailingBroker(), SlowToFail(0)
    store = keeping(first)
    store.owns_broker = True
    first.is_down = True
    await add(store, "alice", user("one"))
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0.05)
    store.event_broker = second
    await closing
    assert [body["text"] for body in second.bodies if "text" in body] == ["one"]
    assert second.closed


async def test_a_save_does_not_wait_for_a_store_that_closes() -> None:
    broker = FailingBroker()
    store = keeping(broker)
    broker.is_down = True
    await add(store, "alice", user("one"))
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0.05)
    with pytest.raises(errors.StoreClosedError):
        await add(store, "alice", user("two"))
    assert not closing.done()
    opening = asyncio.create_task(store.open())
    saving = asyncio.create_task(add(store, "alice", user("two")))
    await asyncio.sleep(0.05)
    broker.is_down = False
    await asyncio.gather(closing, opening, saving)
    await store.close()
    assert [body["text"] for body in broker.bodies if "text" in body] == ["one", "two"]


async def test_a_broker_that_was_slow_gets_larger_batches_again() -> None:
    sizes: list[int] = []

    class Sized(SlowToFail):
        async def publish_many(self, messages: Sequence[EventMessage]) -> None:
            sizes.append(len(messages))
            await super().publish_many(messages)

    broker = Sized(0)
    store = keeping(broker)
    broker.is_down = True
    for number in range(1000):
        await add(store, str(number), user("one"))
    assert store._publisher is not None
    kept = store._publisher._kept
    kept._batches.note_failure(1, is_slow=True)
    broker.is_down = False
    sizes.clear()
    await kept.flush()
    assert max(sizes) > 20
    await store.close()


async def test_closing_does_not_wait_for_a_broker_that_refuses() -> None:
    broker = RefusingBroker("one", error=errors.BrokerRefusedError("too large"))
    store = keeping(broker)
    await add(store, "alice", user("one"))
    await add(store, "bob", user("two"))
    async with asyncio.timeout(best_effort.DRAIN_SECONDS / 2):
        await store.close()
    assert [body["text"] for body in broker.bodies] == ["two"]


async def test_a_cancelled_close_closes_the_broker_all_the_same() -> None:
    broker = SlowToFail(0)
    broker.is_down = True
    store = keeping(broker)
    store.owns_broker = True
    await add(store, "alice", user("one"))
    broker.seconds = 60
    closing = asyncio.create_task(store.close())
    attempts = broker.attempts
    while broker.attempts == attempts:
        await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert broker.closed


async def test_a_cancelled_save_is_published_again_in_order() -> None:
    broker = SlowToFail(60)
    store = keeping(broker)
    tracker = await store.get_or_create_tracker("alice")
    tracker.update(user("one"))
    broker.is_down = True
    saving = asyncio.create_task(store.save(tracker))
    attempts = broker.attempts
    while broker.attempts == attempts:
        await asyncio.sleep(0)
    saving.cancel()
    await asyncio.gather(saving, return_exceptions=True)
    broker.is_down = False
    tracker.update(user("two"))
    await store.save(tracker)
    assert [body.get("text") for body in broker.bodies] == [None, "one", "two"]


async def down_with_a_backlog() -> tuple[InMemoryTrackerStore, FailingBroker]:
    """Return a store that has kept an event for a broker that is down."""
    broker = FailingBroker()
    store = keeping(broker)
    broker.is_down = True
    await add(store, "alice", user("kept"))
    return store, broker


async def test_another_broker_gets_the_backlog_before_anything_newer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, _ = await down_with_a_backlog()
    second = FailingBroker()
    store.event_broker = second
    assert "1 events that wait for the event broker" in caplog.text
    await add(store, "alice", user("newer"))
    assert [body.get("text") for body in second.bodies] == ["kept", "newer"]
    await store.close()


async def test_another_broker_gets_the_backlog_though_nobody_saves() -> None:
    store, _ = await down_with_a_backlog()
    second = FailingBroker()
    store.event_broker = second
    await store.close()
    assert [body.get("text") for body in second.bodies] == ["kept"]


@pytest.mark.parametrize("strict", [True, False])
async def test_a_backlog_that_nobody_would_keep_is_not_thrown_away(
    strict: bool,
) -> None:
    store, broker = await down_with_a_backlog()
    other = None
    if strict:
        other = FailingBroker()
        other.on_publish_error = "raise"
    with pytest.raises(errors.ConfigurationError, match="1 events wait"):
        store.event_broker = other
    assert store.event_broker is broker
    broker.is_down = False
    await store.close()
    assert [body.get("text") for body in broker.bodies] == ["kept"]


async def test_a_save_under_way_leaves_its_events_to_the_new_broker() -> None:
    first = SlowToFail(0.05)
    store = keeping(first)
    first.is_down = True
    saving = asyncio.create_task(add(store, "alice", user("under way")))
    while not first.attempts:
        await asyncio.sleep(0)
    second = FailingBroker()
    store.event_broker = second
    await saving
    await store.close()
    assert [body.get("text") for body in second.bodies] == ["under way"]


async def test_a_broker_that_stays_away_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, broker = await down_with_a_backlog()
    await asyncio.sleep(0.01)  # as long as it took to fail, and more
    await add(store, "alice", user("later"))
    assert caplog.text.count("failed (ConnectionError)") == 1
    assert "kept" not in caplog.text
    broker.is_down = False
    await store.close()
    assert "is back: nothing waits in the backlog any more" in caplog.text


async def test_what_is_added_while_a_save_encodes_goes_with_the_next_one() -> None:
    broker = FailingBroker()
    store = InMemoryTrackerStore(event_broker=broker)
    tracker = store.init_tracker("alice")
    tracker.update(user("hi"))
    encode, outbox = store._saver.encode, []

    async def encode_slowly(tracker: DialogueStateTracker) -> Batch:
        batch = await encode(tracker)
        tracker.update(user("late"))
        outbox.extend(outbox_entries(tracker, None, batch.rows, with_bodies=False))
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store._saver, "_encode_at_once", lambda _: None)
        patch.setattr(store._saver, "encode", encode_slowly)
        await store.save(tracker)
    assert [body["text"] for body in broker.bodies] == ["hi"]
    assert [entry.position for entry in outbox] == [0]
    await store.save(tracker)
    assert [body["text"] for body in broker.bodies] == ["hi", "late"]


async def test_a_broker_that_never_closes_does_not_keep_a_store_open(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(FailingBroker):
        async def close(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(publishing, "CLOSE_SECONDS", 0.01, raising=False)
    store = InMemoryTrackerStore(event_broker=Stuck())
    store.owns_broker = True
    await add(store, "alice", user())
    async with asyncio.timeout(2):
        await store.close()
    assert "did not close within" in caplog.text
