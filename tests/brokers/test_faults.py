"""What every broker with a server does when that is down, cut off, slow or killed."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal

import pytest

from tests.brokers.kit import batch, ids, message, seen
from tests.faults.proxy import FaultProxy
from tracker_store_async import InMemoryTrackerStore, errors
from tracker_store_async.events import UserUttered

if TYPE_CHECKING:
    from tests.brokers.channels import Channel
    from tests.servers.process import ServerProcess
    from tracker_store_async import EventBroker, EventMessage

SLACK_SECONDS = 4.0
"""What a failure may take beyond `timeout_seconds`: a connection is taken down."""


def server(channel: Channel) -> ServerProcess:
    assert channel.process is not None
    return channel.process


def proxy_for(channel: Channel) -> FaultProxy:
    assert channel.address is not None
    return FaultProxy(*channel.address)


async def insist(broker: EventBroker, events: list[EventMessage]) -> None:
    """Publish as a save that is tried again does."""
    async with asyncio.timeout(60):
        while True:
            try:
                await broker.publish_many(events)
            except errors.PublishError:
                await asyncio.sleep(0.02)
            else:
                return


async def test_down_at_the_start(served: Channel) -> None:
    broker = served.broker(timeout_seconds=0.5, connection_attempts=2)
    keeping = InMemoryTrackerStore(
        event_broker=served.broker(timeout_seconds=0.5),
        on_publish_error="best_effort",
    )
    strict = InMemoryTrackerStore(event_broker=served.broker(timeout_seconds=0.5))
    await asyncio.to_thread(server(served).kill)  # faster than to stop it
    try:
        await keeping.open()
        await keeping.create_tracker("bob")
        assert await strict.retrieve("carol") is None
        started = time.perf_counter()
        failing = [strict.create_tracker(f"user-{n}") for n in range(20)]
        failed = await asyncio.gather(*failing, return_exceptions=True)
        assert {type(error) for error in failed} == {errors.PublishError}
        # one after the other would take 10 s
        assert time.perf_counter() - started < 0.5 + SLACK_SECONDS
        started = time.perf_counter()
        with pytest.raises(errors.BrokerUnavailableError) as raised:
            await broker.publish_many(batch("alice", 0))
        assert time.perf_counter() - started < 0.5 + SLACK_SECONDS
        assert "p@ss" not in str(raised.value)
    finally:
        await asyncio.to_thread(server(served).start)
    await broker.open()
    await broker.publish_many(batch("alice", 0))
    await strict.create_tracker("carol")
    await keeping.close()
    await strict.close()
    found = await served.read()
    assert seen(found, "alice") == ids(batch("alice", 0))
    assert len(seen(found, "bob")) == len(seen(found, "carol")) == 1


async def test_killed_in_the_middle_nothing_confirmed_is_lost(served: Channel) -> None:
    broker = served.broker(timeout_seconds=2)
    names = [f"user-{n}" for n in range(16)]
    stop = asyncio.Event()
    saves = dict.fromkeys(names, 0)

    async def talk(name: str) -> None:
        while not stop.is_set():
            await insist(broker, batch(name, 4 * saves[name]))
            saves[name] += 1

    talking = [asyncio.create_task(talk(name)) for name in names]
    while min(saves.values()) < 3:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(server(served).kill)
    await asyncio.to_thread(server(served).start)
    goal = max(saves.values()) + 3
    while min(saves.values()) < goal:
        await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(*talking)
    found = await served.read()
    lost = 0
    for name in names:
        expected = ids(batch(name, 0, 4 * saves[name]))
        assert seen(found, name) == expected
        lost += len(set(expected) - {each.message_id for each in found})
    total = 4 * sum(saves.values())
    print(f"saved {total}, published {len(found)}, repeats {len(found) - total}")
    assert lost == 0


async def test_cut_off_it_connects_again_in_order(served: Channel) -> None:
    async with proxy_for(served) as proxy:
        broker = served.broker(host=proxy.host, port=proxy.port)
        sent: list[EventMessage] = []
        for number in range(12):
            events = batch("alice", 4 * number)
            publishing = asyncio.create_task(broker.publish_many(events))
            if number % 3 == 1:
                await asyncio.sleep(0)
                proxy.cut("reset" if number % 2 else "close")
            await publishing
            sent += events
        assert seen(await served.read(), "alice") == ids(sent)
        await broker.close()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_was_not_confirmed_is_published_again(
    served: Channel, when: Literal["before", "after"]
) -> None:
    """Whether the server never saw it, or its confirmation was lost."""
    async with proxy_for(served) as proxy:
        broker = served.broker(host=proxy.host, port=proxy.port)
        await broker.publish_many(batch("alice", 0))
        proxy.cut_request(b"alice-5", when=when)
        await broker.publish_many(batch("alice", 4))
        assert proxy.struck.is_set()
        await broker.publish_many(batch("alice", 8))
        found = await served.read()
        assert seen(found, "alice") == ids(batch("alice", 0, 12))
        times = [each.message_id for each in found].count("alice-5")
        assert times == (1 if when == "before" or served.drops_repeats else 2)
        await broker.close()


async def test_a_dead_route_is_given_up_in_time(served: Channel) -> None:
    async with proxy_for(served) as proxy:
        broker = served.broker(host=proxy.host, port=proxy.port, timeout_seconds=0.5)
        await broker.publish_many(batch("alice", 0))
        proxy.freeze()
        started = time.perf_counter()
        with pytest.raises(errors.BrokerUnavailableError):
            await broker.publish_many(batch("alice", 4))
        assert time.perf_counter() - started < 0.5 + SLACK_SECONDS
        proxy.cut()
        proxy.unfreeze()
        await insist(broker, batch("alice", 4))
        assert seen(await served.read(), "alice") == ids(batch("alice", 0, 8))
        await broker.close()


async def test_a_slow_server_holds_up_nobody_else(served: Channel) -> None:
    async with proxy_for(served) as proxy:
        broker = served.broker(host=proxy.host, port=proxy.port)
        await broker.open()
        proxy.delay_seconds = 0.1
        started = time.perf_counter()
        names = [f"user-{n}" for n in range(20)]
        await asyncio.gather(*(broker.publish_many(batch(n, 0)) for n in names))
        # one after the other would take 2 s
        assert time.perf_counter() - started < 1.0
        proxy.delay_seconds = 0.0
        found = await served.read()
        assert all(seen(found, name) == ids(batch(name, 0)) for name in names)
        await broker.close()


async def test_one_save_is_one_round_trip(served: Channel) -> None:
    if served.round_trips is None:
        pytest.skip("its protocol does not allow it")
    async with proxy_for(served) as proxy:
        address = {"host": proxy.host, "port": proxy.port}
        broker = served.broker(**address, **served.in_one_batch)
        await broker.publish_many(batch("alice", 0, 6))
        await broker.publish_many(batch("alice", 6, 6))
        before = proxy.round_trips
        await broker.publish_many(batch("alice", 12, 6))
        assert proxy.round_trips - before == served.round_trips
        await broker.close()


async def test_wrong_credentials(served: Channel) -> None:
    broker = served.broker(password="wrong: s3cret", timeout_seconds=3)
    for publish in (broker.open(), broker.publish(message("alice", 0))):
        with pytest.raises(errors.BrokerAccessError) as raised:
            await publish
        assert "s3cret" not in str(raised.value)
        assert "refused" in str(raised.value)
    strict = InMemoryTrackerStore(event_broker=broker)
    with pytest.raises(errors.BrokerAccessError):
        await strict.open()
    keeping = InMemoryTrackerStore(event_broker=broker, on_publish_error="best_effort")
    await keeping.create_tracker("alice")
    async with asyncio.timeout(10):
        while not (told := (await keeping.health()).details["publishing"])["error"]:
            await asyncio.sleep(0.01)
    assert "refused" in told["error"]
    assert "s3cret" not in told["error"]
    await keeping.close()
    assert await broker.close() is None


async def test_tls(encrypted: Channel) -> None:
    await encrypted.broker().publish_many(batch("alice", 0))
    assert encrypted.certificates is not None
    wrong = str(encrypted.certificates.wrong_ca)
    with pytest.raises(errors.BrokerAccessError, match=r"TLS|certificate"):
        await encrypted.broker(cafile=wrong, timeout_seconds=2).open()


async def test_tls_of_another_host(encrypted: Channel) -> None:
    proxy = FaultProxy(*encrypted.address)
    proxy.host = "127.0.0.2"  # not in the server's certificate
    async with proxy:
        there = {"host": proxy.host, "port": proxy.port}
        with pytest.raises(errors.BrokerAccessError, match=r"TLS|certificate"):
            await encrypted.broker(**there).open()
        broker = encrypted.broker(**there, **encrypted.any_host)
        await broker.publish_many(batch("alice", 0))
        await broker.close()


async def test_tls_with_a_client_certificate(encrypted: Channel) -> None:
    files = encrypted.certificates
    assert files is not None
    own = {"ssl_certfile": files.client_certificate, "ssl_keyfile": files.client_key}
    broker = encrypted.broker(**{name: str(path) for name, path in own.items()})
    await broker.publish_many(batch("alice", 0))
    await broker.close()
    other = encrypted.broker(
        ssl_certfile=str(files.wrong_client_certificate),
        ssl_keyfile=str(files.wrong_client_key),
        connection_attempts=1,
    )
    with pytest.raises(errors.PublishError, match=r"TLS|certificate"):
        await other.open()


async def test_tls_on_our_side_only(wire: Channel) -> None:
    broker = wire.broker(use_ssl=True, timeout_seconds=0.5, connection_attempts=1)
    with pytest.raises(errors.PublishError, match="TLS"):
        await broker.open()


async def test_tls_on_the_servers_side_only(encrypted_wire: Channel) -> None:
    broker = encrypted_wire.broker(
        use_ssl=False, timeout_seconds=2, connection_attempts=1
    )
    with pytest.raises(errors.PublishError, match=r"TLS|certificate"):
        await broker.open()


async def test_best_effort_keeps_the_order_over_an_outage(served: Channel) -> None:
    broker = served.broker(timeout_seconds=0.5, connection_attempts=2)
    store = InMemoryTrackerStore(event_broker=broker, on_publish_error="best_effort")
    names = [f"user-{n}" for n in range(4)]

    async def say(text: str) -> None:
        for name in names:
            tracker = await store.get_or_create_tracker(name)
            tracker.update(UserUttered(text))
            await store.save(tracker)

    await say("before")
    await asyncio.to_thread(server(served).kill)
    try:
        await say("meanwhile")
    finally:
        await asyncio.to_thread(server(served).start)
    await say("after")
    assert store._publisher is not None
    async with asyncio.timeout(30):  # a server that has just started may be slow
        while store._publisher.backlog:
            await asyncio.sleep(0.01)
    await store.close()
    found = await served.read()
    for name in names:
        own = {d.message_id: d for d in found if d.body["sender_id"] == name}
        texts = [d.body.get("text") for d in own.values()]
        assert texts == [None, "before", "meanwhile", "after"]
