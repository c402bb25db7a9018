"""Appending: one transaction of the save's item and a conditional write of the head.

The head alone decides. A put at the expected position could not see that a log was
deleted and begun again with saves of other sizes: it would leave a gap or an overlap.

Many conversations get a transaction each, some at a time, and never share one: DynamoDB
cancels a transaction whole, so a conflict of one conversation, or its being written by
somebody else at that moment, would undo the appends of all others. It saves nothing
either, since each item is charged by itself; and `BatchWriteItem` knows no conditions.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.dynamo.client import ConditionError
from tracker_store_async.backends.dynamo.layout import (
    HEAD_KEY,
    MARKER_KEY,
    Head,
    head_from,
    item_key,
    shard_of,
)
from tracker_store_async.backends.dynamo.lifetime import (
    extend,
    head_ttl,
    is_long_enough,
    item_ttl,
    ttl_condition,
)
from tracker_store_async.backends.dynamo.saves import SavePlan, loose_keys, plan_save
from tracker_store_async.backends.dynamo.values import Expression, Item, number, text
from tracker_store_async.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.backends.dynamo.erasing import Eraser
    from tracker_store_async.backends.dynamo.rasa import RasaTable
    from tracker_store_async.backends.dynamo.table import Table
    from tracker_store_async.rows import Append, StoredConversation, StoredRow

ATTEMPTS = 20
"""Times that an append is tried whose way was cleared first."""


@dataclass(slots=True)
class _Try:
    """One append on its way."""

    append: Append
    ttl: int | None
    is_beside_rasa: bool = False  # Rasa's item is there, and was taken over once
    loose: str | None = None  # as the head is expected to have it


class Appender:
    """Appends to conversations.

    Args:
        table: Our table.
        rasa: Rasa's table, or None if there is none.
        eraser: Clears away what has expired.
        delete_rasa_data: Whether Rasa's item is deleted where it is taken over.
    """

    def __init__(
        self,
        table: Table,
        rasa: RasaTable | None,
        eraser: Eraser,
        *,
        delete_rasa_data: bool,
    ) -> None:
        self._table = table
        self._rasa = rasa
        self._eraser = eraser
        self._delete_rasa_data = delete_rasa_data

    async def append(self, append: Append) -> bool:
        """Store everything if the version is the expected one; False if it is not."""
        if append.expected_version and append.created_at is None:
            named = await self._name_log(append)
            if named is None:
                return False
            append = named
        attempt = _Try(append, item_ttl(append.now, append.expires_at))
        for n in range(ATTEMPTS):
            done = await self._once(attempt)
            if done is not None:
                return done
            if n:
                await asyncio.sleep(random.uniform(0, 0.01 * 2 ** min(n, 6)))  # noqa: S311
        raise StoreUnavailableError(
            f"conversation {append.sender_id!r} was changed by others again and again "
            "while it was saved: try again"
        )

    async def _name_log(self, append: Append) -> Append | None:
        """Find out which log it is, for a caller who does not know."""
        head = await self._table.head(append.sender_id)
        if head is None:
            stored = await self._stored_by_rasa(append.sender_id)
            created_at = None if stored is None else stored[1].created_at
        else:
            created_at = None if head.is_gone(append.now) else head.created_at
        return None if created_at is None else replace(append, created_at=created_at)

    async def _once(self, attempt: _Try) -> bool | None:
        """Try it; None if it is to be tried again, its way being cleared."""
        append = attempt.append
        rows: list[StoredRow] = [(row.event_id, row.data) for row in append.rows]
        plan = plan_save(
            append.sender_id,
            append.position,
            rows,
            append.snapshot,
            append.begun_at if append.created_at is None else append.created_at,
            attempt.ttl,
        )
        operations = (
            self._advance(attempt, plan)
            if append.expected_version
            else self._begin(attempt, plan)
        )
        try:
            await self._table.commit(append.sender_id, operations, plan, append.now)
        except ConditionError as refused:
            return await self._refused(attempt, refused)
        return True

    # -- the head ----------------------------------------------------------------------

    def _advance(self, attempt: _Try, plan: SavePlan) -> list[dict[str, Any]]:
        """Return the writes of the head of a log that goes on.

        What the new save covers of a state without events goes with it.
        """
        append, expression = attempt.append, Expression()
        expires_at = expression.name("expires_at")
        now = expression.value(number(append.now))
        condition = " AND ".join(
            [
                expression.equals("version", number(append.expected_version)),
                expression.equals("created_at", number(append.created_at or 0.0)),
                f"({expression.lacks('expires_at')} OR {expires_at} > {now})",
                ttl_condition(expression, append.expires_at, attempt.ttl),
                expression.lacks("loose")
                if attempt.loose is None
                else expression.equals("loose", text(attempt.loose)),
            ]
        )
        values = self._header(attempt, plan)
        removed = [
            name
            for name in ("snapshot", "snapshot_parts", "expires_at", "ttl", "loose")
            if name not in values
        ]
        update = expression.update(values, removed)
        # The save before this one may hold the action that begins the session: its key
        # is what `last_key` says before the update.
        if append.session_start == append.expected_version - 1:
            same = f"{expression.name('session_key')} = {expression.name('last_key')}"
            update = update.replace("SET ", f"SET {same}, ", 1)
        sender_id = append.sender_id
        return [
            self._table.update(sender_id, HEAD_KEY, update, condition, expression),
            *(self._table.delete(sender_id, at) for at in loose_keys(attempt.loose)),
        ]

    def _begin(self, attempt: _Try, plan: SavePlan) -> list[dict[str, Any]]:
        """Return the writes that begin a log where there is none."""
        append = attempt.append
        operations = [
            self._new_head(attempt, plan, append.begun_at, is_from_rasa=False)
        ]
        if self._rasa is not None and attempt.is_beside_rasa:
            expression = Expression()
            condition = expression.exists("sender_id")
            operations.append(
                self._table.check(append.sender_id, MARKER_KEY, condition, expression)
            )
        elif self._rasa is not None:
            operations.append(self._rasa.check_absent(append.sender_id))
        return operations

    def _new_head(
        self, attempt: _Try, plan: SavePlan, created_at: float, *, is_from_rasa: bool
    ) -> dict[str, Any]:
        append = attempt.append
        first = 0 if append.expected_version else append.position
        item: Item = {
            **item_key(append.sender_id, HEAD_KEY),
            **self._header(attempt, plan),
            "shard": number(shard_of(append.sender_id)),
            "first": number(first),
            "session_key": number(first),
            "last_key": number(first),
            "created_at": number(created_at),
        }
        if attempt.ttl is not None:
            item["ttl_floor"] = number(attempt.ttl)
        if is_from_rasa:
            item["from_rasa"] = {"BOOL": True}
        expression = Expression()
        return self._table.put(item, expression.lacks("sender_id"), expression)

    @staticmethod
    def _header(attempt: _Try, plan: SavePlan) -> Item:
        """Return what every save writes to the head."""
        append = attempt.append
        values: Item = {
            "version": number(append.new_version),
            "session_start": number(append.session_start),
            "last_key": number(append.position),
            "last_save": text(str(plan.token)),
            "updated_at": number(append.stamp),
        }
        if append.session_start >= append.position:
            values["session_key"] = number(append.position)
        if plan.snapshot is not None:
            values["snapshot"] = text(plan.snapshot)
        else:
            values["snapshot_parts"] = number(plan.snapshot_parts)
        if plan.loose is not None:
            values["loose"] = text(plan.loose)
        if append.expires_at is not None and attempt.ttl is not None:
            values["expires_at"] = number(append.expires_at)
            values["ttl"] = number(head_ttl(attempt.ttl))
        if append.user_id is not None:
            values["user_id"] = text(append.user_id)
        return values

    # -- what was in the way -----------------------------------------------------------

    async def _refused(self, attempt: _Try, refused: ConditionError) -> bool | None:
        """Return False if the version differs; else clear the way, and None."""
        append = attempt.append
        if not refused.failed[0]:
            # Not the head: Rasa's item, or the announcement of a large save.
            if self._rasa is None or append.expected_version:
                return None
            return await self._take_over(attempt)
        item = refused.items[0]
        if item is None:
            if not append.expected_version:
                return None
            return await self._take_over(attempt)
        head = head_from(item)
        if head.is_gone(append.now):
            if append.expected_version:
                return False
            await self._eraser.clear(append.sender_id, head, append.now)
            return None
        if head.version != append.expected_version:
            return False
        if append.created_at not in (None, head.created_at):
            return False
        if attempt.loose != head.loose:
            attempt.loose = head.loose
            return None
        await self._lengthen(attempt, head)
        return None

    async def _lengthen(self, attempt: _Try, head: Head) -> None:
        """Have the older items live as long as the new one has to."""
        append = attempt.append
        if not is_long_enough(head.ttl_floor, append.expires_at):
            await extend(self._table, append.sender_id, head, attempt.ttl)
        elif head.ttl_floor is not None:
            # A store with a longer `record_exp` was here: the new item does as it did.
            attempt.ttl = head.ttl_floor

    # -- Rasa's item -------------------------------------------------------------------

    async def _stored_by_rasa(
        self, sender_id: str
    ) -> tuple[Item, StoredConversation] | None:
        if self._rasa is None:
            return None
        found = await self._rasa.get(sender_id)
        stored = found.conversation(sender_id)
        if found.item is None or stored is None:
            return None
        return found.item, stored

    async def _take_over(self, attempt: _Try) -> bool | None:
        """Append to what Rasa stored: the log begins with it."""
        append = attempt.append
        if self._rasa is None:
            return False
        found = await self._rasa.get(append.sender_id)
        stored = found.conversation(append.sender_id)
        if (0 if stored is None else stored.version) != append.expected_version:
            return False
        if stored is not None and append.created_at not in (None, stored.created_at):
            return False
        if found.item is None or found.is_taken_over:
            attempt.is_beside_rasa = found.is_taken_over
            return None
        rows = [(row.event_id, row.data) for row in append.rows]
        if stored is not None:
            rows = [*stored.rows, *rows]  # type: ignore[list-item]
        created_at = append.begun_at if stored is None else stored.created_at
        try:
            await self._take_rows_over(attempt, found.item, rows, created_at)
        except ConditionError:
            return None
        return True

    async def _take_rows_over(
        self,
        attempt: _Try,
        rasas: Item,
        rows: Sequence[StoredRow],
        created_at: float,
    ) -> None:
        append, rasa, keep = attempt.append, self._rasa, not self._delete_rasa_data
        assert rasa is not None  # noqa: S101
        sender_id = append.sender_id
        plan = plan_save(sender_id, 0, rows, append.snapshot, created_at, attempt.ttl)
        operations = [self._new_head(attempt, plan, created_at, is_from_rasa=keep)]
        if keep:
            operations.append(rasa.check_unchanged(sender_id, rasas))
            marker = item_key(sender_id, MARKER_KEY)
            marker["created_at"] = number(created_at)
            operations.append(self._table.put(marker))
        else:
            operations.append(rasa.delete_unchanged(sender_id, rasas))
        await self._table.commit(sender_id, operations, plan, append.now)
