"""The channels of RabbitMQ, NATS JetStream and what is compatible with Kafka."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from tests.brokers.channels import Channel, Delivery
from tests.canaries import SECRET
from tests.servers.base import run_now
from tests.servers.kafka import private_kafka
from tests.servers.nats import private_nats
from tests.servers.rabbitmq import private_rabbitmq

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.servers.kafka import Product
    from tests.servers.rabbitmq import PrivateRabbitMQ
    from tracker_store_async import EventBroker

USERNAME = "tester"
PASSWORD = f"p@ss: w/ord%{SECRET}"  # what a URL must quote
END = "the end of what a test reads"


class WireChannel(Channel):
    """A queue, stream or topic of a private server, a new one for each test."""

    needs_certificate = False

    def __init__(self, private: Any) -> None:
        self.server = private.server
        self.process = private.process
        self.address = (private.server.host, private.server.port)
        self.certificates = getattr(private, "certificates", None)
        super().__init__()

    def _given(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options with what every broker here is given."""
        cafile = options.pop("cafile", None)
        if self.certificates is not None and "use_ssl" not in options:
            options |= {
                "use_ssl": True,
                "ssl_cafile": cafile or str(self.certificates.ca),
            }
            if self.needs_certificate and "ssl_certfile" not in options:
                options["ssl_certfile"] = str(self.certificates.client_certificate)
                options["ssl_keyfile"] = str(self.certificates.client_key)
        return {"retry_delay_in_seconds": 0.1, **options}

    def _address(self, options: dict[str, Any]) -> tuple[str, int]:
        host = options.pop("host", self.server.host)
        return host, options.pop("port", self.server.port)

    def _read(self) -> list[Delivery]:
        return run_now(self._read_all())

    async def _read_all(self) -> list[Delivery]:
        raise NotImplementedError


class RabbitMQChannel(WireChannel):
    """A queue, and the exchange before it."""

    round_trips = 1
    in_one_batch: ClassVar = {"confirm_each_event": False}

    def _make(self, **options: Any) -> EventBroker:
        from tracker_store_async.brokers.pika import PikaEventBroker

        host, port = self._address(options)
        login = {"username": self.server.username, "password": self.server.password}
        return PikaEventBroker(
            host,
            port=port,
            queues=options.pop("queues", [self.name]),
            exchange_name=f"{self.name}_exchange",
            **(login | self._given(options)),
        )

    @asynccontextmanager
    async def slow_consumer(self) -> AsyncIterator[asyncio.Event]:
        """Take one message and never acknowledge it."""
        taken = asyncio.Event()

        async def take(message: Any) -> None:
            taken.set()

        async with await self.server.connect() as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=1)
            queue = await channel.declare_queue(self.name, passive=True)
            await queue.consume(take)
            yield taken

    async def _read_all(self) -> list[Delivery]:
        from aio_pika.exceptions import ChannelNotFoundEntity

        connection = await self.server.connect()
        async with connection:
            channel = await connection.channel()
            found: list[Delivery] = []
            with suppress(ChannelNotFoundEntity):  # nothing was published yet
                queue = await channel.declare_queue(self.name, passive=True)
                # What is not acknowledged goes back to its place at the end.
                while (each := await queue.get(no_ack=False, fail=False)) is not None:
                    found.append(
                        Delivery(
                            each.message_id,
                            each.headers["position"],
                            each.type,
                            each.app_id,
                            json.loads(each.body),
                        )
                    )
            return found


class NatsChannel(WireChannel):
    """A stream; over TLS the server wants a certificate of its clients, too."""

    in_one_batch: ClassVar = {"confirm_each_event": False}
    drops_repeats = True
    needs_certificate = True

    def _make(self, **options: Any) -> EventBroker:
        from tracker_store_async.brokers.nats import NatsEventBroker

        host, port = self._address(options)
        login = {"username": self.server.username, "password": self.server.password}
        return NatsEventBroker(
            f"nats://{host}:{port}",
            stream=self.name,
            subject=self.name,
            **(login | self._given(options)),
        )

    @asynccontextmanager
    async def slow_consumer(self) -> AsyncIterator[asyncio.Event]:
        """Take one message and never acknowledge it."""
        from nats.js.api import ConsumerConfig

        taken = asyncio.Event()

        async def take(message: Any) -> None:
            taken.set()

        client = await self.server.connect()
        await client.jetstream().subscribe(
            self.name,
            cb=take,
            manual_ack=True,
            config=ConsumerConfig(max_ack_pending=1),
        )
        yield taken
        await client.close()

    async def _read_all(self) -> list[Delivery]:
        from nats.js.errors import NotFoundError

        client = await self.server.connect()
        try:
            jetstream = client.jetstream()
            state = (await jetstream.stream_info(self.name)).state
            numbers = (
                range(state.first_seq, state.last_seq + 1) if state.messages else ()
            )
            stored = [await jetstream.get_msg(self.name, number) for number in numbers]
        except NotFoundError:
            return []
        finally:
            await client.close()
        return [
            _from_headers(each.headers, each.headers["Nats-Msg-Id"], each.data)
            for each in stored
        ]


class KafkaChannel(WireChannel):
    """A topic."""

    environment_not_set = "RASA_ENVIRONMENT_NOT_SET"  # Rasa's, to Kafka alone

    def _make(self, **options: Any) -> EventBroker:
        from tracker_store_async.brokers.kafka import KafkaEventBroker

        host, port = self._address(options)
        return KafkaEventBroker(
            f"{host}:{port}",
            topic=self.name,
            security_protocol="PLAINTEXT",
            **self._given(options),
        )

    async def _read_all(self) -> list[Delivery]:
        """Read every partition up to a message that is written now."""
        import aiokafka

        address = f"{self.server.host}:{self.server.port}"
        end = f"{END} {uuid.uuid4()}".encode()
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=address)
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=address, auto_offset_reset="earliest"
        )
        await producer.start()
        await consumer.start()
        try:
            left = set(await producer.partitions_for(self.name))
            for number in left:
                await producer.send_and_wait(self.name, end, partition=number)
            consumer.assign([aiokafka.TopicPartition(self.name, n) for n in left])
            found: list[Delivery] = []
            while left:
                async with asyncio.timeout(20):
                    record = await consumer.getone()
                if record.value == end:
                    left.remove(record.partition)
                elif not record.value.startswith(END.encode()):
                    headers = {name: value.decode() for name, value in record.headers}
                    message_id = headers["message_id"]
                    found.append(_from_headers(headers, message_id, record.value))
            return found
        finally:
            await consumer.stop()
            await producer.stop()


def _from_headers(headers: Any, message_id: str, body: bytes) -> Delivery:
    return Delivery(
        message_id,
        int(headers["position"]),
        headers["type"],
        headers.get("RASA_ENVIRONMENT"),
        json.loads(body),
    )


def rabbitmq_channels() -> tuple[Any, Any]:
    """Return what yields queues of a private RabbitMQ, and the same over TLS.

    It takes seconds to start, so both are one node.
    """
    running: list[PrivateRabbitMQ] = []

    @contextmanager
    def node() -> Iterator[PrivateRabbitMQ]:
        if running:  # whoever started it is the last to leave
            yield running[0]
            return
        with private_rabbitmq(tls=True) as private:
            running.append(private)
            try:
                yield private
            finally:
                running.clear()

    @contextmanager
    def start(directory: Path) -> Iterator[Channel]:
        with node() as private:
            yield RabbitMQChannel(replace(private, certificates=None))

    @contextmanager
    def start_with_tls(directory: Path) -> Iterator[Channel]:
        with node() as private:
            assert private.tls_server is not None
            yield RabbitMQChannel(replace(private, server=private.tls_server))

    return start, start_with_tls


def nats_channel(*, tls: bool = False) -> Any:
    """Return what yields streams of a private NATS."""

    @contextmanager
    def start(directory: Path) -> Iterator[Channel]:
        with private_nats(tls=tls, username=USERNAME, password=PASSWORD) as private:
            yield NatsChannel(private)

    return start


def kafka_channel(product: Product) -> Any:
    """Return what yields topics of a private server that is compatible with Kafka."""

    @contextmanager
    def start(directory: Path) -> Iterator[Channel]:
        with private_kafka(product) as private:
            yield KafkaChannel(private)

    return start
