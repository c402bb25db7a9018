"""What the table takes and what it may do: Amazon looks after the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.dynamo.opening import describe
from tracker_store_async.rows import Upkeep

if TYPE_CHECKING:
    from tracker_store_async.backends.dynamo.client import Client


async def dynamo_upkeep(client: Client, table: str) -> Upkeep:
    """Report on the table: there is nothing to do.

    Args:
        client: An open client.
        table: Name of the table.
    """
    found = await describe(client, table) or {}
    indexes = found.get("GlobalSecondaryIndexes") or ()
    size = int(found.get("TableSizeBytes", 0))
    size += sum(int(each.get("IndexSizeBytes", 0)) for each in indexes)
    answer = await client.call("describe_time_to_live", TableName=table)
    ttl = answer["TimeToLiveDescription"].get("TimeToLiveStatus", "DISABLED")
    notes = [
        f"{found.get('ItemCount', 0)} items; Amazon counts them every six hours",
        _capacity(found),
        f"time to live is {ttl}",
        "DynamoDB looks after its storage itself: there is nothing to run",
    ]
    return Upkeep(size, (), notes)


def _capacity(found: dict[str, Any]) -> str:
    mode = (found.get("BillingModeSummary") or {}).get("BillingMode", "PROVISIONED")
    if mode == "PAY_PER_REQUEST":
        return "capacity is paid per request"
    units = found.get("ProvisionedThroughput") or {}
    read, write = units.get("ReadCapacityUnits"), units.get("WriteCapacityUnits")
    return f"capacity is provisioned: {read} read and {write} write units"
