"""The three brokers behind a wire, and how a test reads what they published."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tests.servers.kafka import private_kafka
from tests.servers.nats import private_nats
from tests.servers.rabbitmq import private_rabbitmq
from tracker_store_async.broker import EventMessage
from tracker_store_async.factory import create_event_broker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.servers.base import Server


@dataclass(frozen=True, slots=True)
class Received:
    """One message as a consumer sees it."""

    message_id: str
    body: dict[str, Any]
    headers: dict[str, Any]


def messages(sender_id: str, count: int, start: int = 0) -> list[EventMessage]:
    """Return the events of one save."""
    return [
        EventMessage(
            f"{sender_id}-{position}",
            sender_id,
            position,
            {"sender_id": sender_id, "event": "user", "text": "schön"},
        )
        for position in range(start, start + count)
    ]


def without_repeats(received: list[Received]) -> dict[str, list[str]]:
    """Return the message ids of each conversation, as a consumer keeps them."""
    found: dict[str, dict[str, None]] = {}
    for message in received:
        found.setdefault(message.body["sender_id"], {})[message.message_id] = None
    return {sender_id: list(ids) for sender_id, ids in found.items()}


class Wire:
    """One broker on one server, with a queue, stream or topic of its own.

    Args:
        server: The server.
    """

    key: ClassVar[str]
    bad_login: ClassVar[dict[str, str]] = {"username": "nobody", "password": "geheim"}

    def __init__(self, server: Server) -> None:
        self.server = server
        self.name = f"tracker_store_test_{uuid.uuid4().hex[:12]}"

    def section(self, host: str = "", port: int = 0) -> dict[str, Any]:
        """Return the `event_broker` section, to another address if one is given."""
        raise NotImplementedError

    def broker(self, host: str = "", port: int = 0, **keys: Any) -> Any:
        """Return a broker made from the section."""
        return create_event_broker({**self.section(host, port), **keys})

    async def received(self) -> list[Received]:
        """Return everything that was published, in order, and forget it."""
        raise NotImplementedError

    async def clean_up(self) -> None:
        """Delete what is ours on the server."""


class RabbitMQWire(Wire):
    """RabbitMQ."""

    key = "rabbitmq"
    start = staticmethod(private_rabbitmq)

    def section(self, host: str = "", port: int = 0) -> dict[str, Any]:
        """Return the section."""
        return {
            "type": "pika",
            "url": host or self.server.host,
            "port": port or self.server.port,
            "username": self.server.username,
            "password": self.server.password,
            "queues": [self.name],
            "exchange_name": self.name,
        }

    async def received(self) -> list[Received]:
        """Read the queue to its end."""
        found = []
        connection = await self.server.connect()  # type: ignore[attr-defined]
        async with connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(self.name, durable=True)
            while (message := await queue.get(no_ack=True, fail=False)) is not None:
                body = json.loads(message.body)
                found.append(Received(message.message_id, body, message.headers))
        return found

    async def clean_up(self) -> None:
        """Delete queue and exchange."""
        connection = await self.server.connect()  # type: ignore[attr-defined]
        async with connection:
            channel = await connection.channel()
            await channel.queue_delete(self.name)
            await channel.exchange_delete(self.name)


class NatsWire(Wire):
    """NATS JetStream."""

    key = "nats"
    start = staticmethod(private_nats)

    def section(self, host: str = "", port: int = 0) -> dict[str, Any]:
        """Return the section."""
        address = f"{host or self.server.host}:{port or self.server.port}"
        section = {"type": "nats", "url": f"nats://{address}"}
        return {**section, "stream": self.name, "subject": self.name}

    async def received(self) -> list[Received]:
        """Read the stream to its end."""
        client = await self.server.connect()  # type: ignore[attr-defined]
        try:
            jetstream, found = client.jetstream(), []
            state = (await jetstream.stream_info(self.name)).state
            for number in range(state.first_seq, state.last_seq + 1):
                message = await jetstream.get_msg(self.name, number)
                headers = message.headers
                body = json.loads(message.data)
                found.append(Received(headers["Nats-Msg-Id"], body, headers))
            return found
        finally:
            await client.close()

    async def clean_up(self) -> None:
        """Delete the stream."""
        client = await self.server.connect()  # type: ignore[attr-defined]
        await client.jetstream().delete_stream(self.name)
        await client.close()


class KafkaWire(Wire):
    """A server that is compatible with Kafka."""

    key = "kafka"
    bad_login: ClassVar[dict[str, str]] = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_username": "nobody",
        "sasl_password": "geheim",
    }

    @staticmethod
    @contextmanager
    def start() -> Iterator[Any]:
        """Start a Tansu."""
        with private_kafka("tansu") as private:
            yield private

    def section(self, host: str = "", port: int = 0) -> dict[str, Any]:
        """Return the section."""
        address = f"{host or self.server.host}:{port or self.server.port}"
        section = {"type": "kafka", "url": address, "topic": self.name}
        return {**section, "security_protocol": "PLAINTEXT"}

    async def received(self) -> list[Received]:
        """Read every partition to its end."""
        import aiokafka

        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=self.server.address,  # type: ignore[attr-defined]
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            places = [
                aiokafka.TopicPartition(self.name, number)
                for number in await _partitions(consumer, self.name)
            ]
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            left = sum(ends.values())
            found: list[Received] = []
            while len(found) < left:
                async with asyncio.timeout(10):
                    record = await consumer.getone()
                headers = {name: value.decode() for name, value in record.headers}
                body = json.loads(record.value)
                found.append(Received(headers["message_id"], body, headers))
            return found
        finally:
            await consumer.stop()


async def _partitions(consumer: Any, topic: str) -> set[int]:
    while not (found := consumer.partitions_for_topic(topic)):
        await consumer._client.fetch_all_metadata()
        consumer._client.add_topic(topic)
    return set(found)


WIRES = {wire.key: wire for wire in (RabbitMQWire, NatsWire, KafkaWire)}


@asynccontextmanager
async def opened(broker: Any) -> AsyncIterator[Any]:
    """Close a broker at the end."""
    try:
        yield broker
    finally:
        await broker.close()
