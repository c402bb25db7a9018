"""RabbitMQ, NATS JetStream and Kafka, and raw clients that confirm every publish.

RabbitMQ and NATS are the ones on their usual ports of 127.0.0.1. Where no Kafka is, it
is noida-db, which is compatible with it and runs for the measurement.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.servers.kafka import private_kafka

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tracker_store_async import EventBroker

    Publish = Callable[[list[str]], Awaitable[None]]

PAIR_NAMES = ("tracker_store_bench_{}", "tracker_store_bench_raw_{}")


def _names() -> list[str]:
    suffix = uuid.uuid4().hex[:8]
    return [name.format(suffix) for name in PAIR_NAMES]


@asynccontextmanager
async def rabbitmq_pair(
    places: Any, **options: Any
) -> AsyncIterator[tuple[EventBroker, Publish]]:
    """Yield the RabbitMQ broker, and aio-pika with a gather of confirmed publishes."""
    import aio_pika

    from tracker_store_async.brokers.pika import PikaEventBroker

    ours, theirs = _names()
    async with await aio_pika.connect("amqp://guest:guest@127.0.0.1/") as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(
            theirs, aio_pika.ExchangeType.FANOUT, durable=True
        )
        queue = await channel.declare_queue(theirs, durable=True)
        await queue.bind(exchange, "")
        persistent = aio_pika.DeliveryMode.PERSISTENT

        async def publish(bodies: list[str]) -> None:
            waiting = [
                exchange.publish(
                    aio_pika.Message(body.encode(), delivery_mode=persistent), ""
                )
                for body in bodies
            ]
            await asyncio.gather(*waiting)

        options |= {"queues": [ours], "exchange_name": ours}
        yield PikaEventBroker("127.0.0.1", **options), publish
        for name in (ours, theirs):
            await channel.queue_delete(name)
            await channel.exchange_delete(name)


@asynccontextmanager
async def nats_pair(
    places: Any, **options: Any
) -> AsyncIterator[tuple[EventBroker, Publish]]:
    """Yield the NATS broker, and nats-py with a gather of acknowledged publishes."""
    import nats

    from tracker_store_async.brokers.nats import NatsEventBroker

    ours, theirs = _names()
    client = await nats.connect("nats://127.0.0.1:4222")
    jetstream = client.jetstream()
    await jetstream.add_stream(name=theirs, subjects=[theirs])

    async def publish(bodies: list[str]) -> None:
        waiting = [jetstream.publish(theirs, body.encode()) for body in bodies]
        await asyncio.gather(*waiting)

    options |= {"stream": ours, "subject": ours}
    yield NatsEventBroker("nats://127.0.0.1:4222", **options), publish
    for name in (ours, theirs):
        await jetstream.delete_stream(name)
    await client.close()


@asynccontextmanager
async def kafka_pair(places: Any) -> AsyncIterator[tuple[EventBroker, Publish]]:
    """Yield the Kafka broker, and aiokafka, idempotent and with acks from all."""
    import aiokafka

    from tracker_store_async.brokers.kafka import KafkaEventBroker

    ours, theirs = _names()
    with ExitStack() as stack:
        private = stack.enter_context(private_kafka("noida-db"))
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=private.server.address,
            acks="all",
            enable_idempotence=True,
        )
        await producer.start()

        async def publish(bodies: list[str]) -> None:
            sent = [await producer.send(theirs, body.encode()) for body in bodies]
            await asyncio.gather(*sent)

        broker = KafkaEventBroker(
            private.server.address, topic=ours, security_protocol="PLAINTEXT"
        )
        yield broker, publish
        await producer.stop()
