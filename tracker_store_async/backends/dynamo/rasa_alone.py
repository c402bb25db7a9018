"""Rasa's table alone, only read: what is moved from there stays as it is.

It is for those who may create nothing, where the table of this library is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from tracker_store_async.backends.dynamo.listing import RASAS, is_listed, summary_of
from tracker_store_async.backends.dynamo.rasa import decode_conversation, rasa_key
from tracker_store_async.errors import InvalidInputError, SchemaError
from tracker_store_async.rasa_rows import slice_of

if TYPE_CHECKING:
    from tracker_store_async.backends.dynamo.client import Client
    from tracker_store_async.rows import (
        Append,
        ConversationSummary,
        Listing,
        Read,
        Rewrite,
        StoredConversation,
    )


class RasaAlone:
    """Reads and lists Rasa's table, and refuses the rest.

    Args:
        client: The open client.
        name: Name of the table.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name

    async def read(self, read: Read) -> StoredConversation | None:
        """Return header and rows, or None."""
        answer = await self._client.call(
            "get_item",
            TableName=self._name,
            Key=rasa_key(read.sender_id),
            ConsistentRead=True,
        )
        if "Item" not in answer:
            return None
        stored = decode_conversation(read.sender_id, answer["Item"])
        return None if stored is None else slice_of(stored, read)

    async def next_page(self, listing: Listing) -> list[ConversationSummary]:
        """Return the next page.

        Raises:
            InvalidInputError: `after` is not a cursor.
        """
        page: list[ConversationSummary] = []
        if listing.user_id is not None:
            return page  # Rasa knows of no users
        start = None
        if listing.after is not None:
            if not listing.after.startswith(RASAS):
                raise InvalidInputError("cursor must be that of a summary")
            start = rasa_key(listing.after.removeprefix(RASAS))
        while len(page) < listing.limit:
            options: dict[str, Any] = {"Limit": listing.limit - len(page)}
            if start is not None:
                options["ExclusiveStartKey"] = start
            answer = await self._client.call(
                "scan", TableName=self._name, ConsistentRead=True, **options
            )
            for item in answer["Items"]:
                sender_id = item["sender_id"]["S"]
                told = decode_conversation(sender_id, item)
                if told is not None and is_listed(told, listing):
                    page.append(summary_of(sender_id, told, RASAS))
            start = answer.get("LastEvaluatedKey")
            if start is None:
                break
        return page

    async def append(self, append: Append) -> bool:
        """Refuse it.

        Raises:
            SchemaError: Always.
        """
        self._refuse()

    async def delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        """Refuse it.

        Raises:
            SchemaError: Always.
        """
        self._refuse()

    async def rewrite(self, rewrite: Rewrite) -> bool:
        """Refuse it.

        Raises:
            SchemaError: Always.
        """
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise SchemaError(
            f"the DynamoDB table {self._name!r} is Rasa's and is only read here"
        )
