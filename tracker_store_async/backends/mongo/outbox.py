"""The outbox: a mark in the header, from which position on nothing is published.

An append sets it in its own update, and only where there is none yet (`$min`): so it
costs neither a round trip nor a copy of the events. A relay finds the marked headers by
a sparse index, oldest first, publishes the stored events, and moves the mark on.

::

    <collection>_log  {_id: sender_id, ..., outbox: {from: position, since: time}}
                      {_id: {outbox: 1}, owner, expires_at, asked_at}   the lease
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from tracker_store_async.backends.mongo.layout import (
    OUTBOX_MARK,
    OUTBOX_SINCE,
    Document,
    outbox_indexes,
    same_header,
)
from tracker_store_async.relay import LONGEST_LEASE_SECONDS, Outbox
from tracker_store_async.rows import OutboxEntry, OutboxItem

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tracker_store_async.backends.mongo.database import MongoDatabase
    from tracker_store_async.backends.mongo.layout import Collections
    from tracker_store_async.backends.mongo.reading import Reader

LEASE_ID = {"outbox": 1}
"""`_id` of the document that says which relay has the outbox."""

CONVERSATIONS = 25
"""Most headers that are read at once: each has a tail of up to some 600 kB."""


class Key(NamedTuple):
    """Which log an item belongs to: a conversation may be deleted and begun again."""

    log: str


class MongoOutbox:
    """What is not published yet of the conversations of one pair of collections.

    Args:
        collections: Where.
        reader: Reads events that left the tail.
    """

    def __init__(self, collections: Collections, reader: Reader) -> None:
        self._log = collections.log
        self._reader = reader
        # What a new primary might take back is not published.
        concern = ReadConcern("majority")
        self._settled_log = collections.log.with_options(read_concern=concern)

    async def create(self) -> None:
        """Make sure that the index is there."""
        await self._log.create_indexes(outbox_indexes())

    async def lease(self, owner: str, seconds: float) -> bool:
        """Return whether the outbox belongs to this relay alone for so long.

        The time is that of the server which does the update: a router's, which stands
        beside the process, may be as wrong as the process's own.
        """
        try:
            found = await self._log.find_one_and_update(
                {"_id": LEASE_ID},
                {"$currentDate": {"asked_at": True}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        except DuplicateKeyError:
            return False  # another relay is the first of all at this moment
        now, expires_at = found["asked_at"], found.get("expires_at")
        longest = timedelta(seconds=LONGEST_LEASE_SECONDS)
        is_free = expires_at is None or not now < expires_at <= now + longest
        if not is_free and found.get("owner") != owner:
            return False
        taken = {"owner": owner, "expires_at": now + timedelta(seconds=seconds)}
        same = {name: found.get(name) for name in ("_id", "owner", "expires_at")}
        return bool((await self._log.update_one(same, {"$set": taken})).matched_count)

    async def release(self, owner: str) -> None:
        """Let another relay have it at once."""
        update = {"$unset": {"expires_at": ""}}
        await self._log.update_one({"_id": LEASE_ID, "owner": owner}, update)

    async def read(
        self, limit: int, leave_out: Collection[str] = (), after: Any = None
    ) -> Sequence[OutboxItem]:
        """Return what waits longest; of a conversation no more than half the limit.

        What waits since the very moment of the last one that was read comes again.
        """
        since = {"$gt": 0} if after is None else {"$gte": after}
        found: Document = {OUTBOX_SINCE: since}
        if leave_out:
            found["_id"] = {"$nin": list(leave_out)}
        cursor = self._settled_log.find(found).sort(OUTBOX_SINCE, 1)
        items: list[OutboxItem] = []
        for header in await cursor.limit(min(limit, CONVERSATIONS)).to_list(None):
            most = min(limit - len(items), max(1, limit // 2))
            items += await self._items(header, most)
            if len(items) == limit:
                break
        return items

    async def _items(self, header: Document, most: int) -> list[OutboxItem]:
        first = max(header[OUTBOX_MARK]["from"], header["first_position"])
        if first >= header["version"]:  # the rest of it was cut off
            unmark = {"$unset": {OUTBOX_MARK: ""}}
            await self._log.update_one(same_header(header), unmark)
            return []
        rows = await self._reader.rows_from(header, first, most)
        if rows is None:
            if not await self._reader.is_same(header):
                return []  # it was erased or cut meanwhile
            rows = [{"data": ""}]  # gone behind our back: say so, and do not go on
        key, sender_id, user_id = (
            Key(header["log"]),
            header["_id"],
            header.get("user_id"),
        )
        return [
            OutboxItem(
                key,
                sender_id,
                OutboxEntry(
                    row.get("id") or f"{key.log}:{position}", position, row["data"]
                ),
                user_id,
                header[OUTBOX_MARK]["since"],
            )
            for position, row in enumerate(rows, first)
        ]

    async def remove(self, items: Sequence[OutboxItem]) -> None:
        """Move the marks of conversations on; it is done with one round trip."""
        ends = {
            (item.sender_id, item.key.log): item.entry.position + 1 for item in items
        }
        updates: list[Any] = []
        for (sender_id, log), end in ends.items():
            # An older mark, and not the one that was read: a relay that was away for
            # longer than its lease must not move it back.
            found = {"_id": sender_id, "log": log, f"{OUTBOX_MARK}.from": {"$lt": end}}
            updates.append(
                UpdateOne({**found, "version": end}, {"$unset": {OUTBOX_MARK: ""}})
            )
            moved = {"$set": {f"{OUTBOX_MARK}.from": end}}
            updates.append(UpdateOne({**found, "version": {"$gt": end}}, moved))
        await self._log.bulk_write(updates)

    async def count(self, limit: int) -> int:
        """Return how many conversations wait, or the limit if more."""
        waiting = {OUTBOX_SINCE: {"$gt": 0}}
        return int(await self._log.count_documents(waiting, limit=limit))


class BoundedOutbox(Outbox):
    """An outbox whose operations are bounded in time, with the driver's errors as ours.

    Args:
        database: Bounds them.
        outbox: What works.
    """

    def __init__(self, database: MongoDatabase, outbox: MongoOutbox) -> None:
        self._bounded = database.bounded
        self._outbox = outbox

    async def lease(self, owner: str, seconds: float) -> bool:
        """Return whether the outbox belongs to this relay alone for so long."""
        return await self._bounded(self._outbox.lease(owner, seconds))

    async def release(self, owner: str) -> None:
        """Let another relay have it at once."""
        await self._bounded(self._outbox.release(owner))

    async def read(
        self, limit: int, leave_out: Collection[str] = (), after: Any = None
    ) -> Sequence[OutboxItem]:
        """Return what waits longest."""
        return await self._bounded(self._outbox.read(limit, leave_out, after))

    async def remove(self, items: Sequence[OutboxItem]) -> None:
        """Move the marks of conversations on."""
        await self._bounded(self._outbox.remove(items))

    async def count(self, limit: int) -> int:
        """Return how many conversations wait, or the limit if more."""
        return await self._bounded(self._outbox.count(limit))
