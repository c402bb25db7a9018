"""Numbers of a store: how much, how long, how fast it grows. Constant memory."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracker_store_async.rows import ConversationSummary
    from tracker_store_async.store import TrackerStore

LONGEST = 10
"""Conversations that are named as the longest."""


@dataclass(slots=True)
class Statistics:
    """What was counted.

    Attributes:
        conversations: Number of them.
        events: Events that they have had so far, those that were cut off included.
        users: Conversations that belong to a user.
        size_bytes: What they take, as the storage itself counts it, or None.
        begun: Number of conversations that began on each day (UTC).
        lengths: Number of conversations by the power of two above their length.
        longest: The longest ones, longest first: events and sender id.
        oldest: When the oldest began, in seconds since the epoch, or None.
        newest: When the latest save was, or None.
    """

    conversations: int = 0
    events: int = 0
    users: int = 0
    size_bytes: int | None = None
    begun: Counter[date] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    longest: list[tuple[int, str]] = field(default_factory=list)
    oldest: float | None = None
    newest: float | None = None

    def add(self, summary: ConversationSummary) -> None:
        """Count one conversation."""
        self.conversations += 1
        self.events += summary.version
        self.users += summary.user_id is not None
        self.begun[_day(summary.created_at)] += 1
        self.lengths[(summary.version - 1).bit_length()] += 1
        entry = (summary.version, summary.sender_id)
        if len(self.longest) < LONGEST:
            heapq.heappush(self.longest, entry)
        else:
            heapq.heappushpop(self.longest, entry)
        created, updated = summary.created_at, summary.updated_at
        self.oldest = created if self.oldest is None else min(self.oldest, created)
        self.newest = updated if self.newest is None else max(self.newest, updated)

    def growth_per_day(self, days: int) -> float:
        """Return how many conversations began a day, in so many days up to the latest.

        Args:
            days: Number of days, the last one being that of the latest beginning.
        """
        if not self.begun:
            return 0.0
        last = max(self.begun).toordinal()
        recent = (n for day, n in self.begun.items() if last - day.toordinal() < days)
        return sum(recent) / days


def _day(seconds: float) -> date:
    try:
        return datetime.fromtimestamp(seconds, UTC).date()
    except (OverflowError, ValueError, OSError):
        return date(1970, 1, 1)


async def gather_statistics(store: TrackerStore) -> Statistics:
    """Count what a store holds, from the list of its conversations.

    Args:
        store: The store.

    Raises:
        TrackerStoreError: The store cannot be used.
    """
    await store.open()
    found = Statistics()
    async for summary in store.conversations():
        found.add(summary)
    found.longest.sort(reverse=True)
    found.size_bytes = (await store._upkeep(apply=False)).size_bytes
    return found
