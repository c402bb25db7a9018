"""Putting other content in the place of what is stored: a new log, the same positions.

The new content lies under a new name of the log. What fits goes into the tail, in one
update of the header. What does not is written as buckets first; the header notes their
log before that, so that whoever comes after a crash removes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from tracker_store_async.backends.mongo.layout import (
    INLINE_BYTES,
    Collections,
    Document,
    alive,
    bucket_ttl,
    buckets_until,
    is_expired,
    new_log,
    packed,
    row_bytes,
    row_documents,
    same_header,
    tail_values,
)
from tracker_store_async.backends.mongo.staging import stage
from tracker_store_async.rows import Append

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.backends.mongo.cutting import Cutter
    from tracker_store_async.backends.mongo.erasing import Eraser
    from tracker_store_async.backends.mongo.rasa import RasaDocuments
    from tracker_store_async.rows import Rewrite


class Rewriter:
    """Rewrites conversations.

    Args:
        collections: Where.
        rasa: Rasa's documents.
        eraser: Removes what was there before.
        cutter: Takes over what Rasa wrote, before it is rewritten.
    """

    def __init__(
        self,
        collections: Collections,
        rasa: RasaDocuments,
        eraser: Eraser,
        cutter: Cutter,
    ) -> None:
        self._collections = collections
        self._log = collections.log
        self._rasa = rasa
        self._eraser = eraser
        self._cutter = cutter

    async def rewrite(self, rewrite: Rewrite) -> bool:
        """Put other content there; return False if the log is another one by now."""
        while True:
            header = await self._log.find_one({"_id": rewrite.sender_id})
            if header is None:
                found = await self._rasa.find(rewrite.sender_id)
                if found is None or (found.version, found.created_at) != (
                    rewrite.expected_version,
                    rewrite.created_at,
                ):
                    return False
                if not rewrite.changed:
                    return True
                await self._cutter.take_over(rewrite.sender_id, found)
            elif header.get("pending") is not None:
                await self._eraser.complete(header)
            elif header.get("hidden") or not _is_expected(header, rewrite):
                return False
            elif not rewrite.changed or await self._put(header, rewrite):
                return True

    async def _put(self, header: Document, rewrite: Rewrite) -> bool:
        rows = row_documents((row.event_id, row.data) for row in rewrite.rows)
        if sum(map(row_bytes, rows)) > INLINE_BYTES:
            return await self._put_buckets(header, rewrite, rows)
        values = tail_values(rewrite.first_position, rows)
        removed = ["runs", "buckets_until"]
        return await self._swap(header, rewrite, new_log(), values, removed)

    async def _put_buckets(
        self, header: Document, rewrite: Rewrite, rows: Sequence[Document]
    ) -> bool:
        log, token = new_log(), uuid4().hex
        noted = {**header, "pending": {"kind": "stage", "log": log}}
        note = {"$set": {"pending": noted["pending"]}}
        if not (await self._log.update_one(same_header(header), note)).matched_count:
            return False
        kept = _lifetime(header, rewrite)
        buckets = packed(rewrite.first_position, rows, token)
        values = tail_values(rewrite.expected_version, []) | {"runs": [token]}
        values["buckets_until"] = buckets_until(kept)
        if await stage(
            self._collections, noted, buckets, bucket_ttl(kept), log=log
        ) and await self._swap(noted, rewrite, log, values, []):
            return True
        await self._collections.events.delete_many({"log": log})
        return False

    async def _swap(
        self,
        header: Document,
        rewrite: Rewrite,
        log: str,
        values: Document,
        removed: Sequence[str],
    ) -> bool:
        """Have the header tell of the new content, then remove the old one."""
        pending = {"kind": "rewritten", "log": header["log"]}
        values |= {
            "log": log,
            "created_at": rewrite.new_created_at,
            "snapshot": rewrite.snapshot,
            "pending": pending,
        }
        unset = dict.fromkeys(removed, "")
        if rewrite.user_id is None:
            unset["user_id"] = ""
        else:
            values["user_id"] = rewrite.user_id
        update: Document = {"$set": values} | ({"$unset": unset} if unset else {})
        found = same_header(header) | alive(rewrite.now)
        if not (await self._log.update_one(found, update)).matched_count:
            return False
        done = {"_id": header["_id"], "log": log, "pending": pending}
        await self._eraser.complete(done)
        return True


def _is_expected(header: Document, rewrite: Rewrite) -> bool:
    return not is_expired(header, rewrite.now) and (
        header["version"],
        header["first_position"],
        header["created_at"],
    ) == (rewrite.expected_version, rewrite.first_position, rewrite.created_at)


def _lifetime(header: Document, rewrite: Rewrite) -> Append:
    """Return a request that says how long the buckets are to be kept."""
    return Append(
        sender_id=rewrite.sender_id,
        expected_version=rewrite.expected_version,
        rows=(),
        session_start=header["session_start"],
        snapshot="",
        now=rewrite.now,
        expires_at=header["expires_at"],
    )
