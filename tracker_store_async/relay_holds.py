"""Which conversations wait since an event of theirs could not be published.

Where more of them are refused than can be named in a query, those in front are passed
by together, up to a place in the outbox, and tried again from there on, some at a time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any

    from tracker_store_async.rows import OutboxItem

FIRST_HOLD_SECONDS = 1.0
LONGEST_HOLD_SECONDS = 300.0
"""Pauses between two attempts with a conversation whose event is refused."""

OUTAGE_HOLD_SECONDS = 30.0
"""How long others are tried first while the broker is away."""

MOST_HOLDS = 1000
"""Conversations that a query can leave out."""

FIRST_SWEEP_SECONDS = 1.0
LONGEST_SWEEP_SECONDS = 10.0
"""Pauses between two reads of those who are passed by, while nothing gets through."""


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

    def keep_only(self, sender_ids: Collection[str]) -> None:
        """Forget all others: nothing of theirs is there any more."""
        kept = set(sender_ids)
        self.drop([name for name in self._holds if name not in kept])

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


class Passage:
    """How far those in front are passed by, and how far they have been tried again.

    Attributes:
        passed: Place up to which nobody is tried but by a sweep; None is nobody.
        swept: Place up to which the sweep under way has tried them again.
    """

    def __init__(self) -> None:
        self.passed: Any = None
        self.swept: Any = None
        self._is_sweeping = False
        self._pause = 0.0
        self._due_at = 0.0

    def turns(self) -> tuple[bool, ...]:
        """Return whether to read for the sweep: what is to be tried first, and then.

        Each has its turn, however much there is for the other one.
        """
        if self.passed is None or time.monotonic() < self._due_at:
            return (False,)
        return (not self._is_sweeping, self._is_sweeping)

    def begin(self, *, is_sweep: bool) -> None:
        """Take note of what the items are read for that are published now."""
        self._is_sweeping = is_sweep

    def note(self, last: OutboxItem, *, got_through: bool, passes_by: bool) -> bool:
        """Take note of how it went.

        Args:
            last: The last one of the items.
            got_through: Whether something of them was published.
            passes_by: Whether more are refused than can be held by name.

        Returns:
            False if it would begin at the same place again.
        """
        if self._is_sweeping:
            if got_through:
                self._pause = 0.0  # what may follow there comes at once
            else:
                self.swept = last.place
                self._pause = max(FIRST_SWEEP_SECONDS, 2 * self._pause)
                self._pause = min(self._pause, LONGEST_SWEEP_SECONDS)
            self._due_at = time.monotonic() + self._pause
        elif passes_by:
            before, self.passed = self.passed, last.place
            return before is None or bool(before != last.place)
        return True

    def end_sweep(self, *, is_full: bool) -> None:
        """Begin anew; or pass nobody by any more, since all can be held by name."""
        self.swept = None
        self._is_sweeping = False
        self._due_at = time.monotonic() + max(FIRST_SWEEP_SECONDS, self._pause)
        if not is_full:
            self.passed = None
            self._pause = 0.0
