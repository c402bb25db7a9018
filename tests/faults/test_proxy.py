"""The fault proxy does to a connection what its methods say."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.faults.proxy import FaultProxy
from tests.servers import PostgreSQLServer, fresh_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
PATIENCE_SECONDS = 5
LIMIT_BYTES = 2**22


class EchoServer:
    """Answers each line with itself, and keeps what it received."""

    def __init__(self) -> None:
        self.received = b""
        self.port = 0

    async def answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while line := await reader.readline():
                self.received += line
                writer.write(line)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[EchoServer]:
    server = EchoServer()
    listener = await asyncio.start_server(
        server.answer, "127.0.0.1", 0, limit=LIMIT_BYTES
    )
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()


@pytest.fixture
async def proxy(echo: EchoServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy("127.0.0.1", echo.port) as proxy:
        yield proxy


@asynccontextmanager
async def connected(proxy: FaultProxy) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(streams: Streams, line: bytes) -> bytes:
    reader, writer = streams
    writer.write(line)
    await writer.drain()
    return await asyncio.wait_for(reader.readline(), PATIENCE_SECONDS)


async def test_forwards_both_ways_and_counts(proxy: FaultProxy) -> None:
    async with connected(proxy) as one, connected(proxy) as other:
        assert await ask(one, b"a\n") == b"a\n"
        assert await ask(one, b"b\n") == b"b\n"
        assert await ask(other, b"c\n") == b"c\n"
    assert proxy.connections == 2
    assert proxy.round_trips == 3


async def test_forwards_more_than_a_chunk(proxy: FaultProxy) -> None:
    reader, writer = await asyncio.open_connection(
        proxy.host, proxy.port, limit=LIMIT_BYTES
    )
    line = b"x" * 1_000_000 + b"\n"
    assert await ask((reader, writer), line) == line
    writer.transport.abort()


async def test_refuses_then_accepts_on_the_same_port(proxy: FaultProxy) -> None:
    port = proxy.port
    await proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(proxy.host, port)
    await proxy.accept()
    assert proxy.port == port
    async with connected(proxy) as streams:
        assert await ask(streams, b"a\n") == b"a\n"


async def test_refusing_leaves_open_connections_alone(proxy: FaultProxy) -> None:
    async with connected(proxy) as streams:
        assert await ask(streams, b"a\n") == b"a\n"
        await proxy.refuse()
        assert await ask(streams, b"b\n") == b"b\n"


async def test_reset_is_seen_as_a_reset(proxy: FaultProxy) -> None:
    async with connected(proxy) as streams:
        await ask(streams, b"a\n")
        proxy.cut("reset")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(streams[0].read(), PATIENCE_SECONDS)


async def test_close_is_seen_as_an_end(proxy: FaultProxy) -> None:
    async with connected(proxy) as streams:
        await ask(streams, b"a\n")
        proxy.cut("close")
        assert await asyncio.wait_for(streams[0].read(), PATIENCE_SECONDS) == b""


async def test_frozen_answers_nothing_until_unfrozen(
    proxy: FaultProxy, echo: EchoServer
) -> None:
    async with connected(proxy) as (reader, writer):
        proxy.freeze()
        writer.write(b"a\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readline(), 0.05)
        assert echo.received == b""
        proxy.unfreeze()
        assert await asyncio.wait_for(reader.readline(), PATIENCE_SECONDS) == b"a\n"


async def test_delays_replies(proxy: FaultProxy) -> None:
    async with connected(proxy) as streams:
        proxy.delay_seconds = 0.05
        started = time.monotonic()
        assert await ask(streams, b"a\n") == b"a\n"
        assert time.monotonic() - started >= 0.05


async def test_cuts_after_a_number_of_reply_bytes(proxy: FaultProxy) -> None:
    async with connected(proxy) as streams:
        proxy.cut_reply_after(6, how="close")
        assert await ask(streams, b"abc\n") == b"abc\n"
        assert not proxy.struck.is_set()
        assert await ask(streams, b"def\n") == b"de"
    assert proxy.struck.is_set()
    async with connected(proxy) as streams:
        assert await ask(streams, b"retried\n") == b"retried\n"


@pytest.mark.parametrize("pieces", [[b"COMMIT\n"], [b"COM", b"MIT\n"]])
async def test_cut_before_a_request_keeps_it_from_the_server(
    proxy: FaultProxy, echo: EchoServer, pieces: list[bytes]
) -> None:
    proxy.cut_request(b"COMMIT", when="before")
    async with connected(proxy) as (reader, writer):
        assert await ask((reader, writer), b"BEGIN\n") == b"BEGIN\n"
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.02)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.readline(), PATIENCE_SECONDS)
    assert echo.received == b"BEGIN\n"
    assert proxy.struck.is_set()


async def test_cut_after_a_request_loses_only_the_answer(
    proxy: FaultProxy, echo: EchoServer
) -> None:
    proxy.cut_request(b"COMMIT", when="after")
    async with connected(proxy) as streams:
        with pytest.raises(ConnectionResetError):
            await ask(streams, b"COMMIT\n")
    assert echo.received == b"COMMIT\n"
    assert proxy.struck.is_set()
    async with connected(proxy) as streams:
        assert await ask(streams, b"COMMIT\n") == b"COMMIT\n"


async def test_no_server_behind_is_a_reset(echo: EchoServer) -> None:
    async with FaultProxy("127.0.0.1", 1) as proxy, connected(proxy) as streams:
        with pytest.raises(ConnectionResetError):
            await ask(streams, b"a\n")


async def test_a_lost_acknowledgement_means_the_row_is_stored(
    postgresql_server: PostgreSQLServer,
) -> None:
    import asyncpg

    server = postgresql_server
    with fresh_database(server) as database:
        server.execute("CREATE TABLE t (id text)", database)
        async with FaultProxy(server.host, server.port) as proxy:
            connection = await asyncpg.connect(
                host=proxy.host,
                port=proxy.port,
                user=server.username,
                password=server.password,
                database=database,
            )
            proxy.cut_request(b"this-very-id", when="after")
            with pytest.raises((ConnectionError, asyncpg.ConnectionDoesNotExistError)):
                await connection.execute("INSERT INTO t VALUES ($1)", "this-very-id")
            assert proxy.struck.is_set()
        assert server.fetch_value("SELECT count(*) FROM t", database) == 1
