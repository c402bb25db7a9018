"""What every broker guarantees, on its real server."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from tests import golden
from tests.brokers.kit import batch, blocking_calls, ids, message, seen
from tracker_store_async import EventMessage, errors

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.brokers.channels import Channel

SECRET = "what the user said"


async def test_a_message_has_rasas_body_and_our_headers(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RASA_ENVIRONMENT", "staging")
    body = {"sender_id": "böb", "event": "user", "text": "żółć 🙂 \0 '\"", "n": 1.0}
    await channel.broker().publish(EventMessage("id-1", "böb", 7, body))
    (delivery,) = await channel.read()
    assert delivery.body == body
    assert list(delivery.body) == list(body)
    assert (delivery.message_id, delivery.position) == ("id-1", 7)
    assert (delivery.type, delivery.environment) == ("user", "staging")


async def test_without_an_environment(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RASA_ENVIRONMENT", raising=False)
    await channel.broker().publish(message("alice", 0))
    (delivery,) = await channel.read()
    assert delivery.environment == channel.environment_not_set


async def test_the_messages_of_rasa_arrive_as_they_are(channel: Channel) -> None:
    bodies: list[dict[str, Any]] = golden.load("broker/inmemory")[:400]
    broker = channel.broker(**channel.in_one_batch)  # else conversations mix
    for at in range(0, len(bodies), 50):
        await broker.publish_many(
            [
                EventMessage(str(at + n), body["sender_id"], at + n, body)
                for n, body in enumerate(bodies[at : at + 50])
            ]
        )
    found = [delivery.body for delivery in await channel.read()]
    assert repr(found) == repr(bodies)  # NaN is not equal to itself


async def test_in_order_and_there_once_it_returns(channel: Channel) -> None:
    broker = channel.broker()
    sent: list[EventMessage] = []
    for number in range(10):
        events = batch("alice", 4 * number)
        await broker.publish_many(events)
        sent += events
        assert [each.message_id for each in await channel.read()] == ids(sent)


async def test_many_conversations_at_once(channel: Channel) -> None:
    broker = channel.broker()
    names = [f"user-{n}" for n in range(32)]

    async def talk(name: str) -> None:
        for number in range(5):
            await broker.publish_many(batch(name, 4 * number))

    await asyncio.gather(*map(talk, names))
    found = await channel.read()
    assert len(found) == 32 * 20
    for name in names:
        own = [each.position for each in found if each.body["sender_id"] == name]
        assert own == list(range(20))


async def test_many_and_large_events(channel: Channel) -> None:
    broker = channel.broker(timeout_seconds=60)  # some confirm each of 1500
    many = batch("alice", 0, 1500)
    await broker.publish_many(many)
    await broker.publish(message("alice", 1500, text="x" * 300_000))
    found = await channel.read()
    assert [each.position for each in found] == list(range(1501))
    assert len(found[-1].body["text"]) == 300_000


async def test_nothing_to_publish(channel: Channel) -> None:
    broker = channel.broker()
    await broker.open()
    await broker.publish_many([])
    assert await channel.read() == []


async def test_it_is_opened_and_closed_as_often_as_one_likes(channel: Channel) -> None:
    broker = channel.broker()
    await broker.open()
    await broker.open()
    await broker.publish(message("alice", 0))
    await broker.close()
    await broker.close()
    await broker.open()
    assert broker.is_ready()
    await broker.publish(message("alice", 1))
    assert seen(await channel.read(), "alice") == ["alice-0", "alice-1"]


async def test_a_cancellation_at_every_await_leaves_it_sound(channel: Channel) -> None:
    """What is cancelled may have landed; what is published again is in order."""
    broker = channel.broker()
    sent: list[EventMessage] = []
    passes, ended = 0, False
    while not ended and passes < 40:
        events = batch("alice", 4 * passes)
        publishing = asyncio.create_task(broker.publish_many(events))
        for _ in range(passes):
            await asyncio.sleep(0)
        ended = publishing.done()
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        async with asyncio.timeout(5):
            await broker.publish_many(events)
        sent += events
        passes += 1
    assert seen(await channel.read(), "alice") == ids(sent)


async def test_a_cancelled_one_does_not_disturb_the_others(channel: Channel) -> None:
    broker = channel.broker()
    await broker.open()
    names = [f"user-{n}" for n in range(20)]
    tasks = [asyncio.create_task(broker.publish_many(batch(n, 0))) for n in names]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[1::2] == [None] * 10
    found = await channel.read()
    for name in names[1::2]:
        assert seen(found, name) == ids(batch(name, 0))


async def test_the_loop_is_never_blocked(channel: Channel) -> None:
    """No call that waits for a disk, a socket or a clock is made by the loop itself."""
    await channel.broker().publish(message("alice", 0))  # imports what there is
    broker = channel.broker()
    with blocking_calls() as calls:
        await broker.open()
        await asyncio.gather(
            *(broker.publish_many(batch(f"u{n}", 0)) for n in range(64))
        )
        await broker.close()
    assert calls == []


def test_a_call_that_blocks_is_noticed(tmp_path: Path) -> None:
    with blocking_calls() as calls, socket.create_server(("127.0.0.1", 0)) as server:
        (tmp_path / "file").write_text("")
        socket.create_connection(server.getsockname()).close()
    names = ["open", "socket.getaddrinfo", "socket.connect"]
    assert [call.partition(" ")[0] for call in calls] == names


async def test_a_slow_consumer_holds_up_nobody(channel: Channel) -> None:
    """One that takes a single event and never says that it is done with it."""
    broker = channel.broker()
    await broker.publish_many(batch("alice", 0))
    async with channel.slow_consumer() as taken:
        for number in range(1, 30):
            await broker.publish_many(batch("alice", 4 * number))
        async with asyncio.timeout(5):
            await taken.wait()
    assert seen(await channel.read(), "alice") == ids(batch("alice", 0, 120))


async def test_no_secret_and_no_text_is_shown(channel: Channel) -> None:
    broker = channel.broker()
    await broker.publish(message("alice", 0, text=SECRET))
    assert SECRET not in repr(broker)
    assert "p@ss" not in repr(broker)


def test_errors_are_one_tree() -> None:
    for name in ("BrokerUnavailableError", "BrokerAccessError", "BrokerRefusedError"):
        assert issubclass(getattr(errors, name), errors.PublishError)
