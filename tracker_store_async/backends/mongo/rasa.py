"""The documents that Rasa's own store wrote: read, told from taken over, erased."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tracker_store_async.rasa_rows import conversation_from_rasa

if TYPE_CHECKING:
    from tracker_store_async.backends.mongo.layout import Collections, Document
    from tracker_store_async.rows import StoredConversation

_LARGEST_INT = 2**63 - 1


class RasaDocuments:
    """What Rasa 3.6.21 keeps in `<collection>`: one document a conversation."""

    def __init__(self, collections: Collections) -> None:
        self._rasa = collections.rasa
        self._log = collections.log

    async def find(self, sender_id: str) -> StoredConversation | None:
        """Return the log that Rasa's document stands for, unless it was taken over.

        Raises:
            TrackerDeserialisationError: It is not what Rasa writes.
        """
        document, taken = await asyncio.gather(
            self._rasa.find_one(
                rasa_filter(sender_id), {"events": 1}, sort=[("_id", 1)]
            ),
            self._log.find_one({"_id": taken_over_id(sender_id)}),
        )
        if document is None or taken is not None:
            return None
        return conversation_from_rasa(sender_id, document.get("events", []))

    async def exists(self, sender_id: str) -> bool:
        """Whether there is a conversation that only Rasa's document holds."""
        some = {**rasa_filter(sender_id), "events.0": {"$exists": True}}
        document, taken = await asyncio.gather(
            self._rasa.find_one(some, {"_id": 1}),
            self._log.find_one({"_id": taken_over_id(sender_id)}),
        )
        return document is not None and taken is None

    async def mark_taken_over(self, sender_id: str) -> None:
        """Have Rasa's document never looked at again, whatever becomes of the log."""
        key = {"_id": taken_over_id(sender_id)}
        await self._log.update_one(key, {"$setOnInsert": {"layout": 1}}, upsert=True)

    async def erase(self, sender_id: str) -> None:
        """Remove Rasa's document, and then the mark that it was taken over."""
        await self._rasa.delete_many(rasa_filter(sender_id))
        await self._log.delete_one({"_id": taken_over_id(sender_id)})


def taken_over_id(sender_id: str) -> Document:
    """Return the `_id` of the mark that Rasa's document was taken over."""
    return {"rasa": sender_id}


def rasa_filter(sender_id: str) -> Document:
    """Return the filter for Rasa's document."""
    keys = keys_of(sender_id)
    return {"sender_id": keys[0] if len(keys) == 1 else {"$in": keys}}


def keys_of(sender_id: str) -> list[Any]:
    """Return what Rasa may have written as an id: once some were numbers."""
    keys: list[Any] = [sender_id]
    is_number = sender_id.isascii() and sender_id.isdigit()
    if is_number and len(sender_id) < 20 and str(int(sender_id)) == sender_id:
        number = int(sender_id)
        keys += [number] if number <= _LARGEST_INT else []
    return keys
