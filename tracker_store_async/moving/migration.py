"""`migrate`: every conversation of one store into another one, exactly."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import (
    ConfigurationError,
    ErasedKeyError,
    InvalidInputError,
    StoreDataError,
    TrackerDeserialisationError,
)
from tracker_store_async.moving.batches import (
    WORKERS,
    Batch,
    Frontier,
    batches_of,
    work_on,
)
from tracker_store_async.moving.copying import (
    ConflictError,
    append_of,
    copy_conversation,
    new_rows,
)
from tracker_store_async.moving.mirroring import check_has_some, erased_in
from tracker_store_async.moving.pages import (
    PAGE_EVENTS,
    SourceChangedError,
    difference_of_headers,
    end_of,
    pages_of,
    same_rows,
)
from tracker_store_async.moving.reports import Conflict, MoveReport, Silent
from tracker_store_async.moving.state import StateFile
from tracker_store_async.moving.verification import verify_into
from tracker_store_async.rows import Read
from tracker_store_async.saving_many import all_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tracker_store_async.moving.reports import Progress
    from tracker_store_async.rows import (
        Append,
        ConversationSummary,
        StoredConversation,
    )
    from tracker_store_async.store import TrackerStore

CONCURRENCY = 800
"""Conversations in flight, at most."""

ATTEMPTS = 5
"""Times that a conversation is copied that somebody changes meanwhile."""

OF_ONE_CONVERSATION = (
    InvalidInputError,
    TrackerDeserialisationError,
    StoreDataError,
    ErasedKeyError,
    SourceChangedError,
)
"""Errors that speak of one conversation: the others can be moved all the same."""


async def migrate(
    source: TrackerStore,
    target: TrackerStore,
    *,
    concurrency: int = CONCURRENCY,
    page_events: int = PAGE_EVENTS,
    state_path: Path | None = None,
    check: bool = False,
    delete_missing: bool = False,
    progress: Progress | None = None,
) -> MoveReport:
    """Copy every conversation of a store into another one, exactly.

    Each event row is the same to the byte, with its id and position; so are the times,
    the user, the expiry and the state of the conversation. Nothing is published.

    The source is only read, and may be written to meanwhile: run it again to bring what
    was added. The target may hold conversations already: one that is a prefix of the
    source's is continued, one that is whole is left alone, and anything else is
    reported as a conflict and not touched. So it may be cut off at any moment, by a
    cancellation or by the end of the process, and be run again.

    Args:
        source: Where from.
        target: Where to.
        concurrency: Most conversations in flight.
        page_events: Most events of a conversation that are read at once.
        state_path: File that remembers how far it is: a run that was cut off goes on
            there in place of listing from the start, and looks at what is before that
            once more at its end. It is deleted at the end.
        check: Whether to compare everything afterwards, as :func:`verify` does.
        delete_missing: Whether conversations that the source has not are erased in the
            target: those that were erased in the source since, and those of which the
            id was begun again, which are copied anew. :func:`missing_in` lists them.
        progress: Is told how far it is.

    Returns:
        What was done. Conversations that could not be copied are in its `problems`.

    Raises:
        ConfigurationError: The two stores are one, or the state is of another move; or
            the source has no conversation, and everything would be erased.
        StoreUnavailableError: A storage cannot be reached; run it again.
    """
    if source is target:
        raise ConfigurationError("source and target are the same store")
    started = time.perf_counter()
    progress = progress or Silent()
    job = {"kind": "migrate", "from": repr(source), "to": repr(target)}
    state = StateFile(state_path, job)
    migration = _Migration(source, target, page_events, state, progress)
    migration.replaces = delete_missing
    if delete_missing:
        await check_has_some(source)
    await migration.run(concurrency)
    report = migration.report
    if delete_missing:
        async for erased in erased_in(source, target):
            report.deleted += 1
            # Where the source has begun it again, or rewritten it, since it was passed.
            await migration.move_alone(erased)
    if check:
        await verify_into(
            report, source, target, page_events=page_events, progress=progress
        )
    report.seconds = time.perf_counter() - started
    return report


class _Migration:
    """One run of `migrate`."""

    replaces = False  # whether a log that was begun at another time gives way

    def __init__(
        self,
        source: TrackerStore,
        target: TrackerStore,
        page_events: int,
        state: StateFile,
        progress: Progress,
    ) -> None:
        self._source = source
        self._target = target
        self._page_events = page_events
        self._state = state
        self._progress = progress
        self._frontier = Frontier()
        self._has_columns = target._keeps_columns
        self.report = MoveReport()

    async def run(self, concurrency: int) -> None:
        """Copy everything behind the cursor that is remembered, and what came since."""
        cursor = self._state.load().get("cursor")
        self._frontier.cursor = cursor
        await self._source._ensure_open()
        await self._target._ensure_open()
        try:
            await self._work(self._source.conversations(cursor=cursor), concurrency)
        finally:
            self._state.save()
        if cursor is not None:
            # What an earlier run has passed may have grown since, or was restored or
            # anonymised, which no time tells.
            again = self._anew()
            passed = _until(cursor, self._source.conversations())
            await again._work(passed, concurrency)
            self.report.add_changes(again.report)
        self._state.finish()

    def _anew(self) -> _Migration:
        """Return one of the same stores that remembers nothing."""
        nowhere = StateFile(None, {})
        again = _Migration(
            self._source, self._target, self._page_events, nowhere, self._progress
        )
        again.replaces = self.replaces
        return again

    async def _work(
        self, listing: AsyncIterator[ConversationSummary], concurrency: int
    ) -> None:
        workers = min(WORKERS, concurrency)
        batches = batches_of(listing, max(1, concurrency // workers))
        await work_on(batches, self._move, workers)

    async def _move(self, batch: Batch) -> None:
        left = batch.summaries
        # Which one an error speaks of, is found out by moving each alone.
        with suppress(*OF_ONE_CONVERSATION):
            left = await self._move_together(batch.summaries)
        for summary in left:
            if not await self.move_alone(summary):
                # Who goes on after a run that was cut off is told of it again.
                self._frontier.hold(batch)
        self.report.conversations += len(batch.summaries)
        self._progress.advance(len(batch.summaries), 0)
        if self._frontier.finish(batch):
            self._state.note({"cursor": self._frontier.cursor})

    # -- the usual way: short ones, all at once ----------------------------------------

    async def _move_together(
        self, summaries: Sequence[ConversationSummary]
    ) -> Sequence[ConversationSummary]:
        """Move what is short and new, leave what is there; return the others."""
        now = self._target._now()
        probes = [_last_row(summary, now) for summary in summaries]
        stored = await self._target._read_many(probes)
        short, others, there = [], [], []
        for summary, found in zip(summaries, stored, strict=True):
            if found is None and summary.version <= self._page_events:
                short.append(summary)
            elif found is not None and _looks_same(summary, found):
                there.append((summary, found))
            else:
                others.append(summary)
        different = await self._still_different(there)
        others += await self._move_short(short)
        self.report.unchanged += len(there) - len(different)
        return [*others, *different]

    async def _move_short(
        self, summaries: Sequence[ConversationSummary]
    ) -> list[ConversationSummary]:
        if not summaries:
            return []
        now, limit = self._source._now(), self._page_events
        reads = [
            Read(each.sender_id, now, start=0, limit=limit, columns=self._has_columns)
            for each in summaries
        ]
        pages = await self._source._read_many(reads)
        appends: list[Append] = []
        appended, others = [], []
        for summary, page in zip(summaries, pages, strict=True):
            if page is None:
                continue  # erased, or expired, since it was listed
            if end_of(page) < page.version:
                others.append(summary)
                continue
            append = self._append_of(summary.sender_id, page)
            appends.append(append)
            appended.append(summary)
        answers = await self._target._append_many(appends) if appends else []
        accepted = all_of(answers)
        for summary, append, is_stored in zip(appended, appends, accepted, strict=True):
            if is_stored:
                self.report.copied += 1
                self._count(len(append.rows))
            else:
                others.append(summary)
        return others

    def _append_of(self, sender_id: str, page: StoredConversation) -> Append:
        rows = new_rows(page, page.first_position, derive=self._has_columns)
        now = self._target._now()
        append = append_of(sender_id, page, rows, expected_version=0, now=now)
        self._target._check_size(sender_id, rows, append.snapshot or "")
        return append

    async def _still_different(
        self, there: Sequence[tuple[ConversationSummary, StoredConversation]]
    ) -> list[ConversationSummary]:
        """Return those whose header or last event is not the same after all."""
        now = self._source._now()
        probes = [_last_row(summary, now) for summary, _ in there]
        found = await self._source._read_many(probes) if there else []
        others = []
        for (summary, target), source in zip(there, found, strict=True):
            if (
                source is None  # erased, or expired, since it was listed
                or difference_of_headers(source, target)
                or same_rows(source.rows, target.rows) is not None
            ):
                others.append(summary)
        return others

    # -- long ones, and those of which the target has something ------------------------

    async def move_alone(self, summary: ConversationSummary) -> bool:
        """Move one conversation; return whether nothing stood against it."""
        sender_id = summary.sender_id
        for _ in range(ATTEMPTS):
            pages = pages_of(self._source, sender_id, self._page_events)
            try:
                done = await copy_conversation(
                    self._target, sender_id, pages, gives_way=lambda _: self.replaces
                )
            except SourceChangedError as error:
                problem = Conflict(sender_id, None, str(error))
                continue
            except ConflictError as error:
                problem = error.conflict
            except OF_ONE_CONVERSATION as error:
                problem = Conflict(sender_id, None, str(error))
            else:
                if done is not None:
                    self.report.deleted += done.replaced
                    self._note(done.events, began=done.began)
                return True
            break
        self.report.add_problem(problem)
        return False

    def _note(self, events: int, *, began: bool) -> None:
        if began:
            self.report.copied += 1
        elif events:
            self.report.continued += 1
        else:
            self.report.unchanged += 1
        self._count(events)

    def _count(self, events: int) -> None:
        self.report.events += events
        self._progress.advance(0, events)


async def _until(
    cursor: str, listing: AsyncIterator[ConversationSummary]
) -> AsyncIterator[ConversationSummary]:
    """Yield what is listed as far as a cursor, or all if its conversation is gone."""
    async for summary in listing:
        yield summary
        if summary.cursor == cursor:
            return


def _last_row(summary: ConversationSummary, now: float) -> Read:
    last = max(0, summary.version - 1)
    return Read(summary.sender_id, now, start=last, limit=1)


def _looks_same(summary: ConversationSummary, found: StoredConversation) -> bool:
    names = ("version", "created_at", "updated_at", "user_id")
    return all(getattr(summary, name) == getattr(found, name) for name in names)


def describe(report: MoveReport) -> dict[str, Any]:
    """Return the numbers of a report by name, as they are shown."""
    return {
        "conversations": report.conversations,
        "copied": report.copied,
        "continued": report.continued,
        "unchanged": report.unchanged,
        "deleted": report.deleted,
        "events": report.events,
        "problems": report.problem_count,
    }
