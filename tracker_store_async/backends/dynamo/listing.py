"""Listing: first what Rasa's table holds, then the index of our conversations.

The index holds keys only and tells who is there; what is told of each conversation is
read from its head, consistently, many at a time. A conversation that began with an item
that still lies in Rasa's table is listed where that item is, whether or not it has been
taken over meanwhile: so it is listed once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.dynamo.layout import (
    ALL_INDEX,
    HEAD_KEY,
    MARKER_KEY,
    SHARDS,
    USER_INDEX,
    Head,
    head_from,
    item_key,
    position_of,
    shard_of,
)
from tracker_store_async.backends.dynamo.rasa import decode_conversation, rasa_key
from tracker_store_async.backends.dynamo.table import in_batches
from tracker_store_async.backends.dynamo.values import Expression, Item, number, text
from tracker_store_async.errors import InvalidInputError
from tracker_store_async.rows import ConversationSummary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.backends.dynamo.rasa import RasaTable
    from tracker_store_async.backends.dynamo.table import Table
    from tracker_store_async.rows import Listing, StoredConversation

KEYS_AT_ONCE = 100
"""Most keys that one request reads."""

_TOLD = (
    *("sender_id", "position", "version", "created_at", "updated_at", "expires_at"),
    *("user_id", "from_rasa", "erasing"),
)

RASAS, OURS, USERS = "rasa:", "ours:", "user:"
"""What a cursor begins with: in which part of a listing it lies."""


class Lister:
    """Lists conversations.

    Args:
        table: Our table.
        rasa: Rasa's table, or None if there is none.
    """

    def __init__(self, table: Table, rasa: RasaTable | None) -> None:
        self._table = table
        self._rasa = rasa

    async def next_page(self, listing: Listing) -> list[ConversationSummary]:
        """Return the next page.

        Raises:
            InvalidInputError: `after` is not a cursor.
        """
        part, after = self._begin(listing)
        page: list[ConversationSummary] = []
        if part == USERS:
            await self._list_users(listing, after, page)
            return page
        if part == RASAS:
            await self._list_rasas(listing, after, page)
            after = None
        await self._list_ours(listing, after, page)
        return page

    def _begin(self, listing: Listing) -> tuple[str, str | None]:
        first = RASAS if self._rasa is not None else OURS
        if listing.user_id is not None:
            first = USERS
        if listing.after is None:
            return first, None
        part, sender_id = listing.after[:5], listing.after[5:]
        parts = (USERS,) if listing.user_id is not None else (RASAS, OURS)
        if part not in parts or not sender_id:
            raise InvalidInputError(
                "cursor must be that of a summary of the same kind of listing"
            )
        if part == RASAS and self._rasa is None:
            return OURS, None  # Rasa's table is gone
        return part, sender_id

    # -- ours --------------------------------------------------------------------------

    async def _list_ours(
        self, listing: Listing, after: str | None, page: list[ConversationSummary]
    ) -> None:
        first = 0 if after is None else shard_of(after)
        for shard in range(first, SHARDS):
            key = number(shard)
            await self._list_index(listing, ALL_INDEX, "shard", key, after, page, OURS)
            after = None
            if len(page) == listing.limit:
                return

    async def _list_users(
        self, listing: Listing, after: str | None, page: list[ConversationSummary]
    ) -> None:
        key = text(listing.user_id or "")
        await self._list_index(listing, USER_INDEX, "user_id", key, after, page, USERS)

    async def _list_index(
        self,
        listing: Listing,
        index: str,
        attribute: str,
        key: Item,
        after: str | None,
        page: list[ConversationSummary],
        prefix: str,
    ) -> None:
        """Add what one partition of an index holds behind a sender id."""
        while len(page) < listing.limit:
            wanted = listing.limit - len(page)
            ids = await self._index_page(index, attribute, key, after, wanted)
            if not ids:
                return
            after = ids[-1]
            heads = await self._heads(ids)
            if prefix == OURS:
                await self._leave_to_rasa(heads)
            for sender_id in ids:
                head = heads.get(sender_id)
                if head is not None and is_listed(head, listing):
                    page.append(summary_of(sender_id, head, prefix))

    async def _index_page(
        self, index: str, attribute: str, key: Item, after: str | None, limit: int
    ) -> list[str]:
        expression = Expression()
        condition = expression.equals(attribute, key)
        if after is not None:
            condition += f" AND {expression.name('sender_id')} > "
            condition += expression.value(text(after))
        items, _ = await self._table.client.query(
            TableName=self._table.name,
            IndexName=index,
            Limit=min(limit, 1000),
            **expression.parameters(KeyConditionExpression=condition),
        )
        return [item["sender_id"]["S"] for item in items]

    async def _heads(self, ids: Sequence[str]) -> dict[str, Head]:
        keys = [item_key(sender_id, HEAD_KEY) for sender_id in ids]
        items = await self._get(self._table.name, keys, _TOLD)
        return {item["sender_id"]["S"]: head_from(item) for item in items}

    async def _leave_to_rasa(self, heads: dict[str, Head]) -> None:
        """Leave out those whose item still lies in Rasa's table: told there."""
        if self._rasa is None:
            return
        keys = [rasa_key(name) for name, head in heads.items() if head.is_from_rasa]
        for item in await self._get(self._rasa.name, keys, ("sender_id",)):
            del heads[item["sender_id"]["S"]]

    async def _get(
        self, table: str, keys: Sequence[Item], names: Sequence[str]
    ) -> list[Item]:
        found: list[Item] = []
        expression = Expression()
        projection = ", ".join(map(expression.name, names))
        options = expression.parameters(ProjectionExpression=projection)

        async def get(some: Sequence[Item]) -> None:
            found.extend(
                await self._table.client.batch_get(
                    table, some, ConsistentRead=True, **options
                )
            )

        pieces = (keys[n : n + KEYS_AT_ONCE] for n in range(0, len(keys), KEYS_AT_ONCE))
        await in_batches(partial(get, piece) for piece in pieces)
        return found

    # -- Rasa's ------------------------------------------------------------------------

    async def _list_rasas(
        self, listing: Listing, after: str | None, page: list[ConversationSummary]
    ) -> None:
        rasa = self._rasa
        assert rasa is not None  # noqa: S101
        start = None if after is None else rasa_key(after)
        while len(page) < listing.limit:
            options: dict[str, Any] = {"Limit": listing.limit - len(page)}
            if start is not None:
                options["ExclusiveStartKey"] = start
            answer = await self._table.client.call(
                "scan", TableName=rasa.name, ConsistentRead=True, **options
            )
            page += await self._summaries_of_rasas(listing, answer["Items"])
            start = answer.get("LastEvaluatedKey")
            if start is None:
                return

    async def _summaries_of_rasas(
        self, listing: Listing, items: Sequence[Item]
    ) -> list[ConversationSummary]:
        ids = [item["sender_id"]["S"] for item in items]
        keys = [item_key(i, key) for i in ids for key in (HEAD_KEY, MARKER_KEY)]
        found = await self._get(self._table.name, keys, _TOLD)
        heads = {i["sender_id"]["S"]: i for i in found if position_of(i) == HEAD_KEY}
        known = {i["sender_id"]["S"] for i in found}
        page: list[ConversationSummary] = []
        for sender_id, item in zip(ids, items, strict=True):
            told: Head | StoredConversation | None = None
            if sender_id in heads:
                head = head_from(heads[sender_id])
                told = head if head.is_from_rasa else None
            elif sender_id not in known:
                told = decode_conversation(sender_id, item)
            if told is not None and is_listed(told, listing):
                page.append(summary_of(sender_id, told, RASAS))
        return page


def is_listed(told: Head | StoredConversation, listing: Listing) -> bool:
    """Whether a conversation is there, and one of those that are asked for."""
    if isinstance(told, Head):
        if told.is_gone(listing.now):
            return False
        if listing.user_id is not None and told.user_id != listing.user_id:
            return False
    if listing.updated_from is not None and told.updated_at < listing.updated_from:
        return False
    before = listing.updated_before
    return before is None or told.updated_at < before


def summary_of(
    sender_id: str, told: Head | StoredConversation, prefix: str
) -> ConversationSummary:
    """Return a conversation as it is listed, in that part of a listing."""
    return ConversationSummary(
        sender_id=sender_id,
        version=told.version,
        created_at=told.created_at,
        updated_at=told.updated_at,
        user_id=told.user_id,
        cursor=prefix + sender_id,
    )
