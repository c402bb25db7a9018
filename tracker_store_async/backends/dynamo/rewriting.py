"""Putting other content in the place of what is stored: one new save, a new log.

The new save lies where the first one lay, and the head names it in the same
transaction. What the log was made of before carries its old `created_at`, so nobody
reads it. It is deleted in that transaction if it fits, and else afterwards: the head
says until then that there is work left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.dynamo.client import ConditionError
from tracker_store_async.backends.dynamo.erasing import is_seen
from tracker_store_async.backends.dynamo.layout import (
    HEAD_KEY,
    MARKER_KEY,
    STAGES_KEY,
    Head,
    item_key,
    position_of,
    shard_of,
)
from tracker_store_async.backends.dynamo.lifetime import LOWEST_KEY
from tracker_store_async.backends.dynamo.saves import SavePlan, plan_save
from tracker_store_async.backends.dynamo.values import (
    Expression,
    Item,
    flag,
    float_of,
    number,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracker_store_async.backends.dynamo.rasa import RasaTable
    from tracker_store_async.backends.dynamo.table import Table
    from tracker_store_async.rows import Rewrite, StoredConversation

TRANSACTION_ITEMS = 90
"""Most items of one transaction beside the head, the save and Rasa's."""

_OPTIONAL = (
    *("snapshot", "snapshot_parts", "user_id"),
    *("from_rasa", "rewriting", "loose"),
)
"""What a head does not have unless something says so."""


class Rewriter:
    """Rewrites conversations.

    Args:
        table: Our table.
        rasa: Rasa's table, or None if there is none.
    """

    def __init__(self, table: Table, rasa: RasaTable | None) -> None:
        self._table = table
        self._rasa = rasa

    async def rewrite(self, rewrite: Rewrite) -> bool:
        """Put other content there; return False if the log is another one by now."""
        sender_id = rewrite.sender_id
        head = await self._table.head(sender_id)
        try:
            if head is None:
                return await self._replace_rasas(rewrite)
            if head.is_gone(rewrite.now) or (
                head.version,
                head.first,
                head.created_at,
            ) != (rewrite.expected_version, rewrite.first_position, rewrite.created_at):
                return False
            if rewrite.changed:
                await self._replace(rewrite, head)
            elif head.rewriting:
                await self._sweep(sender_id, head.created_at)
        except ConditionError:
            return False
        return True

    async def _replace(self, rewrite: Rewrite, head: Head) -> None:
        sender_id, created_at = rewrite.sender_id, rewrite.new_created_at
        plan = self._plan(rewrite, head.ttl_floor)
        items, after = await self._table.page(
            sender_id, LOWEST_KEY, HEAD_KEY - 1, names=("position", "created_at")
        )
        first = rewrite.first_position
        gone = [at for at in _of_other_logs(items, created_at) if at != first]
        count = len(gone) + len(plan.parts)
        at_once = (
            after is None and count <= TRANSACTION_ITEMS and plan.fits_a_transaction
        )
        operations = [self._new_content(rewrite, head, plan, at_once=at_once)]
        if self._rasa is not None:
            operations.append(self._rasa.delete(sender_id))
            operations.append(self._table.delete(sender_id, MARKER_KEY))
        if at_once:
            operations += (self._table.delete(sender_id, at) for at in gone)
        await self._table.commit(sender_id, operations, plan, rewrite.now)
        if not at_once:
            await self._sweep(sender_id, created_at)

    @staticmethod
    def _plan(rewrite: Rewrite, ttl: int | None) -> SavePlan:
        return plan_save(
            rewrite.sender_id,
            rewrite.first_position,
            [(row.event_id, row.data) for row in rewrite.rows],
            rewrite.snapshot,
            rewrite.new_created_at,
            ttl,
        )

    def _new_content(
        self, rewrite: Rewrite, head: Head, plan: SavePlan, *, at_once: bool
    ) -> dict[str, Any]:
        """Return the write of the head that makes the new content the log's."""
        expression = Expression()
        condition = is_seen(expression, head)
        values = _content(rewrite, plan)
        values["created_at"] = number(rewrite.new_created_at)
        if not at_once:
            values["rewriting"] = flag()
        removed = [name for name in _OPTIONAL if name not in values]
        return self._table.update(
            rewrite.sender_id,
            HEAD_KEY,
            expression.update(values, removed),
            condition,
            expression,
        )

    async def _sweep(self, sender_id: str, created_at: float) -> None:
        """Remove what other logs have left, then the note that there is something."""
        names = ("position", "save", "created_at")
        items = await self._table.all_items(sender_id, LOWEST_KEY, HEAD_KEY - 1, names)
        gone = set(_of_other_logs(items, created_at))
        await self._table.delete_all_seen(
            sender_id, [item for item in items if position_of(item) in gone]
        )
        expression = Expression()
        condition = expression.equals("created_at", number(created_at))
        update = expression.update({}, ["rewriting"])
        await self._table.write(
            self._table.update(sender_id, HEAD_KEY, update, condition, expression)
        )

    # -- Rasa's item -------------------------------------------------------------------

    async def _replace_rasas(self, rewrite: Rewrite) -> bool:
        """Begin a log with the new content, and delete Rasa's item."""
        if self._rasa is None:
            return False
        found = await self._rasa.get(rewrite.sender_id)
        stored = None if found.has_head else found.conversation(rewrite.sender_id)
        if stored is None or found.item is None:
            return False
        expected = (rewrite.expected_version, rewrite.created_at)
        if (stored.version, stored.created_at) != expected:
            return False
        if not rewrite.changed:
            return True
        plan = self._plan(rewrite, None)
        head = _head_item(rewrite, stored, plan)
        expression = Expression()
        operations = [
            self._table.put(head, expression.lacks("sender_id"), expression),
            self._rasa.delete_unchanged(rewrite.sender_id, found.item),
        ]
        await self._table.commit(rewrite.sender_id, operations, plan, rewrite.now)
        return True


def _content(rewrite: Rewrite, plan: SavePlan) -> Item:
    """Return what the head says of its new content."""
    values: Item = {
        "session_key": number(rewrite.first_position),
        "last_key": number(rewrite.first_position),
        "last_save": text(str(plan.token)),
    }
    if plan.snapshot is not None:
        values["snapshot"] = text(plan.snapshot)
    else:
        values["snapshot_parts"] = number(plan.snapshot_parts)
    if rewrite.user_id is not None:
        values["user_id"] = text(rewrite.user_id)
    return values


def _head_item(rewrite: Rewrite, stored: StoredConversation, plan: SavePlan) -> Item:
    return {
        **item_key(rewrite.sender_id, HEAD_KEY),
        **_content(rewrite, plan),
        "shard": number(shard_of(rewrite.sender_id)),
        "version": number(stored.version),
        "first": number(0),
        "session_start": number(stored.session_start),
        "created_at": number(rewrite.new_created_at),
        "updated_at": number(stored.updated_at),
    }


def _of_other_logs(items: Iterable[Item], created_at: float) -> list[int]:
    """Return the sort keys of the saves and parts that are not of this log."""
    kept = (HEAD_KEY, MARKER_KEY, STAGES_KEY)
    return [
        position_of(item)
        for item in items
        if position_of(item) not in kept and float_of(item, "created_at") != created_at
    ]
