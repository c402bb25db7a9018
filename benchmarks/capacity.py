"""Capacity units that DynamoDB charges for a turn: our layout beside Rasa's.

A turn is one read of the conversation and one save of six events. Rasa's layout is one
item a conversation, which each save writes whole; DynamoDB takes items of up to 400 KB.

What DynamoDB Local charges for a transaction is not what Amazon's rules say, two units
a kilobyte of each item: it was seen to charge four, and items that cost the same only
once. So the table also has what follows from the rules: the two items that a save has
written are put again, plainly, unchanged, and what that costs is doubled. Nothing was
measured on Amazon's own service.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks import measure, workload

if TYPE_CHECKING:
    from benchmarks.dynamo import OursOnDynamo

HEADER = [
    "stored events",
    "ours read",
    "ours save",
    "by the rules",
    "Rasa's read",
    "Rasa's save",
]


async def capacity_rows(ours: OursOnDynamo, sizes: list[int]) -> list[list[str]]:
    """Return the table of units at each number of stored events."""
    rows = []
    for size in sizes:
        read, save, by_rules = await _ours(ours, size)
        cells = [f"{size:,}", f"{read:g}", f"{save:g}", f"{by_rules:g}"]
        rows.append([*cells, *await _rasas(ours, size)])
    return rows


async def report(ours: OursOnDynamo, sizes: list[int]) -> None:
    """Print the table."""
    rows = await capacity_rows(ours, sizes)
    print(f"\ncapacity units of a turn\n{measure.table(HEADER, rows)}")


async def _ours(ours: OursOnDynamo, size: int) -> tuple[float, float, float]:
    sender_id = f"capacity-{size}-{uuid4().hex[:6]}"
    events = workload.sessions(size)
    tracker: Any = None
    for at in range(0, size, 6):
        tracker = ours.prepare(tracker, sender_id, events[at : at + 6])
        await ours.save(tracker)
    used: list[float] = []
    client = ours.store._opened.client  # type: ignore[attr-defined]
    client.on_capacity = lambda spent: used.append(_units(spent))
    try:
        loaded = await ours.retrieve(sender_id)
        read = sum(used)
        used.clear()
        await ours.save(ours.prepare(loaded, sender_id, workload.turn(1)))
        save = sum(used)
        used.clear()
        table = f"{ours.table}_events"
        written, _ = await client.query(
            TableName=table,
            KeyConditionExpression="sender_id = :s",
            ExpressionAttributeValues={":s": {"S": sender_id}},
            ScanIndexForward=False,
            ConsistentRead=True,
            Limit=2,
        )
        used.clear()
        for item in written:  # the head and the save
            await client.call("put_item", TableName=table, Item=item)
        return read, save, 2 * sum(used)
    finally:
        client.on_capacity = None


async def _rasas(ours: OursOnDynamo, size: int) -> list[str]:
    from botocore.exceptions import ClientError

    sender_id = f"rasa-{size}-{uuid4().hex[:6]}"
    events = workload.sessions(size) + workload.turn(1)
    item = {
        "sender_id": {"S": sender_id},
        "name": {"S": sender_id},
        "events": wire(events),
    }
    async with ours.rasas_client() as (client, table):
        count = {"ReturnConsumedCapacity": "TOTAL"}
        try:
            put = await client.put_item(TableName=table, Item=item, **count)
        except ClientError:
            return ["refused: over 400 KB", "refused: over 400 KB"]
        read = await client.query(
            TableName=table,
            KeyConditionExpression="sender_id = :s",
            ExpressionAttributeValues={":s": item["sender_id"]},
            **count,
        )
    spent = (read["ConsumedCapacity"], put["ConsumedCapacity"])
    return [f"{_units(each):g}" for each in spent]


def wire(value: Any) -> dict[str, Any]:
    """Return a value as Rasa stores it: floats have nine decimals."""
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int | float):
        return {"N": str(round(Decimal(value), 9))}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, dict):
        return {"M": {key: wire(each) for key, each in value.items()}}
    return {"L": [wire(each) for each in value]}


def _units(spent: Any) -> float:
    charges = spent if isinstance(spent, list) else [spent]
    return float(sum(charge["CapacityUnits"] for charge in charges))
