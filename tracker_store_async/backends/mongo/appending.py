"""Appending: one conditional update of the header, and what it takes where that fails.

The rules that say when a tail is full depend on what is stored alone, so all writers
move the same rows into the same bucket, and it does not matter who is faster.
"""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING

from pymongo.errors import DuplicateKeyError

from tracker_store_async.backends.mongo.layout import (
    INLINE_BYTES,
    LAYOUT_VERSION,
    OUTBOX_MARK,
    TAIL_BYTES,
    Bucket,
    Collections,
    Document,
    alive,
    append_values,
    begun_values,
    bucket_ttl,
    buckets_until,
    is_expired,
    kept_long_enough,
    limit_of_buckets,
    longer_ttl,
    new_log,
    new_rows,
    outbox_mark,
    packed,
    row_bytes,
    row_documents,
    same_header,
    tail_values,
    ttl_date,
    with_outbox,
    with_ttl,
)
from tracker_store_async.backends.mongo.staging import discard, stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.backends.mongo.erasing import Eraser
    from tracker_store_async.backends.mongo.rasa import RasaDocuments
    from tracker_store_async.rows import Append, StoredConversation

ATTEMPTS = 50
"""Times that an append looks again after another writer has changed something."""


class Appender:
    """Appends to the conversations of one pair of collections.

    Args:
        collections: Where.
        rasa: Rasa's documents, which are taken over by the first append.
        eraser: Completes what another process has left half done.
        delete_rasa_data: Whether Rasa's document is removed once it is taken over.
    """

    def __init__(
        self,
        collections: Collections,
        rasa: RasaDocuments,
        eraser: Eraser,
        *,
        delete_rasa_data: bool,
    ) -> None:
        self._collections = collections
        self._log = collections.log
        self._rasa = rasa
        self._eraser = eraser
        self._delete_rasa_data = delete_rasa_data

    async def append(self, append: Append) -> bool:
        """Store everything if the version is the expected one; False if it is not."""
        rows = new_rows(append)
        is_small = sum(map(row_bytes, rows)) <= INLINE_BYTES
        if append.expected_version and is_small and await self._push(append, rows):
            return True
        for _ in range(ATTEMPTS):
            done = await self._attempt(append, rows, is_small=is_small)
            if done is not None:
                return done
        return False  # nothing was changed, and others are busy with it

    async def _attempt(
        self, append: Append, rows: Sequence[Document], *, is_small: bool
    ) -> bool | None:
        """Try once; None asks for another try, since something has changed."""
        header = await self._log.find_one({"_id": append.sender_id})
        if header is None:
            return await self._begin(append, rows, is_small=is_small)
        if header.get("pending") is not None:
            await self._eraser.complete(header)
            return None
        if is_expired(header, append.now):
            await self._eraser.drop_expired(header, append.now)
            return None
        if header["version"] != append.expected_version:
            return False
        if append.created_at not in (None, header["created_at"]):
            return False
        until = header.get("buckets_until")
        if until is not None and until < _needed(append):
            await self._keep_buckets(header, append)
            return None
        values = append_values(append)
        if until == math.inf and append.expires_at is not None:
            # They had no end: they get one, once the conversation has one.
            values["pending"] = limit_of_buckets(append)
        if is_small and header["tail_bytes"] < TAIL_BYTES:
            done: bool | None = await self._push(append, rows, values) or None
        else:
            done = await self._roll(header, append, rows, values, is_small=is_small)
        if done and "pending" in values:
            await self._eraser.complete({**header, "pending": values["pending"]})
        return done

    # -- the usual way -----------------------------------------------------------------

    async def _push(
        self, append: Append, rows: Sequence[Document], values: Document | None = None
    ) -> bool:
        """Add to the tail: one round trip.

        Args:
            append: The request.
            rows: Its rows as they are stored.
            values: What to write to the header; given where the buckets are known to
                be kept long enough.
        """
        found, update = pushed(append, rows, values)
        return bool((await self._log.update_one(found, update)).matched_count)

    # -- a full tail, or a large append ------------------------------------------------

    async def _roll(
        self,
        header: Document,
        append: Append,
        rows: Sequence[Document],
        values: Document,
        *,
        is_small: bool,
    ) -> bool | None:
        """Move the tail into a bucket, and start a new one with the new rows."""
        first, tail = header["tail_first"], header["tail"]
        staged: list[Bucket] = []
        if header["tail_bytes"] >= TAIL_BYTES:
            staged.append(Bucket(first, tail))
            first, tail = header["version"], []
        token = uuid.uuid4().hex
        if is_small:
            fresh = tail_values(first, rows)
        else:
            staged += packed(first, [*tail, *rows], token)
            fresh = tail_values(append.new_version, [])
        if not await stage(self._collections, header, staged, bucket_ttl(append)):
            return None
        values |= fresh
        kept = header.get("buckets_until")
        until = buckets_until(append)
        values["buckets_until"] = until if kept is None else min(kept, until)
        update: Document = {"$set": values}
        if not is_small:
            update["$push"] = {"runs": token}
        update = with_ttl(update, ttl_date(append.expires_at, append.now))
        update = with_outbox(update, append)
        found = same_header(header) | alive(append.now)
        if (await self._log.update_one(found, update)).matched_count:
            return True
        await discard(self._collections, header["log"], staged)
        return None

    # -- a new conversation ------------------------------------------------------------

    async def _begin(
        self, append: Append, rows: Sequence[Document], *, is_small: bool
    ) -> bool | None:
        found = await self._rasa.find(append.sender_id)
        if not _continues(found, append):
            return False
        if found is not None or not is_small:
            return await self.claim(append, rows, delete_rasa=self._delete_rasa_data)
        return await self._insert(begun(append, rows)) or None

    async def _insert(self, header: Document) -> bool:
        try:
            await self._log.insert_one(header)
        except DuplicateKeyError:
            return False  # somebody was faster
        return True

    async def claim(
        self, append: Append, rows: Sequence[Document], *, delete_rasa: bool
    ) -> bool | None:
        """Begin a log that takes several steps; nobody sees it before the last one.

        A hidden header is there first: a deletion that comes meanwhile finds it. So
        what Rasa wrote cannot come back after it was deleted.
        """
        claim: Document = {
            "_id": append.sender_id,
            "layout": LAYOUT_VERSION,
            "log": new_log(),
            "version": 0,
            "hidden": True,
            "pending": {"kind": "create"},
            **tail_values(0, []),
        }
        if not await self._insert(dict(claim)):
            return None
        found = await self._rasa.find(append.sender_id)
        if not _continues(found, append):
            await self._eraser.drop_claim(claim)
            return False
        settling: Document | None = None
        if found is not None:
            # Dealt with afterwards; only then may the header expire.
            ttl = ttl_date(append.expires_at, append.now)
            settling = {"kind": "rasa", "delete": delete_rasa, "ttl": ttl}
        if not await self._commit(claim, append, found, rows, settling):
            await self._eraser.drop_claim(claim)
            return None
        if settling is not None:
            await self._eraser.complete({**claim, "pending": settling})
        return True

    async def _commit(
        self,
        claim: Document,
        append: Append,
        found: StoredConversation | None,
        new: Sequence[Document],
        settling: Document | None,
    ) -> bool:
        """Make a claimed log visible, with what Rasa wrote in front of the new rows."""
        rows = [*row_documents(found.rows if found else ()), *new]
        values = begun_values(append, claim["log"])
        if sum(map(row_bytes, rows)) <= INLINE_BYTES:
            values |= tail_values(values["first_position"], rows)
        else:
            token = uuid.uuid4().hex
            staged = packed(values["first_position"], rows, token)
            if not await stage(self._collections, claim, staged, bucket_ttl(append)):
                return False
            values |= tail_values(append.new_version, [])
            values |= {"runs": [token], "buckets_until": buckets_until(append)}
        update: Document = {"$set": values, "$unset": {"hidden": ""}}
        if found is None or settling is None:
            update["$unset"]["pending"] = ""
            update = with_ttl(update, ttl_date(append.expires_at, append.now))
        else:
            values |= {"created_at": found.created_at, "pending": settling}
        update = with_outbox(update, append)
        return bool(
            (await self._log.update_one(same_header(claim), update)).matched_count
        )

    # -- expiry of buckets -------------------------------------------------------------

    async def _keep_buckets(self, header: Document, append: Append) -> None:
        """Have the buckets of a conversation kept as long as it now lives, or longer.

        First the buckets, then the header that says so: a crash in between leaves them
        a little longer than need be.
        """
        filled = {"log": header["log"], "end": {"$gt": 0}}
        longer = longer_ttl(bucket_ttl(append))
        await self._collections.events.update_many(filled, longer)
        kept = {"$set": {"buckets_until": buckets_until(append)}}
        await self._log.update_one(same_header(header), kept)


def pushed(
    append: Append, rows: Sequence[Document], values: Document | None = None
) -> tuple[Document, Document]:
    """Return the filter and the update that add rows to the tail of a header.

    Args:
        append: The request.
        rows: Its rows as they are stored.
        values: What to write to the header; given where the buckets are known to be
            kept long enough.
    """
    known = [] if values is not None else [kept_long_enough(append)]
    found: Document = {
        "_id": append.sender_id,
        "version": append.expected_version,
        "pending": None,
        "tail_bytes": {"$lt": TAIL_BYTES},
        "$and": [alive(append.now), *known],
    }
    if append.created_at is not None:
        found["created_at"] = append.created_at
    update: Document = {
        "$set": append_values(append) if values is None else values,
        "$push": {"tail": {"$each": list(rows)}},
        "$inc": {"tail_bytes": sum(map(row_bytes, rows))},
    }
    update = with_ttl(update, ttl_date(append.expires_at, append.now))
    return found, with_outbox(update, append)


def begun(append: Append, rows: Sequence[Document]) -> Document:
    """Return the header of a conversation that begins, with all its rows in it."""
    header = begun_values(append, new_log())
    header |= tail_values(append.position, rows)
    ttl = ttl_date(append.expires_at, append.now)
    if ttl is not None:
        header["ttl"] = ttl
    if append.outbox:
        header[OUTBOX_MARK] = outbox_mark(append)
    return {"_id": append.sender_id, **header}


def _continues(found: StoredConversation | None, append: Append) -> bool:
    """Whether an append fits what Rasa stored, or that there is nothing."""
    if found is None:
        return append.expected_version == 0
    if append.created_at not in (None, found.created_at):
        return False
    return append.expected_version == found.version


def _needed(append: Append) -> float:
    """Return until when the buckets must be kept if the append lands."""
    return math.inf if append.expires_at is None else append.expires_at
