"""What a worker is asked and answers: one JSON object a line, a reply to each request.

| request | reply |
|---|---|
| `{"do": "open", "place": {...}, "packages": [...]}` | `{"versions": {...}}` |
| `{"do": "fill", "sender_ids": [...], "events": N}` | `{}` |
| `{"do": "turn", "sender_id": ..., "number": N}` | `{"load_seconds", "save_seconds"}` |
| `{"do": "converse", "sender_ids": [...], "first": N, "turns": N}` | the figures |
| `{"do": "close"}` | `{}` |

Times are taken here, in the process of the contestant, so that neither the pipe nor the
asking process is part of them. A request that fails is answered by `{"error": TEXT}`
without the URL or its password. Works on Python 3.10, with the standard library alone.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from benchmarks import workload
from benchmarks.contestant import Contestant, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TextIO

TICK_SECONDS = 0.001


def private_pipes() -> tuple[TextIO, TextIO]:
    """Return standard input and output, and send what others print to standard error.

    Peers print, and what they print is no reply.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return sys.stdin, replies


async def serve(
    requests: TextIO, replies: TextIO, make: Callable[[Place], Contestant]
) -> None:
    """Answer requests until there are no more.

    Args:
        requests: Where requests come from, one JSON object a line.
        replies: Where replies go.
        make: Returns the contestant that uses a place.
    """
    worker = Worker(make)
    while line := await asyncio.to_thread(requests.readline):
        request = json.loads(line)
        try:
            reply = await worker.answer(request)
        except Exception as error:  # noqa: BLE001  (every error is a reply)
            reply = {"error": worker.redacted(f"{type(error).__name__}: {error}")}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


class Worker:
    """Holds one contestant and does with it what it is asked."""

    def __init__(self, make: Callable[[Place], Contestant]) -> None:
        self._make = make
        self._secrets: list[str] = []
        self._contestant: Contestant | None = None

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request asks and return the reply."""
        name = request.pop("do")
        if name not in {"open", "fill", "turn", "converse", "close"}:
            raise ValueError(f"{name!r} is no request: read workers/protocol.py")
        reply: dict[str, Any] = await getattr(self, f"_{name}")(**request)
        return reply

    def redacted(self, text: str) -> str:
        """Return a text without the URL and the password."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    @property
    def contestant(self) -> Contestant:
        """The contestant, once it is open."""
        if self._contestant is None:
            raise RuntimeError("ask to open first")
        return self._contestant

    async def _open(self, place: dict[str, Any], packages: list[str]) -> dict[str, Any]:
        self._secrets = secrets_of(place["url"])
        contestant = self._make(Place(**place))
        await contestant.open()
        self._contestant = contestant
        # as a long-running server does once it is set up: else each collection would
        # walk all imported modules, and who imports more would seem slower
        gc.collect()
        gc.freeze()
        versions = {"python": sys.version.split()[0]}
        versions.update((name, metadata.version(name)) for name in packages)
        return {"versions": versions}

    async def _fill(self, sender_ids: list[str], events: int) -> dict[str, Any]:
        for sender_id in sender_ids:
            await self.contestant.fill(sender_id, workload.history(events))
        return {}

    async def _turn(self, sender_id: str, number: int) -> dict[str, Any]:
        events = workload.turn(number)
        gc.collect()
        started = time.perf_counter()
        loaded = await self.contestant.retrieve(sender_id)
        load_seconds = time.perf_counter() - started
        prepared = self.contestant.prepare(loaded, sender_id, events)
        started = time.perf_counter()
        await self.contestant.save(prepared)
        save_seconds = time.perf_counter() - started
        return {"load_seconds": load_seconds, "save_seconds": save_seconds}

    async def _converse(
        self, sender_ids: list[str], first: int, turns: int
    ) -> dict[str, Any]:
        gc.collect()
        return await converse(self.contestant, sender_ids, range(first, first + turns))

    async def _close(self) -> dict[str, Any]:
        contestant, self._contestant = self.contestant, None
        gc.unfreeze()
        await contestant.close()
        return {}


def secrets_of(url: str) -> list[str]:
    """Return the texts of a URL that no message may show, the longest first."""
    password = urlsplit(url).password
    return [url, password, unquote(password)] if password else []


async def converse(
    contestant: Contestant, sender_ids: Iterable[str], numbers: range
) -> dict[str, Any]:
    """Run conversations beside each other.

    Returns:
        `seconds` from the first turn to the last, `turn_seconds` of each turn,
        `gap_seconds`: by how much the longest sleep of 1 ms was overslept, and
        `cpu_seconds` of this process.
    """
    turn_seconds: list[float] = []

    async def talk(sender_id: str) -> None:
        for number in numbers:
            started = time.perf_counter()
            loaded = await contestant.retrieve(sender_id)
            await contestant.save(
                contestant.prepare(loaded, sender_id, workload.turn(number))
            )
            turn_seconds.append(time.perf_counter() - started)

    gaps = [0.0]
    ticker = asyncio.ensure_future(tick(gaps))
    await asyncio.sleep(0)
    started, cpu = time.perf_counter(), time.process_time()
    try:
        await asyncio.gather(*(talk(sender_id) for sender_id in sender_ids))
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        await asyncio.sleep(2 * TICK_SECONDS)  # the last gap is noted, too
    finally:
        ticker.cancel()
    return {
        "seconds": seconds,
        "turn_seconds": turn_seconds,
        "gap_seconds": max(gaps),
        "cpu_seconds": cpu,
    }


async def tick(gaps: list[float]) -> None:
    """Note by how much each sleep of 1 ms is overslept, until cancelled."""
    last = time.perf_counter()
    while True:
        await asyncio.sleep(TICK_SECONDS)
        now = time.perf_counter()
        gaps.append(now - last - TICK_SECONDS)
        last = now
