"""Writing buckets before the header knows of them, so that no crash can leave harm.

Whoever writes a bucket may be slow: the conversation may have been deleted meanwhile,
and what is erased must not come back. So there are three steps. An empty placeholder,
which says nothing of the conversation, is put at the place of the bucket. Then the
header is looked at: it must be as it was. Then the placeholder is filled, if it is
still there. A deletion changes the header first and removes the buckets then: either
the header tells of it, or the placeholder is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymongo.errors import BulkWriteError, DuplicateKeyError

from tracker_store_async.backends.mongo.layout import (
    STAGED_SECONDS,
    Bucket,
    Collections,
    Document,
    longer_ttl,
    same_header,
    ttl_date,
    with_ttl,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

DUPLICATE_KEY = 11000


async def stage(
    collections: Collections,
    header: Document,
    buckets: Sequence[Bucket],
    ttl: datetime | None,
    *,
    log: str | None = None,
) -> bool:
    """Write buckets that nobody sees yet; return whether the header is as it was.

    Args:
        collections: Where.
        header: The header as it was read.
        buckets: What to write.
        ttl: When MongoDB may remove them, or None.
        log: The log that they are for, if it is not the header's of now.
    """
    log = log or header["log"]
    await _place(collections, log, buckets)
    unchanged = await collections.log.find_one(same_header(header), {"_id": 1})
    if unchanged is None:
        await discard(collections, log, buckets)
        return False
    for bucket in buckets:
        if not await _fill(collections, log, bucket, ttl):
            await discard(collections, log, buckets)
            return False
    return True


async def discard(
    collections: Collections, log: str, buckets: Sequence[Bucket]
) -> None:
    """Remove what was staged in vain and is nobody else's."""
    keys = [bucket.key(log) for bucket in buckets if bucket.token is not None]
    if keys:
        await collections.events.delete_many({"_id": {"$in": keys}})


async def _place(collections: Collections, log: str, buckets: Sequence[Bucket]) -> None:
    ttl = ttl_date(STAGED_SECONDS, 0.0)
    placeholders = [_placeholder(log, bucket) | {"ttl": ttl} for bucket in buckets]
    try:
        if len(placeholders) == 1:
            await collections.events.insert_one(placeholders[0])
        else:
            await collections.events.insert_many(placeholders, ordered=False)
    except DuplicateKeyError:
        return  # another writer is about to write the same
    except BulkWriteError as error:
        failed = (error.details or {}).get("writeErrors", [])
        if any(each.get("code") != DUPLICATE_KEY for each in failed):
            raise


def _placeholder(log: str, bucket: Bucket) -> Document:
    document: Document = {"_id": bucket.key(log), "log": log, "first": bucket.first}
    return document if bucket.token is None else document | {"token": bucket.token}


async def _fill(
    collections: Collections, log: str, bucket: Bucket, ttl: datetime | None
) -> bool:
    """Fill a placeholder; if another writer has, see that it is kept long enough."""
    key = {"_id": bucket.key(log)}
    fill = with_ttl({"$set": bucket.content()}, ttl)
    filled = await collections.events.update_one({**key, "end": None}, fill)
    if filled.matched_count:
        return True
    end = bucket.first + len(bucket.rows)
    kept = await collections.events.update_one({**key, "end": end}, longer_ttl(ttl))
    return bool(kept.matched_count)
