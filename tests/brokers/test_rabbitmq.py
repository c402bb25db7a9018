"""What RabbitMQ alone has: Rasa's exchange, several queues, and `mandatory`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import uuid

import pytest

from tests.brokers.kit import batch, ids, message
from tests.servers.rabbitmq import READER, private_rabbitmq
from tracker_store_async import errors
from tracker_store_async.brokers.pika import PikaEventBroker

pytestmark = pytest.mark.backend("rabbitmq")


@pytest.fixture
async def raw(rabbitmq_server):
    """Give a channel of the test's own, and names that are deleted at the end."""
    connection = await rabbitmq_server.connect()
    channel = await connection.channel()
    names = [f"tracker_store_test_{uuid.uuid4().hex[:12]}" for _ in range(2)]
    yield channel, names
    for name in names:
        await channel.queue_delete(name)
    await channel.exchange_delete(names[0])
    await connection.close()


def broker_for(server, names, **options):
    return PikaEventBroker(
        server.host,
        server.username,
        server.password,
        server.port,
        queues=names,
        exchange_name=names[0],
        **options,
    )


async def read(channel, name):
    queue = await channel.declare_queue(name, durable=True)
    found = []
    while (each := await queue.get(no_ack=True, fail=False)) is not None:
        found.append(each)
    return found


async def test_every_queue_gets_every_event_on_disk(rabbitmq_server, raw):
    channel, names = raw
    broker = broker_for(rabbitmq_server, names)
    await broker.publish_many(batch("alice", 0))
    await broker.close()
    for name in names:
        found = await read(channel, name)
        assert [each.message_id for each in found] == ids(batch("alice", 0))
        assert {each.delivery_mode for each in found} == {2}
        assert json.loads(found[3].body) == batch("alice", 0)[3].body
        assert found[3].headers == {"position": 3}


async def test_the_exchange_that_rasa_declared_is_used(rabbitmq_server, raw):
    import aio_pika

    channel, names = raw
    await channel.declare_exchange(names[0], aio_pika.ExchangeType.FANOUT)
    broker = broker_for(rabbitmq_server, names)
    await broker.publish_many(batch("alice", 0))
    await broker.close()
    assert len(await read(channel, names[1])) == 4


async def test_an_exchange_can_be_shared_with_rasa(rabbitmq_server, raw):
    import aio_pika

    channel, names = raw
    broker = broker_for(rabbitmq_server, names, exchange_durable=False)
    await broker.open()
    await broker.close()
    await channel.declare_exchange(names[0], aio_pika.ExchangeType.FANOUT)


async def test_an_event_that_no_queue_gets_is_an_error_once(rabbitmq_server, raw):
    channel, names = raw
    broker = broker_for(rabbitmq_server, names)
    await broker.publish(message("alice", 0))
    for name in names:
        await channel.queue_delete(name)
    with pytest.raises(errors.BrokerRefusedError, match="no queue for the event"):
        await broker.publish(message("alice", 1))
    await broker.publish(message("alice", 1))  # the queues are declared again
    await broker.close()
    assert [each.message_id for each in await read(channel, names[1])] == ["alice-1"]


@pytest.fixture
async def limited(raw):
    """Give a channel and names; the exchange has a queue that takes 2000 bytes."""
    import aio_pika

    channel, names = raw
    exchange = await channel.declare_exchange(
        names[0], aio_pika.ExchangeType.FANOUT, durable=True
    )
    limit = {"x-max-length-bytes": 2000, "x-overflow": "reject-publish"}
    queue = await channel.declare_queue(
        f"{names[0]}_limited", durable=True, arguments=limit
    )
    await queue.bind(exchange)
    yield channel, names, queue
    await queue.delete(if_empty=False)


def one_too_large(first: int):
    """Return a save whose second event the queue refuses; it has room for the rest."""
    large = message("alice", first + 1, text="x" * 3000)
    return [message("alice", first), large, message("alice", first + 2)]


async def all_ids(queue):
    found = []
    while (each := await queue.get(no_ack=True, fail=False)) is not None:
        found.append(each.message_id)
    return found


async def test_nothing_overtakes_an_event_that_is_refused(rabbitmq_server, limited):
    channel, names, queue = limited
    broker = broker_for(rabbitmq_server, names)
    with pytest.raises(errors.BrokerRefusedError, match="queue may be full"):
        await broker.publish_many(one_too_large(0))
    assert await all_ids(queue) == ["alice-0"]
    whole = [message("alice", n) for n in range(3)]  # a smaller one, once it is retried
    await broker.publish_many(whole)
    await broker.close()
    assert (broker.overtaken, broker.connections) == (0, 1)
    assert await all_ids(queue) == ids(whole)
    # the queue without a limit has had what the other refused
    found = [each.message_id for each in await read(channel, names[1])]
    assert found == ["alice-0", "alice-1", *ids(whole)]


async def test_in_one_batch_what_follows_a_refused_event_is_counted(
    rabbitmq_server, limited, caplog
):
    _channel, names, queue = limited
    broker = broker_for(rabbitmq_server, names, confirm_each_event=False)
    with pytest.raises(errors.BrokerRefusedError, match="queue may be full"):
        await broker.publish_many([*one_too_large(0), message("bob", 0)])
    assert broker.overtaken == 1  # of the conversation whose event was refused
    assert "took 1 later ones" in caplog.text
    assert broker.connections == 1
    # for a minute each event waits for the one before it
    with pytest.raises(errors.BrokerRefusedError):
        await broker.publish_many(one_too_large(3))
    assert broker.overtaken == 1
    await broker.close()
    assert await all_ids(queue) == ["alice-0", "alice-2", "bob-0", "alice-3"]


@pytest.mark.parametrize("field", ["type", "message id", "RASA_ENVIRONMENT"])
async def test_a_property_that_amqp_cannot_hold_refuses_that_event_alone(
    rabbitmq_server, raw, field, monkeypatch
):
    channel, names = raw
    broker = broker_for(rabbitmq_server, names, timeout_seconds=2)
    await broker.publish(message("alice", 0))
    long = "ż" * 128  # 256 bytes
    refused = message("alice", 1)
    if field == "type":
        refused = message("alice", 1, event=long)
    elif field == "message id":
        refused = dataclasses.replace(refused, message_id=long)
    else:
        monkeypatch.setenv("RASA_ENVIRONMENT", long)
    with pytest.raises(errors.BrokerRefusedError, match=f"{field} .* 256 bytes"):
        await broker.publish_many([message("alice", 9), refused])
    monkeypatch.delenv("RASA_ENVIRONMENT", raising=False)
    await broker.publish(message("alice", 1))
    await broker.close()
    assert (broker.connections, broker.repeats) == (1, 0)
    found = [each.message_id for each in await read(channel, names[1])]
    assert found == ["alice-0", "alice-1"]


async def test_an_event_that_is_too_large_refuses_that_event_alone():
    with private_rabbitmq(more_settings="max_message_size = 100000\n") as private:
        broker = broker_for(private.server, ["events"], timeout_seconds=20)
        large = message("alice", 1, text="x" * 200_000)
        results = await asyncio.gather(
            broker.publish_many([message("alice", 0), large, message("alice", 2)]),
            broker.publish_many(batch("bob", 0)),
            return_exceptions=True,
        )
        assert isinstance(results[0], errors.BrokerRefusedError)
        assert "(100000 bytes): raise max_message_size there" in str(results[0])
        assert results[1] is None
        # once it is known, the connection is kept, and nothing of it is sent
        with pytest.raises(errors.BrokerRefusedError, match="max_message_size"):
            await broker.publish(large)
        await broker.publish(message("bob", 4))
        assert broker.connections == 2
        await broker.close()
        connection = await private.server.connect()
        async with connection:
            found = await read(await connection.channel(), "events")
        got = list(dict.fromkeys(each.message_id for each in found))
        assert [each for each in got if "alice" in each] == ["alice-0"]
        assert [each for each in got if "bob" in each] == ids(batch("bob", 0, 5))


async def test_a_user_who_may_not_write_is_told_and_keeps_the_connection(channel_of):
    channel = channel_of("rabbitmq")
    channel.renew()
    options = {"username": READER, "password": READER, "timeout_seconds": 3}
    broker = channel.broker(**options)
    for _ in range(2):
        results = await asyncio.gather(
            *(broker.publish_many(batch(name, 0)) for name in ("alice", "bob")),
            return_exceptions=True,
        )
        assert [type(each) for each in results] == [errors.BrokerAccessError] * 2
        assert "may not write to the exchange" in str(results[0])
    assert broker.is_ready()
    # what the user may write to is written to over the same connection
    broker.exchange_name = ""
    with pytest.raises(errors.BrokerRefusedError, match="no queue for the event"):
        await broker.publish(message("alice", 0))
    assert broker.connections == 1
    assert await channel.read() == []
    # to bind a queue takes the right to write to it
    with pytest.raises(errors.BrokerAccessError, match="the rights of the user"):
        await channel.broker(**options, queues=["another"]).open()
    await channel.close()


async def test_rasas_variables_are_what_tls_is_made_of(channel_of, monkeypatch):
    channel = channel_of("rabbitmq", tls=True)
    channel.renew()
    given = {
        "CA_FILE": channel.certificates.ca,
        # Erlang takes no client's certificate without an alternative name
        "CLIENT_CERTIFICATE": channel.certificates.server_certificate,
        "CLIENT_KEY": channel.certificates.server_key,
    }
    for name, path in given.items():
        monkeypatch.setenv(f"RABBITMQ_SSL_{name}", str(path))
    await channel.broker(use_ssl=None).publish_many(batch("alice", 0))
    assert len(await channel.read()) == 4
    await channel.close()


async def test_a_queue_of_another_kind_is_one_sentence(rabbitmq_server, raw):
    channel, names = raw
    await channel.declare_queue(names[1], durable=True, arguments={"x-max-length": 9})
    broker = broker_for(rabbitmq_server, names)
    with pytest.raises(errors.BrokerAccessError, match="with other arguments"):
        await broker.open()
    await broker.close()


async def test_what_is_not_to_be_kept_is_dropped_and_counted(caplog):
    broker = PikaEventBroker(
        "127.0.0.1",
        port=1,
        timeout_seconds=0.2,
        raise_on_failure=False,
        should_keep_unpublished_messages=False,
    )
    await broker.publish_many(batch("alice", 0))
    await broker.close()
    assert broker.dropped == 4
    assert "Dropped 4 events (4 so far)" in caplog.text


async def test_a_virtual_host_that_is_not_there_is_said(rabbitmq_server, raw):
    broker = broker_for(rabbitmq_server, raw[1], virtual_host="nowhere")
    with pytest.raises(errors.BrokerAccessError, match="no virtual host 'nowhere'"):
        await broker.open()
    await broker.close()
