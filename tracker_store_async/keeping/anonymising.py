"""Anonymising what is stored: one conversation at a time, all of it or nothing.

Events are rewritten where they stand, with their ids and positions; the state that is
kept beside them is replayed from the rewritten ones. What waits in an
outbox is rewritten within `TrackerStore._rewrite` of its backend, in the same
transaction: nothing else here knows of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import (
    ConcurrentSaveError,
    CorruptEventError,
    ErasedKeyError,
)
from tracker_store_async.events import encode_json
from tracker_store_async.keeping.pages import each_conversation
from tracker_store_async.keeping.scrubbing import Scrubber
from tracker_store_async.rows import Read, Rewrite
from tracker_store_async.serialization import (
    decode_rows,
    derived_row,
    encode_snapshot,
)
from tracker_store_async.tracker import DialogueStateTracker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tracker_store_async.keeping.rules import Rules
    from tracker_store_async.rows import (
        ConversationSummary,
        NewRow,
        StoredConversation,
    )
    from tracker_store_async.store import TrackerStore

ATTEMPTS = 50
"""Times that a conversation is tried which others append to meanwhile."""


@dataclass(frozen=True, slots=True)
class Anonymised:
    """What was done to one conversation.

    Attributes:
        sender_id: The conversation. Its id is not changed: it is what it is found by.
        events: Number of events that were changed.
        user_changed: Whether its user id was.
        cursor: Where to go on after it.
    """

    sender_id: str
    events: int
    user_changed: bool
    cursor: str

    @property
    def is_changed(self) -> bool:
        """Whether anything was changed."""
        return bool(self.events or self.user_changed)


async def anonymise(
    store: TrackerStore,
    rules: Rules,
    *,
    user_id: str | None = None,
    updated_before: float | None = None,
    dry_run: bool = False,
    after: str | None = None,
) -> AsyncIterator[Anonymised]:
    """Rewrite what is stored by rules, and yield what was done to each conversation.

    It may be stopped and run again: what has been rewritten is recognised.

    Args:
        store: The store.
        rules: The rules.
        user_id: Only the conversations of this user.
        updated_before: Only those without a save since (s since the epoch).
        dry_run: Change nothing, and yield what would be changed.
        after: Go on after this cursor.

    Raises:
        CorruptEventError: A stored event is not a JSON object; nothing of its
            conversation was changed.
        ConcurrentSaveError: Others appended to one again and again.
        TrackerStoreError: The store cannot be used.
    """
    await store.open()

    async def work(summary: ConversationSummary) -> Anonymised:
        return await anonymise_one(
            store, summary, rules, updated_before=updated_before, dry_run=dry_run
        )

    async for _, done in each_conversation(
        store, work, user_id=user_id, updated_before=updated_before, after=after
    ):
        yield done


async def anonymise_one(
    store: TrackerStore,
    summary: ConversationSummary,
    rules: Rules,
    *,
    updated_before: float | None = None,
    dry_run: bool = False,
) -> Anonymised:
    """Rewrite one conversation by rules; see `anonymise`."""
    nothing = Anonymised(
        summary.sender_id, 0, user_changed=False, cursor=summary.cursor
    )
    sender_id, cursor = summary.sender_id, summary.cursor
    version = 0
    intended: Rewrite | None = None
    for _ in range(ATTEMPTS):
        try:
            found = await store._read(Read(sender_id, store._now(), 0))
        except ErasedKeyError:
            found = None  # there is nothing that anybody could read
        if found is None:
            return nothing
        version = found.version
        request = rewrite_of(sender_id, found, rules, store._now())
        user_changed = request.user_id != found.user_id
        if intended is not None and not request.changed:
            # What was refused had landed, and its answer was lost.
            return _done(intended, user_changed=True, cursor=cursor)
        if updated_before is not None and found.updated_at >= updated_before:
            return nothing  # somebody has taken it up again since it was listed
        if dry_run or await store._rewrite(request):
            return _done(request, user_changed=user_changed, cursor=cursor)
        intended = request
    raise ConcurrentSaveError(sender_id, version, version)


def _done(request: Rewrite, *, user_changed: bool, cursor: str) -> Anonymised:
    count = len(request.changed)
    return Anonymised(request.sender_id, count, user_changed, cursor)


def rewrite_of(
    sender_id: str, found: StoredConversation, rules: Rules, now: float
) -> Rewrite:
    """Return the request that applies rules to a conversation.

    Args:
        sender_id: The conversation.
        found: All of it.
        rules: The rules.
        now: The store's time.

    Raises:
        CorruptEventError: An event is not a JSON object.
    """
    rows = [derived_row(event_id, data) for event_id, data in found.rows]
    first = found.first_position
    events = [_object(sender_id, first + n, row) for n, row in enumerate(rows)]
    scrubbed = Scrubber(rules).scrub(events)
    changed: set[int] = set()
    for n, (event, before) in enumerate(zip(scrubbed, events, strict=True)):
        if event is not before:
            changed.add(first + n)
            rows[n] = derived_row(rows[n].event_id, encode_json(event, "an event"))
    user_id = found.user_id
    for rule in rules.of("user_id")[:1]:
        user_id = user_id and rule.change(user_id)[:255]
    snapshot = ""
    if changed or user_id != found.user_id:
        # Where the user alone differs the header is written as if the last row did.
        changed = changed or {found.version - 1}
        snapshot = snapshot_of(sender_id, found, rows)
    return Rewrite(
        sender_id=sender_id,
        expected_version=found.version,
        first_position=first,
        created_at=found.created_at,
        rows=rows,
        changed=frozenset(changed),
        snapshot=snapshot,
        user_id=user_id,
        now=now,
    )


def _object(sender_id: str, position: int, row: NewRow) -> dict[str, Any]:
    try:
        event = json.loads(row.data)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise CorruptEventError(sender_id, position, "it is not a JSON object")
    return event


def snapshot_of(sender_id: str, found: StoredConversation, rows: list[NewRow]) -> str:
    """Return the state after rows, as a replay of the latest session gives it."""
    start = found.session_start - found.first_position
    session = [(row.event_id, row.data) for row in rows[start:]]
    tracker = DialogueStateTracker(sender_id, None)
    tracker.load_events(decode_rows(sender_id, found.session_start, session))
    return encode_snapshot(tracker.state_snapshot(), found.version, found.session_start)
