"""Best effort: who waits for whom when a broker refuses events, or is slow."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import FailingBroker, add, user
from tests.outboxes import RefusingBroker, until
from tracker_store_async import (
    InMemoryTrackerStore,
    best_effort,
    errors,
    relay_holds,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.broker import EventBroker, EventMessage


REFUSALS = [
    pytest.param(errors.BrokerRefusedError("too large"), id="refused"),
    pytest.param(ValueError("cannot be encoded"), id="unknown"),
]


def keeping(broker: EventBroker) -> InMemoryTrackerStore:
    return InMemoryTrackerStore(event_broker=broker, on_publish_error="best_effort")


def texts(broker: FailingBroker, sender_id: str) -> list[str]:
    """Return what a consumer sees of a conversation, repeats included."""
    return [m.body["text"] for m in broker.messages if m.sender_id == sender_id]


async def publishing(store: InMemoryTrackerStore) -> dict[str, Any]:
    details: dict[str, Any] = (await store.health()).details["publishing"]
    return details


async def held(store: InMemoryTrackerStore, count: int = 1) -> None:
    """Wait until so many conversations wait for an event that is refused."""
    async with asyncio.timeout(5):
        while (await publishing(store))["held_conversations"] != count:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("error", REFUSALS)
async def test_a_refused_event_holds_up_its_own_conversation_alone(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_holds, "FIRST_HOLD_SECONDS", 0.01)
    broker = RefusingBroker("poison", error=error)
    store = keeping(broker)
    broker.is_down = True
    for text in ("before", "poison", "after"):
        await add(store, "alice", user(text))
    await add(store, "bob", user("one"))
    broker.is_down = False
    await add(store, "carol", user("one"))
    await until(broker, 3)
    await held(store)
    for _ in range(3):
        await add(store, "alice", user("later"))
        await add(store, "bob", user("more"))
    assert texts(broker, "bob") == ["one", "more", "more", "more"]
    assert texts(broker, "carol") == ["one"]
    assert set(texts(broker, "alice")) == {"before"}
    broker.refused.clear()
    async with asyncio.timeout(5):
        while store._publisher is not None and store._publisher.backlog:
            await asyncio.sleep(0.005)
    assert list(dict.fromkeys(texts(broker, "alice"))) == [
        *("before", "poison", "after", "later")
    ]
    assert (await publishing(store))["held_conversations"] == 0
    await store.close()


async def test_what_was_confirmed_before_a_refused_event_is_sent_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(relay_holds, "FIRST_HOLD_SECONDS", 0.001)
    monkeypatch.setattr(relay_holds, "LONGEST_HOLD_SECONDS", 0.001)
    broker = RefusingBroker("poison", error=errors.BrokerRefusedError("too large"))
    store = keeping(broker)
    tracker = await store.get_or_create_tracker("alice", append_action_listen=False)
    for text in ("before", "poison", "after"):
        tracker.update(user(text))
    await store.save(tracker)
    async with asyncio.timeout(5):
        while broker.attempts["poison"] < 10:
            await asyncio.sleep(0)
    # with the save, with the backlog, and then by itself
    assert texts(broker, "alice") == ["before"] * 3
    store._publisher.backlog.discard(list(store._publisher.backlog))  # type: ignore[union-attr]
    assert "position 1 of conversation 'alice'" in caplog.text
    assert "poison" not in caplog.text
    await store.close()


async def test_a_refused_save_does_not_count_as_an_outage() -> None:
    broker = RefusingBroker("poison", error=errors.BrokerRefusedError("too large"))
    store = keeping(broker)
    await add(store, "alice", user("poison"))
    await add(store, "bob", user("one"))
    assert texts(broker, "bob") == ["one"]
    told = await publishing(store)
    assert told["broker_is_away"] is False
    assert told["backlog_events"] == 1
    await store.close()


async def test_conversations_that_always_fail_do_not_starve_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many of them look like an outage: the others are tried first the next time."""
    monkeypatch.setattr(best_effort, "FIRST_RETRY_SECONDS", 60)
    bad = [f"bad-{n}" for n in range(8)]
    broker = RefusingBroker(*bad, error=RuntimeError("whatever"))
    store = keeping(broker)
    broker.is_down = True
    for name in bad:
        await add(store, name, user(name))
    await add(store, "good", user("one"))
    broker.is_down = False
    async with asyncio.timeout(5):
        while (await publishing(store))["broker_is_away"]:
            await add(store, "other", user("hi"))
            await asyncio.sleep(0.005)
    await add(store, "other", user("bye"))
    assert texts(broker, "good") == ["one"]
    assert texts(broker, "other")[-1] == "bye"
    broker.refused.clear()
    await store.close()
    assert sorted(m.sender_id for m in broker.messages if m.sender_id in bad) == bad


async def test_an_event_that_cuts_the_connection_is_no_endless_outage() -> None:
    broker = RefusingBroker("poison", error=ConnectionResetError())
    store = keeping(broker)
    await add(store, "alice", user("poison"))
    await add(store, "alice", user("after"))
    async with asyncio.timeout(5):
        while (await publishing(store))["held_conversations"] != 1:
            await add(store, "bob", user("hi"))
            await asyncio.sleep(0.005)
    await add(store, "bob", user("bye"))
    assert texts(broker, "bob")[-1] == "bye"
    assert texts(broker, "alice") == []
    broker.refused.clear()
    await store.close()
    assert texts(broker, "alice") == ["poison", "after"]


class Slow(FailingBroker):
    """Takes a while for each publish."""

    seconds = 0.0
    attempts = 0

    async def publish_many(self, messages: Sequence[EventMessage]) -> None:
        self.attempts += 1
        await asyncio.sleep(self.seconds)
        await super().publish_many(messages)


class Gated(FailingBroker):
    """Lets the messages of a conversation through when it is told to."""

    manages_connection = True  # so it is not given up
    timeout_seconds = 0.01

    def __init__(self, sender_id: str) -> None:
        super().__init__()
        self.sender_id = sender_id
        self.gate = asyncio.Semaphore(0)

    async def publish_many(self, messages: Sequence[EventMessage]) -> None:
        if self.is_down:  # also for what is under way when it comes back
            raise ConnectionError("the broker is down")
        if messages[0].sender_id == self.sender_id:
            await self.gate.acquire()
        await super().publish_many(messages)


async def test_a_save_does_not_wait_for_a_long_backlog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(best_effort, "FLUSH_BATCH", 1)
    broker = Gated("alice")
    store = keeping(broker)
    broker.is_down = True
    numbers = [str(number) for number in range(20)]
    for number in numbers:
        await add(store, "alice", user(number))
    broker.is_down = False
    broker.gate.release()
    await add(store, "alice", user("wakes it"))
    await until(broker, 1)
    await add(store, "alice", user("behind the backlog"))
    assert texts(broker, "alice") == ["0"]
    await add(store, "bob", user("has nothing there"))
    assert texts(broker, "bob") == ["has nothing there"]
    for _ in range(30):
        broker.gate.release()
    await store.close()
    assert texts(broker, "alice") == [*numbers, "wakes it", "behind the backlog"]


class Sluggish(FailingBroker):
    """Confirms so many events of a publish, and then takes too long."""

    most = 3

    async def publish_many(self, messages: Sequence[EventMessage]) -> None:
        await super().publish_many(messages[: self.most])
        if len(messages) > self.most:
            raise errors.BrokerUnavailableError("it confirmed only some in time")


async def test_a_broker_that_is_too_slow_for_a_batch_gets_smaller_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(best_effort, "FIRST_RETRY_SECONDS", 0.001)
    broker = Sluggish()
    store = keeping(broker)
    broker.is_down = True
    numbers = [str(number) for number in range(40)]
    for number in numbers:
        await add(store, "alice", user(number))
    broker.is_down = False
    await add(store, "alice", user("40"))
    async with asyncio.timeout(5):
        while (await publishing(store))["backlog_events"]:
            await asyncio.sleep(0.005)
    assert list(dict.fromkeys(texts(broker, "alice"))) == [*numbers, "40"]
    await store.close()


async def test_a_save_waits_for_a_short_backlog_of_its_own() -> None:
    """So whoever saves faster than the broker takes events is slowed down."""
    broker = Slow()
    broker.timeout_seconds = 5
    store = keeping(broker)
    broker.is_down = True
    await add(store, "alice", user("one"))
    broker.is_down, broker.seconds = False, 0.01
    await add(store, "bob", user("wakes it"))
    async with asyncio.timeout(5):
        while (await publishing(store))["broker_is_away"]:
            await asyncio.sleep(0)
    await add(store, "alice", user("two"))
    assert texts(broker, "alice") == ["one", "two"]
    await store.close()


async def test_a_save_that_is_cancelled_in_the_queue_publishes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(best_effort, "FLUSH_BATCH", 1)
    broker = Slow()
    broker.timeout_seconds = 5
    store = keeping(broker)
    broker.is_down = True
    await add(store, "alice", user("one"))
    broker.is_down, broker.seconds = False, 60
    tracker = await store.get_or_create_tracker("alice")
    tracker.update(user("two"))
    assert store._publisher is not None
    store._publisher._kept.is_away = False
    saving = asyncio.create_task(store.save(tracker))
    async with asyncio.timeout(5):
        while len(store._publisher.backlog) < 2:
            await asyncio.sleep(0)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert [m.body["text"] for m in store._publisher.backlog] == ["one"]
    broker.seconds = 0
    await store.save(tracker)
    await store.close()
    assert texts(broker, "alice") == ["one", "two"]
    assert not store._publisher.backlog


async def test_a_broker_that_is_away_costs_a_save_nothing() -> None:
    broker = FailingBroker()
    store = keeping(broker)
    broker.is_down = True
    await add(store, "alice", user("one"))
    broker.publish_many = lambda _: asyncio.Event().wait()  # type: ignore
    await add(store, "alice", user("two"))
    await add(store, "bob", user("one"))
    assert store._publisher is not None
    assert len(store._publisher.backlog) == 3
    del broker.publish_many
    broker.is_down = False
    await store.close()
    assert texts(broker, "alice") == ["one", "two"]


async def test_a_save_under_way_fails_where_the_new_broker_keeps_nothing() -> None:
    broker = Slow()
    broker.timeout_seconds = 5
    store = keeping(broker)
    tracker = await store.get_or_create_tracker("alice", append_action_listen=False)
    tracker.update(user("one"))
    broker.is_down, broker.seconds = True, 0.01
    saving = asyncio.create_task(store.save(tracker))
    async with asyncio.timeout(5):
        while not broker.attempts:
            await asyncio.sleep(0)
    second = FailingBroker()
    second.on_publish_error = "raise"
    store.event_broker = second
    with pytest.raises(errors.PublishError):
        await saving
    assert not await store.exists("alice")
    await store.save(tracker)
    assert texts(second, "alice") == ["one"]
    await store.close()


async def test_the_pause_until_the_next_attempt_is_over_when_events_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A refused event that the full backlog drops holds up nothing any more."""
    monkeypatch.setattr(best_effort, "BACKLOG_LIMIT", 2)
    broker = RefusingBroker("poison", error=errors.BrokerRefusedError("too large"))
    store = keeping(broker)
    await add(store, "alice", user("poison"))
    await held(store)
    broker.is_down = True
    await add(store, "bob", user("one"))
    await add(store, "bob", user("two"))
    told = await publishing(store)
    assert (told["dropped_events"], told["held_conversations"]) == (1, 0)
    broker.is_down = False
    await add(store, "alice", user("fine"))
    async with asyncio.timeout(5):
        while texts(broker, "alice") != ["fine"]:
            await asyncio.sleep(0.005)
    await store.close()


async def test_a_cancelled_close_tells_what_it_leaves_unpublished(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Slow()
    broker.timeout_seconds = 5
    store = keeping(broker)
    broker.is_down = True
    await add(store, "alice", user("one"))
    broker.seconds = 60
    closing = asyncio.create_task(store.close())
    attempts = broker.attempts
    async with asyncio.timeout(5):
        while broker.attempts == attempts:
            await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert "1 events that are stored were never published" in caplog.text


async def test_a_save_that_outlasts_close_tells_what_nobody_will_publish(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = asyncio.Event()

    class Held(FailingBroker):
        async def publish(self, message: EventMessage) -> None:
            await gate.wait()
            raise errors.BrokerUnavailableError("away")

    store = keeping(Held())
    await store.open()
    saving = asyncio.create_task(add(store, "alice", user("one")))
    await asyncio.sleep(0.01)
    await store.close()
    gate.set()
    await asyncio.wait({saving})
    assert "1 events that are stored were never published" in caplog.text


async def test_a_client_that_cancels_itself_does_not_end_the_sending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clients end what they await when they lose a connection; nobody cancelled us."""
    monkeypatch.setattr(best_effort, "FIRST_RETRY_SECONDS", 0.001)

    class Cut(FailingBroker):
        cuts = 2

        async def publish(self, message: EventMessage) -> None:
            if self.cuts:
                self.cuts -= 1
                lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                lost.cancel()
                await lost
            await super().publish(message)

    broker = Cut()
    store = keeping(broker)
    await add(store, "alice", user("one"))
    await until(broker, 1)
    assert texts(broker, "alice") == ["one"]
    await store.close()


async def test_close_does_not_wait_for_a_client_that_cannot_be_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(best_effort, "STOP_SECONDS", 0.01, raising=False)
    monkeypatch.setattr(best_effort, "DRAIN_SECONDS", 0.01)
    released = asyncio.Event()

    class Deaf(FailingBroker):
        is_asked = False

        async def publish(self, message: EventMessage) -> None:
            if self.is_down:
                raise errors.BrokerUnavailableError("away")
            self.is_asked = True
            with suppress(asyncio.CancelledError):
                await released.wait()
            await released.wait()

    broker = Deaf()
    broker.timeout_seconds = 5
    broker.is_down = True
    store = keeping(broker)
    await add(store, "alice", user("one"))
    broker.is_down = False
    async with asyncio.timeout(5):
        while not broker.is_asked:
            await add(store, "bob", user("wakes it"))
            await asyncio.sleep(0.01)
    async with asyncio.timeout(2):
        await store.close()
    released.set()
