"""Faults of Kafka, on Tansu and noida-db, which are compatible with it."""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import asynccontextmanager, suppress

import pytest

from tests.brokers.kit import batch, ids, message, seen
from tests.brokers.wire_channels import KafkaChannel
from tests.faults.proxy import FaultProxy
from tests.servers.kafka import private_kafka
from tests.servers.process import free_port
from tests.servers.tls import Certificates
from tracker_store_async import errors
from tracker_store_async.brokers.kafka import KafkaEventBroker

pytestmark = pytest.mark.backend("kafka")


@pytest.fixture(scope="module")
def tansu():
    """Give a Tansu that sends its clients to a proxy, and the proxy's port."""
    port = free_port()
    with private_kafka("tansu", advertised_port=port) as private:
        yield private, port


@pytest.fixture
async def proxied(tansu):
    private, port = tansu
    proxy = FaultProxy(private.server.host, private.server.port)
    proxy.port = port
    async with proxy:
        channel = KafkaChannel(private)
        channel.server = private.server.__class__("proxy", host="localhost", port=port)
        yield channel, proxy
        proxy.unfreeze()
        await proxy.accept()
        await channel.close()


async def test_order_holds_in_every_partition(proxied):
    channel, _ = proxied
    broker = channel.broker()
    names = [f"user-{n}" for n in range(24)]
    for turn in range(3):
        await asyncio.gather(
            *(broker.publish_many(batch(name, 4 * turn)) for name in names)
        )
    partitions = await broker._link.producer.partitions_for(channel.name)
    found = await channel.read()
    assert len(partitions) > 1
    assert len(found) == 24 * 12
    for name in names:
        assert seen(found, name) == ids(batch(name, 0, 12))


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_cut_connection_loses_nothing(proxied, how):
    channel, proxy = proxied
    broker = channel.broker()
    for turn in range(10):
        publishing = asyncio.create_task(broker.publish_many(batch("alice", 4 * turn)))
        if turn % 3 == 1:
            await asyncio.sleep(0)
            proxy.cut(how)
        await publishing
    assert seen(await channel.read(), "alice") == ids(batch("alice", 0, 40))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_was_not_acknowledged_is_sent_again(proxied, when):
    channel, proxy = proxied
    broker = channel.broker(enable_idempotence=False)
    await broker.publish_many(batch("alice", 0))
    proxy.cut_request(b"alice-5", when=when)
    await broker.publish_many(batch("alice", 4))
    assert proxy.struck.is_set()
    found = await channel.read()
    assert seen(found, "alice") == ids(batch("alice", 0, 8))
    times = [each.message_id for each in found].count("alice-5")
    assert times == (1 if when == "before" else 2)


async def test_a_dead_route_is_given_up_in_time(proxied):
    channel, proxy = proxied
    broker = channel.broker(timeout_seconds=0.5)
    await broker.publish_many(batch("alice", 0))
    proxy.freeze()
    started = time.perf_counter()
    with pytest.raises(errors.BrokerUnavailableError):
        await broker.publish_many(batch("alice", 4))
    assert time.perf_counter() - started < 2
    proxy.cut()
    proxy.unfreeze()
    broker.timeout_seconds = 5
    await broker.publish_many(batch("alice", 4))
    assert seen(await channel.read(), "alice") == ids(batch("alice", 0, 8))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_large_save_is_in_order_without_idempotence(proxied, when):
    """It is several batches, of which one is under way at a time."""
    channel, proxy = proxied
    broker = channel.broker(enable_idempotence=False)
    await broker.publish(message("alice", 0))
    most, send_batch = 0, broker._link.producer.send_batch

    async def counted(*arguments, **options):
        nonlocal most
        future = await send_batch(*arguments, **options)
        most = max(most, len(broker._link.unconfirmed) + 1)
        return future

    broker._link.producer.send_batch = counted
    save = [message("alice", n, text="x" * 10_000) for n in range(1, 41)]
    proxy.cut_request(b"alice-20", when=when)
    await broker.publish_many(save)
    assert proxy.struck.is_set()
    assert most == 1
    found = await channel.read()
    assert seen(found, "alice") == ["alice-0", *ids(save)]
    # what is delivered at any time is the beginning of the log
    first = [each.position for each in found]
    assert all(b <= max(first[:n]) + 1 for n, b in enumerate(first) if n)


async def test_a_refused_save_takes_no_other_one_with_it(proxied, monkeypatch):
    """The servers here refuse nothing, so the client's answer is exchanged."""
    from aiokafka import errors as kafka_errors
    from aiokafka.producer.producer import AIOKafkaProducer

    channel, _ = proxied
    broker = channel.broker()
    await broker.open()
    send_batch = AIOKafkaProducer.send_batch

    async def refuse(self, batch, topic, *, partition):
        if b"poison" in bytes(batch._build()):
            refused = asyncio.get_running_loop().create_future()
            refused.set_exception(kafka_errors.MessageSizeTooLargeError())
            return refused
        return await send_batch(self, batch, topic, partition=partition)

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", refuse)
    names = [f"user-{n}" for n in range(12)]
    bad = [message("bad", 0), message("bad", 1, text="poison"), message("bad", 2)]
    results = await asyncio.gather(
        *(broker.publish_many(batch(name, 0)) for name in names[:6]),
        broker.publish_many(bad),
        *(broker.publish_many(batch(name, 0)) for name in names[6:]),
        return_exceptions=True,
    )
    assert [result for result in results if result is not None] == [results[6]]
    assert isinstance(results[6], errors.BrokerRefusedError)
    found = await channel.read()
    assert seen(found, "bad") == ["bad-0"]  # what stands before it fits
    for name in names:
        assert seen(found, name) == ids(batch(name, 0))


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_topic_that_takes_small_batches_only(proxied, monkeypatch, idempotent):
    """The servers here know no limit, so the client's answer is exchanged."""
    from aiokafka import errors as kafka_errors
    from aiokafka.producer.producer import AIOKafkaProducer

    channel, _ = proxied
    broker = channel.broker(enable_idempotence=None if idempotent else False)
    await broker.open()
    send_batch = AIOKafkaProducer.send_batch
    limit, sent = 6_000, []

    async def refuse(self, batch, topic, *, partition):
        sent.append(len(batch._build()))
        if sent[-1] > limit:
            refused = asyncio.get_running_loop().create_future()
            refused.set_exception(kafka_errors.MessageSizeTooLargeError())
            return refused
        return await send_batch(self, batch, topic, partition=partition)

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", refuse)
    await broker.publish_many([message("alice", n, text="x" * 1000) for n in range(20)])
    assert broker.connections <= 4
    # what is learnt stays
    sent.clear()
    names = [f"user-{n}" for n in range(4)]
    await asyncio.gather(
        *(
            broker.publish_many([message(n, k, text="x" * 1000) for k in range(8)])
            for n in names
        )
    )
    assert max(sent) <= limit
    # one event that is itself too large
    poisoned = [message("bob", 0), message("bob", 1, text="x" * 7000)]
    with pytest.raises(errors.BrokerRefusedError, match="largest message size"):
        await broker.publish_many([*poisoned, message("bob", 2)])
    await broker.publish_many(batch("carol", 0))
    found = await channel.read()
    assert seen(found, "alice") == [f"alice-{n}" for n in range(20)]
    assert seen(found, "bob") in ([], ["bob-0"])
    assert seen(found, "carol") == ids(batch("carol", 0))
    for name in names:
        assert seen(found, name) == [f"{name}-{n}" for n in range(8)]


@pytest.mark.parametrize("name", ["TopicAuthorizationFailed", "InvalidTopic"])
async def test_rights_that_were_taken_away_are_nobodys_event(
    proxied, monkeypatch, name
):
    """The servers here know no rights, so the client's answer is exchanged."""
    from aiokafka import errors as kafka_errors
    from aiokafka.producer.producer import AIOKafkaProducer

    channel, _ = proxied
    broker = channel.broker()
    await broker.open()

    async def refuse(self, batch, topic, *, partition):
        refused = asyncio.get_running_loop().create_future()
        refused.set_exception(getattr(kafka_errors, f"{name}Error")())
        return refused

    with monkeypatch.context() as patched:
        patched.setattr(AIOKafkaProducer, "send_batch", refuse)
        results = await asyncio.gather(
            *(broker.publish_many(batch(f"user-{n}", 0)) for n in range(4)),
            return_exceptions=True,
        )
    assert {type(each) for each in results} == {errors.BrokerAccessError}
    await broker.publish_many(batch("user-0", 0))
    assert seen(await channel.read(), "user-0") == ids(batch("user-0", 0))


async def test_who_fails_on_each_connection_is_not_asked_without_a_pause(
    proxied, monkeypatch
):
    """As with an answer that aiokafka does not know."""
    from aiokafka import errors as kafka_errors
    from aiokafka.producer.producer import AIOKafkaProducer

    channel, _ = proxied
    broker = channel.broker(timeout_seconds=2, retry_delay_in_seconds=5)
    await broker.open()

    async def refuse(self, batch, topic, *, partition):
        refused = asyncio.get_running_loop().create_future()
        refused.set_exception(kafka_errors.UnknownError())
        return refused

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", refuse)
    with pytest.raises(errors.BrokerUnavailableError, match="confirmed nothing"):
        await broker.publish_many(batch("alice", 0))
    assert 3 <= broker.connections <= 9  # 0, 0.05, 0.1, 0.2, 0.4 and 0.8 s apart


async def test_an_event_that_is_too_large_is_refused_with_its_save(proxied):
    channel, _ = proxied
    broker = channel.broker()
    await broker.publish(message("alice", 0))
    large = message("alice", 2, text="x" * 1_000_000)
    with pytest.raises(errors.BrokerRefusedError, match="larger than Kafka takes"):
        await broker.publish_many([message("alice", 1), large])
    assert seen(await channel.read(), "alice") == ["alice-0"]


async def test_down_at_the_start(proxied):
    channel, proxy = proxied
    await proxy.refuse()
    broker = channel.broker(timeout_seconds=0.5, connection_attempts=2)
    with pytest.raises(errors.BrokerUnavailableError, match="cut the connection"):
        await broker.open()
    await proxy.accept()
    broker.timeout_seconds = 5
    await broker.publish_many(batch("alice", 0))
    assert seen(await channel.read(), "alice") == ids(batch("alice", 0))


async def test_a_login_that_is_refused(proxied):
    _channel, proxy = proxied
    broker = KafkaEventBroker(
        f"localhost:{proxy.port}", sasl_username="me", sasl_password="s3cret"
    )
    with pytest.raises(errors.BrokerAccessError, match="sasl_ keys") as raised:
        await broker.publish(message("alice", 0))
    assert "s3cret" not in str(raised.value)
    await broker.close()


@pytest.mark.parametrize("count", [2, 4, 6])  # with four more it is too many
async def test_a_full_queue_is_said(count):
    broker = KafkaEventBroker(
        "127.0.0.1:1", security_protocol="PLAINTEXT", queue_size=4, timeout_seconds=0.3
    )
    first = asyncio.create_task(broker.publish_many(batch("alice", 0, count)))
    await asyncio.sleep(0)
    with pytest.raises(errors.BrokerUnavailableError, match="queue_size"):
        await broker.publish_many(batch("bob", 0))
    with suppress(errors.PublishError):
        await first
    await broker.close()


@pytest.mark.parametrize("keyed", [True, False])
async def test_the_sender_is_the_key_where_asked_for(proxied, keyed):
    import aiokafka

    channel, proxy = proxied
    await channel.broker(partition_by_sender=keyed).publish_many(batch("alice", 0))
    consumer = aiokafka.AIOKafkaConsumer(
        channel.name,
        bootstrap_servers=f"localhost:{proxy.port}",
        auto_offset_reset="earliest",
    )
    await consumer.start()
    async with asyncio.timeout(10):
        record = await consumer.getone()
    assert record.key == (b"alice" if keyed else None)
    await consumer.stop()


async def test_killed_in_the_middle_it_goes_on():
    # What noida-db had confirmed is not on its disk yet: no matter of ours.
    with private_kafka("noida-db") as private:
        channel = KafkaChannel(private)
        broker = channel.broker(timeout_seconds=20)
        await broker.publish_many(batch("alice", 0))
        assert broker._idempotent
        await asyncio.to_thread(private.process.kill)
        publishing = asyncio.create_task(broker.publish_many(batch("alice", 4)))
        await asyncio.to_thread(private.process.start)
        await publishing
        assert seen(await channel.read(), "alice")[-4:] == ids(batch("alice", 4))
        await channel.close()


@asynccontextmanager
async def tls_front(port, target_port, certificates):
    """Take TLS on one port and pass it on in the clear to another."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server_certificate, certificates.server_key)
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_OPTIONAL  # a client's certificate is checked

    async def pump(reader, writer):
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection(
            "127.0.0.1", target_port
        )
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    listener = await asyncio.start_server(serve, "0.0.0.0", port, ssl=context)
    try:
        yield
    finally:
        listener.close()
        await asyncio.sleep(0.05)


async def test_tls(tmp_path):
    files = Certificates.write(tmp_path)
    port = free_port()
    keys = {
        "security_protocol": "SSL",
        "ssl_check_hostname": True,
        "ssl_cafile": str(files.ca),
        "connection_attempts": 1,
    }
    of_client = {
        "ssl_certfile": files.client_certificate,
        "ssl_keyfile": files.client_key,
    }
    of_stranger = {
        "ssl_certfile": files.wrong_client_certificate,
        "ssl_keyfile": files.wrong_client_key,
    }
    with private_kafka("tansu", advertised_port=port) as private:
        async with tls_front(port, private.server.port, files):
            for own in ({}, of_client):
                broker = KafkaEventBroker(f"localhost:{port}", **(keys | own))
                await broker.publish_many(batch("alice", 0))
                await broker.close()
            for host, own in (
                ("localhost", {"ssl_cafile": str(files.wrong_ca)}),
                ("127.0.0.2", {}),  # not in the server's certificate
                ("localhost", of_stranger),
            ):
                broker = KafkaEventBroker(f"{host}:{port}", **(keys | own))
                with pytest.raises(errors.PublishError, match=r"certificate|TLS"):
                    await broker.open()
                await broker.close()
