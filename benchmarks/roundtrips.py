"""Counting round trips: what really goes over the wire, not what was meant to."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class CountingProxy:
    """A TCP proxy that counts how often the client starts to speak after the server.

    Attributes:
        round_trips: Number of requests, each of one or more packets, seen so far.
        sent_bytes: Number of bytes that the client sent.
        received_bytes: Number of bytes that it was sent.
    """

    def __init__(self, host: str, port: int) -> None:
        self.target = host, port
        self.round_trips = 0
        self.sent_bytes = self.received_bytes = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def handle(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry one connection."""
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        upstream_reader, upstream_writer = await asyncio.open_connection(*self.target)
        state = {"answered": True}

        async def requests() -> None:
            while data := await reader.read(1 << 16):
                self.sent_bytes += len(data)
                if state["answered"]:
                    self.round_trips += 1
                    state["answered"] = False
                upstream_writer.write(data)
            upstream_writer.close()

        async def answers() -> None:
            while data := await upstream_reader.read(1 << 16):
                self.received_bytes += len(data)
                state["answered"] = True
                writer.write(data)
            writer.close()

        await asyncio.gather(requests(), answers(), return_exceptions=True)


@asynccontextmanager
async def counting_proxy(url: str) -> AsyncIterator[tuple[str, CountingProxy]]:
    """Put a counting proxy in front of a server; yield its URL and the proxy."""
    parts = urlsplit(url)
    usual = {"redis": 6379, "rediss": 6379, "mongodb": 27017}.get(parts.scheme, 5432)
    proxy = CountingProxy(parts.hostname or "127.0.0.1", parts.port or usual)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    credentials = parts.netloc.rpartition("@")[0]
    netloc = f"{credentials}@127.0.0.1:{port}" if credentials else f"127.0.0.1:{port}"
    try:
        yield urlunsplit(parts._replace(netloc=netloc)), proxy
    finally:
        server.close()


@asynccontextmanager
async def counted_thread_hops() -> AsyncIterator[dict[str, int]]:
    """Count what threads of aiosqlite are given to do: SQLite's round trips.

    Of connections that are made meanwhile.
    """
    import aiosqlite.core

    core: Any = aiosqlite.core
    count, original = {"hops": 0}, core.SimpleQueue

    class Counting(SimpleQueue[Any]):
        def put_nowait(self, item: Any) -> None:
            count["hops"] += 1
            super().put_nowait(item)

    core.SimpleQueue = Counting
    try:
        yield count
    finally:
        core.SimpleQueue = original
