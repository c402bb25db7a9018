"""How a save works: encode, publish, append; and what happens on a conflict.

The fast path reads nothing: the tracker carries the version that it was loaded at and
its unsaved events, and the append is conditional on that version. Only when the append
is refused is the storage read, once, to tell a retry that had landed after all (its own
ids stand in the log) from another writer's events.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, NamedTuple

from tracker_store_async import errors
from tracker_store_async.observation import noted, observed
from tracker_store_async.overlap import (
    adds_entities,
    ids_of,
    keys_of,
    landed_run,
    overlap,
)
from tracker_store_async.publishing import outbox_entries
from tracker_store_async.redaction import fields, get_logger
from tracker_store_async.rows import Append
from tracker_store_async.save_turn import SaveTurn
from tracker_store_async.serialization import check_tracker
from tracker_store_async.unsaved import (
    Batch,
    as_uttered,
    encode_batch,
    encoded_rows,
    names_user,
    needs_reload,
    session_start_after,
    slot_values,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from tracker_store_async.cursor import LogCursor
    from tracker_store_async.events import Event
    from tracker_store_async.rows import NewRow, OutboxEntry, StoredConversation
    from tracker_store_async.store import TrackerStore
    from tracker_store_async.tracker import DialogueStateTracker

logger = get_logger(__name__)

MAX_ATTEMPTS = 100
"""Appends that one save tries before it gives way to the other writers for good."""

LONGEST_PAUSE_SECONDS = 0.05

EVENTS_PER_TURN = 256
"""Most events encoded before others get their turn: 1 to 2 ms of work."""


class Prepared(NamedTuple):
    """What is published, and the append that stores it."""

    batch: Batch
    request: Append


class Saver:
    """Saves the trackers of one store, each by one task at a time."""

    def __init__(self, store: TrackerStore) -> None:
        self._store = store

    def turn(self, tracker: DialogueStateTracker) -> SaveTurn:
        """Wait until no other task saves the same tracker object, into any store.

        Raises:
            InvalidInputError: It is not a tracker, or cannot be stored.
        """
        return SaveTurn(check_tracker(tracker), self._store._loop)

    async def save(self, tracker: DialogueStateTracker, *, rebase: bool) -> None:
        """Publish and append the tracker's unsaved events.

        Args:
            tracker: The tracker. Afterwards it knows that they are stored.
            rebase: Append after another writer's events rather than raise.

        Raises:
            ConcurrentSaveError: Another writer appended and `rebase` is False.
        """
        turn = self.turn(tracker)
        if tracker._save_under_way is not None:
            await turn.wait()
        with turn:
            await self._save_in_turn(tracker, rebase=rebase)

    async def save_refused(
        self, tracker: DialogueStateTracker, *, rebase: bool
    ) -> None:
        """Go on with a tracker, in its turn, whose append was refused.

        Raises:
            ConcurrentSaveError: Another writer appended and `rebase` is False.
        """
        await self._catch_up(tracker, rebase=rebase)
        await self._save_in_turn(tracker, rebase=rebase)

    async def _save_in_turn(
        self, tracker: DialogueStateTracker, *, rebase: bool
    ) -> None:
        for attempt in range(MAX_ATTEMPTS):
            prepared = await self.prepare_append(tracker, rebase=rebase)
            if prepared is None:
                return
            if await self._append(prepared.request):
                self.confirm(tracker, prepared)
                return
            await self._catch_up(tracker, rebase=rebase)
            if attempt:
                pause = min(LONGEST_PAUSE_SECONDS, 0.001 * 2**attempt)
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311
        version = tracker._log.version
        raise errors.ConcurrentSaveError(tracker.sender_id, version, version or 0)

    async def prepare_append(
        self, tracker: DialogueStateTracker, *, rebase: bool
    ) -> Prepared | None:
        """Encode and publish the unsaved events; None if nothing is to be stored.

        Raises:
            ConcurrentSaveError: The tracker was built by hand, does not hold what is
                stored, and `rebase` is False.
        """
        store, cursor = self._store, tracker._log
        if (
            cursor.version is None
            or needs_reload(tracker)
            or not cursor.speaks_of(store, tracker.sender_id)
        ):
            await self.prepare(tracker, rebase=rebase)
            cursor = tracker._log
        if not cursor.pending and not names_user(tracker):
            return None
        batch = self._encode_at_once(tracker) or await self.encode(tracker)
        outbox: Sequence[OutboxEntry] = ()
        if store.outbox:  # published once it is stored
            with_bodies, publisher = store._stores_message_bodies, store._publisher
            outbox = outbox_entries(
                tracker, publisher, batch.rows, with_bodies=with_bodies
            )
        elif store._publisher is not None:
            await self.publish(tracker, batch.rows)
        now = store._now()
        request = Append(
            sender_id=tracker.sender_id,
            expected_version=batch.version,
            rows=batch.rows,
            session_start=batch.session_start,
            snapshot=batch.snapshot,
            now=now,
            expires_at=None if store.record_exp is None else now + store.record_exp,
            # What is stored may have been replaced since: it is not written back.
            user_id=tracker.user_id if names_user(tracker, begins=True) else None,
            created_at=cursor.created_at if batch.version else None,
            outbox=outbox,
        )
        return Prepared(batch, request)

    async def publish(
        self, tracker: DialogueStateTracker, rows: Sequence[NewRow]
    ) -> None:
        """Publish the first unsaved events.

        Args:
            tracker: The tracker. What it got since they were encoded is not published.
            rows: The events as they are stored.

        Raises:
            PublishError: The broker did not confirm an event.
        """
        store, cursor = self._store, tracker._log
        if store._publisher is None:
            return
        publishing = store._publisher.publish(
            *(tracker.sender_id, cursor.version or 0, cursor.pending[: len(rows)]),
            *(tracker.user_id, rows),
        )
        await observed(store, "publish", publishing, tracker.sender_id)

    def _append(self, request: Append) -> Awaitable[bool]:
        store = self._store
        appending = store._append(request)
        if store._observer is None:
            return appending
        return observed(store, "append", appending, request.sender_id, (request,))

    def confirm(self, tracker: DialogueStateTracker, prepared: Prepared) -> None:
        """Note that what was prepared is stored."""
        store, cursor = self._store, tracker._log
        batch, request = prepared
        if request.outbox and store._relay is not None:
            store._relay.wake()
        version, message = request.new_version, batch.message
        cursor.confirm(batch.entries, version, batch.session_start, message)
        cursor.store, cursor.sender_id = store, tracker.sender_id
        cursor.user_id = request.user_id or cursor.user_id
        tracker.keep_stored(batch.values)
        if not batch.version and store._tells_logs_apart:
            cursor.created_at = request.now

    def _encode_at_once(self, tracker: DialogueStateTracker) -> Batch | None:
        """Do what `encode` does, or return None if others have their turn first."""
        store = self._store
        turns = store._loop_turns
        if turns.are_over or len(tracker._log.pending) > EVENTS_PER_TURN:
            return None
        with turns:
            batch = encode_batch(tracker)
        store._check_size(tracker.sender_id, batch.rows, batch.snapshot)
        return batch

    async def encode(self, tracker: DialogueStateTracker) -> Batch:
        """Encode the unsaved events and the state after them; nothing is written yet.

        Many events are encoded in pieces, so that they do not stop the loop.

        Raises:
            EventSerialisationError: An event holds what JSON cannot represent.
            InvalidInputError: The backend could never store it.
        """
        store = self._store
        turns = store._loop_turns
        if turns.are_over:
            await turns.wait()
        with turns:
            batch = encode_batch(tracker, most_rows=EVENTS_PER_TURN)
        # As of that moment: the tracker may be updated while others have a turn.
        later = batch.entries[EVENTS_PER_TURN:]
        for offset in range(0, len(later), EVENTS_PER_TURN):
            async with store._loop_turns:
                batch.rows.extend(encoded_rows(later[offset:][:EVENTS_PER_TURN]))
        store._check_size(tracker.sender_id, batch.rows, batch.snapshot)
        return batch

    async def prepare(self, tracker: DialogueStateTracker, *, rebase: bool) -> None:
        """Make sure that the tracker's place in the log and its state are known.

        Raises:
            ConcurrentSaveError: The tracker was built by hand, does not hold what is
                stored, and `rebase` is False.
        """
        cursor = tracker._log
        if cursor.version is not None and not cursor.speaks_of(
            self._store, tracker.sender_id
        ):
            cursor.hold_as_new(tracker.events)
        if not cursor.pending and not names_user(tracker):
            return
        if cursor.version is None:
            await self._reconcile(tracker, rebase=rebase)
        while needs_reload(tracker):
            await self._catch_up(tracker, rebase=rebase)
            if tracker.state_needs_reload:
                cursor = tracker._log
                expected_version = cursor.version if cursor.pending else None
                await self._reload(tracker, expected_version=expected_version)

    async def _reconcile(self, tracker: DialogueStateTracker, *, rebase: bool) -> None:
        """Find out which events of a tracker built by hand are stored already.

        Rasa's rule (`TrackerEventDiffEngine`): what the latest stored session holds is
        not new. Rasa compares numbers of events; we compare the events themselves, so
        that none is taken for another one and lost. Where the latest session knows none
        of them, the earlier ones may: somebody else has started it meanwhile.
        """
        cursor = tracker._log
        mine = [entry.event for entry in cursor.pending]
        stored = await self._store._load(tracker.sender_id, start=None, last=None)
        known, end = await self._overlap(stored, mine)
        if stored is not None and not known and stored._log.session_start:
            stored = await self._store._load(tracker.sender_id, start=0, last=None)
            known, end = await self._overlap(stored, mine)
        cursor.store, cursor.sender_id = self._store, tracker.sender_id
        cursor.by_hand = True
        if stored is None:
            cursor.version, cursor.session_start, cursor.base = 0, 0, 0
            cursor.input_channel = None
            return
        theirs, version = stored._log, stored._log.version or 0
        older_copy = known == len(mine) and end < len(stored.events)
        diverged = not older_copy and end < len(stored.events)
        if diverged:
            self._note_conflict(tracker.sender_id, None, version, rebase=rebase)
        del cursor.pending[:known]
        # An older copy without anything new stays as it is, at its own version.
        cursor.version = theirs.base + end if older_copy else version
        cursor.session_start, cursor.whole = theirs.session_start, theirs.whole
        cursor.created_at = theirs.created_at
        cursor.input_channel = theirs.input_channel
        cursor.base = max(0, theirs.base + end - known)
        cursor.ends_with_session_action = theirs.ends_with_session_action
        if diverged or (not older_copy and cursor.base > cursor.session_start):
            await self._reload(tracker)

    async def _overlap(
        self, stored: DialogueStateTracker | None, mine: Sequence[Event]
    ) -> tuple[int, int]:
        """Return how many of my first events are stored, and where they end there."""
        if stored is None:
            return 0, 0
        theirs = list(stored.events)
        without_entities = adds_entities((*theirs, *mine))
        keys: list[str] = []
        both = [*theirs, *mine]
        for offset in range(0, len(both), EVENTS_PER_TURN):
            piece = both[offset : offset + EVENTS_PER_TURN]
            async with self._store._loop_turns:
                keys += keys_of(piece, without_entities=without_entities)
        async with self._store._loop_turns:
            return overlap(keys[: len(theirs)], keys[len(theirs) :])

    async def _catch_up(self, tracker: DialogueStateTracker, *, rebase: bool) -> None:
        """Find out what happened to the log, and bring the tracker up to date."""
        cursor = tracker._log
        version = cursor.version or 0
        mine = cursor.pending[:]
        ids = [entry.identify() for entry in mine]
        stored, start = await self._log_since(tracker, version)
        position, count = landed_run(ids, stored, start)
        landed = mine[:count]
        if count and position == version:
            # An earlier attempt had landed although its answer was lost.
            session_start = session_start_after(cursor, count)
            cursor.confirm(landed, position + count, session_start)
            if stored is not None and stored.user_id == tracker.user_id:
                cursor.user_id = stored.user_id  # else the next save names the user
            cursor.created_at = None if stored is None else self._began(stored)
            if not cursor.pending:
                if slot_values(landed):  # they may have been changed in place since
                    await self._reload(tracker)
                return
        elif count:
            # It had landed behind another writer's events.
            cursor.confirm(landed, version, cursor.session_start)
            await self._reload(tracker)
            return
        elif cursor.by_hand:
            cursor.version = None  # compare it again with what is stored by now
            return
        version = 0 if stored is None else stored.version
        if version != cursor.version or self._is_another(stored, cursor):
            self._note_conflict(
                tracker.sender_id, cursor.version, version, rebase=rebase
            )
            known = ids_of(stored)
            cursor.pending = [
                entry for entry in cursor.pending if entry.event_id not in known
            ]
            await self._reload(tracker)
        elif slot_values(landed):
            await self._reload(tracker)

    def _began(self, stored: StoredConversation) -> float | None:
        return stored.created_at if self._store._tells_logs_apart else None

    def _is_another(self, stored: StoredConversation | None, cursor: LogCursor) -> bool:
        """Whether the log was deleted, or has expired, and was begun again."""
        if stored is None or cursor.created_at is None:
            return False
        return stored.created_at != cursor.created_at

    async def _log_since(
        self, tracker: DialogueStateTracker, version: int
    ) -> tuple[StoredConversation | None, int]:
        """Read what was appended since; everything, if it is another log by now.

        A conversation that was deleted, or has expired, and begun again may hold the
        tracker's events at any position: a copy of it may have been saved.

        Returns:
            What is stored, and the position from which it was read.
        """
        stored = await self._store._fetch(tracker.sender_id, start=version, last=None)
        if version and self._is_another(stored, tracker._log):
            stored = await self._store._fetch(tracker.sender_id, start=0, last=None)
            version = 0
        return stored, version

    def _note_conflict(
        self, sender_id: str, expected: int | None, stored: int, *, rebase: bool
    ) -> None:
        self._store.conflict_count += 1
        noted(self._store, "conflict")
        if not rebase:
            raise errors.ConcurrentSaveError(sender_id, expected, stored)
        logger.warning(
            "Conversation %r has %d stored events, the tracker knows of %s: its new "
            "events are appended after the other writer's.",
            sender_id,
            stored,
            "none" if expected is None else expected,
            extra=fields(
                "conflict_rebased",
                sender_id=sender_id,
                stored_version=stored,
                expected_version=expected,
            ),
        )

    async def _reload(
        self, tracker: DialogueStateTracker, *, expected_version: int | None = None
    ) -> None:
        """Put the tracker's unsaved events on top of what is stored now.

        Args:
            tracker: The tracker.
            expected_version: Do nothing if there is another version by now.
        """
        store, cursor = self._store, tracker._log
        history = tracker.max_event_history
        fresh = await store._load(
            tracker.sender_id, start=0 if cursor.whole else None, last=None
        )
        if fresh is None:
            fresh = store._new_tracker(tracker.sender_id)
            fresh._log.version = 0
            fresh._log.store, fresh._log.sender_id = store, tracker.sender_id
            fresh._log.whole = cursor.whole
        if expected_version not in (None, fresh._log.version):
            return
        if history is not None:
            fresh.remember_state()  # it was loaded without a bound, and gets one below
        pending = list(cursor.pending)
        for entry in pending:
            entry.event = as_uttered(entry.event)
            fresh.update(entry.event)
        fresh._log.pending = pending
        tracker.adopt(fresh, max_event_history=history)
