"""`verify`: whether a store holds exactly what another one holds."""

from __future__ import annotations

import hashlib
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from tracker_store_async.errors import (
    ErasedKeyError,
    InvalidInputError,
    StoreDataError,
    TrackerDeserialisationError,
)
from tracker_store_async.moving.batches import WORKERS, Batch, batches_of, work_on
from tracker_store_async.moving.pages import (
    PAGE_EVENTS,
    SourceChangedError,
    as_text,
    difference_of_headers,
    end_of,
    pages_of,
    same_rows,
)
from tracker_store_async.moving.reports import Conflict, MoveReport, Silent
from tracker_store_async.rows import Read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.moving.reports import Progress
    from tracker_store_async.rows import (
        ConversationSummary,
        StoredConversation,
        StoredRow,
    )
    from tracker_store_async.store import TrackerStore

BATCH_CONVERSATIONS = 50

UNREADABLE = (
    InvalidInputError,
    StoreDataError,
    TrackerDeserialisationError,
    ErasedKeyError,
    SourceChangedError,
)


class Checksum:
    """The SHA-256 of a conversation: its header and every row, to the byte."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add_rows(self, rows: Sequence[StoredRow]) -> None:
        """Add rows, in order."""
        parts: list[bytes] = []
        for event_id, data in rows:
            raw = data.encode() if isinstance(data, str) else data
            name = b"-" if event_id is None else event_id.encode()
            parts.append(b"%d %d\n%s\n%s\n" % (len(name), len(raw), name, raw))
        self._hash.update(b"".join(parts))

    def finish(self, first_position: int, header: StoredConversation) -> str:
        """Return the checksum.

        Args:
            first_position: Position of the first row.
            header: The header.
        """
        # Where Rasa wrote it there is no state, and the end is what is left in Redis.
        ends = header.expires_at if header.snapshot else None
        fields = (
            first_position,
            header.version,
            header.session_start,
            header.created_at,
            header.updated_at,
            header.user_id,
            ends,
            as_text(header.snapshot or ""),
        )
        self._hash.update(repr(fields).encode(errors="backslashreplace"))
        return self._hash.hexdigest()


async def checksum_of(
    store: TrackerStore, sender_id: str, page_events: int = PAGE_EVENTS
) -> tuple[str, int] | None:
    """Return checksum and number of events of a conversation, or None if there is none.

    Args:
        store: Where.
        sender_id: The conversation.
        page_events: Most events that are read at once.
    """
    checksum, first, count, page = Checksum(), 0, 0, None
    async with aclosing(pages_of(store, sender_id, page_events)) as pages:  # type: ignore[type-var]
        async for page in pages:
            if not count:
                first = page.first_position
            checksum.add_rows(page.rows)
            count += len(page.rows)
    return None if page is None else (checksum.finish(first, page), count)


async def verify(
    source: TrackerStore,
    target: TrackerStore,
    *,
    page_events: int = PAGE_EVENTS,
    progress: Progress | None = None,
) -> MoveReport:
    """Compare the checksum of every conversation of a store with that in another one.

    It covers every event row to the byte, ids, positions, times, user, expiry and
    state. What only the target holds is not looked at.

    Args:
        source: What should be there.
        target: What is there.
        page_events: Most events of a conversation that are read at once.
        progress: Is told how far it is.

    Returns:
        How much was compared; each difference, with the position of the first event
        that differs, is in its `problems`.
    """
    started = time.perf_counter()
    report = MoveReport()
    await verify_into(
        report, source, target, page_events=page_events, progress=progress or Silent()
    )
    report.conversations = report.unchanged + report.problem_count
    report.seconds = time.perf_counter() - started
    return report


async def verify_into(
    report: MoveReport,
    source: TrackerStore,
    target: TrackerStore,
    *,
    page_events: int,
    progress: Progress,
) -> None:
    """Do what `verify` does, and add it to a report."""
    await source._ensure_open()
    await target._ensure_open()
    reader = _Verification(report, source, target, page_events, progress)
    batches = batches_of(source.conversations(), BATCH_CONVERSATIONS)
    await work_on(batches, reader.compare, WORKERS)
    report.verified = True


class _Verification:
    def __init__(
        self,
        report: MoveReport,
        source: TrackerStore,
        target: TrackerStore,
        page_events: int,
        progress: Progress,
    ) -> None:
        self._report = report
        self._source = source
        self._target = target
        self._page_events = page_events
        self._progress = progress
        self._is_part = bool(report.conversations)  # of a migration, which has counted
        self._known = {problem.sender_id for problem in report.problems}

    async def compare(self, batch: Batch) -> None:
        """Compare conversations, the short ones together."""
        left = list(batch.summaries)
        try:
            left = await self._compare_together(left)
        except UNREADABLE:
            left = list(batch.summaries)
        for summary in left:
            if summary.sender_id not in self._known:
                await self._compare_alone(summary.sender_id)
        self._progress.advance(len(batch.summaries), 0)

    async def _compare_together(
        self, summaries: list[ConversationSummary]
    ) -> list[ConversationSummary]:
        """Compare the short ones; return those that are long, or not the same."""
        short = [each for each in summaries if each.version <= self._page_events]
        if not short:
            return summaries
        ours, theirs = [
            await store._read_many(
                [
                    Read(each.sender_id, store._now(), start=0, limit=self._page_events)
                    for each in short
                ]
            )
            for store in (self._source, self._target)
        ]
        others = [each for each in summaries if each.version > self._page_events]
        for summary, mine, other in zip(short, ours, theirs, strict=True):
            if mine is None:
                continue
            if other is None or _checksum(mine) != _checksum(other):
                others.append(summary)
            else:
                self._note_same(len(mine.rows))
        return others

    async def _compare_alone(self, sender_id: str) -> None:
        try:
            ours = await checksum_of(self._source, sender_id, self._page_events)
            if ours is None:
                return  # erased, or expired, since it was listed
            theirs = await checksum_of(self._target, sender_id, self._page_events)
            if ours == theirs:
                self._note_same(ours[1])
                return
            await self._find_difference(sender_id)
        except UNREADABLE as error:
            self._report.add_problem(Conflict(sender_id, None, str(error)))

    def _note_same(self, events: int) -> None:
        self._report.unchanged += not self._is_part
        self._report.events += 0 if self._is_part else events
        self._progress.advance(0, events)

    async def _find_difference(self, sender_id: str) -> None:
        """Say what the first difference of two conversations is."""
        async for page in pages_of(self._source, sender_id, self._page_events):
            problem = await self._difference(sender_id, page)
            if problem is not None:
                self._report.add_problem(problem)
                return
        self._note_same(0)  # the source has changed, and they are the same by now

    async def _difference(
        self, sender_id: str, page: StoredConversation
    ) -> Conflict | None:
        first, limit = page.first_position, max(1, len(page.rows))
        now = self._target._now()
        found = await self._target._read(Read(sender_id, now, start=first, limit=limit))
        if found is None:
            return Conflict(sender_id, None, "it is not in the target")
        if found.first_position != first:
            reason = "its beginning was erased in the target"
            return Conflict(sender_id, first, reason)
        number = same_rows(page.rows, found.rows)
        if number is not None:
            what = "the event is not the same"
            if number >= len(found.rows):
                what = "the target has no event there"
            return Conflict(sender_id, first + number, what)
        if end_of(page) < page.version:
            return None
        if found.version > page.version:
            reason = "the target has more events"
            return Conflict(sender_id, page.version, reason)
        name = difference_of_headers(page, found)
        return None if name is None else Conflict(sender_id, None, f"{name} differs")


def _checksum(conversation: StoredConversation) -> str:
    checksum = Checksum()
    checksum.add_rows(conversation.rows)
    return checksum.finish(conversation.first_position, conversation)
