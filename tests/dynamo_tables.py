"""What the tests of the DynamoDB store share: tables of their own, and raw looks."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests import golden
from tests.servers.base import DATABASE_PREFIX
from tracker_store_async import DynamoTrackerStore
from tracker_store_async.rows import Append, NewRow, Read, StoredConversation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.servers import DynamoServer

SENDER = "ali:ce {1} \N{WINKING FACE}"
NOW = 1_700_000_000.25
RASAS_KEYS: dict[str, Any] = {
    "KeySchema": [{"AttributeName": "sender_id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "sender_id", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
}


class Tables:
    """Rasa's table and ours, of one test."""

    def __init__(self, server: DynamoServer, client: Any) -> None:
        self.server = server
        self.client = client
        self.rasas = DATABASE_PREFIX + uuid.uuid4().hex[:16]
        self.ours = f"{self.rasas}_events"

    def store(self, **options: Any) -> DynamoTrackerStore:
        """Return a new store object on the tables."""
        given = {"table_name": self.rasas, **self.server.options(), **options}
        if "client" in options:
            given = {"table_name": self.rasas, **options}
        return DynamoTrackerStore(**given)

    async def create_rasas(self) -> None:
        """Create Rasa's table, as Rasa does."""
        await self.client.create_table(TableName=self.rasas, **RASAS_KEYS)

    async def put_rasas(self, item: dict[str, Any]) -> None:
        """Put an item into Rasa's table."""
        await self.client.put_item(TableName=self.rasas, Item=item)

    async def rasas_items(self) -> list[dict[str, Any]]:
        """Return what lies in Rasa's table."""
        return await self._scan(self.rasas)

    async def items(self) -> list[dict[str, Any]]:
        """Return what lies in ours, but for its version; ordered by position."""
        found = [
            item
            for item in await self._scan(self.ours)
            if not item["sender_id"]["S"].startswith("\0")
        ]
        return sorted(found, key=lambda item: int(item["position"]["N"]))

    async def positions(self) -> list[int]:
        """Return the sort keys of what lies in ours."""
        return [int(item["position"]["N"]) for item in await self.items()]

    async def _scan(self, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async for page in self.client.get_paginator("scan").paginate(TableName=table):
            found += page["Items"]
        return found


@asynccontextmanager
async def fresh_tables(server: DynamoServer) -> AsyncIterator[Tables]:
    """Yield tables that are deleted at the end."""
    async with server.client() as client:
        tables = Tables(server, client)
        try:
            yield tables
        finally:
            for name in (await client.list_tables())["TableNames"]:
                if name.startswith(tables.rasas):
                    await client.delete_table(TableName=name)


def rows(first: int, count: int = 3, size: int = 0) -> list[NewRow]:
    """Return rows named `id-<position>`."""
    return [
        NewRow(
            f"id-{n}",
            json.dumps({"event": "x", "n": n, "text": "y" * size}),
            "x",
            None,
            None,
            None,
        )
        for n in range(first, first + count)
    ]


def append(expected: int, count: int = 3, size: int = 0, **fields: Any) -> Append:
    """Return an append of such rows."""
    values = {
        "rows": rows(expected, count, size),
        "session_start": 0,
        "snapshot": "{}",
        "now": NOW,
        "created_at": NOW if expected else None,
        **fields,
    }
    return Append(SENDER, expected, **values)


def read(start: int | None = 0, last: int | None = None, now: float = NOW) -> Read:
    """Return a read of everything."""
    return Read(SENDER, now, start, last)


def ids(found: StoredConversation | None) -> list[str | None]:
    """Return the ids of what was read; it must be whole."""
    if found is None:
        return []
    assert found.first_position + len(found.rows) == found.version
    return [event_id for event_id, _ in found.rows]


def golden_items() -> list[dict[str, Any]]:
    """Return what the real Rasa wrote into DynamoDB."""
    found: list[dict[str, Any]] = golden.load("dynamo")
    return found


class AnsweringProxy:
    """An HTTP proxy that gives answers of its own to some requests.

    Args:
        host, port: Where to forward the others to.

    Attributes:
        url: Where it listens.
        targets: The operations of all requests so far.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self.url = ""
        self.targets: list[str] = []
        self._answers: list[tuple[str, int, bytes]] = []
        self._always: tuple[int, bytes] | None = None

    def answer(self, operation: str, status: int, code: str, times: int = 1) -> None:
        """Answer the next requests of an operation with an error."""
        self._answers += [(operation, status, _body(code))] * times

    def answer_always(self, status: int, code: str, message: str = "no") -> None:
        """Answer every request with an error, from now on."""
        self._always = (status, _body(code, message))

    def answer_cancelled(self, operation: str, *codes: str, times: int = 1) -> None:
        """Answer the next transactions with the reasons why they were refused."""
        reasons = [{"Code": code, "Message": "no"} for code in codes]
        body = json.loads(_body("TransactionCanceledException"))
        content = json.dumps({**body, "CancellationReasons": reasons}).encode()
        self._answers += [(operation, 400, content)] * times

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                operation = _operation(head)
                self.targets.append(operation)
                own = self._own_answer(operation)
                writer.write(own or await self._forward(head + body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _own_answer(self, operation: str) -> bytes | None:
        if self._always is not None:
            return _http(*self._always)
        for answer in self._answers:
            if answer[0] == operation:
                self._answers.remove(answer)
                return _http(*answer[1:])
        return None

    async def _forward(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self._target)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            return head + await reader.readexactly(_length(head))
        finally:
            writer.close()


@asynccontextmanager
async def answering_proxy(server: DynamoServer) -> AsyncIterator[AnsweringProxy]:
    """Yield such a proxy in front of a server."""
    proxy = AnsweringProxy(server.host, server.port)
    listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 24)
    proxy.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listener.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _operation(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"x-amz-target":
            return value.decode().rpartition(".")[2].strip()
    return ""


def _body(code: str, message: str = "no") -> bytes:
    kind = f"com.amazonaws.dynamodb.v20120810#{code}"
    return json.dumps({"__type": kind, "message": message, "Message": message}).encode()


def _http(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} x\r\nContent-Type: application/x-amz-json-1.0\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
