"""The operations on our table that the others are made of."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.dynamo.client import ConditionError
from tracker_store_async.backends.dynamo.layout import (
    HEAD_KEY,
    PARTS_PER_TOKEN,
    STAGES_KEY,
    Head,
    head_from,
    item_key,
    part_key,
    position_of,
)
from tracker_store_async.backends.dynamo.values import (
    Expression,
    Item,
    number,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from tracker_store_async.backends.dynamo.client import Client
    from tracker_store_async.backends.dynamo.saves import SavePlan

TRANSACTION_LIMIT = 100
"""Most items that DynamoDB takes in one transaction."""

CONCURRENCY = 8
"""Most requests that one operation has under way at once."""

STALE_SECONDS = 3600.0
"""Age at which a large save that never ended counts as dead."""

DEAD = -1.0
"""In place of the time at which a large save began: it must not be committed."""


async def in_batches(work: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Do everything, some at a time; the first error ends it."""
    todo = iter(work)

    async def worker() -> None:
        for call in todo:
            await call()

    workers = [asyncio.ensure_future(worker()) for _ in range(CONCURRENCY)]
    try:
        await asyncio.gather(*workers)
    except BaseException:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        raise


class Table:
    """Our table.

    Args:
        client: The open client.
        name: Its name.
    """

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name

    # -- reading -----------------------------------------------------------------------

    async def head(self, sender_id: str) -> Head | None:
        """Return the head of a conversation, or None."""
        answer = await self.client.call(
            "get_item",
            TableName=self.name,
            Key=item_key(sender_id, HEAD_KEY),
            ConsistentRead=True,
        )
        return head_from(answer["Item"]) if "Item" in answer else None

    async def page(
        self,
        sender_id: str,
        low: int,
        high: int,
        *,
        limit: int | None = None,
        after: Any = None,
        names: Sequence[str] = (),
        descending: bool = True,
    ) -> tuple[list[Item], Any]:
        """Return items whose sort keys are `low` to `high`, and where to go on."""
        expression = Expression()
        parameters = expression.parameters
        condition = (
            f"{expression.equals('sender_id', text(sender_id))} AND "
            f"{expression.name('position')} BETWEEN {expression.value(number(low))} "
            f"AND {expression.value(number(high))}"
        )
        texts = {"KeyConditionExpression": condition}
        if names:
            texts["ProjectionExpression"] = ", ".join(map(expression.name, names))
        options: dict[str, Any] = {} if limit is None else {"Limit": limit}
        if after is not None:
            options["ExclusiveStartKey"] = after
        return await self.client.query(
            TableName=self.name,
            ConsistentRead=True,
            ScanIndexForward=not descending,
            **options,
            **parameters(**texts),
        )

    async def all_items(
        self, sender_id: str, low: int, high: int, names: Sequence[str] = ()
    ) -> list[Item]:
        """Return all items whose sort keys are `low` to `high`, descending."""
        items, after = await self.page(sender_id, low, high, names=names)
        while after is not None:
            more, after = await self.page(
                sender_id, low, high, after=after, names=names
            )
            items += more
        return items

    async def parts(
        self, sender_id: str, token: int, first: int, count: int
    ) -> list[Item]:
        """Return a run of parts of a large save, in order."""
        if not count:
            return []
        low, high = part_key(token, first + count - 1), part_key(token, first)
        return await self.all_items(sender_id, low, high)

    # -- operations of a transaction ---------------------------------------------------

    def put(
        self, item: Item, condition: str = "", expression: Expression | None = None
    ) -> dict[str, Any]:
        """Return the operation that writes an item."""
        return {"Put": {**self._operation(condition, expression), "Item": item}}

    def delete(
        self,
        sender_id: str,
        position: int,
        condition: str = "",
        expression: Expression | None = None,
    ) -> dict[str, Any]:
        """Return the operation that deletes an item."""
        key = item_key(sender_id, position)
        return {"Delete": {**self._operation(condition, expression), "Key": key}}

    def check(
        self, sender_id: str, position: int, condition: str, expression: Expression
    ) -> dict[str, Any]:
        """Return the operation that only asks for a condition."""
        key = item_key(sender_id, position)
        operation = self._operation(condition, expression)
        return {"ConditionCheck": {**operation, "Key": key}}

    def update(
        self,
        sender_id: str,
        position: int,
        update: str,
        condition: str,
        expression: Expression,
    ) -> dict[str, Any]:
        """Return the operation that changes an item."""
        operation = self._operation(condition, expression)
        key = item_key(sender_id, position)
        return {"Update": {**operation, "Key": key, "UpdateExpression": update}}

    def _operation(
        self, condition: str, expression: Expression | None
    ) -> dict[str, Any]:
        found: dict[str, Any] = {"TableName": self.name}
        if expression is not None:
            found |= expression.parameters()
        if condition:
            found["ConditionExpression"] = condition
            found["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        return found

    # -- single writes -----------------------------------------------------------------

    async def write(self, operation: dict[str, Any]) -> bool:
        """Do one operation by itself; return False if its condition was not met."""
        [(kind, parameters)] = operation.items()
        try:
            await self.client.call(f"{kind.lower()}_item", **parameters)
        except ConditionError:
            return False
        return True

    def delete_seen(self, sender_id: str, item: Item) -> dict[str, Any]:
        """Return the operation that deletes an item if it is still the one seen."""
        expression = Expression()
        if "save" in item:
            condition = expression.equals("save", item["save"])
        else:
            condition = expression.lacks("save")
        return self.delete(sender_id, position_of(item), condition, expression)

    async def delete_all_seen(self, sender_id: str, items: Iterable[Item]) -> None:
        """Delete items, each if it is still the one seen."""
        await in_batches(
            partial(self.write, self.delete_seen(sender_id, item)) for item in items
        )

    # -- saves of any size -------------------------------------------------------------

    async def commit(
        self,
        sender_id: str,
        operations: Sequence[dict[str, Any]],
        plan: SavePlan,
        now: float,
    ) -> None:
        """Write a save and whatever else goes with it, all or nothing.

        What is too much for one transaction is staged first, where no read looks, and
        announced, so that somebody else can clean up after a crash.

        Raises:
            ConditionError: A condition of an operation was not met.
        """
        puts = [self.put(plan.item)]
        count = len(operations) + len(puts) + len(plan.parts)
        if plan.fits_a_transaction and count <= TRANSACTION_LIMIT:
            puts += map(self.put, plan.parts)
            await self.client.transact([*operations, *puts])
            return
        stage = f"stage_{plan.token}"
        await self._announce(sender_id, stage, now, plan)
        expression = Expression()
        done = self.update(
            sender_id,
            STAGES_KEY,
            expression.update({}, [stage]),
            expression.equals(stage, number(now)),
            expression,
        )
        try:
            await in_batches(partial(self.write, self.put(part)) for part in plan.parts)
            await self.client.transact([*operations, *puts, done])
        except ConditionError:
            await self._unstage(sender_id, stage, now, is_ours=True)
            raise

    async def _announce(
        self, sender_id: str, stage: str, now: float, plan: SavePlan
    ) -> None:
        expression = Expression()
        values = {stage: number(now)}
        if "ttl" in plan.item:
            values["ttl"] = plan.item["ttl"]
        removed = () if "ttl" in plan.item else ("ttl",)
        answer = await self.client.call(
            "update_item",
            TableName=self.name,
            Key=item_key(sender_id, STAGES_KEY),
            ReturnValues="ALL_NEW",
            **expression.parameters(
                UpdateExpression=expression.update(values, removed)
            ),
        )
        for name, value in answer["Attributes"].items():
            if name.startswith("stage_") and name != stage:
                began = float(value["N"])
                if began < now - STALE_SECONDS:
                    await self._unstage(sender_id, name, began, is_ours=False)

    async def _unstage(
        self, sender_id: str, stage: str, began: float, *, is_ours: bool
    ) -> None:
        """Remove the parts of a save that was not committed, and never will be.

        First it is marked as dead: a writer that is only slow is refused then. What
        cannot be marked was committed meanwhile, unless it is ours and was refused.
        """
        if not await self._change_stage(sender_id, stage, began, DEAD) and not is_ours:
            return
        token = int(stage.removeprefix("stage_"))
        low, high = part_key(token, PARTS_PER_TOKEN - 1), part_key(token, 0)
        items = await self.all_items(sender_id, low, high, ("position", "save"))
        await self.delete_all_seen(sender_id, items)
        await self._change_stage(sender_id, stage, DEAD, None)

    async def _change_stage(
        self, sender_id: str, stage: str, seen: float, value: float | None
    ) -> bool:
        expression = Expression()
        if value is None:
            update = expression.update({}, [stage])
        else:
            update = expression.update({stage: number(value)})
        condition = expression.equals(stage, number(seen))
        return await self.write(
            self.update(sender_id, STAGES_KEY, update, condition, expression)
        )
