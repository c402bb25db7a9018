"""Retention: what is old, or more than is to be kept, is erased.

A conversation that nobody has added to for too long goes as a whole, unless sessions or
events of it are to be kept. Of the others the beginning is cut off. The latest session
stays whole, for its state would hold what is erased, unless a number of events is to be
kept: then what the state rests on stays of it, see `compacting`.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import ErasedKeyError, InvalidInputError
from tracker_store_async.keeping.compacting import compact, plan_compaction
from tracker_store_async.keeping.pages import each_conversation
from tracker_store_async.rows import Read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tracker_store_async.keeping.compacting import Compaction
    from tracker_store_async.rows import (
        ConversationSummary,
        StoredConversation,
        StoredRow,
    )
    from tracker_store_async.store import TrackerStore


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept. An event is erased if every limit that is given allows it.

    Attributes:
        older_than_seconds: Only what is older may be erased: conversations without a
            newer save, and in others events with no newer one before them.
        keep_last_sessions: So many sessions of each conversation stay.
        keep_last_events: So many events of each conversation stay, and those before
            them in the latest session that its state rests on.

    Raises:
        InvalidInputError: No limit is given, or one is not positive.
    """

    older_than_seconds: float | None = None
    keep_last_sessions: int | None = None
    keep_last_events: int | None = None

    def __post_init__(self) -> None:
        limits = {
            "older_than_seconds": self.older_than_seconds,
            "keep_last_sessions": self.keep_last_sessions,
            "keep_last_events": self.keep_last_events,
        }
        given = {name: limit for name, limit in limits.items() if limit is not None}
        if not given:
            raise InvalidInputError(
                "say what may go: an age (--older-than), or what stays "
                "(--keep-last-sessions, --keep-last-events)"
            )
        for name, limit in given.items():
            if not limit > 0:
                raise InvalidInputError(f"{name} must be more than 0")

    @property
    def keeps_some(self) -> bool:
        """Whether something of each conversation stays, however old it is."""
        return bool(self.keep_last_sessions or self.keep_last_events)


@dataclass(frozen=True, slots=True)
class Cut:
    """What is erased of one conversation.

    Attributes:
        sender_id: The conversation.
        before: Position that the events before are erased; None is everything.
        events: Number of events that go.
        version: The version that it was judged by.
        cursor: Where to go on after it.
        compaction: How it is cut within its latest session, or None.
    """

    sender_id: str
    before: int | None
    events: int
    version: int
    cursor: str
    compaction: Compaction | None = field(default=None, repr=False, compare=False)


async def prune(
    store: TrackerStore,
    retention: Retention,
    *,
    now: float | None = None,
    dry_run: bool = False,
    after: str | None = None,
) -> AsyncIterator[Cut | None]:
    """Erase what need not be kept, and yield what was done for each conversation.

    A conversation that somebody adds to after it was judged is not erased.

    Args:
        store: The store.
        retention: What is kept.
        now: Time that ages count from, in seconds since the epoch; None is now.
        dry_run: Erase nothing, and yield what would be erased.
        after: Go on after this cursor.

    Yields:
        What was erased, or None for a conversation of which everything stays.

    Raises:
        TrackerStoreError: The store cannot be used.
    """
    await store.open()
    moment = store._now() if now is None else now

    async def work(summary: ConversationSummary) -> Cut | None:
        cut = await plan_cut(store, summary, retention, moment)
        if cut is None or dry_run:
            return cut
        if cut.compaction is not None:
            return cut if await compact(store, cut.compaction) else None
        return cut if await store._delete(*_request(cut, store._now())) else None

    async for _, cut in each_conversation(store, work, after=after):
        yield cut


def _request(cut: Cut, now: float) -> tuple[str, int | None, float, int | None]:
    version = cut.version if cut.before is None else None
    return cut.sender_id, cut.before, now, version


async def plan_cut(
    store: TrackerStore, summary: ConversationSummary, retention: Retention, now: float
) -> Cut | None:
    """Return what is to be erased of one conversation, or None.

    Args:
        store: The open store.
        summary: The conversation as it was listed.
        retention: What is kept.
        now: Time that ages count from.
    """
    age = retention.older_than_seconds
    cutoff = None if age is None else now - age
    if cutoff is not None and summary.created_at >= cutoff:
        return None
    sender_id, cursor = summary.sender_id, summary.cursor
    found = await store._read(Read(sender_id, store._now(), last=0))
    if found is None:
        return None
    is_old = cutoff is not None and found.updated_at < cutoff
    goes_whole = is_old and not retention.keeps_some
    if not goes_whole and _may_stay(found, retention):
        return None
    whole = Cut(sender_id, None, found.version, found.version, cursor)
    if goes_whole and found.session_start == 0:
        return whole
    try:
        found = await store._read(Read(sender_id, store._now(), 0))
    except ErasedKeyError:  # nobody can say what is in it any more
        return whole if goes_whole else None
    if found is None or (goes_whole and not found.updated_at < (cutoff or 0)):
        return None
    if goes_whole:
        return Cut(sender_id, None, len(found.rows), found.version, cursor)
    return await _cut(
        store, sender_id, found, _position(found, retention, cutoff), cursor
    )


def _may_stay(found: StoredConversation, retention: Retention) -> bool:
    """Whether the header alone tells that everything stays."""
    if retention.keep_last_events is None:
        return found.session_start == 0  # nothing is in front of the latest session
    return found.version <= retention.keep_last_events


async def _cut(
    store: TrackerStore,
    sender_id: str,
    found: StoredConversation,
    before: int,
    cursor: str,
) -> Cut | None:
    """Return how to cut a conversation at a position, or as far as that can be done."""
    plan = None
    if before > found.session_start:
        # In a thread, for it replays the session: an assistant may run beside it.
        plan = await asyncio.to_thread(
            plan_compaction, sender_id, found, before, store._now()
        )
        before = found.session_start if plan is None else plan.start
    events = before - found.first_position
    if events <= 0:
        return None
    return Cut(sender_id, before, events, found.version, cursor, plan)


def _position(
    found: StoredConversation, retention: Retention, cutoff: float | None
) -> int:
    """Return the position that everything before may go of a conversation."""
    limits = []
    if retention.keep_last_events is None:
        limits.append(found.session_start)
    else:
        limits.append(found.version - retention.keep_last_events)
    sessions = retention.keep_last_sessions or 1
    if sessions > 1:
        starts = _session_starts(found.rows)
        enough = len(starts) >= sessions
        limits.append(found.first_position + (starts[-sessions] if enough else 0))
    if cutoff is not None:
        limits.append(found.first_position + _count_older(found.rows, cutoff))
    return min(limits)


def _session_starts(rows: Sequence[StoredRow]) -> list[int]:
    """Return where sessions start among rows, by the rule of `sessions`."""
    starts: list[int] = []
    after_action = False
    for n, (_, data) in enumerate(rows):
        event = _fields(data)
        kind = event.get("event")
        if kind == "session_started":
            starts.append(n - 1 if after_action else n)
        named = event.get("name") == "action_session_start"
        after_action = kind == "action" and named
    return starts


def _count_older(rows: Sequence[StoredRow], cutoff: float) -> int:
    """Return how many rows, from the first one on, are older; the log decides order.

    An event without a time is as old as the one before it.
    """
    for n, (_, data) in enumerate(rows):
        moment = _fields(data).get("timestamp")
        if isinstance(moment, bool) or not isinstance(moment, int | float):
            continue
        if not moment < cutoff:
            return n
    return len(rows)


def _fields(data: str | bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
