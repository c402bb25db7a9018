"""Erasing whole conversations, or the beginning of one.

What fits one transaction goes in one. Otherwise the head is changed first, which makes
everything invisible at once; the items follow, each only if it is still the one that
was seen; and the head says until the end that there is work left, so that whoever comes
next finishes it after a crash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tracker_store_async.backends.dynamo.client import ConditionError
from tracker_store_async.backends.dynamo.layout import (
    HEAD_KEY,
    MARKER_KEY,
    Head,
    head_from,
    item_key,
    position_of,
    shard_of,
)
from tracker_store_async.backends.dynamo.lifetime import LOWEST_KEY
from tracker_store_async.backends.dynamo.reading import Reader, TornError, saves_of
from tracker_store_async.backends.dynamo.saves import (
    SavePlan,
    count_of,
    event_parts,
    part_keys,
    plan_save,
    rows_in,
)
from tracker_store_async.backends.dynamo.values import (
    Expression,
    Item,
    flag,
    int_of,
    number,
    text,
)
from tracker_store_async.errors import StoreUnavailableError

if TYPE_CHECKING:
    from tracker_store_async.backends.dynamo.rasa import RasaTable
    from tracker_store_async.backends.dynamo.table import Table

ATTEMPTS = 20
TRANSACTION_ITEMS = 80
"""Most items that are deleted in one transaction."""

SEEN = (
    *("position", "save", "parts", "snapshot_parts", "count"),
    *("version", "first", "session_start", "created_at", "updated_at"),
    *("expires_at", "ttl_floor", "last_save", "erasing", "cutting"),
)
"""What an erasure has to know of the items; neither events nor state."""


class Eraser:
    """Erases conversations.

    Args:
        table: Our table.
        rasa: Rasa's table, or None if there is none.
        reader: Reads what stays of a save that is cut.
    """

    def __init__(self, table: Table, rasa: RasaTable | None, reader: Reader) -> None:
        self._table = table
        self._rasa = rasa
        self._reader = reader

    async def delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        """Erase a conversation or its beginning; return whether there was anything."""
        for _ in range(ATTEMPTS):
            try:
                if before is None:
                    return await self._delete_whole(sender_id, now, version)
                return await self._cut(sender_id, before, now)
            except (ConditionError, TornError):
                continue  # somebody else was there: look again
        raise StoreUnavailableError(
            f"conversation {sender_id!r} was changed by others again and again while "
            "it was deleted: try again"
        )

    async def clear(self, sender_id: str, head: Head, now: float) -> None:
        """Erase what has expired, or what an erasure has left; Rasa's item stays."""
        try:
            items, after = await self._first_page(sender_id)
            if items and position_of(items[0]) == HEAD_KEY:
                seen = head_from(items[0])
                if seen.is_gone(now):
                    await self._erase(sender_id, seen, items, after, whole=False)
        except ConditionError:
            return  # somebody else did; the caller looks again

    # -- whole conversations -----------------------------------------------------------

    async def _delete_whole(
        self, sender_id: str, now: float, version: int | None
    ) -> bool:
        items, after = await self._first_page(sender_id)
        had_rasas = False
        if self._rasa is not None:
            found = await self._rasa.get(sender_id)
            had_rasas = bool(found.item and "events" in found.item)
            had_rasas = had_rasas and not found.is_taken_over
            has_rasas = found.item is not None or found.is_taken_over
        else:
            has_rasas = False
        if not items and not has_rasas:
            return False
        head = None
        if items and position_of(items[0]) == HEAD_KEY:
            head = head_from(items[0])
        if version is not None and not await self._has(sender_id, head, version):
            return False
        await self._erase(sender_id, head, items, after, whole=True)
        return had_rasas if head is None else not head.is_gone(now)

    async def _has(self, sender_id: str, head: Head | None, version: int) -> bool:
        """Whether a conversation, or Rasa's item in its place, has a version."""
        if head is not None:
            return head.erasing is None and head.version == version
        found = None if self._rasa is None else await self._rasa.get(sender_id)
        stored = None if found is None else found.conversation(sender_id)
        return stored is not None and stored.version == version

    async def _first_page(self, sender_id: str) -> tuple[list[Item], Any]:
        return await self._table.page(sender_id, LOWEST_KEY, HEAD_KEY, names=SEEN)

    async def _erase(
        self,
        sender_id: str,
        head: Head | None,
        items: list[Item],
        after: Any,
        *,
        whole: bool,
    ) -> None:
        """Erase everything that belongs to a head, or to none.

        Args:
            sender_id: The conversation.
            head: Its head as it was seen.
            items: The first page of its items.
            after: Where that page ends, or None if it holds everything.
            whole: Whether Rasa's item goes as well.

        Raises:
            ConditionError: The head is another one by now; nothing was changed.
        """
        rasas = []
        if whole and self._rasa is not None:
            rasas.append(self._rasa.delete(sender_id))
        gone = [i for i in items if _is_erased(i, whole=whole)]
        if after is None and len(gone) <= TRANSACTION_ITEMS:
            deleted = (self._table.delete(sender_id, position_of(i)) for i in gone)
            first = self._without_head(sender_id, head)
            await self._table.client.transact([first, *rasas, *deleted])
            return
        claim = uuid4().hex
        expression = Expression()
        condition = is_seen(expression, head)
        tombstone = {**item_key(sender_id, HEAD_KEY), "erasing": text(claim)}
        put = self._table.put(tombstone, condition, expression)
        marker = [self._table.delete(sender_id, MARKER_KEY)] if whole else []
        await self._table.client.transact([put, *rasas, *marker])
        await self._sweep(sender_id, claim)

    def _without_head(self, sender_id: str, head: Head | None) -> dict[str, Any]:
        expression = Expression()
        condition = is_seen(expression, head)
        if head is None:
            return self._table.check(sender_id, HEAD_KEY, condition, expression)
        return self._table.delete(sender_id, HEAD_KEY, condition, expression)

    async def _sweep(self, sender_id: str, claim: str) -> None:
        """Remove what a tombstone hides, then the tombstone."""
        names = ("position", "save")
        items = await self._table.all_items(sender_id, LOWEST_KEY, HEAD_KEY - 1, names)
        gone = [i for i in items if position_of(i) != MARKER_KEY]
        await self._table.delete_all_seen(sender_id, gone)
        expression = Expression()
        condition = expression.equals("erasing", text(claim))
        await self._table.write(
            self._table.delete(sender_id, HEAD_KEY, condition, expression)
        )

    # -- the beginning of a conversation -----------------------------------------------

    async def _cut(self, sender_id: str, before: int, now: float) -> bool:
        head = await self._table.head(sender_id)
        if head is None:
            return await self._cut_rasas(sender_id, before, now)
        if head.is_gone(now):
            return False
        if not head.first < before <= head.session_start:
            if head.cutting:
                await self._finish_cut(sender_id, head)
            return False
        low, is_whole = await self._items_before(sender_id, head, before)
        plan = await self._divide(sender_id, head, low, before)
        at_once = (
            is_whole
            and len(low) <= TRANSACTION_ITEMS
            and not any(part_keys(item) for item in low)
            and not (plan and plan.parts)
        )
        operations = [
            self._advance_first(sender_id, head, before, plan, cutting=not at_once)
        ]
        if at_once:
            gone = (self._table.delete(sender_id, position_of(item)) for item in low)
            operations += gone
        if plan is None:
            await self._table.client.transact(operations)
        else:
            await self._table.commit(sender_id, operations, plan, now)
        if not at_once:
            changed = await self._table.head(sender_id)
            if changed is not None:
                await self._finish_cut(sender_id, changed)
        return True

    async def _items_before(
        self, sender_id: str, head: Head, before: int
    ) -> tuple[list[Item], bool]:
        """Return the items before a position down to a save of this log, descending.

        Also returns whether they are all, found with one request.
        """
        low, after = await self._table.page(sender_id, 0, before - 1, names=SEEN)
        is_whole = after is None
        while after is not None and not saves_of(head, low):
            more, after = await self._table.page(
                sender_id, 0, before - 1, after=after, names=SEEN
            )
            low += more
        return low, is_whole

    async def _divide(
        self, sender_id: str, head: Head, low: list[Item], before: int
    ) -> SavePlan | None:
        """Return what replaces a save that holds events on both sides of the cut."""
        saves = saves_of(head, low)
        if not saves or position_of(saves[0]) + count_of(saves[0]) <= before:
            return None
        position = position_of(saves[0])
        items, _ = await self._table.page(sender_id, position, position)
        if not items or items[0].get("save") != saves[0].get("save"):
            raise TornError(position)
        [item] = items
        skipped = before - position
        if event_parts(item) is None:
            rows = rows_in(item)[skipped:]
        else:
            rows = await self._reader.rows_in_parts(sender_id, item, skipped)
        snapshot = None
        if int_of(item, "snapshot_parts") and str(head.last_save) == item["save"]["S"]:
            snapshot = await self._reader.snapshot(sender_id, head)
        ttl = int_of(item, "ttl") if "ttl" in item else None
        return plan_save(sender_id, before, rows, snapshot, head.created_at, ttl)

    def _advance_first(
        self,
        sender_id: str,
        head: Head,
        before: int,
        plan: SavePlan | None,
        *,
        cutting: bool,
    ) -> dict[str, Any]:
        """Return the write that makes everything before a position invisible."""
        expression = Expression()
        condition = is_seen(expression, head)
        values: Item = {"first": number(before)}
        if cutting:
            values["cutting"] = flag()
        is_last = head.last_key < before  # no state was saved alone behind it
        if plan is not None and is_last:
            values["last_save"] = plan.item["save"]
            values["last_key"] = number(before)
        update = expression.update(values)
        return self._table.update(sender_id, HEAD_KEY, update, condition, expression)

    async def _finish_cut(self, sender_id: str, head: Head) -> None:
        """Remove the items that lie before the first event."""
        items = await self._table.all_items(sender_id, 0, head.first - 1, SEEN)
        for item in items:
            parts = [
                {"position": number(key), "save": item["save"]}
                for key in part_keys(item)
            ]
            await self._table.delete_all_seen(sender_id, parts)
        await self._table.delete_all_seen(sender_id, items)
        expression = Expression()
        condition = expression.equals("created_at", number(head.created_at))
        condition += f" AND {expression.equals('first', number(head.first))}"
        update = expression.update({}, ["cutting"])
        await self._table.write(
            self._table.update(sender_id, HEAD_KEY, update, condition, expression)
        )

    async def _cut_rasas(self, sender_id: str, before: int, now: float) -> bool:
        """Begin a log with what stays of Rasa's events, and delete Rasa's item."""
        if self._rasa is None:
            return False
        found = await self._rasa.get(sender_id)
        if found.has_head:
            raise TornError(0)
        stored = found.conversation(sender_id)
        if stored is None or found.item is None:
            return False
        if not 0 < before <= stored.session_start:
            return False
        rows = stored.rows[before:]
        plan = plan_save(sender_id, before, rows, None, stored.created_at, None)
        head: Item = {
            **item_key(sender_id, HEAD_KEY),
            "shard": number(shard_of(sender_id)),
            "version": number(stored.version),
            "first": number(before),
            "session_start": number(stored.session_start),
            "session_key": number(before),
            "last_key": number(before),
            "last_save": plan.item["save"],
            "created_at": number(stored.created_at),
            "updated_at": number(stored.updated_at),
        }
        expression = Expression()
        operations = [
            self._table.put(head, expression.lacks("sender_id"), expression),
            self._rasa.delete_unchanged(sender_id, found.item),
        ]
        await self._table.commit(sender_id, operations, plan, now)
        return True


def _is_erased(item: Item, *, whole: bool) -> bool:
    position = position_of(item)
    return position != HEAD_KEY and (whole or position != MARKER_KEY)


def is_seen(expression: Expression, head: Head | None) -> str:
    """Return the condition that the head is still the one that was seen."""
    if head is None:
        return expression.lacks("sender_id")
    if head.erasing is not None:
        return expression.equals("erasing", text(head.erasing))
    return (
        f"{expression.equals('created_at', number(head.created_at))} AND "
        f"{expression.equals('version', number(head.version))} AND "
        f"{expression.equals('first', number(head.first))} AND "
        f"{expression.equals('last_save', text(head.last_save))}"
    )
