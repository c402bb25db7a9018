"""One conversation: a page of its timeline, the state at an event, and what is new."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tracker_store_async.errors import InvalidInputError, TrackerStoreError
from tracker_store_async.inspection.terminal import date_and_time
from tracker_store_async.ops.inspector.masking import Mask
from tracker_store_async.ops.inspector.reading import PAGE_EVENTS
from tracker_store_async.ops.inspector.rendering import render
from tracker_store_async.ops.inspector.state import State, state_of
from tracker_store_async.ops.inspector.timeline import items_of
from tracker_store_async.redaction import REDACTOR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracker_store_async.ops.inspector.reading import Page, Reader
    from tracker_store_async.rows import StoredConversation

MAX_POSITION = 2**53

NEAR_EVENTS = 50
"""Events before and after what is shown whose slots are masked in it, too: the slot is
set after the message that says its value."""


class NotHereError(TrackerStoreError):
    """What is asked for does not exist; the text is for who asks."""


class ConversationView:
    """Shows conversations.

    Args:
        reader: Reads them.
        unmasked: Whether secrets and masked slots are shown.
    """

    def __init__(self, reader: Reader, *, unmasked: bool = False) -> None:
        self._reader = reader
        self._unmasked = unmasked

    async def page(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return what the page of a conversation shows.

        Args:
            query: `id`, and perhaps `from`, the position of the first event to show, or
                `at`, the event whose state to show. Without `from` it is the end.

        Raises:
            NotHereError: There is no such conversation or event.
            InvalidInputError: A position is none.
        """
        sender_id, start, at = _id(query), _position(query, "from"), None
        if query.get("at", "").strip():  # an empty field of the form is no wish
            at = _position(query, "at")
        if start is None and at is not None:
            start = at - at % PAGE_EVENTS
        if start is None:
            page = await self._reader.last_page(sender_id)
        else:
            page = await self._reader.page(sender_id, start)
            if page is not None and not page.events:  # beyond the end
                page = await self._reader.last_page(sender_id)
        if page is None:
            raise NotHereError(_gone(sender_id))
        mask = await self._mask(sender_id, page, at)
        state = await self._state(sender_id, page, mask, at)
        return {
            "id": sender_id,
            "id_query": _query(sender_id),
            # Beside the loop: others want to be answered meanwhile.
            "items": await asyncio.to_thread(items_of, page, mask),
            "state": state,
            "page": page,
            "began": self._reader.began(page.header),
            "selected": at,
            "links": _links(sender_id, page),
            "facts": _facts(page.header),
        }

    async def state(self, query: Mapping[str, str]) -> str:
        """Return the state at an event, as HTML.

        Args:
            query: `id` and `at`.

        Raises:
            NotHereError: There is no such conversation or event.
        """
        sender_id, at = _id(query), _position(query, "at")
        if at is None:
            raise InvalidInputError("`at` is missing: the position of an event")
        page = await self._reader.page(sender_id, at, 1)
        if page is None:
            raise NotHereError(_gone(sender_id))
        mask = await self._mask(sender_id, page)
        state = await self._state(sender_id, page, mask, at)
        return render("state.html", id_query=_query(sender_id), state=state)

    async def tail(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return what was appended; nothing if nothing was.

        Without news, only the header is read.

        Args:
            query: `id`; `after`, the position behind what is shown; `began`, when the
                log began that is shown.

        Raises:
            NotHereError: The conversation is gone.
        """
        sender_id, after = _id(query), _position(query, "after")
        if after is None:
            raise InvalidInputError("`after` is missing: the position to go on from")
        header = await self._reader.header(sender_id)
        if header is None:
            raise NotHereError(_gone(sender_id))
        if (
            query.get("began", "") != self._reader.began(header)
            or header.version < after
        ):
            return {"rewritten": True}
        if header.version == after:
            return {}
        page = await self._reader.page(sender_id, after)
        if page is None or self._reader.began(page.header) != query.get("began", ""):
            return {"rewritten": True}
        if not page.events:
            return {}
        mask = await self._mask(sender_id, page)
        state = await self._state(sender_id, page, mask, None)
        shown = {"id_query": _query(sender_id), "state": state, "selected": None}
        items = await asyncio.to_thread(items_of, page, mask)
        return {
            "next": page.end,
            "is_last": page.is_last,
            "html": await asyncio.to_thread(render, "items.html", items=items, **shown),
            "state": render("state.html", **shown),
            "facts": _facts(page.header),
        }

    async def _mask(self, sender_id: str, page: Page, at: int | None = None) -> Mask:
        """Return a mask that has learned of a page, and of an event beyond it."""
        mask = Mask(REDACTOR, shown=self._unmasked)
        mask.learn_events(page.events)
        if not mask.learns:
            return mask
        ranges = [(page.first - NEAR_EVENTS, page.first)]
        if not page.is_last:
            ranges.append((page.end, page.end + NEAR_EVENTS))
        if at is not None and not page.first <= at < page.end:
            ranges.append((at - NEAR_EVENTS, at + NEAR_EVENTS))
        for start, end in ranges:
            start = max(0, start)
            near = None
            if end > start:
                near = await self._reader.page(sender_id, start, end - start)
            if near is not None:
                mask.learn_events(near.events)
        return mask

    async def _state(
        self, sender_id: str, page: Page, mask: Mask, at: int | None
    ) -> State | None:
        """Return the state at an event, or after the last one of a page."""
        if not page.events and at is None:
            return None
        before = None
        if at is None:
            at = page.end - 1
            tracker = await self._reader.state_after(sender_id, page)
        else:
            found = await self._reader.state_at(sender_id, at)
            if found is None:
                raise NotHereError(f"There is no event {at:,} in this conversation.")
            before, tracker = found
        if tracker is None:
            return None
        mask.learn_slots(before or {})
        mask.learn_slots(tracker.current_slot_values())
        fields = await self._fields(sender_id, page, at)
        # Beside the loop: an event, or a slot, may be of any size.
        return await asyncio.to_thread(state_of, tracker, mask, at, fields, before)

    async def _fields(
        self, sender_id: str, page: Page, at: int
    ) -> Mapping[str, Any] | None:
        """Return the event at a position; the page may show another part."""
        if not page.first <= at < page.end:
            other = await self._reader.page(sender_id, at, 1)
            if other is None or other.first != at:
                return None
            return other.events[0]
        return page.events[at - page.first]


def _id(query: Mapping[str, str]) -> str:
    sender_id = query.get("id", "")
    if not sender_id:
        raise NotHereError("The link names no conversation.")
    return sender_id


def _position(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    is_digits = text.isascii() and text.isdigit() and len(text) <= 16
    if not is_digits or int(text) > MAX_POSITION:
        raise InvalidInputError(f"`{name}` must be the position of an event, from 0")
    return int(text)


def _gone(sender_id: str) -> str:
    return (
        f"There is no conversation {sender_id!r}: it never was, has expired or was "
        "erased."
    )


def _links(sender_id: str, page: Page) -> dict[str, str]:
    """Return the links to other pages of a conversation, those that lead somewhere."""
    links = {}
    if page.first > 0 and page.before is not None:
        links["First"] = _link(sender_id, 0)
        links["Earlier"] = _link(sender_id, max(0, page.first - PAGE_EVENTS))
    if not page.is_last:
        links["Later"] = _link(sender_id, page.end)
        links["Latest"] = _link(sender_id, None)
    return links


def _link(sender_id: str, start: int | None) -> str:
    place = "" if start is None else f"&from={start}"
    return f"conversation?{_query(sender_id)}{place}"


def _query(sender_id: str) -> str:
    return urlencode({"id": sender_id})


def _facts(header: StoredConversation) -> dict[str, str]:
    facts = {
        "user": header.user_id or "",
        "events": f"{header.version:,}",
        "begun": date_and_time(header.created_at),
        "latest": date_and_time(header.updated_at),
    }
    if header.expires_at is not None:
        facts["expires"] = date_and_time(header.expires_at)
    return {name: value for name, value in facts.items() if value}
