"""Kafka: acknowledged by all replicas, idempotent where the cluster can."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka_errors

from tracker_store_async import errors
from tracker_store_async.brokers.connected import (
    CAREFUL_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    ConnectedBroker,
    explain_connection_error,
)
from tracker_store_async.brokers.envelope import encode_body, headers_of
from tracker_store_async.brokers.grouping import GroupWriter
from tracker_store_async.brokers.kafka_client import probe, release
from tracker_store_async.brokers.tls import client_context
from tracker_store_async.redaction import get_logger

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from aiokafka.producer.message_accumulator import BatchBuilder

    from tracker_store_async.broker import EventMessage

logger = get_logger(__name__)

DEFAULT_TOPIC = "rasa_core_events"

ENVIRONMENT_NOT_SET = "RASA_ENVIRONMENT_NOT_SET"
"""What Rasa sends as header `RASA_ENVIRONMENT` where the variable is not set; only to
Kafka, and nothing where it is empty (`rasa/core/brokers/kafka.py` of 3.6.21)."""

BATCH_BYTES = 65_536
"""Size of a batch, after which another one is begun; a larger event has its own.

Kafka takes a batch as a whole or not at all, and refuses one that is larger than the
topic's `max.message.bytes`: so saves are sent together, but not without bound. Where
one is refused for its size, batches are half as large from then on.
"""

LARGEST_BYTES = 1_000_000
"""Largest event: Kafka's own default is 1,048,588 bytes for a batch."""

_CANNOT_BE_IDEMPOTENT = (
    kafka_errors.UnknownError,
    kafka_errors.UnsupportedVersionError,
    kafka_errors.IncompatibleBrokerVersion,
    kafka_errors.ClusterAuthorizationFailedError,
)
"""How a server, or its rules, refuses an idempotent producer."""

_TOO_LARGE = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
)
"""How a server refuses a batch for its size: for it, or for one event in it."""

_NO_TOPIC = (
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.InvalidTopicError,
    kafka_errors.UnknownTopicOrPartitionError,
)
"""What no other connection and no other event mends."""

_LOGIN_REFUSALS = (
    kafka_errors.AuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """One message, encoded."""

    sender: bytes
    body: bytes
    headers: list[tuple[str, bytes]]

    @property
    def size_bytes(self) -> int:
        """About what it takes in a batch."""
        names = sum(len(name) + len(value) for name, value in self.headers)
        return len(self.body) + len(self.sender) + names + 100


@dataclass(slots=True)
class _Link:
    """One producer, until its state is in doubt.

    Attributes:
        producer: The producer.
        writers: For each partition, who sends the next batch to it.
        unconfirmed: What is awaited.
        failed: Whether it must not be used any more: after a batch that was refused,
            an idempotent producer has lost count.
    """

    producer: AIOKafkaProducer
    writers: dict[int, GroupWriter[_Prepared]] = field(default_factory=dict)
    unconfirmed: set[asyncio.Future[Any]] = field(default_factory=set)
    failed: bool = False


class KafkaEventBroker(ConnectedBroker[_Link, _Prepared]):
    """Publishes to a topic; every event is confirmed by all in-sync replicas.

    All events of a conversation go to one partition, with or without a key: else no
    consumer could see their order. There one batch is under way at a time, with what
    several saves had to send: so the order holds without idempotence, too, and where
    Kafka refuses a batch, nothing that belongs behind it was sent. Message id,
    position, type and `RASA_ENVIRONMENT` are headers.

    Args:
        url: `host:port` of servers of the cluster.
        topic: Topic that events go to.
        client_id: Name of this client in the server's log.
        partition_by_sender: Whether the sender id is the key of a message.
        sasl_username: User name.
        sasl_password: Password.
        sasl_mechanism: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`, or, with
            `sasl_options`, `GSSAPI` or `OAUTHBEARER`.
        ssl_cafile: Certificates to check the server against.
        ssl_certfile: The client's certificate.
        ssl_keyfile: Its private key.
        ssl_check_hostname: Whether the certificate must name the host.
        security_protocol: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
        queue_size: Most messages that wait for Kafka at a time; None is no limit. A
            save of more goes alone.
        enable_idempotence: Whether Kafka drops repeats of one connection by itself;
            None does where it can.
        sasl_options: More arguments of `AIOKafkaProducer` whose names begin with
            `sasl_`, such as `sasl_oauth_token_provider`.
        timeout_seconds: Longest time that one publish takes, reconnecting included.
        connection_attempts: Attempts to connect before `open` gives up.
        retry_delay_in_seconds: Longest pause between two attempts.
    """

    def __init__(
        self,
        url: Sequence[str] | str = "localhost:9092",
        topic: str = DEFAULT_TOPIC,
        client_id: str | None = None,
        partition_by_sender: bool = False,
        sasl_username: str | None = None,
        sasl_password: str | None = None,
        sasl_mechanism: str = "PLAIN",
        ssl_cafile: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        ssl_check_hostname: bool = False,
        security_protocol: str = "SASL_PLAINTEXT",
        *,
        queue_size: int | None = None,
        enable_idempotence: bool | None = None,
        sasl_options: Mapping[str, Any] | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        connection_attempts: int = 20,
        retry_delay_in_seconds: float = 5.0,
    ) -> None:
        self._servers = [url] if isinstance(url, str) else list(url)
        super().__init__(
            "Kafka",
            ", ".join(self._servers),
            timeout_seconds,
            connection_attempts,
            retry_delay_in_seconds,
        )
        self.topic = topic
        self.partition_by_sender = partition_by_sender
        self.enable_idempotence = enable_idempotence
        self._idempotent = enable_idempotence is not False
        self._security_protocol = security_protocol.upper()
        self._ssl_files = (ssl_cafile, ssl_certfile, ssl_keyfile)
        self._ssl_check_hostname = ssl_check_hostname
        self.queue_size = queue_size
        self._waiting = 0
        self._apart_until = 0.0
        self._batch_bytes = BATCH_BYTES
        self._options: dict[str, Any] = {
            "client_id": client_id or "tracker-store-async",
            "security_protocol": self._security_protocol,
            "request_timeout_ms": max(1, int(timeout_seconds * 1000)),
        }
        if self._security_protocol.startswith("SASL"):
            self._options |= {
                "sasl_mechanism": sasl_mechanism,
                "sasl_plain_username": sasl_username,
                "sasl_plain_password": sasl_password,
                **(sasl_options or {}),
            }

    # -- the connection ----------------------------------------------------------------

    async def _connect(self) -> _Link:
        tls = await self._tls_context()
        await probe(self._servers, tls, self._options)
        if not self._idempotent:
            return await self._start(tls, idempotent=False)
        try:
            return await self._start(tls, idempotent=True)
        except _CANNOT_BE_IDEMPOTENT:
            if self.enable_idempotence:
                raise
            self._idempotent = False
            logger.info("%s has no idempotent producers for us", self._where)
            return await self._start(tls, idempotent=False)

    async def _start(self, tls: ssl.SSLContext | None, *, idempotent: bool) -> _Link:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._servers,
            ssl_context=tls,
            acks="all",
            enable_idempotence=idempotent,
            max_batch_size=BATCH_BYTES,
            **self._options,
        )
        link = _Link(producer)
        try:
            await producer.start()
            await producer.partitions_for(self.topic)
        except BaseException:
            await self._disconnect(link)
            raise
        return link

    async def _tls_context(self) -> ssl.SSLContext | None:
        if not self._security_protocol.endswith("SSL"):
            return None
        return await asyncio.to_thread(
            client_context, *self._ssl_files, check_hostname=self._ssl_check_hostname
        )

    async def _disconnect(self, link: _Link) -> None:
        link.failed = True
        await release(link.producer, link.unconfirmed)
        for writer in link.writers.values():
            await writer.close(seconds=0)

    def _is_alive(self, link: _Link) -> bool:
        return not link.failed

    def _explain(self, error: Exception) -> errors.PublishError:
        if isinstance(error, _LOGIN_REFUSALS):
            return errors.BrokerAccessError(
                f"{self._where} refused the user name, the password or the mechanism: "
                "check the sasl_ keys"
            )
        if isinstance(error, _NO_TOPIC):
            return errors.BrokerAccessError(
                f"{self._where} has no topic {self.topic!r} that this user may write to"
            )
        problem = explain_connection_error(self._where, error)
        if isinstance(error, kafka_errors.KafkaConnectionError) and self._ssl_files[1]:
            # aiokafka does not say why a server ends a connection once TLS has begun.
            return type(problem)(f"{problem}: it may refuse the client's certificate")
        return problem

    # -- messages ----------------------------------------------------------------------

    def _prepare(self, message: EventMessage) -> _Prepared:
        texts = headers_of(message, ENVIRONMENT_NOT_SET)
        headers = [(name, text.encode()) for name, text in texts.items()]
        return _Prepared(message.sender_id.encode(), encode_body(message), headers)

    async def publish_many(self, messages: Sequence[EventMessage]) -> None:
        """Send the events of one save together, and wait for all confirmations.

        Raises:
            PublishError: One was refused, or not confirmed within `timeout_seconds`, or
                more than `queue_size` messages would wait.
        """
        waiting = self._waiting + len(messages)
        # One save that is larger than the queue goes alone: it would never go else.
        if self.queue_size and self._waiting and waiting > self.queue_size:
            raise errors.BrokerUnavailableError(
                f"{self._waiting} messages wait for {self._where} already, and with "
                f"{len(messages)} more they would be more than queue_size "
                f"({self.queue_size})"
            )
        self._waiting += len(messages)
        try:
            await super().publish_many(messages)
        finally:
            self._waiting -= len(messages)

    async def _send(self, link: _Link, batch: Sequence[_Prepared]) -> int:
        try:
            partitions = sorted(await link.producer.partitions_for(self.topic))
        except kafka_errors.KafkaError as error:
            self._judge(link, error)
            return 0
        # Chosen here: Kafka would scatter messages without a key, and with them the
        # order within a conversation.
        shares = defaultdict[int, list[_Prepared]](list)
        for prepared in batch:
            shares[_partition_of(prepared, partitions)].append(prepared)
        results = await asyncio.gather(
            *(self._writer(link, n).put(share) for n, share in shares.items()),
            return_exceptions=True,
        )
        outcome = dict(zip(shares, results, strict=True))
        for confirmed, prepared in enumerate(batch):
            problem = outcome[_partition_of(prepared, partitions)]
            if isinstance(problem, ConnectionError):
                return confirmed
            if problem is not None:
                raise problem
        return len(batch)

    def _check(self, link: _Link, batch: Sequence[_Prepared]) -> None:
        """Refuse as a whole what holds an event that is too large."""
        largest = max(prepared.size_bytes for prepared in batch)
        if largest > LARGEST_BYTES:
            raise errors.BrokerRefusedError(
                f"an event of {largest} bytes is larger than Kafka takes "
                f"({LARGEST_BYTES} bytes)"
            )

    def _writer(self, link: _Link, partition: int) -> GroupWriter[_Prepared]:
        async def write(items: list[_Prepared]) -> None:
            await self._write(link, partition, items)

        def is_apart() -> bool:
            return time.monotonic() < self._apart_until

        if partition not in link.writers:
            link.writers[partition] = GroupWriter(write, is_apart)
        return link.writers[partition]

    async def _write(
        self, link: _Link, partition: int, items: Sequence[_Prepared]
    ) -> None:
        """Send one batch after the other; a `ConnectionError` says to try it again.

        Raises:
            PublishError: Kafka refused one.
        """
        at = 0
        while at < len(items):
            if link.failed:
                raise ConnectionError
            batch, begun_at, size_bytes = link.producer.create_batch(), at, 0
            while at < len(items):
                size_bytes += items[at].size_bytes
                is_full = at > begun_at and size_bytes > self._batch_bytes
                if is_full or not self._add(batch, items[at]):
                    size_bytes -= items[at].size_bytes
                    break
                at += 1
            try:
                future = await link.producer.send_batch(
                    batch, self.topic, partition=partition
                )
                link.unconfirmed.add(future)
                future.add_done_callback(link.unconfirmed.discard)
                await asyncio.wait({future})
                if future.cancelled():
                    raise ConnectionError
                future.result()
            except kafka_errors.KafkaError as error:
                if isinstance(error, _TOO_LARGE) and at > begun_at + 1:
                    # Smaller ones, down to single events: see whose size it is.
                    self._batch_bytes = size_bytes // 2
                    link.failed = True
                else:
                    self._judge(link, error)
                raise ConnectionError from error

    def _add(self, batch: BatchBuilder, prepared: _Prepared) -> bool:
        """Put a message into a batch; return False if that is full."""
        added = batch.append(
            timestamp=None,
            key=prepared.sender if self.partition_by_sender else None,
            value=prepared.body,
            headers=prepared.headers,
        )
        return added is not None

    def _judge(self, link: _Link, error: Exception) -> None:
        """Give up what the cluster refuses; else a new producer tries again.

        Raises:
            BrokerAccessError: There is no such topic, or no right to write to it.
            BrokerRefusedError: Sending it again would not help.
        """
        link.failed = True
        if isinstance(error, _NO_TOPIC):
            raise self._explain(error) from error
        if isinstance(error, _TOO_LARGE):
            # Of several saves in a batch only one is to blame: see which.
            self._apart_until = time.monotonic() + CAREFUL_SECONDS
            raise errors.BrokerRefusedError(
                f"{self._where} refused the event ({type(error).__name__}): check the "
                f"largest message size of the topic {self.topic!r}"
            ) from error


def _partition_of(prepared: _Prepared, partitions: Sequence[int]) -> int:
    return partitions[zlib.crc32(prepared.sender) % len(partitions)]
