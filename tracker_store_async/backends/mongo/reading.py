"""Reading: the header alone where the tail has what is asked for, else the buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tracker_store_async.backends.mongo.layout import (
    LAYOUT_VERSION,
    Collections,
    Document,
    is_expired,
    same_header,
    stored_rows,
)
from tracker_store_async.errors import CorruptEventError, SchemaTooNewError
from tracker_store_async.rasa_rows import slice_of
from tracker_store_async.rows import StoredConversation

if TYPE_CHECKING:
    from tracker_store_async.backends.mongo.rasa import RasaDocuments
    from tracker_store_async.rows import Read

HEADER_ONLY = {"tail": 0}


class Reader:
    """Reads the conversations of one pair of collections.

    Args:
        collections: Where.
        rasa: Rasa's documents, for what was never taken over.
    """

    def __init__(self, collections: Collections, rasa: RasaDocuments) -> None:
        self._log = collections.log
        self._events = collections.events
        self._rasa = rasa

    async def read(self, read: Read) -> StoredConversation | None:
        """Return header and rows as of one moment, or None.

        Raises:
            CorruptEventError: Rows are missing.
        """
        while True:
            header = await self._header(read)
            if header is None or header.get("pending") == {"kind": "create"}:
                found = await self._rasa.find(read.sender_id)
                if found is not None:
                    return slice_of(found, read)
                if await self._header(read) in (None, header):
                    return None
                continue  # it was taken over between the two
            if header.get("hidden") or is_expired(header, read.now):
                return None
            rows = await self._rows(read, header)
            if rows is not None:
                return _conversation(header, *rows)
            if await self.is_same(header):
                first = _first(read, header)
                reason = "events from here on are missing"
                raise CorruptEventError(read.sender_id, first, reason)

    async def _header(self, read: Read) -> Document | None:
        projection = HEADER_ONLY if read.last == 0 else None
        header: Document | None = await self._log.find_one(
            {"_id": read.sender_id}, projection
        )
        if header is not None and header["layout"] > LAYOUT_VERSION:
            raise SchemaTooNewError(
                f"conversation {read.sender_id!r} was written by a newer version of "
                f"this library (layout {header['layout']}): upgrade it here too"
            )
        return header

    async def rows_from(
        self, header: Document, first: int, most: int
    ) -> list[Document] | None:
        """Return rows of a header's log, or None if some are missing.

        Args:
            header: The header with its tail.
            first: Position of the first one; it is smaller than the version.
            most: Most rows.
        """
        tail_first, tail = header["tail_first"], header["tail"]
        if tail_first + len(tail) != header["version"]:
            return None
        if first >= tail_first:
            return cast("list[Document]", tail[first - tail_first :][:most])
        rows = await self._bucket_rows(header, first, most)
        # Fewer than `most` are all that there are in front of the tail.
        return None if rows is None else (rows + tail)[:most]

    async def is_same(self, header: Document) -> bool:
        """Whether a header is still as it was read, for who found rows missing."""
        found = same_header(header) | {"first_position": header["first_position"]}
        return await self._log.find_one(found, {"_id": 1}) is not None

    async def _rows(
        self, read: Read, header: Document
    ) -> tuple[int, list[Document]] | None:
        """Return the first position and the rows, or None if some are missing."""
        first, version = _first(read, header), header["version"]
        tail_first = header["tail_first"]
        if first == version:
            return first, []
        tail = header["tail"]
        if tail_first + len(tail) != version:
            return None
        if first >= tail_first:
            return first, tail[first - tail_first :][: read.limit]
        rows = await self._bucket_rows(header, first, read.limit)
        return None if rows is None else (first, (rows + tail)[: read.limit])

    async def _bucket_rows(
        self, header: Document, first: int, limit: int | None
    ) -> list[Document] | None:
        """Return the rows from `first` up to the tail, or None if some are missing.

        With a `limit` it ends where so many are found.
        """
        runs = {None, *header.get("runs", [])}
        within = {"log": header["log"], "end": {"$gt": first}}
        rows: list[Document] = []
        cursor = self._events.find(within).sort("end", 1)
        async for bucket in cursor if limit is None else cursor.batch_size(2):
            is_visible = bucket["first"] < header["tail_first"]
            if not is_visible or bucket.get("token") not in runs:
                continue
            skipped = first + len(rows) - bucket["first"]
            if skipped < 0 or bucket["end"] - bucket["first"] != len(bucket["rows"]):
                return None
            rows += bucket["rows"][skipped:]
            if limit is not None and len(rows) >= limit:
                return rows
        return rows if first + len(rows) == header["tail_first"] else None


def _first(read: Read, header: Document) -> int:
    """Return the position of the first row that is asked for."""
    version: int = header["version"]
    start: int = header["session_start"] if read.start is None else read.start
    first: int = min(max(start, header["first_position"]), version)
    return first if read.last is None else max(first, version - read.last)


def _conversation(
    header: Document, first: int, rows: list[Document]
) -> StoredConversation:
    return StoredConversation(
        version=header["version"],
        session_start=header["session_start"],
        snapshot=header["snapshot"],
        created_at=header["created_at"],
        updated_at=header["updated_at"],
        expires_at=header["expires_at"],
        user_id=header.get("user_id"),
        first_position=first,
        rows=stored_rows(rows),
    )
