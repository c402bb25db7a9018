"""The layout: which items there are, and what tells the state of a conversation.

Every item of a conversation has its sender id as the partition key. The sort key
`position` is a number:

- `HEAD_KEY`, beyond every position: the head. It alone decides what is stored: version,
  times, state. A query that descends meets it first, then the newest saves.
- 0 and above: a save, at the position of its first event, with its events and ids.
- `MARKER_KEY`: Rasa's item has been taken over and is not to be looked at again.
- `STAGES_KEY`: the large saves under way, each with the time when it began.
- below: parts of a save that is too large for one item, under a token of its own.

All items of one log carry its `created_at`: what another log has left behind (items
that DynamoDB has not expired yet) is told by it and passed over.
"""

from __future__ import annotations

import secrets
import zlib
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.dynamo.values import (
    Item,
    float_of,
    int_of,
    number,
    text,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA_VERSION = 1

HEAD_KEY = 10**15
MARKER_KEY = -2
STAGES_KEY = -1
PARTS_PER_TOKEN = 10**6
TOKENS = 10**26
"""A part's key is -(token * PARTS_PER_TOKEN + its number): at most 32 of 38 digits."""

SCHEMA_KEY = "\0tracker_store_async"
"""Partition of the item with the version of the layout; no sender id holds a NUL."""

SHARDS = 4
"""Partitions of the index that lists conversations.

It is written when a conversation begins or ends, and a partition takes 1,000 of these a
second. A listing asks each in turn, also where there is nothing.
"""

ALL_INDEX = "by_shard"
USER_INDEX = "by_user"


@dataclass(frozen=True, slots=True)
class Names:
    """The tables: Rasa's, and the one of this layout."""

    rasa_table: str
    table: str


def item_key(sender_id: str, position: int) -> Item:
    """Return the primary key of an item."""
    return {"sender_id": text(sender_id), "position": number(position)}


def shard_of(sender_id: str) -> int:
    """Return the partition of the index that a conversation is listed in."""
    return zlib.crc32(sender_id.encode()) % SHARDS


def new_token() -> int:
    """Return a number that names one save for good."""
    return 1 + secrets.randbelow(TOKENS - 1)


def part_key(token: int, part: int) -> int:
    """Return the sort key of one part of a large save."""
    return -(token * PARTS_PER_TOKEN + part)


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a conversation, as it was read.

    Attributes:
        version: Number of events stored.
        first: Position of the first event that has not been erased.
        session_start: Where the latest session starts.
        session_key: Key of the save that holds it, as far as it is known.
        last_key: Key of the last save.
        created_at, updated_at, expires_at: Times, in seconds since the epoch.
        user_id: The user, or None.
        snapshot: The state, or None where it is in parts of the last save.
        snapshot_parts: How many parts that are.
        last_save: The token of the last save.
        ttl_floor: No item expires before this time; None if none expires.
        is_from_rasa: Whether it has begun with Rasa's item, which was left there.
        erasing: The token of an erasure under way: nothing is stored any more.
        cutting: Whether the erasure of its beginning may not be complete.
        rewriting: Whether what was there before a rewrite may not be erased yet.
        loose: Token and number of the parts of a state that was saved without events,
            at the very position of the next save, which takes them along.
    """

    version: int
    first: int
    session_start: int
    session_key: int | None
    last_key: int
    created_at: float
    updated_at: float
    expires_at: float | None
    user_id: str | None
    snapshot: str | None
    snapshot_parts: int
    last_save: str
    ttl_floor: int | None
    is_from_rasa: bool
    erasing: str | None
    cutting: bool
    rewriting: bool
    loose: str | None

    def is_gone(self, now: float) -> bool:
        """Whether it counts as nothing: expired, or being erased."""
        expires_at = self.expires_at
        return self.erasing is not None or (
            expires_at is not None and expires_at <= now
        )


def head_from(item: Item) -> Head:
    """Return the head that an item is."""
    return Head(
        version=int_of(item, "version"),
        first=int_of(item, "first"),
        session_start=int_of(item, "session_start"),
        session_key=int_of(item, "session_key") if "session_key" in item else None,
        last_key=int_of(item, "last_key"),
        created_at=float_of(item, "created_at") or 0.0,
        updated_at=float_of(item, "updated_at") or 0.0,
        expires_at=float_of(item, "expires_at"),
        user_id=text_of(item, "user_id"),
        snapshot=text_of(item, "snapshot"),
        snapshot_parts=int_of(item, "snapshot_parts"),
        last_save=text_of(item, "last_save") or "",
        ttl_floor=int_of(item, "ttl_floor") if "ttl_floor" in item else None,
        is_from_rasa="from_rasa" in item,
        erasing=text_of(item, "erasing"),
        cutting="cutting" in item,
        rewriting="rewriting" in item,
        loose=text_of(item, "loose"),
    )


def position_of(item: Item) -> int:
    """Return the sort key of an item."""
    written = item["position"]["N"]
    # one that ends with many zeros may come back with an exponent
    return int(written) if "E" not in written else int(Decimal(written))


def table_description(
    names: Names, billing_mode: str, capacity: Sequence[int]
) -> dict[str, Any]:
    """Return the parameters that create the table.

    Both indexes hold keys only, and keys that a save does not change: so they cost
    nothing but when a conversation begins, ends or gets a user.

    Args:
        names: The tables.
        billing_mode: `PAY_PER_REQUEST` or `PROVISIONED`.
        capacity: Read and write capacity units, where it is provisioned.
    """
    provisioned: dict[str, Any] = {}
    if billing_mode == "PROVISIONED":
        read, write = capacity
        units = {"ReadCapacityUnits": read, "WriteCapacityUnits": write}
        provisioned = {"ProvisionedThroughput": units}
    indexes = [
        {
            "IndexName": name,
            "KeySchema": _key_schema(attribute, "sender_id"),
            "Projection": {"ProjectionType": "KEYS_ONLY"},
            **provisioned,
        }
        for name, attribute in ((ALL_INDEX, "shard"), (USER_INDEX, "user_id"))
    ]
    types = {"sender_id": "S", "position": "N", "shard": "N", "user_id": "S"}
    return {
        "TableName": names.table,
        "KeySchema": _key_schema("sender_id", "position"),
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": kind}
            for name, kind in types.items()
        ],
        "BillingMode": billing_mode,
        "GlobalSecondaryIndexes": indexes,
        **provisioned,
    }


def _key_schema(*names: str) -> list[dict[str, str]]:
    kinds = ("HASH", "RANGE")
    return [
        {"AttributeName": name, "KeyType": kind}
        for name, kind in zip(names, kinds, strict=False)
    ]


def is_ours(description: dict[str, Any]) -> bool:
    """Whether a table has the keys and indexes of this layout."""
    indexes = description.get("GlobalSecondaryIndexes") or ()
    names = {index["IndexName"] for index in indexes}
    keys = description["KeySchema"]
    return (
        keys == _key_schema("sender_id", "position")
        and {
            ALL_INDEX,
            USER_INDEX,
        }
        <= names
    )


def is_rasas(description: dict[str, Any]) -> bool:
    """Whether a table has the key of Rasa's."""
    return bool(description["KeySchema"] == _key_schema("sender_id"))
