"""Kafka: acknowledged by all replicas, idempotent where the cluster can."""

from __future__ import annotations

import asyncio
import logging
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka_errors
from aiokafka.conn import create_conn

from tracker_store_async import errors
from tracker_store_async.brokers.connected import (
    DEFAULT_TIMEOUT_SECONDS,
    ConnectedBroker,
    explain_connection_error,
)
from tracker_store_async.brokers.envelope import encode_body, headers_of
from tracker_store_async.brokers.tls import client_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from tracker_store_async.broker import EventMessage

logger = logging.getLogger(__name__)

DEFAULT_TOPIC = "rasa_core_events"

_CANNOT_BE_IDEMPOTENT = (
    kafka_errors.UnknownError,
    kafka_errors.UnsupportedVersionError,
    kafka_errors.IncompatibleBrokerVersion,
    kafka_errors.ClusterAuthorizationFailedError,
)
"""How a server, or its rules, refuses an idempotent producer."""

_REFUSALS = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.InvalidTopicError,
    kafka_errors.UnknownTopicOrPartitionError,
    kafka_errors.RecordListTooLargeError,
)
"""What sending the same event again on another connection does not mend."""

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


@dataclass(slots=True)
class _Link:
    """One producer, until its state is in doubt."""

    producer: AIOKafkaProducer
    failed: bool = False


class KafkaEventBroker(ConnectedBroker[_Link, _Prepared]):
    """Publishes to a topic; every event is confirmed by all in-sync replicas.

    All events of a conversation go to one partition, with or without a key: else no
    consumer could see their order. Message id, position, type and `RASA_ENVIRONMENT`
    are headers.

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
        queue_size: Most messages that wait for Kafka at a time; None is no limit.
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
        await self._probe(tls)
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

    async def _probe(self, tls: ssl.SSLContext | None) -> None:
        """Connect to the first server that answers; else raise what went wrong.

        The producer's own bootstrapping says of any failure only that it failed.
        """
        failure: Exception | None = None
        for server in self._servers:
            host, _, port = server.rpartition(":")
            try:
                connection = await create_conn(
                    host.strip("[]"), int(port), ssl_context=tls, **self._options
                )
            except (OSError, TimeoutError, kafka_errors.KafkaError) as error:
                failure = failure or error
                continue
            connection.close()
            return
        assert failure is not None  # noqa: S101 - there is at least one server
        raise failure

    async def _tls_context(self) -> ssl.SSLContext | None:
        if not self._security_protocol.endswith("SSL"):
            return None
        return await asyncio.to_thread(
            client_context, *self._ssl_files, check_hostname=self._ssl_check_hostname
        )

    async def _disconnect(self, link: _Link) -> None:
        """Stop the producer, without waiting for what nobody waits for any more."""
        link.failed = True
        producer = link.producer
        producer._message_accumulator.fail_all(kafka_errors.ProducerClosed())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await producer.stop()
        finally:
            await producer.client.close()

    def _is_alive(self, link: _Link) -> bool:
        return not link.failed

    def _explain(self, error: Exception) -> errors.PublishError:
        if isinstance(error, _LOGIN_REFUSALS):
            return errors.BrokerAccessError(
                f"{self._where} refused the user name, the password or the mechanism: "
                "check the sasl_ keys"
            )
        if isinstance(error, _REFUSALS):
            return errors.BrokerAccessError(
                f"{self._where} has no topic {self.topic!r} that this user may write to"
            )
        return explain_connection_error(self._where, error)

    # -- messages ----------------------------------------------------------------------

    def _prepare(self, message: EventMessage) -> _Prepared:
        headers = [(name, text.encode()) for name, text in headers_of(message).items()]
        return _Prepared(message.sender_id.encode(), encode_body(message), headers)

    async def publish_many(self, messages: Sequence[EventMessage]) -> None:
        """Send the events of one save together, and wait for all confirmations.

        Raises:
            PublishError: One was refused, or not confirmed within `timeout_seconds`, or
                `queue_size` messages wait already.
        """
        if self.queue_size is not None and self._waiting >= self.queue_size:
            raise errors.BrokerUnavailableError(
                f"{self._waiting} messages wait for {self._where} already (queue_size)"
            )
        self._waiting += len(messages)
        try:
            await super().publish_many(messages)
        finally:
            self._waiting -= len(messages)

    async def _send(self, link: _Link, batch: Sequence[_Prepared]) -> int:
        futures: list[asyncio.Future[Any]] = []
        failure: BaseException | None = None
        try:
            for prepared in batch:
                future = await self._enqueue(link.producer, prepared)
                # its error may come when nobody waits any more
                future.add_done_callback(_retrieve)
                futures.append(future)
        except kafka_errors.KafkaError as error:
            failure, link.failed = error, True
        if futures:
            await asyncio.wait(futures)
        for confirmed, future in enumerate(futures):
            if future.cancelled() or future.exception() is not None:
                self._judge(link, None if future.cancelled() else future.exception())
                return confirmed
        if failure is not None:
            self._judge(link, failure)
        return len(futures)

    def _judge(self, link: _Link, error: BaseException | None) -> None:
        """Give up what the cluster refuses; else a new producer tries again."""
        link.failed = True
        if isinstance(error, _REFUSALS):
            raise errors.BrokerRefusedError(
                f"{self._where} refused the event ({type(error).__name__}): check the "
                f"topic {self.topic!r}, its largest message size and the rights"
            ) from error

    async def _enqueue(
        self, producer: AIOKafkaProducer, prepared: _Prepared
    ) -> asyncio.Future[Any]:
        # Chosen here: Kafka would scatter messages without a key, and with them the
        # order within a conversation.
        partitions = sorted(await producer.partitions_for(self.topic))
        future: asyncio.Future[Any] = await producer.send(
            self.topic,
            prepared.body,
            key=prepared.sender if self.partition_by_sender else None,
            partition=partitions[zlib.crc32(prepared.sender) % len(partitions)],
            headers=prepared.headers,
        )
        return future


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Take note of an error, for which nobody may be left to wait."""
    if not future.cancelled():
        future.exception()
