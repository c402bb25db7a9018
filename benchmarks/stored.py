"""How many bytes a contestant has stored in its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.contestant import Place


async def stored_bytes(place: Place) -> int:
    """Return the bytes of the tables and indexes, keys, or files of a place.

    Redis' are what `MEMORY USAGE` says of each key, so with what it needs itself.
    """
    if place.backend == "postgresql":
        return await _in_postgres(place)
    if place.backend == "redis":
        return await _in_redis(place)
    files = [path for path in Path(place.folder).rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


async def _in_postgres(place: Place) -> int:
    import asyncpg

    connection = await asyncpg.connect(place.url)
    try:
        found = await connection.fetchval(
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = $1 AND c.relkind = 'r'",
            place.namespace,
        )
    finally:
        await connection.close()
    return int(found or 0)


async def _in_redis(place: Place) -> int:
    from redis.asyncio import Redis

    total = 0
    async with Redis.from_url(place.url) as client:
        pattern = f"*{place.namespace}*"
        keys = [key async for key in client.scan_iter(match=pattern, count=1000)]
        for at in range(0, len(keys), 1000):
            async with client.pipeline(transaction=False) as pipeline:
                for key in keys[at : at + 1000]:
                    pipeline.memory_usage(key)
                total += sum(size or 0 for size in await pipeline.execute())
    return total
