"""The Redis store, and the raw client doing the same work."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from benchmarks.contestant import Contestant, Event
from benchmarks.contestants import STANDARD_JSON, Codec, Ours
from tracker_store_async import create_tracker_store

RECORD_EXP_SECONDS = 86_400


class OursOnRedis(Ours):
    """The Redis store, under a prefix that comes and goes, with an expiry."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url, self.prefix = url, prefix
        super().__init__(
            create_tracker_store(
                {
                    "type": "redis",
                    "url": url,
                    "key_prefix": prefix,
                    "record_exp": RECORD_EXP_SECONDS,
                }
            )
        )

    async def close(self) -> None:
        await super().close()
        await remove(self.url, self.prefix)


class RawRedis(Contestant):
    """redis-py: `RPUSH` and `EXPIRE` in one pipeline, `LRANGE`; a list of JSON texts.

    Each text has the event's id in front, as ours has: the same bytes.
    """

    def __init__(self, url: str, prefix: str, codec: Codec = STANDARD_JSON) -> None:
        self.url, self.prefix, self.codec = url, prefix, codec

    async def open(self) -> None:
        from redis.asyncio import Redis

        self.client: Any = Redis.from_url(self.url)

    async def close(self) -> None:
        await self.client.aclose()
        await remove(self.url, self.prefix)

    async def retrieve(self, sender_id: str) -> Any:
        rows = await self.client.lrange(f"{self.prefix}:{sender_id}", 0, -1)
        loads = self.codec.loads
        events = [loads(row.partition(b"\n")[2]) for row in rows]
        return sender_id, len(events), events

    def prepare(self, loaded: Any, sender_id: str, events: list[Event]) -> Any:
        return sender_id, events

    async def save(self, prepared: Any) -> None:
        sender_id, events = prepared
        key = f"{self.prefix}:{sender_id}"
        rows = [f"{uuid4()}\n{self.codec.dumps(event)}" for event in events]
        async with self.client.pipeline(transaction=False) as pipeline:
            for at in range(0, len(rows), 1000):
                pipeline.rpush(key, *rows[at : at + 1000])
            pipeline.expire(key, RECORD_EXP_SECONDS)
            await pipeline.execute()


async def remove(url: str, prefix: str) -> None:
    """Delete every key that holds the prefix."""
    from redis.asyncio import Redis

    async with Redis.from_url(url) as client:
        async for key in client.scan_iter(match=f"*{prefix}*", count=1000):
            await client.delete(key)
