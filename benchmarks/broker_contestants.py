"""Event brokers, and raw clients that do confirmed publishes of the same bodies.

A new broker is one entry in `BROKERS`: ours, and a raw client that sends the bodies of
one save and waits until they are confirmed.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path  # noqa: TC003 - a NamedTuple evaluates it
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tracker_store_async import EventBroker

    Publish = Callable[[list[str]], Awaitable[None]]
    Pair = Callable[["Places"], Any]


class Places(NamedTuple):
    """Where the brokers are."""

    folder: Path
    redis_url: str
    postgresql_url: str


@asynccontextmanager
async def file_pair(places: Places) -> AsyncIterator[tuple[EventBroker, Publish]]:
    """Yield the file broker, and a write and an fsync in a thread."""
    from tracker_store_async.brokers.file import FileEventBroker

    raw = (places.folder / "raw.log").open("ab", buffering=0)

    def append(data: bytes) -> None:
        raw.write(data)
        os.fsync(raw.fileno())

    async def publish(bodies: list[str]) -> None:
        await asyncio.to_thread(append, ("\n".join(bodies) + "\n").encode())

    yield FileEventBroker(places.folder / "ours.log"), publish
    raw.close()


@asynccontextmanager
async def sqlite_pair(places: Places) -> AsyncIterator[tuple[EventBroker, Publish]]:
    """Yield the SQL broker on SQLite, and aiosqlite with one commit a save."""
    import aiosqlite

    from tracker_store_async.brokers.sql import SQLEventBroker

    table = "CREATE TABLE events (id INTEGER PRIMARY KEY, sender_id, data)"
    turn = asyncio.Lock()
    async with aiosqlite.connect(places.folder / "raw.db") as raw:
        await raw.execute(table)

        async def publish(bodies: list[str]) -> None:
            rows = [("x", body) for body in bodies]
            async with turn:
                await raw.executemany(
                    "INSERT INTO events (sender_id, data) VALUES (?, ?)", rows
                )
                await raw.commit()

        yield SQLEventBroker(db=str(places.folder / "ours.db")), publish


@asynccontextmanager
async def postgresql_pair(places: Places) -> AsyncIterator[tuple[EventBroker, Publish]]:
    """Yield the SQL broker on PostgreSQL, and one INSERT a save through a pool."""
    import asyncpg

    from tracker_store_async.brokers.sql import SQLEventBroker

    name = f"tracker_store_bench_{uuid.uuid4().hex[:8]}"
    admin = await asyncpg.connect(places.postgresql_url)
    await admin.execute(f"CREATE DATABASE {name}")
    url = urlsplit(places.postgresql_url)._replace(path=f"/{name}").geturl()
    pool = await asyncpg.create_pool(url, min_size=1, max_size=10)
    await pool.execute("CREATE TABLE raw (id serial primary key, sender text, d text)")
    sql = "INSERT INTO raw (sender, d) SELECT 'x', unnest($1::text[])"

    async def publish(bodies: list[str]) -> None:
        await pool.execute(sql, bodies)

    broker = SQLEventBroker("postgresql", host=url, db=None)
    try:
        yield broker, publish
    finally:
        await broker.close()
        await pool.close()
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


@asynccontextmanager
async def redis_pair(places: Places) -> AsyncIterator[tuple[EventBroker, Publish]]:
    """Yield the Redis broker, and redis-py with one pipeline of XADD a save."""
    import redis.asyncio

    from tracker_store_async.brokers.redis import RedisEventBroker

    url = urlsplit(places.redis_url)
    client = redis.asyncio.Redis.from_url(places.redis_url)
    names = [f"tracker_store_bench_{uuid.uuid4().hex[:8]}" for _ in range(2)]

    async def publish(bodies: list[str]) -> None:
        async with client.pipeline(transaction=False) as pipeline:
            for body in bodies:
                pipeline.xadd(names[0], {"body": body}, maxlen=1_000_000)
            await pipeline.execute()

    host, port = url.hostname or "localhost", url.port or 6379
    broker = RedisEventBroker(host, port, password=url.password, stream=names[1])
    try:
        yield broker, publish
    finally:
        await client.delete(*names)
        await client.aclose()


@asynccontextmanager
async def _wire(
    name: str, places: Places, **options: Any
) -> AsyncIterator[tuple[EventBroker, Publish]]:
    # imported here, since its servers come with what the tests need
    from benchmarks import wire_contestants

    async with getattr(wire_contestants, name)(places, **options) as pair:
        yield pair


BROKERS: dict[str, Pair] = {
    "file": file_pair,
    "sqlite": sqlite_pair,
    "postgresql": postgresql_pair,
    "redis": redis_pair,
    "rabbitmq": partial(_wire, "rabbitmq_pair"),
    "nats": partial(_wire, "nats_pair"),
    # with 'confirm_each_event: false'
    "rabbitmq-batch": partial(_wire, "rabbitmq_pair", confirm_each_event=False),
    "nats-batch": partial(_wire, "nats_pair", confirm_each_event=False),
    "kafka": partial(_wire, "kafka_pair"),
}
