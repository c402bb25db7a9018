"""What the Kafka broker needs of aiokafka beyond what that documents, in one place.

`tests/brokers/test_kafka.py` tells when aiokafka changes any of it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiokafka import errors as kafka_errors
from aiokafka.conn import create_conn

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Mapping, Sequence

    from aiokafka import AIOKafkaProducer

STOP_SECONDS = 1.0
"""Longest time that a producer gets to end in good order."""


async def probe(
    servers: Sequence[str], tls: ssl.SSLContext | None, options: Mapping[str, Any]
) -> None:
    """Connect to the first server that answers; else raise what went wrong.

    The producer's own bootstrapping says of any failure only that it failed, and no
    public function of aiokafka says more.

    Args:
        servers: `host:port` each.
        tls: What TLS is done with, or None.
        options: Those of the producer that are about its connections.
    """
    failure: Exception | None = None
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            connection = await create_conn(
                host.strip("[]"), int(port), ssl_context=tls, **options
            )
        except (OSError, TimeoutError, kafka_errors.KafkaError) as error:
            failure = failure or error
            continue
        connection.close()
        return
    assert failure is not None  # noqa: S101 - there is at least one server
    raise failure


async def release(
    producer: AIOKafkaProducer, unconfirmed: Iterable[asyncio.Future[Any]]
) -> None:
    """Stop a producer, without waiting for what nobody waits for any more.

    `stop` waits for every batch that was handed over, and for every answer: what a
    server that is gone owes is given up first, then the connections are closed, which
    it would do only at its end.

    Args:
        producer: The producer; it may not have been started to the end.
        unconfirmed: What `send_batch` returned and is not done yet.
    """
    for future in list(unconfirmed):
        future.cancel()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await producer.stop()
    finally:
        await producer.client.close()
