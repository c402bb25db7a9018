"""A TCP proxy that breaks on demand, to stand between a store and its server."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

if TYPE_CHECKING:
    from types import TracebackType

How: TypeAlias = Literal["reset", "close"]
"""End a connection with RST, as a crash does, or with FIN, as a shutdown does."""

CHUNK_BYTES = 65536


class FaultProxy:
    """Forward connections to a server until told to misbehave.

    ::

        async with FaultProxy(server.host, server.port) as proxy:
            store = connect_to(proxy.host, proxy.port)
            proxy.cut_request(b"COMMIT", when="after")  # the acknowledgement is lost

    The faults of `cut_request` and `cut_reply_after` strike once and are then gone, so
    that a retry goes through; `struck` tells that they did.

    Args:
        server_host, server_port: Where to forward to.

    Attributes:
        host, port: Where the proxy listens.
        delay_seconds: How long each piece of a reply is held back.
        connections: Number of connections accepted so far.
        round_trips: Number of times that a client wrote after it had been answered, or
            for the first time.
        struck: Set when an armed fault has struck.
    """

    host = "127.0.0.1"

    def __init__(self, server_host: str, server_port: int) -> None:
        self.port = 0
        self.delay_seconds = 0.0
        self.connections = 0
        self.round_trips = 0
        self.struck = asyncio.Event()
        self._target = (server_host, server_port)
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._pattern: tuple[bytes, str, How] | None = None
        self._reply_budget: tuple[int, How] | None = None

    async def __aenter__(self) -> Self:
        """Listen."""
        await self.accept()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening and cut what is left."""
        self.unfreeze()
        await self.refuse()
        links = [link.task for link in self._links]
        self.cut()
        await asyncio.gather(*links, return_exceptions=True)

    async def refuse(self) -> None:
        """Refuse new connections, as a machine without the server does."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            await asyncio.sleep(0)

    async def accept(self) -> None:
        """Accept new connections, on the same port as before."""
        if self._listener is None:
            self._listener = await asyncio.start_server(
                self._serve, self.host, self.port, reuse_address=True
            )
            self.port = self._listener.sockets[0].getsockname()[1]

    def freeze(self) -> None:
        """Swallow everything both ways, as a lost route does; nobody is told."""
        self._flowing.clear()

    def unfreeze(self) -> None:
        """Deliver what was held back, and go on."""
        self._flowing.set()

    def cut(self, how: How = "reset") -> None:
        """End every connection that is open now."""
        for link in list(self._links):
            link.cut(how)

    def cut_request(
        self,
        pattern: bytes,
        *,
        when: Literal["before", "after"],
        how: How = "reset",
    ) -> None:
        """Cut the next connection on which a client sends the pattern.

        Args:
            pattern: Bytes of the request.
            when: `before`: the server never sees it. `after`: the server has seen it
                and answered, and the answer is lost.
            how: How to end it.
        """
        self.struck.clear()
        self._pattern = (pattern, when, how)

    def cut_reply_after(self, size_bytes: int, how: How = "reset") -> None:
        """Cut the connection once this much more of replies has been delivered."""
        self.struck.clear()
        self._reply_budget = (size_bytes, how)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        try:
            upstream = await asyncio.open_connection(*self._target)
        except OSError:
            _end(writer, "reset")
            return
        link = _Link(self, (reader, writer), upstream)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    def _strike(self) -> None:
        self._pattern = self._reply_budget = None
        self.struck.set()


class _Link:
    """One connection through the proxy: a pump for each direction."""

    def __init__(
        self,
        proxy: FaultProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._tail = b""
        self._lose_reply: How | None = None
        self._answered = True
        self.task = asyncio.current_task() or asyncio.Future[None]()

    async def run(self) -> None:
        """Forward both ways until one side ends."""
        pumps = [
            asyncio.create_task(pump())
            for pump in (self._pump_requests, self._pump_replies)
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self.cut("close")

    def cut(self, how: How) -> None:
        """End both halves."""
        _end(self._to_client, how)
        _end(self._to_server, how)

    async def _pump_requests(self) -> None:
        while data := await self._from_client.read(CHUNK_BYTES):
            await self._proxy._flowing.wait()
            if self._answered:
                self._proxy.round_trips += 1
                self._answered = False
            if self._matches(data):
                return
            self._to_server.write(data)
            await self._to_server.drain()

    def _matches(self, data: bytes) -> bool:
        """Look for the armed pattern; return True if the connection has been cut."""
        if self._proxy._pattern is None:
            return False
        pattern, when, how = self._proxy._pattern
        seen = self._tail + data
        self._tail = seen[max(0, len(seen) - len(pattern) + 1) :]
        if pattern not in seen:
            return False
        self._proxy._pattern = None
        if when == "after":
            self._lose_reply = how
            return False
        self._proxy._strike()
        self.cut(how)
        return True

    async def _pump_replies(self) -> None:
        while data := await self._from_server.read(CHUNK_BYTES):
            await asyncio.sleep(self._proxy.delay_seconds)
            await self._proxy._flowing.wait()
            self._answered = True
            if self._lose_reply is not None:
                self._proxy._strike()
                self.cut(self._lose_reply)
                return
            budget = self._proxy._reply_budget
            self._to_client.write(data if budget is None else data[: budget[0]])
            await self._to_client.drain()
            if budget is not None and not self._within_budget(len(data), *budget):
                return

    def _within_budget(self, size_bytes: int, left: int, how: How) -> bool:
        """Count down; return False if the connection has been cut."""
        if size_bytes < left:
            self._proxy._reply_budget = (left - size_bytes, how)
            return True
        self._proxy._strike()
        self.cut(how)
        return False


def _end(writer: asyncio.StreamWriter, how: How) -> None:
    """End one half of a connection."""
    if how == "close":
        writer.close()
        return
    if not writer.is_closing():
        connection = writer.get_extra_info("socket")
        with suppress(OSError):
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
    writer.transport.abort()
