"""Expiry: DynamoDB removes an item some time after its `ttl`; reads do not wait for it.

A conversation expires `record_exp` after its *latest* save, and its older items must
live as long. Writing all of them again with each save would cost more with each save.
So an item's `ttl` lies a grace period behind the expiry at which it was written, the
head knows the earliest of them (`ttl_floor`), and a save is refused whose own expiry
lies behind that: then, once in a grace period, every item is extended.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from uuid import uuid4

from tracker_store_async.backends.dynamo.client import ConditionError
from tracker_store_async.backends.dynamo.layout import (
    HEAD_KEY,
    MARKER_KEY,
    PARTS_PER_TOKEN,
    TOKENS,
    position_of,
)
from tracker_store_async.backends.dynamo.values import (
    Expression,
    Item,
    int_of,
    number,
    text,
)

if TYPE_CHECKING:
    from tracker_store_async.backends.dynamo.layout import Head
    from tracker_store_async.backends.dynamo.table import Table

DAY_SECONDS = 86_400
HEAD_GRACE_SECONDS = 2 * DAY_SECONDS
"""How much longer the head lives than the items that it makes sense of."""

LOWEST_KEY = -(TOKENS * PARTS_PER_TOKEN)
EXTENDED_AT_ONCE = 8
"""Items in one transaction: each may have 400 KB, all of them 4 MB."""


def item_ttl(now: float, expires_at: float | None) -> int | None:
    """Return when the items of a save may be removed, or None for never.

    The grace period is as long as the conversation lives, and at least a day.
    """
    if expires_at is None:
        return None
    return math.ceil(expires_at + max(expires_at - now, DAY_SECONDS))


def head_ttl(ttl: int) -> int:
    """Return when the head may be removed, behind its items."""
    return ttl + HEAD_GRACE_SECONDS


def ttl_condition(
    expression: Expression, expires_at: float | None, ttl: int | None
) -> str:
    """Return the condition that the older items live as long as a new one has to."""
    if expires_at is None or ttl is None:
        return expression.lacks("ttl_floor")
    low, high = number(expires_at), number(ttl)
    return (
        f"{expression.name('ttl_floor')} BETWEEN {expression.value(low)} "
        f"AND {expression.value(high)}"
    )


def is_long_enough(floor: int | None, expires_at: float | None) -> bool:
    """Whether no item expires too early, or never though it should."""
    if expires_at is None or floor is None:
        return floor is None and expires_at is None
    return floor >= expires_at


async def extend(table: Table, sender_id: str, head: Head, ttl: int | None) -> None:
    """Give every item a `ttl`, or none; saving goes on meanwhile or waits for it.

    The head is claimed first: until the end it says that nothing is known of the items,
    so that every save is refused and extends them in its turn. Each step asks whether
    the claim still stands, so that one that was overtaken changes nothing any more.

    Args:
        table: Our table.
        sender_id: The conversation.
        head: Its head, as it was seen.
        ttl: When all items may be removed, in seconds since the epoch.
    """
    claim = uuid4().hex
    expression = Expression()
    condition = expression.equals("created_at", number(head.created_at))
    condition += f" AND {expression.equals('version', number(head.version))}"
    update = expression.update({"ttl_floor": number(0), "extending": text(claim)})
    claimed = table.update(sender_id, HEAD_KEY, update, condition, expression)
    if not await table.write(claimed):
        return
    names = ("position", "ttl")
    items = await table.all_items(sender_id, LOWEST_KEY, HEAD_KEY - 1, names)
    late = [item for item in items if needs_extension(item, ttl)]
    try:
        for at in range(0, len(late), EXTENDED_AT_ONCE):
            batch = late[at : at + EXTENDED_AT_ONCE]
            await _extend_batch(table, sender_id, claim, batch, ttl)
    except ConditionError:
        return  # another one is at it, or an item is gone: the save looks again
    expression = Expression()
    condition = expression.equals("extending", text(claim))
    if ttl is None:
        update = expression.update({}, ["ttl_floor", "extending"])
    else:
        update = expression.update({"ttl_floor": number(ttl)}, ["extending"])
    await table.write(table.update(sender_id, HEAD_KEY, update, condition, expression))


def needs_extension(item: Item, ttl: int | None) -> bool:
    """Whether an item would go too early, or stay though the others go."""
    if position_of(item) == MARKER_KEY:
        return False
    if ttl is None or "ttl" not in item:
        return ("ttl" in item) != (ttl is not None)
    return int_of(item, "ttl") < ttl


async def _extend_batch(
    table: Table, sender_id: str, claim: str, items: list[Item], ttl: int | None
) -> None:
    expression = Expression()
    condition = expression.equals("extending", text(claim))
    operations = [table.check(sender_id, HEAD_KEY, condition, expression)]
    for item in items:
        expression = Expression()
        if ttl is None:
            update = expression.update({}, ["ttl"])
        else:
            update = expression.update({"ttl": number(ttl)})
        condition = expression.exists("sender_id")
        operations.append(
            table.update(sender_id, position_of(item), update, condition, expression)
        )
    await table.client.transact(operations)
