"""What the DynamoDB store stores, item by item, read with the bare driver.

A change here is a change of the layout: it needs a new version.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("aioboto3", reason="the extra dynamo is not installed")

from tests.dynamo_tables import SENDER, Tables, fresh_tables
from tracker_store_async.rows import Append, NewRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.servers import DynamoServer

TEXTS = [
    '{"event":"user","timestamp":1700000000.123456,"one":1,"float":1.0,'
    '"text":"h\\u00e9 \\ud800 \\u0000 é \N{WINKING FACE}"}',
    ' {"event":"action", "name":"x"}',
]
ROWS = [
    NewRow("5e1bb2a8-3f0c-4c8e-9a37-2b1a35a0a3a1", TEXTS[0], "user", 1.5, None, None),
    NewRow("own id ", TEXTS[1], "action", None, None, "x"),
]
HEAD = "1000000000000000"


@pytest.fixture
async def tables(dynamo_server: DynamoServer) -> AsyncIterator[Tables]:
    async with fresh_tables(dynamo_server) as found:
        yield found


def without_token(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item without what names the save, which is random."""
    left = dict(item)
    token = left.pop("save", None) or left.pop("last_save")
    assert 0 < int(token["S"]) < 10**26
    return left


async def test_a_save_is_an_item_and_a_head(tables: Tables) -> None:
    async with tables.store() as store:
        assert await store._append(
            Append(SENDER, 0, ROWS, 0, '{"slots":{"a":1.0}}', 1700000001.25)
        )
        first = Append(
            SENDER,
            2,
            ROWS[:1],
            2,
            "{}",
            1700000002.5,
            user_id="user 1",
            created_at=1700000001.25,
        )
        assert await store._append(first)
    one, two, head = await tables.items()
    assert without_token(one) == {
        "sender_id": {"S": SENDER},
        "position": {"N": "0"},
        "created_at": {"N": "1700000001.25"},
        "count": {"N": "2"},
        "events": {"S": "\0".join(TEXTS)},
        "ids": {"S": json.dumps([row.event_id for row in ROWS])},
    }
    assert (two["position"], two["count"]) == ({"N": "2"}, {"N": "1"})
    assert two["events"] == {"S": TEXTS[0]}
    assert head["last_save"] == two["save"]
    assert without_token(head) == {
        "sender_id": {"S": SENDER},
        "position": {"N": HEAD},
        "shard": {"N": str(zlib.crc32(SENDER.encode()) % 4)},
        "version": {"N": "3"},
        "first": {"N": "0"},
        "session_start": {"N": "2"},
        "session_key": {"N": "2"},
        "last_key": {"N": "2"},
        "snapshot": {"S": "{}"},
        "created_at": {"N": "1700000001.25"},
        "updated_at": {"N": "1700000002.5"},
        "user_id": {"S": "user 1"},
    }


async def test_what_expires_says_so_on_every_item(tables: Tables) -> None:
    async with tables.store() as store:
        now, expires_at = 1700000001.25, 1700172801.5  # two days later
        assert await store._append(
            Append(SENDER, 0, ROWS, 0, "{}", now, expires_at=expires_at)
        )
    save, head = await tables.items()
    assert save["ttl"] == {"N": "1700345602"}  # another two days
    assert head["ttl"] == {"N": "1700518402"}  # behind all others
    assert head["ttl_floor"] == save["ttl"]
    assert head["expires_at"] == {"N": "1700172801.5"}


async def test_a_large_save_has_parts(tables: Tables) -> None:
    text = json.dumps({"event": "x", "text": "y" * 400_000})
    row = NewRow("large", text, "x", None, None, None)
    snapshot = json.dumps("s" * 150_000)
    async with tables.store() as store:
        assert await store._append(
            Append(SENDER, 0, [*ROWS, row], 0, snapshot, 1700000001.25)
        )
    *parts, save, head = await tables.items()
    token = int(save["save"]["S"])
    keys = [int(part["position"]["N"]) for part in reversed(parts)]
    assert keys == [-(token * 10**6 + n) for n in range(4)]
    assert "events" not in save
    assert save["parts"] == {"L": [{"N": "2"}, {"N": "1"}, {"N": "0"}]}
    assert (save["snapshot_parts"], head["snapshot_parts"]) == ({"N": "1"}, {"N": "1"})
    assert "snapshot" not in head
    small, begun, continued, state = reversed(parts)
    assert small["events"]["S"].split("\0") == TEXTS
    assert begun["events"]["S"] + continued["events"]["S"] == text
    assert (begun["ids"]["S"], continued["ids"]["S"]) == ('["large"]', "[]")
    assert state["events"]["S"] == snapshot


async def test_the_table_and_its_version(tables: Tables) -> None:
    async with tables.store() as store:
        health = await store.health()
    assert health.schema_version == 1
    assert await tables.items() == []
    table = (await tables.client.describe_table(TableName=tables.ours))["Table"]
    assert table["KeySchema"] == [
        {"AttributeName": "sender_id", "KeyType": "HASH"},
        {"AttributeName": "position", "KeyType": "RANGE"},
    ]
    indexes = {
        index["IndexName"]: (
            [key["AttributeName"] for key in index["KeySchema"]],
            index["Projection"]["ProjectionType"],
        )
        for index in table["GlobalSecondaryIndexes"]
    }
    assert indexes == {
        "by_shard": (["shard", "sender_id"], "KEYS_ONLY"),
        "by_user": (["user_id", "sender_id"], "KEYS_ONLY"),
    }
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    ttl = await tables.client.describe_time_to_live(TableName=tables.ours)
    assert ttl["TimeToLiveDescription"]["AttributeName"] == "ttl"
    key = {"sender_id": {"S": "\0tracker_store_async"}, "position": {"N": "0"}}
    found = await tables.client.get_item(TableName=tables.ours, Key=key)
    assert found["Item"] == {**key, "schema_version": {"N": "1"}}
