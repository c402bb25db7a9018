"""The raw driver, as a worker: the least that any store on it has to do.

It checks no version, keeps no state and detects no conflict. `decode` turns each row
into a dict; `bytes` leaves it as the text that it is. JSON is orjson's where that is
installed, which is the faster one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contestants import Codec, RawDict, RawPostgres, RawSqlite

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.contestant import Contestant, Event, Place


def codec(decode: bool) -> Codec:
    """Return the fastest codec at hand, or one that leaves texts as they are."""
    loads: Callable[[Any], Any] = json.loads
    dumps: Callable[[Event], str] = json.dumps
    try:
        import orjson
    except ImportError:
        pass
    else:
        loads = orjson.loads

        def dumps(event: Event) -> str:
            return orjson.dumps(event).decode()

    return Codec(loads if decode else lambda text: text, dumps)


def make(variant: str, place: Place) -> Contestant:
    """Return the contestant of a variant: `decode` or `bytes`."""
    chosen = codec(decode={"decode": True, "bytes": False}[variant])
    if place.backend == "in_memory":
        return RawDict()
    if place.backend == "sqlite":
        return RawSqlite(Path(place.folder) / f"floor_{variant}.db", chosen)
    if place.backend == "redis":
        from benchmarks.redis_contestants import RawRedis

        return RawRedis(place.url, f"{place.namespace}floor", chosen)
    table = f"{place.namespace}.floor"
    return RawPostgres(place.url, table, chosen, place.connection_count)
