"""Which conversations wait since an event of theirs could not be published."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tracker_store_async.rows import OutboxItem

FIRST_HOLD_SECONDS = 1.0
LONGEST_HOLD_SECONDS = 300.0
"""Pauses between two attempts with a conversation whose event is refused."""

OUTAGE_HOLD_SECONDS = 30.0
"""How long others are tried first while the broker is away."""

MOST_HOLDS = 1000
"""Conversations that a query can leave out."""


@dataclass(slots=True)
class _Hold:
    since: float
    until: float
    refusals: int
    is_by_outage: bool = False


class Holds:
    """The conversations that wait, and for how long; forgotten with the process.

    Args:
        most: Most conversations; beyond it the oldest is tried again.
        first_seconds: How long the first refusal lets one wait; None for
            `FIRST_HOLD_SECONDS`.
    """

    def __init__(
        self, most: int = MOST_HOLDS, *, first_seconds: float | None = None
    ) -> None:
        self._most = most
        self._first_seconds = first_seconds
        self._holds: dict[str, _Hold] = {}

    def __contains__(self, sender_id: str) -> bool:
        return sender_id in self._holds

    @property
    def refused_count(self) -> int:
        """Number of conversations that wait although the broker is there."""
        return sum(1 for hold in self._holds.values() if hold.refusals)

    @property
    def is_full(self) -> bool:
        """Whether the next one that has to wait may take another one's place."""
        return len(self._holds) >= self._most

    def waiting(self) -> Collection[str]:
        """Return those who are not to be tried yet."""
        now = time.monotonic()
        return [name for name, hold in self._holds.items() if hold.until > now]

    def pause_seconds(self) -> float:
        """Return after how many seconds the first of them is to be tried again."""
        now = time.monotonic()
        return max(0.0, min((h.until for h in self._holds.values()), default=now) - now)

    def add(self, sender_id: str, *, counts: bool) -> float:
        """Let a conversation wait.

        Args:
            sender_id: The conversation.
            counts: Whether it was refused, and so waits longer each time; or whether
                the broker is away.

        Returns:
            How long, in seconds.
        """
        now = time.monotonic()
        hold = self._holds.pop(sender_id, None) or _Hold(now, now, 0)
        seconds = OUTAGE_HOLD_SECONDS
        if counts:
            first = self._first_seconds or FIRST_HOLD_SECONDS
            doubled = first * 2 ** min(hold.refusals, 20)
            seconds = min(doubled, LONGEST_HOLD_SECONDS)
            hold.refusals += 1
        hold.since, hold.until = now, now + seconds
        hold.is_by_outage = not counts
        self._holds[sender_id] = hold  # last: they are in order of `since`
        if len(self._holds) > self._most:
            del self._holds[next(iter(self._holds))]
        return seconds

    def drop(self, sender_ids: Collection[str]) -> None:
        """Forget those who got through."""
        for sender_id in sender_ids:
            self._holds.pop(sender_id, None)

    def end_outage(self) -> None:
        """Let those try at once who wait only because the broker was away."""
        self.drop([name for name, hold in self._holds.items() if not hold.refusals])
        for hold in self._holds.values():
            if hold.is_by_outage:
                hold.until = 0.0

    def oldest_first(self, items: Sequence[OutboxItem]) -> list[OutboxItem]:
        """Return items in order of when their conversation failed last, if ever."""

        def since(item: OutboxItem) -> float:
            hold = self._holds.get(item.sender_id)
            return 0.0 if hold is None else hold.since

        return sorted(items, key=since)  # stable: each conversation stays in order
