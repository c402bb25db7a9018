"""Cutting off the beginning of a conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from tracker_store_async.backends.mongo.layout import (
    Collections,
    Document,
    alive,
    is_expired,
    same_header,
    tail_values,
)
from tracker_store_async.rows import Append

if TYPE_CHECKING:
    from tracker_store_async.backends.mongo.appending import Appender
    from tracker_store_async.backends.mongo.erasing import Eraser
    from tracker_store_async.backends.mongo.rasa import RasaDocuments
    from tracker_store_async.rows import StoredConversation


class Cutter:
    """Erases the rows before a position.

    Args:
        collections: Where.
        rasa: Rasa's documents.
        eraser: Removes what was cut off.
        appender: Takes over what Rasa wrote, before it is cut.
    """

    def __init__(
        self,
        collections: Collections,
        rasa: RasaDocuments,
        eraser: Eraser,
        appender: Appender,
    ) -> None:
        self._log = collections.log
        self._rasa = rasa
        self._eraser = eraser
        self._appender = appender

    async def cut(self, sender_id: str, before: int, now: float) -> bool:
        """Erase the rows before a position; return whether there were any."""
        while True:
            header = await self._log.find_one({"_id": sender_id})
            if header is None:
                found = await self._rasa.find(sender_id)
                if found is None or not 0 < before <= found.session_start:
                    return False
                await self.take_over(sender_id, found)
            elif header.get("pending") is not None:
                await self._eraser.complete(header)
            elif is_expired(header, now):
                await self._eraser.drop_expired(header, now)
                return False
            elif not header["first_position"] < before <= header["session_start"]:
                return False
            elif await self._cut_off(header, before, now):
                return True

    async def _cut_off(self, header: Document, before: int, now: float) -> bool:
        """Hide the rows in one step, then erase them."""
        within_tail = before > header["tail_first"]
        pending = {"kind": "cut", "before": before, "all_buckets": within_tail}
        values: Document = {"first_position": before, "pending": pending}
        update: Document = {"$set": values}
        if within_tail:
            kept = header["tail"][before - header["tail_first"] :]
            values |= tail_values(before, kept)
            update["$unset"] = {"runs": "", "buckets_until": ""}
        found = same_header(header) | alive(now)
        if not (await self._log.update_one(found, update)).matched_count:
            return False
        await self._eraser.complete({**header, "pending": pending})
        return True

    async def take_over(self, sender_id: str, found: StoredConversation) -> None:
        """Begin the log with what Rasa wrote, since Rasa's document cannot be cut."""
        nothing = Append(
            sender_id=sender_id,
            expected_version=found.version,
            rows=(),
            session_start=found.session_start,
            snapshot=cast(Any, None),  # as for a reader of Rasa's document
            now=found.updated_at,
            created_at=found.created_at,
        )
        await self._appender.claim(nothing, [], delete_rasa=True)
