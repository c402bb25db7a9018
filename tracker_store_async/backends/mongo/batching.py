"""Appending to many conversations with one bulk write.

Each conversation is one document, so each is written wholly or not at all, whatever
becomes of the others. The server says how many updates have found their document but
not which: where some have not, the headers tell, in one more request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pymongo import InsertOne, UpdateOne
from pymongo.errors import BulkWriteError

from tracker_store_async.backends.mongo.appending import begun, pushed
from tracker_store_async.backends.mongo.layout import (
    INLINE_BYTES,
    Collections,
    Document,
    new_rows,
    row_bytes,
)
from tracker_store_async.backends.mongo.rasa import keys_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracker_store_async.rows import Append


class BatchAppender:
    """Appends to many conversations of one pair of collections.

    Args:
        collections: Where.
    """

    def __init__(self, collections: Collections) -> None:
        self._log = collections.log
        self._rasa = collections.rasa

    async def append(self, appends: Sequence[Append]) -> list[bool | None]:
        """Append what is an insert or an update of one document.

        Returns:
            For each True if it is stored, or None if it has to be sent alone, which may
            take more steps, or tell why it is refused.
        """
        small = [each for each in appends if _is_small(each)]
        there = await self._there(each for each in small if not each.expected_version)
        sent = [each for each in small if each.sender_id not in there]
        stored = await self._write(sent) if sent else set()
        return [each.sender_id in stored or None for each in appends]

    async def _there(self, begins: Iterable[Append]) -> set[str]:
        """Return which of the conversations that are to begin are there, or Rasa's."""
        ids = [each.sender_id for each in begins]
        if not ids:
            return set()
        by_key = {key: each for each in ids for key in keys_of(each)}
        found, rasas = await asyncio.gather(
            self._log.find({"_id": {"$in": ids}}, {"_id": 1}).to_list(None),
            self._rasa.find(
                {"sender_id": {"$in": list(by_key)}}, {"sender_id": 1}
            ).to_list(None),
        )
        there = {header["_id"] for header in found}
        return there | {by_key[document["sender_id"]] for document in rasas}

    async def _write(self, appends: Sequence[Append]) -> set[str]:
        """Return the ids of the conversations that are known to be appended to."""
        operations = [
            UpdateOne(*pushed(each, new_rows(each)))
            if each.expected_version
            else InsertOne(begun(each, new_rows(each)))
            for each in appends
        ]
        refused: set[int] = set()
        try:
            answer = await self._log.bulk_write(operations, ordered=False)
            matched = answer.matched_count
        except BulkWriteError as error:
            details = error.details or {}
            if details.get("writeConcernErrors"):
                raise  # what was written may be lost again
            refused = {each["index"] for each in details["writeErrors"]}
            matched = details["nMatched"]
        left = [each for at, each in enumerate(appends) if at not in refused]
        pushes = [each for each in left if each.expected_version]
        stored = {each.sender_id for each in left if not each.expected_version}
        if matched == len(pushes):
            return stored.union(each.sender_id for each in pushes)
        return stored | await self._landed(pushes) if matched else stored

    async def _landed(self, pushes: Sequence[Append]) -> set[str]:
        """Return which conversations end with the rows that were to be added."""
        most = max(len(each.rows) for each in pushes)
        tails: dict[str, Document] = {}
        async for header in self._log.find(
            {"_id": {"$in": [each.sender_id for each in pushes]}},
            {"version": 1, "tail": {"$slice": -most}},
        ):
            tails[header["_id"]] = header
        return {
            each.sender_id
            for each in pushes
            if (header := tails.get(each.sender_id)) is not None
            and header["version"] == each.new_version
            and [row.get("id") for row in header["tail"][-len(each.rows) :]]
            == [row.event_id for row in each.rows]
        }


def _is_small(append: Append) -> bool:
    """Whether it fits into a document, with rows that can be told from others."""
    if not append.rows or any(not row.event_id for row in append.rows):
        return False
    return sum(map(row_bytes, new_rows(append))) <= INLINE_BYTES
