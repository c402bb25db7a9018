"""A broker is checked when it is set, opened in the background, and bounded in time."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import FailingBroker, add, said, user
from tracker_store_async import (
    EventBroker,
    InMemoryTrackerStore,
    SQLTrackerStore,
    best_effort,
    errors,
)
from tracker_store_async.brokers.sql import SQLEventBroker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from tracker_store_async.broker import EventMessage

POLICIES = ["raise", "best_effort"]


class Opening(FailingBroker):
    """Opens when it is told to, or fails to open.

    Attributes:
        opened: How often opening it was begun.
        closed: How often it was closed.
        problem: What opening it raises.
    """

    timeout_seconds = 0.05

    def __init__(self, problem: Exception | None = None) -> None:
        super().__init__()
        self.opened = self.closed = 0
        self.problem = problem
        self.gate = asyncio.Event()

    async def open(self) -> None:
        self.opened += 1
        if self.problem is not None:
            raise self.problem
        await self.gate.wait()

    async def publish(self, message: EventMessage) -> None:
        assert self.gate.is_set(), "it is not open"
        await super().publish(message)

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """Make sure that every task of the test has ended."""
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()


def store_with(broker: EventBroker, policy: Any = "raise") -> InMemoryTrackerStore:
    store = InMemoryTrackerStore(event_broker=broker, on_publish_error=policy)
    store.owns_broker = True
    return store


async def publishing(store: InMemoryTrackerStore) -> dict[str, Any]:
    details: dict[str, Any] = (await store.health()).details["publishing"]
    return details


# -- down when the store opens ---------------------------------------------------------


@pytest.mark.usefixtures("no_task_left")
async def test_best_effort_works_without_its_broker() -> None:
    broker = Opening()
    broker.timeout_seconds = 3600  # whoever waited for it would wait too long
    async with asyncio.timeout(5), store_with(broker, "best_effort") as store:
        for text in ("one", "two"):
            await add(store, "alice", user(text))
        assert said(await store.retrieve("alice")) == ["one", "two"]
        assert (await publishing(store))["backlog_events"] == 2
        broker.gate.set()
        while len(broker.messages) < 2:
            await asyncio.sleep(0)
        await add(store, "alice", user("three"))
        assert [body["text"] for body in broker.bodies] == ["one", "two", "three"]
    assert (broker.opened, broker.closed) == (1, 1)


@pytest.mark.usefixtures("no_task_left")
async def test_reading_needs_no_broker() -> None:
    broker = Opening()
    broker.timeout_seconds = 3600
    store = store_with(broker)
    async with asyncio.timeout(5):
        assert await store.retrieve("alice") is None
        assert await store.exists("alice") is False
    await store.close()
    assert broker.closed == 1


@pytest.mark.usefixtures("no_task_left")
async def test_all_saves_fail_in_time_and_together() -> None:
    broker = Opening()
    store = store_with(broker)
    saves = [add(store, f"user-{n}", user("hi")) for n in range(200)]
    async with asyncio.timeout(5):  # one after the other would take 10 s
        failed = await asyncio.gather(*saves, return_exceptions=True)
    assert {type(error) for error in failed} == {errors.PublishError}
    assert "was not opened within 0.05 s" in str(failed[0])
    assert broker.opened == 1
    assert await store.exists("user-0") is False
    broker.gate.set()
    await add(store, "alice", user("hi"))
    assert len(broker.messages) == 1
    await store.close()


@pytest.mark.usefixtures("no_task_left")
async def test_a_broker_that_is_away_does_not_keep_a_store_from_opening(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Opening(ConnectionError("secret"))
    async with store_with(broker) as store:
        assert await store.retrieve("alice") is None
        with pytest.raises(errors.PublishError):
            await add(store, "alice", user("hi"))
        assert (await publishing(store))["error"] == "ConnectionError"
        assert broker.opened == 2  # each save that needs it tries it again
        broker.problem = None
        broker.gate.set()
        await add(store, "alice", user("hi"))
        assert (await publishing(store))["error"] is None
    assert "saves raise PublishError until that is back" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.usefixtures("no_task_left")
async def test_refused_credentials_fail_early(tmp_path: Path) -> None:
    broker = Opening(errors.BrokerAccessError("wrong password"))
    store = SQLTrackerStore(db=str(tmp_path / "store.db"), event_broker=broker)
    for _ in range(2):
        with pytest.raises(errors.BrokerAccessError, match="wrong password"):
            await store.open()
    broker.problem = None
    broker.gate.set()
    async with store:  # nothing of it was left open
        await add(store, "alice", user("hi"))


@pytest.mark.usefixtures("no_task_left")
async def test_refused_credentials_are_told_once_under_best_effort(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Opening(errors.BrokerAccessError("the password is refused"))
    async with store_with(broker, "best_effort") as store:
        saved = 0
        async with asyncio.timeout(5):
            while broker.opened < 4:
                await add(store, "alice", user(str(saved)))
                await asyncio.sleep(0.005)
                saved += 1
        told = await publishing(store)
        assert told["error"] == "the password is refused"
        assert told["broker_is_away"] is True
        severe = [record for record in caplog.records if record.levelname == "ERROR"]
        assert len(severe) == 1
        assert "the password is refused" in severe[0].getMessage()
        broker.problem = None
        broker.gate.set()
    assert [body["text"] for body in broker.bodies] == [str(n) for n in range(saved)]


async def test_closing_does_not_wait_for_what_somebody_has_to_mend() -> None:
    broker = Opening(errors.BrokerAccessError("the password is refused"))
    store = store_with(broker, "best_effort")
    await add(store, "alice", user("one"))
    async with asyncio.timeout(best_effort.DRAIN_SECONDS / 2):
        await store.close()
    assert not broker.bodies


@pytest.mark.usefixtures("no_task_left")
@pytest.mark.parametrize("policy", POLICIES)
async def test_what_is_cancelled_while_the_broker_opens(policy: str) -> None:
    broker = Opening()
    broker.timeout_seconds = 3600
    store = store_with(broker, policy)
    opening = asyncio.create_task(store.open())
    while not broker.opened:
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    saving = asyncio.create_task(add(store, "alice", user("hi")))
    for _ in range(10):
        await asyncio.sleep(0)
    saving.cancel()
    await asyncio.gather(saving, return_exceptions=True)
    broker.gate.set()
    await add(store, "bob", user("hi"))
    await store.close()
    assert "bob" in {message.sender_id for message in broker.messages}


@pytest.mark.usefixtures("no_task_left")
async def test_closing_ends_the_waiting_for_a_broker() -> None:
    broker = Opening()
    broker.timeout_seconds = 3600
    store = store_with(broker)
    saving = asyncio.create_task(add(store, "alice", user("hi")))
    while not broker.opened:
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await store.close()
        with pytest.raises(errors.PublishError, match="closed or replaced"):
            await saving


@pytest.mark.usefixtures("no_task_left")
@pytest.mark.parametrize("policy", POLICIES)
async def test_a_broker_that_is_set_later_is_opened_too(policy: str) -> None:
    first, second = Opening(), Opening()
    second.gate.set()
    async with store_with(first, "best_effort") as store:
        if policy == "best_effort":
            await add(store, "alice", user("kept"))
        second.on_publish_error = policy  # type: ignore[assignment]
        store.event_broker = second
        await add(store, "alice", user("new"))
    expected = ["kept", "new"] if policy == "best_effort" else ["new"]
    assert [body["text"] for body in second.bodies] == expected
    assert (second.opened, second.closed) == (1, 1)


async def test_a_broker_that_is_set_as_another_fails_to_close_is_closed_too() -> None:
    second = Opening()

    class Failing(Opening):
        async def close(self) -> None:
            store.event_broker = second
            raise OSError

    second.gate.set()
    store = store_with(Failing())
    await store.open()
    with pytest.raises(OSError):
        await store.close()
    assert second.closed == 1


# -- bounded in time -------------------------------------------------------------------


class Endless(FailingBroker):
    """Publishes for ever, unless it is cancelled."""

    timeout_seconds = 0.02
    cancelled = 0

    async def publish(self, message: EventMessage) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def test_a_publish_is_given_up_in_time() -> None:
    broker = Endless()
    store = store_with(broker)
    async with asyncio.timeout(5):
        with pytest.raises(errors.PublishError, match=r"nothing within 0\.02 s"):
            await add(store, "alice", user("hi"))
    assert broker.cancelled == 1
    assert await store.exists("alice") is False


async def test_best_effort_gives_a_publish_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(best_effort, "DRAIN_SECONDS", 0.05)
    broker = Endless()
    store = store_with(broker, "best_effort")
    async with asyncio.timeout(5):
        await add(store, "alice", user("hi"))
        assert await store.exists("alice")
        assert (await publishing(store))["backlog_events"] == 1
        await store.close()


class OwnTimeout(FailingBroker):
    """Raises a TimeoutError of its own."""

    async def publish(self, message: EventMessage) -> None:
        raise TimeoutError("its own")


async def test_a_brokers_own_timeout_is_told_as_it_is() -> None:
    with pytest.raises(errors.PublishError, match=r"\(TimeoutError\)") as raised:
        await add(store_with(OwnTimeout()), "alice", user("hi"))
    assert raised.value.__cause__ is not None
    assert str(raised.value.__cause__) == "its own"


# -- what is no broker -----------------------------------------------------------------


class Silent:
    """Has nothing."""


class OnlyPublish:
    """Has the one method that a subclass would write."""

    async def publish(self, message: EventMessage) -> None:
        raise AssertionError


class Sync(EventBroker):
    """Publishes, and returns nothing to await."""

    published = 0

    def publish(self, message: EventMessage) -> None:  # type: ignore[override]
        self.published += 1


class SyncBatch(FailingBroker):
    """Has a batch that is not async."""

    def publish_many(  # type: ignore[override]
        self, messages: Sequence[EventMessage]
    ) -> None:
        raise AssertionError


class SyncOpen(FailingBroker):
    """Has an open that is not async."""

    def open(self) -> None:  # type: ignore[override]
        raise AssertionError


class BadPolicy(FailingBroker):
    """Wants what there is not."""

    on_publish_error = "ignore"  # type: ignore[assignment]


class BadTimeout(FailingBroker):
    """Would never be waited for."""

    timeout_seconds = 0.0


@pytest.mark.parametrize(
    ("broker", "says"),
    [
        (Silent(), "Silent .* has no publish and no publish_many"),
        (OnlyPublish(), "OnlyPublish .* no publish_many .*: subclass .*EventBroker"),
        (FailingBroker, "is the class FailingBroker, not a broker"),
        ("redis://localhost", "str is no event broker"),
        (Sync(), "Sync has a method publish that is not async"),
        (SyncBatch(), "SyncBatch has a method publish_many that is not async"),
        (SyncOpen(), "SyncOpen has a method open that is not async"),
        (BadPolicy(), "on_publish_error of the event broker BadPolicy"),
        (BadTimeout(), "timeout_seconds of the event broker BadTimeout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "broker",
)
async def test_what_is_no_broker_is_refused_when_it_is_set(
    broker: Any, says: str
) -> None:
    with pytest.raises(errors.ConfigurationError, match=says):
        InMemoryTrackerStore(event_broker=broker)
    store = InMemoryTrackerStore(event_broker=(former := FailingBroker()))
    with pytest.raises(errors.ConfigurationError, match=says):
        store.event_broker = broker
    assert store.event_broker is former


def decorated(
    method: Callable[..., Awaitable[None]],
) -> Callable[..., Awaitable[None]]:
    """Return what is not a coroutine function itself, but returns a coroutine."""

    @functools.wraps(method)
    def call(*args: Any) -> Awaitable[None]:
        return method(*args)

    return call


class Decorated(FailingBroker):
    """Has a method under a decorator."""

    @decorated
    async def publish(self, message: EventMessage) -> None:
        self.messages.append(message)


class Structural:
    """Is no subclass, and has all that a broker has."""

    on_publish_error = None
    timeout_seconds = 1.0
    manages_connection = False

    def __init__(self) -> None:
        self.messages: list[EventMessage] = []

    async def publish(self, message: EventMessage) -> None:
        self.messages.append(message)

    async def publish_many(self, messages: Sequence[EventMessage]) -> None:
        self.messages += messages

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def is_ready(self) -> bool:
        return True


@pytest.mark.parametrize("broker", [Decorated(), Structural()], ids=["deco", "duck"])
async def test_what_is_a_broker_all_the_same(broker: Any) -> None:
    async with store_with(broker) as store:
        await add(store, "alice", user("hi"))
    assert len(broker.messages) == 1


async def test_a_connection_that_is_made_for_nobody_is_closed(tmp_path: Path) -> None:
    """Its caller was given up while the server was answering."""
    broker = SQLEventBroker(db=str(tmp_path / "events.db"))
    made, connected, closed = asyncio.Event(), broker._connect_whole, []
    disconnect = broker._disconnect

    async def connect_late() -> Any:
        await made.wait()
        return await connected()

    async def note(link: Any) -> None:
        await disconnect(link)
        closed.append(link)

    broker._connect_whole = connect_late  # type: ignore[method-assign]
    broker._disconnect = note  # type: ignore[method-assign]
    connecting = asyncio.create_task(broker._connect())
    await asyncio.sleep(0)
    connecting.cancel()
    await asyncio.sleep(0)
    made.set()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert len(closed) == 1
