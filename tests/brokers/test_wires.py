"""RabbitMQ, NATS JetStream and Kafka: order, confirmation, reconnecting, bounds."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress

import pytest

from tests.brokers.wires import WIRES, messages, opened, without_repeats
from tests.faults.proxy import FaultProxy
from tests.servers.kafka import private_kafka
from tests.servers.process import free_port
from tracker_store_async import InMemoryTrackerStore, errors
from tracker_store_async.broker import EventMessage
from tracker_store_async.events import UserUttered

BROKERS = [pytest.param(key, marks=pytest.mark.backend(key)) for key in WIRES]


@pytest.fixture(params=BROKERS)
async def wire(request):
    wire = WIRES[request.param](request.getfixturevalue(f"{request.param}_server"))
    yield wire
    await wire.clean_up()


@pytest.fixture
async def proxied(wire):
    """Yield the wire's broker section through a proxy, and the proxy."""
    if wire.key != "kafka":
        async with FaultProxy(wire.server.host, wire.server.port) as proxy:
            yield wire, proxy
        return
    # Kafka sends its clients to the address that it advertises: the proxy's
    port = free_port()
    with private_kafka("tansu", advertised_port=port) as private:
        wire.server = private.server
        proxy = FaultProxy(private.server.host, private.server.port)
        proxy.port = port
        async with proxy:
            yield wire, proxy


def ids(sender_id, count):
    return [f"{sender_id}-{position}" for position in range(count)]


async def test_every_event_arrives_once_and_in_order(wire, monkeypatch):
    monkeypatch.setenv("RASA_ENVIRONMENT", "staging")
    senders = [f"alice {number}" for number in range(20)]
    async with opened(wire.broker()) as broker:

        async def converse(sender_id):
            for turn in range(3):
                await broker.publish_many(messages(sender_id, 5, 5 * turn))

        await asyncio.gather(*map(converse, senders))
        assert broker.is_ready()
        assert (broker.connections, broker.repeats) == (1, 0)
    received = await wire.received()
    assert len(received) == 300
    assert without_repeats(received) == {name: ids(name, 15) for name in senders}
    first = next(m for m in received if m.message_id == "alice 7-3")
    assert first.body == messages("alice 7", 1)[0].body
    assert str(first.headers["position"]) == "3"
    if wire.key != "rabbitmq":
        assert first.headers["RASA_ENVIRONMENT"] == "staging"


async def test_a_save_is_published_before_it_is_stored(wire):
    async with (
        opened(wire.broker()) as broker,
        InMemoryTrackerStore(event_broker=broker) as store,
    ):
        tracker = await store.get_or_create_tracker("bob")
        tracker.update(UserUttered("hi"))
        await store.save(tracker)
        stored = [event.as_dict() for event in tracker.events]
    received = await wire.received()
    assert [{"sender_id": "bob", **event} for event in stored] == [
        message.body for message in received
    ]


async def test_one_save_is_one_batch(proxied):
    wire, proxy = proxied
    async with opened(wire.broker(proxy.host, proxy.port)) as broker:
        await broker.publish_many(messages("warm", 1))
        proxy.delay_seconds = 0.1
        started = time.perf_counter()
        await broker.publish_many(messages("alice", 20))
        assert time.perf_counter() - started < 1.0  # 20 round trips take 2 s


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_cut_connection_loses_nothing(proxied, how):
    wire, proxy = proxied
    done = asyncio.Event()
    async with opened(
        wire.broker(proxy.host, proxy.port, retry_delay_in_seconds=0.1)
    ) as broker:
        await broker.publish_many(messages("warm", 1))

        async def converse(sender_id):
            turn = 0
            while not done.is_set() or turn < 5:
                await broker.publish_many(messages(sender_id, 4, 4 * turn))
                turn += 1
            return sender_id, 4 * turn

        talks = [asyncio.create_task(converse(f"s{n}")) for n in range(8)]
        for _ in range(4):
            await asyncio.sleep(0.1)
            proxy.cut(how)
        await asyncio.sleep(0.1)
        done.set()
        published = dict(await asyncio.gather(*talks))
        assert proxy.connections > 4
    found = without_repeats(await wire.received())
    assert found.pop("warm") == ["warm-0"]
    assert found == {name: ids(name, count) for name, count in published.items()}


async def test_a_lost_acknowledgement_is_sent_again(proxied):
    wire, proxy = proxied
    async with opened(wire.broker(proxy.host, proxy.port)) as broker:
        await broker.publish_many(messages("warm", 1))
        proxy.cut_request(b"alice", when="after")
        await broker.publish_many(messages("alice", 3))
        assert proxy.struck.is_set()
    received = await wire.received()
    assert without_repeats(received)["alice"] == ids("alice", 3)
    if wire.key == "nats":  # which knows them by `Nats-Msg-Id`
        assert len(received) == 4


async def test_a_silent_server_is_bounded_in_time(proxied):
    wire, proxy = proxied
    async with opened(
        wire.broker(proxy.host, proxy.port, timeout_seconds=0.5)
    ) as broker:
        await broker.publish_many(messages("warm", 1))
        proxy.freeze()
        started = time.perf_counter()
        with pytest.raises(errors.BrokerUnavailableError, match=r"within 0\.5 s"):
            await broker.publish_many(messages("alice", 2))
        assert time.perf_counter() - started < 2
        proxy.unfreeze()
        await broker.publish_many(messages("alice", 4))
    found = without_repeats(await wire.received())
    assert found["alice"] == ids("alice", 4)


async def test_a_server_that_is_down_is_an_error_then_none(proxied):
    wire, proxy = proxied
    await proxy.refuse()
    keys = {"timeout_seconds": 0.5, "connection_attempts": 2}
    async with opened(wire.broker(proxy.host, proxy.port, **keys)) as broker:
        with pytest.raises(errors.BrokerUnavailableError, match="cut the connection"):
            await broker.open()
        with pytest.raises(errors.BrokerUnavailableError):
            await broker.publish_many(messages("alice", 2))
        await proxy.accept()
        broker.timeout_seconds = 5
        await broker.publish_many(messages("alice", 2))
    assert without_repeats(await wire.received())["alice"] == ids("alice", 2)


async def test_cancellation_at_any_moment_leaves_the_broker_usable(proxied):
    wire, proxy = proxied
    rng = random.Random(7)
    proxy.delay_seconds = 0.002
    async with opened(wire.broker(proxy.host, proxy.port)) as broker:
        for number in range(60):
            task = asyncio.create_task(broker.publish_many(messages(f"c{number}", 3)))
            for _ in range(rng.randrange(12)):
                await asyncio.sleep(0)
            if number % 3 == 0:
                await asyncio.sleep(rng.uniform(0, 0.006))
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await broker.publish_many(messages("alice", 5))
    found = without_repeats(await wire.received())
    assert found.pop("alice") == ids("alice", 5)
    for sender_id, kept in found.items():
        assert kept == ids(sender_id, len(kept))


async def test_best_effort_backlog_keeps_its_order(proxied):
    wire, proxy = proxied
    keys = {"timeout_seconds": 0.3, "on_publish_error": "best_effort"}
    async with opened(wire.broker(proxy.host, proxy.port, **keys)) as broker:
        async with InMemoryTrackerStore(event_broker=broker) as store:
            tracker = await store.get_or_create_tracker("bob")
            for turn in range(6):
                if turn == 2:
                    await proxy.refuse()
                    proxy.cut()
                if turn == 4:
                    await proxy.accept()
                    broker.timeout_seconds = 5
                tracker.update(UserUttered(f"turn {turn}"))
                await store.save(tracker)
    received = await wire.received()
    texts = [message.body.get("text") for message in received]
    assert list(dict.fromkeys(texts[1:])) == [f"turn {turn}" for turn in range(6)]


async def test_an_unknown_host_is_one_sentence(wire):
    keys = {"connection_attempts": 1}
    async with opened(wire.broker("no-such-host.invalid", 1, **keys)) as broker:
        with pytest.raises(errors.BrokerUnavailableError) as raised:
            await broker.publish_many(messages("alice", 1))
    assert "no-such-host.invalid:1 has an unknown host name" in str(raised.value)


async def test_a_closed_broker_says_so_and_can_be_opened_again(wire):
    broker = wire.broker()
    await broker.publish_many(messages("alice", 1))
    await broker.close()
    assert not broker.is_ready()
    with pytest.raises(errors.BrokerUnavailableError, match=r"call open\(\)"):
        await broker.publish_many(messages("alice", 1, 1))
    await broker.open()
    await broker.publish_many(messages("alice", 1, 1))
    await broker.close()


async def test_the_text_of_a_message_is_in_no_error(proxied):
    wire, proxy = proxied
    await proxy.refuse()
    body = {"sender_id": "bob", "event": "user", "text": "my secret illness"}
    keys = {"connection_attempts": 1, **wire.bad_login}
    async with opened(wire.broker(proxy.host, proxy.port, **keys)) as broker:
        with pytest.raises(errors.PublishError) as raised:
            await broker.publish(EventMessage("id", "bob", 0, body))
        text = f"{raised.value} {broker!r} {raised.value!r}"
        assert "illness" not in text
        assert "geheim" not in text
