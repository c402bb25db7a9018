"""Erasing, and completing what takes several steps and was left half done.

What is to be done is noted in the header (`pending`) before it is done. A writer that
finds such a note does it first: so a crash can neither bring anything back nor leave
anything behind that the next writer, or the next deletion, would not remove.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from tracker_store_async.backends.mongo.layout import (
    LAYOUT_VERSION,
    OUTBOX_MARK,
    Collections,
    Document,
    is_expired,
    longer_ttl,
    new_log,
    same_header,
    with_ttl,
)

if TYPE_CHECKING:
    from tracker_store_async.backends.mongo.rasa import RasaDocuments

CONTENT = (
    "snapshot",
    "tail",
    "tail_first",
    "tail_bytes",
    "runs",
    "user_id",
    "session_start",
    "first_position",
    "created_at",
    "updated_at",
    "expires_at",
    "buckets_until",
    "ttl",
    OUTBOX_MARK,
)
"""Fields of a header that are gone as soon as it is marked."""

CREATE = {"kind": "create"}


class Eraser:
    """Deletes conversations, and completes what others have begun.

    Args:
        collections: Where.
        rasa: Rasa's documents, which are erased along with ours.
    """

    def __init__(self, collections: Collections, rasa: RasaDocuments) -> None:
        self._log = collections.log
        self._events = collections.events
        self._rasa = rasa

    async def delete(self, sender_id: str, now: float) -> bool:
        """Erase a conversation; return whether there was one."""
        mark = {"hidden": True, "pending": {"kind": "delete"}, "layout": LAYOUT_VERSION}
        log = new_log()
        while True:
            try:
                found = await self._log.find_one_and_update(
                    {"_id": sender_id},
                    {
                        "$set": mark,
                        "$setOnInsert": {"log": log},
                        "$unset": dict.fromkeys(CONTENT, ""),
                    },
                    {"log": 1, "hidden": 1, "pending": 1, "expires_at": 1},
                    upsert=True,
                    return_document=ReturnDocument.BEFORE,
                )
                break
            except DuplicateKeyError:  # it was begun at this moment
                continue
        if found is None or found.get("pending") == CREATE:
            existed = await self._rasa.exists(sender_id)
        else:
            existed = not found.get("hidden") and not is_expired(found, now)
        log = log if found is None else found["log"]
        noted = (found or {}).get("pending") or {}
        if "log" in noted:  # buckets of a rewrite that was cut short
            await self._events.delete_many({"log": noted["log"]})
        await self.complete({"_id": sender_id, "log": log, **mark})
        return existed

    async def delete_version(self, sender_id: str, version: int, now: float) -> bool:
        """Erase a conversation if it has this version; return whether it had."""
        mark = {"hidden": True, "pending": {"kind": "delete"}}
        while True:
            header = await self._log.find_one({"_id": sender_id})
            if header is None:
                found = await self._rasa.find(sender_id)
                if found is None or found.version != version:
                    return False
                return await self.delete(sender_id, now)
            if header.get("pending") is not None:
                await self.complete(header)
                continue
            if is_expired(header, now) or header["version"] != version:
                return False
            erased = {"$set": mark, "$unset": dict.fromkeys(CONTENT, "")}
            if (await self._log.update_one(same_header(header), erased)).matched_count:
                await self.complete({**header, **mark})
                return True

    async def drop_expired(self, header: Document, now: float) -> None:
        """Remove an expired conversation, to make room for a new one."""
        found = {"_id": header["_id"], "log": header["log"]}
        await self._drop(found | {"expires_at": {"$lte": now}})

    async def drop_claim(self, header: Document) -> None:
        """Remove a log that was begun and never became visible."""
        found = {"_id": header["_id"], "log": header["log"]}
        await self._drop(found | {"pending": CREATE})

    async def _drop(self, found: Document) -> None:
        pending = {"kind": "drop"}
        update = {
            "$set": {"hidden": True, "pending": pending},
            "$unset": dict.fromkeys(CONTENT, ""),
        }
        marked = await self._log.find_one_and_update(found, update, {"log": 1})
        if marked is not None:
            await self.complete({**marked, "pending": pending})

    # -- completing --------------------------------------------------------------------

    async def complete(self, header: Document) -> None:
        """Do what is noted in a header; it may be under way elsewhere as well."""
        pending = header["pending"]
        match pending["kind"]:
            case "create":
                await self.drop_claim(header)
            case "delete":
                await self._rasa.erase(header["_id"])
                await self._remove(header)
            case "drop":
                await self._remove(header)
            case "rasa":
                await self._settle_rasa(header, pending)
            case "limit":
                await self._limit_buckets(header, pending)
            case "cut":
                await self._erase_cut(header, pending)
            case "stage":
                await self._events.delete_many({"log": pending["log"]})
                await self._done(header, {})
            case "rewritten":
                await self._rasa.erase(header["_id"])
                await self._events.delete_many({"log": pending["log"]})
                await self._done(header, {})

    async def _remove(self, header: Document) -> None:
        """Remove the buckets of a hidden header, and then itself."""
        await self._events.delete_many({"log": header["log"]})
        found = {"_id": header["_id"], "log": header["log"], "hidden": True}
        await self._log.delete_one(found)

    async def _settle_rasa(self, header: Document, pending: Document) -> None:
        """Deal with Rasa's document after its conversation was taken over."""
        if pending["delete"]:
            await self._rasa.erase(header["_id"])
        else:
            await self._rasa.mark_taken_over(header["_id"])
        await self._done(header, with_ttl({}, pending["ttl"]))

    async def _limit_buckets(self, header: Document, pending: Document) -> None:
        """Give an end to the buckets of a conversation that had none."""
        filled = {"log": header["log"], "end": {"$gt": 0}}
        await self._events.update_many(filled, longer_ttl(pending["ttl"]))
        await self._done(header, {"$set": {"buckets_until": pending["until"]}})

    async def _erase_cut(self, header: Document, pending: Document) -> None:
        """Remove the rows that were cut off, wherever they lie."""
        await self._rasa.erase(header["_id"])
        log, before = header["log"], pending["before"]
        if pending["all_buckets"]:
            await self._events.delete_many({"log": log, "first": {"$lt": before}})
        else:
            await self._events.delete_many({"log": log, "end": {"$lte": before}})
            cut_through = {"log": log, "first": {"$lt": before}}
            for bucket in await self._events.find(cut_through).to_list(None):
                await self._trim(header, bucket, before)
        await self._done(header, {})

    async def _trim(self, header: Document, bucket: Document, before: int) -> None:
        """Cut the beginning off a bucket; remove one that nobody will ever see."""
        token = bucket.get("token")
        is_mine = token is None or token in header.get("runs", [])
        if "end" not in bucket or not is_mine:
            await self._events.delete_one({"_id": bucket["_id"]})
            return
        rows = bucket["rows"][before - bucket["first"] :]
        await self._events.update_one(
            {"_id": bucket["_id"], "first": bucket["first"]},
            {"$set": {"first": before, "rows": rows}},
        )

    async def _done(self, header: Document, update: Document) -> None:
        """Take the note out of the header, unless another process has."""
        unset = update.get("$unset", {}) | {"pending": ""}
        names = ("_id", "log", "pending")
        found = {name: header[name] for name in names}
        await self._log.update_one(found, update | {"$unset": unset})
