"""Lists conversations by what the store can filter, and ids by what they contain.

No store can search within ids. So these are looked at one after the other, and so many
at a time: who asks is told how far the search has come, and may go on.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, cast
from urllib.parse import urlencode

from tracker_store_async.errors import InvalidInputError, InvalidSenderIdError
from tracker_store_async.rows import ConversationSummary

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from tracker_store_async.ops.inspector.reading import Reader
    from tracker_store_async.store import TrackerStore

PAGE_CONVERSATIONS = 50
"""Conversations on one page."""

MOST_LOOKED_AT = 10_000
"""Conversations that one request looks at for those whose id contains a text."""

SEARCH_SECONDS = 2.0
"""Time after which one request stops looking."""

LISTED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Search:
    """What somebody looks for.

    Attributes:
        text: What the id contains, whatever the case.
        user_id: The user, exactly.
        updated_from, updated_before: Times of the latest event, as typed.
        after: The cursor to go on after.
    """

    text: str = ""
    user_id: str = ""
    updated_from: str = ""
    updated_before: str = ""
    after: str = ""

    @classmethod
    def of_query(cls, query: Mapping[str, str]) -> Search:
        """Return the search that a link or the form asks for."""
        return cls(
            text=query.get("q", "").strip(),
            user_id=query.get("user", "").strip(),
            updated_from=query.get("from", "").strip(),
            updated_before=query.get("before", "").strip(),
            after=query.get("after", ""),
        )

    @property
    def is_for_ids_alone(self) -> bool:
        """Whether an id of exactly the text would be found."""
        others = (self.user_id, self.updated_from, self.updated_before, self.after)
        return bool(self.text) and not any(others)

    @property
    def is_narrow(self) -> bool:
        """Whether anything is asked for but the next page."""
        return bool(
            self.text or self.user_id or self.updated_from or self.updated_before
        )

    def link_after(self, cursor: str) -> str:
        """Return the link to what follows a cursor."""
        fields = {
            "q": self.text,
            "user": self.user_id,
            "from": self.updated_from,
            "before": self.updated_before,
            "after": cursor,
        }
        return f"./?{urlencode({k: v for k, v in fields.items() if v})}"


@dataclass(slots=True)
class Found:
    """What a search has found.

    Attributes:
        summaries: The conversations of this page, in the store's own order.
        exact: The conversation of exactly this id, or None.
        looked_at: Number of conversations that were looked at.
        cursor: Go on after this one; None if there is nothing more.
    """

    summaries: list[ConversationSummary] = field(default_factory=list)
    exact: ConversationSummary | None = None
    looked_at: int = 0
    cursor: str | None = None


async def search(store: TrackerStore, reader: Reader, wanted: Search) -> Found:
    """Return a page of conversations.

    Args:
        store: The store.
        reader: Reads from it.
        wanted: What to look for.

    Raises:
        InvalidInputError: A time or the cursor is wrong.
    """
    found = Found()
    if wanted.is_for_ids_alone:
        found.exact = await _exactly(reader, wanted.text)
    folded = wanted.text.casefold()
    started = time.monotonic()
    listed = store.conversations(
        user_id=wanted.user_id or None,
        updated_from=_moment(wanted.updated_from),
        updated_before=_moment(wanted.updated_before),
        cursor=wanted.after or None,
        page_size=LISTED_AT_ONCE if folded else PAGE_CONVERSATIONS + 1,
    )
    async with aclosing(cast("AsyncGenerator[ConversationSummary]", listed)):
        last = None
        async for summary in listed:
            is_full = len(found.summaries) == PAGE_CONVERSATIONS
            if last is not None and (is_full or _is_tired(found.looked_at, started)):
                found.cursor = last
                break
            last = summary.cursor
            found.looked_at += 1
            if folded in summary.sender_id.casefold():
                found.summaries.append(summary)
    return found


def _is_tired(looked_at: int, started: float) -> bool:
    if looked_at % LISTED_AT_ONCE:
        return False
    is_late = time.monotonic() - started > SEARCH_SECONDS
    return looked_at >= MOST_LOOKED_AT or is_late


async def _exactly(reader: Reader, sender_id: str) -> ConversationSummary | None:
    try:
        header = await reader.header(sender_id)
    except InvalidSenderIdError:
        return None
    if header is None:
        return None
    return ConversationSummary(
        sender_id=sender_id,
        version=header.version,
        created_at=header.created_at,
        updated_at=header.updated_at,
        user_id=header.user_id,
        cursor="",
    )


def _moment(text: str) -> float | None:
    """Return the time that somebody typed, in the zone that times are shown in."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise InvalidInputError(
            "a time looks like 2026-03-14T18:00, or 2026-03-14 alone"
        ) from None
