"""Making sure that the table is there: created once, by whoever comes first."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracker_store_async import errors
from tracker_store_async.backends.dynamo import errors as error_table
from tracker_store_async.backends.dynamo.client import ConditionError
from tracker_store_async.backends.dynamo.layout import (
    SCHEMA_KEY,
    SCHEMA_VERSION,
    Names,
    is_ours,
    is_rasas,
    item_key,
    table_description,
)
from tracker_store_async.backends.dynamo.values import Expression, int_of, number
from tracker_store_async.redaction import get_logger
from tracker_store_async.stored_layout import check_version, climb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tracker_store_async.backends.dynamo.client import Client

logger = get_logger(__name__)

LONGEST_POLL_SECONDS = 2.0

LAYOUT_STEPS: dict[int, Callable[[Client], Awaitable[None]]] = {}
"""What leads from a version of the layout to the next one."""


@dataclass(frozen=True, slots=True)
class TableOptions:
    """How the table is created."""

    create_table: bool = True
    billing_mode: str = "PAY_PER_REQUEST"
    read_capacity_units: int = 5
    write_capacity_units: int = 5
    upgrades_layout: bool = False


async def ensure_table(client: Client, names: Names, options: TableOptions) -> None:
    """Create the table if it is missing, wait until it is usable, and check it.

    Raises:
        SchemaError: It is missing and must not be created, or is another layout's.
        SchemaTooNewError: A newer version of this library wrote it.
    """
    description = await describe(client, names.table)
    if description is None:
        if not options.create_table:
            raise errors.SchemaError(
                f"there is no DynamoDB table {names.table!r}: let the store create it "
                "(`create_table: true`), or check table_name, region and endpoint_url"
            )
        await _create(client, names, options)
    description = await _active(client, names.table, description)
    if not is_ours(description):
        raise errors.SchemaError(
            f"the DynamoDB table {names.table!r} does not have the keys and indexes of "
            "this library: name another one as events_table_name"
        )
    await _check_version(client, names.table, may_upgrade=options.upgrades_layout)


async def describe(client: Client, table: str) -> dict[str, Any] | None:
    """Return the description of a table, or None if there is none."""
    try:
        answer = await client.call("describe_table", TableName=table)
    except Exception as error:
        if error_table.code_of(error) == "ResourceNotFoundException":
            return None
        raise
    return dict(answer["Table"])


async def has_rasas_table(client: Client, names: Names) -> bool:
    """Whether there is a table that Rasa made."""
    description = await describe(client, names.rasa_table)
    return description is not None and is_rasas(description)


async def _create(client: Client, names: Names, options: TableOptions) -> None:
    capacity = (options.read_capacity_units, options.write_capacity_units)
    parameters = table_description(names, options.billing_mode, capacity)
    try:
        await client.call("create_table", **parameters)
    except Exception as error:
        # Somebody else was faster: then it is as good.
        if error_table.code_of(error) != "ResourceInUseException":
            raise


async def _active(
    client: Client, table: str, description: dict[str, Any] | None
) -> dict[str, Any]:
    pause = 0.05
    while description is None or not _is_active(description):
        description = await describe(client, table)
        if description is None or not _is_active(description):
            await asyncio.sleep(pause)
            pause = min(LONGEST_POLL_SECONDS, pause * 2)
    return description


def _is_active(description: dict[str, Any]) -> bool:
    # While it is updated, a table and its indexes can be used.
    indexes = description.get("GlobalSecondaryIndexes") or ()
    states = [description["TableStatus"], *(i["IndexStatus"] for i in indexes)]
    return all(state in ("ACTIVE", "UPDATING") for state in states)


async def _upgrade(
    client: Client, table: str, version: int, *, may_upgrade: bool
) -> None:
    where = f"the DynamoDB table {table!r}"
    check_version(version, SCHEMA_VERSION, where, may_upgrade=may_upgrade)

    async def write(version: int) -> None:
        item = {**item_key(SCHEMA_KEY, 0), "schema_version": number(version)}
        await client.call("put_item", TableName=table, Item=item)

    await climb(version, SCHEMA_VERSION, LAYOUT_STEPS, client, write)


async def _check_version(
    client: Client, table: str, *, may_upgrade: bool = False
) -> None:
    """Check the version of the layout; write it, last of all, in a new table."""
    key = item_key(SCHEMA_KEY, 0)
    for _ in range(2):
        answer = await client.call(
            "get_item", TableName=table, Key=key, ConsistentRead=True
        )
        if "Item" in answer:
            version = int_of(answer["Item"], "schema_version")
            await _upgrade(client, table, version, may_upgrade=may_upgrade)
            return
        await _enable_ttl(client, table)
        expression = Expression()
        try:
            await client.call(
                "put_item",
                TableName=table,
                Item={**key, "schema_version": number(SCHEMA_VERSION)},
                **expression.parameters(
                    ConditionExpression=expression.lacks("sender_id")
                ),
            )
        except ConditionError:
            continue  # somebody else was faster: look at what it wrote
        return


async def _enable_ttl(client: Client, table: str) -> None:
    """Have DynamoDB remove what has expired; reads honour it in any case."""
    answer = await client.call("describe_time_to_live", TableName=table)
    state = answer["TimeToLiveDescription"]["TimeToLiveStatus"]
    if state in ("ENABLED", "ENABLING"):
        return
    try:
        await client.call(
            "update_time_to_live",
            TableName=table,
            TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"},
        )
    except Exception as error:
        if error_table.code_of(error) not in (
            # somebody else has just switched it on
            "ValidationException",
            "ResourceInUseException",
            "AccessDeniedException",
        ):
            raise
        logger.warning(
            "Table %s: time to live could not be switched on. What has expired is not "
            "read any more, but stays until somebody enables it for the attribute ttl.",
            table,
        )
