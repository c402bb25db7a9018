"""Rasa's table: one item a conversation, which holds all of its events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.dynamo.layout import (
    HEAD_KEY,
    MARKER_KEY,
    Names,
    item_key,
)
from tracker_store_async.backends.dynamo.values import Expression, Item, text
from tracker_store_async.errors import TrackerDeserialisationError
from tracker_store_async.rasa_rows import conversation_from_rasa

if TYPE_CHECKING:
    from tracker_store_async.backends.dynamo.client import Client
    from tracker_store_async.rows import StoredConversation


@dataclass(frozen=True, slots=True)
class RasaItem:
    """Rasa's item of a conversation, and whether it has been taken over.

    Attributes:
        item: What lies in Rasa's table, or None.
        is_taken_over: Whether a log of ours has begun with it once.
        has_head: Whether there is a log of ours.
    """

    item: Item | None
    is_taken_over: bool
    has_head: bool

    def conversation(self, sender_id: str) -> StoredConversation | None:
        """Return the log that begins with it, or None if it stands for nothing.

        Raises:
            TrackerDeserialisationError: It is not a list of events.
        """
        if self.item is None or self.is_taken_over:
            return None
        return decode_conversation(sender_id, self.item)


class RasaTable:
    """Rasa's table beside ours.

    Args:
        client: The open client.
        names: Both tables.
    """

    def __init__(self, client: Client, names: Names) -> None:
        self._client = client
        self._names = names

    @property
    def name(self) -> str:
        """Name of Rasa's table."""
        return self._names.rasa_table

    async def get(self, sender_id: str) -> RasaItem:
        """Return Rasa's item and what is known of it, as of one moment."""
        ours = self._names.table
        keys = [
            (self.name, rasa_key(sender_id)),
            (ours, item_key(sender_id, MARKER_KEY)),
            (ours, item_key(sender_id, HEAD_KEY)),
        ]
        answer = await self._client.call(
            "transact_get_items",
            TransactItems=[
                {"Get": {"TableName": table, "Key": key}} for table, key in keys
            ],
        )
        found = [response.get("Item") for response in answer["Responses"]]
        return RasaItem(found[0], found[1] is not None, found[2] is not None)

    def check_absent(self, sender_id: str) -> dict[str, Any]:
        """Return the operation that refuses a transaction if Rasa has an item."""
        expression = Expression()
        condition = expression.lacks("sender_id")
        return {"ConditionCheck": self._condition(sender_id, expression, condition)}

    def check_unchanged(self, sender_id: str, item: Item) -> dict[str, Any]:
        """Return the operation that refuses it if the item is another one by now."""
        return {"ConditionCheck": self._unchanged(sender_id, item)}

    def delete_unchanged(self, sender_id: str, item: Item) -> dict[str, Any]:
        """Return the operation that deletes the item if it is still this one."""
        return {"Delete": self._unchanged(sender_id, item)}

    def delete(self, sender_id: str) -> dict[str, Any]:
        """Return the operation that deletes the item, if there is one."""
        return {"Delete": {"TableName": self.name, "Key": rasa_key(sender_id)}}

    def _unchanged(self, sender_id: str, item: Item) -> dict[str, Any]:
        expression = Expression()
        if "events" in item:
            condition = expression.equals("events", item["events"])
        else:
            condition = f"{expression.exists('sender_id')} AND " + expression.lacks(
                "events"
            )
        return self._condition(sender_id, expression, condition)

    def _condition(
        self, sender_id: str, expression: Expression, condition: str
    ) -> dict[str, Any]:
        return {
            "TableName": self.name,
            "Key": rasa_key(sender_id),
            **expression.parameters(ConditionExpression=condition),
        }


def rasa_key(sender_id: str) -> Item:
    """Return the primary key in Rasa's table."""
    return {"sender_id": text(sender_id)}


def decode_conversation(sender_id: str, item: Item) -> StoredConversation | None:
    """Return the log that begins with Rasa's item, or None if it has no events.

    Raises:
        TrackerDeserialisationError: It is not a list of events.
    """
    try:
        events = plain(item["events"]) if "events" in item else []
    except (KeyError, TypeError, ValueError, AttributeError):
        raise TrackerDeserialisationError(
            f"what Rasa stored for conversation {sender_id!r} holds a value that Rasa "
            "does not write"
        ) from None
    return conversation_from_rasa(sender_id, events)


def plain(value: Item) -> Any:
    """Return what Rasa returns for a value: every number is a float."""
    [(kind, content)] = value.items()
    if kind == "M":
        return {name: plain(each) for name, each in content.items()}
    if kind == "L":
        return [plain(each) for each in content]
    if kind == "N":
        return float(content)
    if kind not in ("S", "BOOL", "NULL"):
        raise ValueError(kind)
    return None if kind == "NULL" else content
