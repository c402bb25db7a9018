"""Listing: our headers in the order of the sender ids, with Rasa's documents between.

A page is one run through an index, from behind the last sender id on. What only Rasa's
documents hold is merged in without reading their events, but for the timestamps.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from tracker_store_async.backends.mongo.layout import (
    Collections,
    Document,
    alive,
    is_expired,
)
from tracker_store_async.backends.mongo.rasa import taken_over_id
from tracker_store_async.rasa_rows import conversation_from_rasa
from tracker_store_async.rows import ConversationSummary

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tracker_store_async.rows import Listing

SUMMARY = {
    "version": 1,
    "created_at": 1,
    "updated_at": 1,
    "user_id": 1,
    "expires_at": 1,
    "hidden": 1,
    "pending.kind": 1,
}

RASA_BATCH = 100
"""Rasa's documents whose timestamps are held at a time."""


class Lister:
    """Lists the conversations of one pair of collections.

    Args:
        collections: Where.
    """

    def __init__(self, collections: Collections) -> None:
        self._log = collections.log
        self._rasa = collections.rasa

    async def page(self, listing: Listing) -> list[ConversationSummary]:
        """Return the next page, in the order of the sender ids' code points."""
        page = await self._ours(listing)
        if listing.user_id is not None:
            return page  # Rasa knows of no users
        end = page[-1].sender_id if len(page) == listing.limit else None
        found = {summary.sender_id: summary for summary in page}
        count = 0
        async with aclosing(self._only_rasas(listing, end)) as only_rasas:
            async for summary in only_rasas:
                count += summary.sender_id not in found
                found.setdefault(summary.sender_id, summary)
                if count == listing.limit:
                    break
        return [found[sender_id] for sender_id in sorted(found)][: listing.limit]

    async def _ours(self, listing: Listing) -> list[ConversationSummary]:
        within: Document = {"_id": {"$gt": listing.after or ""}, "hidden": None}
        updated_at: dict[str, float] = {}
        if listing.user_id is not None:
            within["user_id"] = listing.user_id
        if listing.updated_from is not None:
            updated_at["$gte"] = float(listing.updated_from)
        if listing.updated_before is not None:
            updated_at["$lt"] = float(listing.updated_before)
        if updated_at:
            within["updated_at"] = updated_at
        cursor = self._log.find(within | alive(listing.now), SUMMARY)
        headers = await cursor.sort("_id", 1).limit(listing.limit).to_list(None)
        return [_summary(header) for header in headers]

    # -- Rasa's ------------------------------------------------------------------------

    async def _only_rasas(
        self, listing: Listing, end: str | None
    ) -> AsyncGenerator[ConversationSummary, None]:
        """Yield what is not in a page of ours, in order, up to the page's end.

        A conversation that was taken over after the page was read is looked up now: it
        would be in neither of the two.
        """
        batch: list[ConversationSummary] = []
        async with aclosing(self._rasas(listing, end)) as rasas:
            async for summary in rasas:
                batch.append(summary)
                if len(batch) == RASA_BATCH:
                    for each in await self._still_there(listing, batch):
                        yield each
                    batch = []
        for each in await self._still_there(listing, batch):
            yield each

    async def _rasas(
        self, listing: Listing, end: str | None
    ) -> AsyncGenerator[ConversationSummary, None]:
        """Yield what Rasa's documents hold, taken over or not."""
        numbers = await self._numbers(listing.after or "", end)
        within: dict[str, Any] = {"$gt": listing.after or ""}
        if end is not None:
            within["$lte"] = end
        cursor = self._rasa.find(
            {"sender_id": within, "events.0": {"$exists": True}},
            {"sender_id": 1, "events.timestamp": 1},
        )
        async for document in cursor.sort("sender_id", 1).batch_size(RASA_BATCH):
            while numbers and numbers[0].sender_id <= document["sender_id"]:
                yield numbers.pop(0)
            summary = _summary_of_rasas(document)
            if summary is not None:
                yield summary
        for summary in numbers:
            yield summary

    async def _numbers(self, after: str, end: str | None) -> list[ConversationSummary]:
        """Return the few that an old Rasa stored under a number, in text order."""
        cursor = self._rasa.find(
            {"sender_id": {"$gt": float("-inf")}, "events.0": {"$exists": True}},
            {"sender_id": 1, "events.timestamp": 1},
        )
        found = [_summary_of_rasas(document) async for document in cursor]
        within = [
            summary
            for summary in found
            if summary is not None
            and summary.sender_id > after
            and (end is None or summary.sender_id <= end)
        ]
        return sorted(within, key=lambda summary: summary.sender_id)

    async def _still_there(
        self, listing: Listing, batch: list[ConversationSummary]
    ) -> list[ConversationSummary]:
        """Return what the listing wants of Rasa's, and of what was taken over."""
        if not batch:
            return []
        keys: list[Any] = [summary.sender_id for summary in batch]
        keys += [taken_over_id(summary.sender_id) for summary in batch]
        cursor = self._log.find({"_id": {"$in": keys}}, SUMMARY)
        ours: dict[str, Document] = {}
        taken: set[str] = set()
        async for document in cursor:
            if isinstance(document["_id"], str):
                ours[document["_id"]] = document
            else:
                taken.add(document["_id"]["rasa"])
        kept: list[ConversationSummary] = []
        for summary in batch:
            header = ours.get(summary.sender_id)
            is_begun = header is not None and not _is_claim(header)
            if is_begun and header is not None:
                if header.get("hidden") or is_expired(header, listing.now):
                    continue
                summary = _summary(header)
            elif summary.sender_id in taken:
                continue
            if _is_wanted(summary, listing):
                kept.append(summary)
        return kept


def _is_claim(header: Document) -> bool:
    pending: Document = header.get("pending", {})
    return pending.get("kind") == "create"


def _is_wanted(summary: ConversationSummary, listing: Listing) -> bool:
    updated_at = summary.updated_at
    if listing.updated_from is not None and updated_at < listing.updated_from:
        return False
    return listing.updated_before is None or updated_at < listing.updated_before


def _summary(header: Document) -> ConversationSummary:
    return ConversationSummary(
        sender_id=header["_id"],
        version=header["version"],
        created_at=header["created_at"],
        updated_at=header["updated_at"],
        user_id=header.get("user_id"),
        cursor=header["_id"],
    )


def _summary_of_rasas(document: Document) -> ConversationSummary | None:
    sender_id = str(document["sender_id"])
    events = document.get("events")
    conversation = conversation_from_rasa(sender_id, events)
    if conversation is None:
        return None
    return ConversationSummary(
        sender_id=sender_id,
        version=conversation.version,
        created_at=conversation.created_at,
        updated_at=conversation.updated_at,
        user_id=None,
        cursor=sender_id,
    )
