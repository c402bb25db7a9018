"""DynamoDB's contestants.

The raw one puts the events of a turn into one item, as we do, with the raw client of
aiobotocore and without retries of its own: one `PutItem` a save, one consistent `Query`
a retrieve and `json.loads` of each event. The bytes of the events are the same; it
writes no head and no state, and checks no version.
"""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks.contestant import Contestant
from benchmarks.contestants import Ours
from tracker_store_async import DynamoTrackerStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LOGIN = {"aws_access_key_id": "tracker", "aws_secret_access_key": "store"}
"""DynamoDB Local takes any."""


def raw_client(url: str) -> Any:
    """Return a context manager that yields a client."""
    import aioboto3
    from aiobotocore.config import AioConfig

    config = AioConfig(retries={"total_max_attempts": 1}, parameter_validation=False)
    return aioboto3.Session().client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=url,
        config=config,
        verify=False,
        **LOGIN,
    )


class OursOnDynamo(Ours):
    """The DynamoDB store, in tables that come and go."""

    def __init__(self, url: str, table: str) -> None:
        options: dict[str, Any] = LOGIN
        super().__init__(
            DynamoTrackerStore(table_name=table, endpoint_url=url, **options)
        )
        self.url = url
        self.table = table

    async def close(self) -> None:
        await super().close()
        async with raw_client(self.url) as client:
            await client.delete_table(TableName=f"{self.table}_events")

    @asynccontextmanager
    async def rasas_client(self) -> AsyncIterator[tuple[Any, str]]:
        """Yield a client and the name of a new table that is like Rasa's."""
        table = f"{self.table}_rasas"
        async with raw_client(self.url) as client:
            await client.create_table(
                TableName=table,
                KeySchema=[{"AttributeName": "sender_id", "KeyType": "HASH"}],
                AttributeDefinitions=[
                    {"AttributeName": "sender_id", "AttributeType": "S"}
                ],
                BillingMode="PAY_PER_REQUEST",
            )
            await client.get_waiter("table_exists").wait(TableName=table)
            try:
                yield client, table
            finally:
                await client.delete_table(TableName=table)


class RawDynamo(Contestant):
    """aiobotocore, one item a save."""

    def __init__(self, url: str, table: str) -> None:
        self.url = url
        self.table = table
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        self.client = await self._stack.enter_async_context(raw_client(self.url))
        await self.client.create_table(
            TableName=self.table,
            KeySchema=[
                {"AttributeName": "sender_id", "KeyType": "HASH"},
                {"AttributeName": "position", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "sender_id", "AttributeType": "S"},
                {"AttributeName": "position", "AttributeType": "N"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )

    async def close(self) -> None:
        await self.client.delete_table(TableName=self.table)
        await self._stack.aclose()

    async def retrieve(self, sender_id: str) -> Any:
        query = {
            "TableName": self.table,
            "KeyConditionExpression": "sender_id = :s",
            "ExpressionAttributeValues": {":s": {"S": sender_id}},
            "ConsistentRead": True,
        }
        events: list[Any] = []
        while True:
            page = await self.client.query(**query)
            for item in page["Items"]:
                events += map(json.loads, item["events"]["S"].split("\0"))
            if "LastEvaluatedKey" not in page:
                return sender_id, len(events), events
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def prepare(self, loaded: Any, sender_id: str, events: list[Any]) -> Any:
        return sender_id, 0 if loaded is None else loaded[1], events

    async def save(self, prepared: Any) -> None:
        sender_id, position, events = prepared
        for at in range(0, len(events), 1000):  # an item has 400 KB
            some = events[at : at + 1000]
            item = {
                "sender_id": {"S": sender_id},
                "position": {"N": str(position + at)},
                "events": {"S": "\0".join(map(json.dumps, some))},
                "ids": {"S": json.dumps([str(uuid4()) for _ in some])},
            }
            await self.client.put_item(TableName=self.table, Item=item)
