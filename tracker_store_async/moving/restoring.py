"""`restore`: the conversations of a backup into a store."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import IO, TYPE_CHECKING, NamedTuple

from tracker_store_async.errors import (
    ErasedKeyError,
    InvalidInputError,
    StoreDataError,
)
from tracker_store_async.moving.backup_file import (
    Manifest,
    check_backup,
    header_of,
    parse_event,
    reading,
)
from tracker_store_async.moving.batches import BATCH_EVENTS
from tracker_store_async.moving.copying import (
    AnotherLogError,
    ConflictError,
    append_of,
    copy_conversation,
    new_rows,
)
from tracker_store_async.moving.last_backup import state_of
from tracker_store_async.moving.pages import PAGE_EVENTS, end_of
from tracker_store_async.moving.reports import Conflict, MoveReport, Silent
from tracker_store_async.rows import Read, StoredConversation
from tracker_store_async.saving_many import all_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tracker_store_async.moving.copying import Copied
    from tracker_store_async.moving.reports import Progress
    from tracker_store_async.store import TrackerStore

BATCH_CONVERSATIONS = 200
OF_ONE_CONVERSATION = (InvalidInputError, StoreDataError, ErasedKeyError)

TO_HAVE_IT = (
    ": it stays. To have that of the backup in its place, erase it with `tracker-store "
    "delete` and restore the backup again"
)


async def restore(
    path: Path,
    target: TrackerStore,
    *,
    page_events: int = PAGE_EVENTS,
    progress: Progress | None = None,
) -> MoveReport:
    """Bring the conversations of a backup into a store, exactly.

    The whole file is checked first: nothing is written if a byte of it is wrong. What
    the store has already is treated as `migrate` does: continued behind a prefix, left
    alone where it is whole, reported where it is something else. So it may be cut off
    at any moment and be called again. What has expired since is left out. Where the
    backup was made behind another one (`--since-last`) and has a conversation that was
    begun again, or rewritten, in between, what the other one had of it gives way, if
    that is just what the store has.

    Args:
        path: The file.
        target: Where to.
        page_events: Most events of a conversation that are held at once.
        progress: Is told how far it is.

    Raises:
        DamagedBackupError: The file is cut off, was changed, or is no backup.
        ConfigurationError: A newer version of this library wrote it.
        StoreUnavailableError: The storage cannot be reached; call it again.
    """
    started = time.perf_counter()
    progress = progress or Silent()
    manifest = await asyncio.to_thread(check_backup, path)
    progress.expect(manifest.conversations, manifest.events)
    await target._ensure_open()
    run = _Restore(target, page_events, progress)
    with reading(path) as file:
        await run.read(file, manifest)
    run.report.seconds = time.perf_counter() - started
    return run.report


class _Conversation(NamedTuple):
    """Which conversation a backup has, and what an earlier one has of it."""

    sender_id: str
    instead_of: str | None

    def is_behind(self, stored: StoredConversation) -> bool:
        """Tell whether what is stored is just what the earlier backup has."""
        return state_of(stored) == self.instead_of


class _Lines:
    """Lines of a file, with one of them looked at in advance."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._next = file.readline()

    def events(self, most: int) -> Iterator[bytes]:
        """Yield the lines of events that follow, at most so many."""
        for _ in range(most):
            if not self._next.startswith(b'{"position":'):
                return
            line, self._next = self._next, self._file.readline()
            yield line

    def other(self) -> bytes:
        """Return the next line that is no event."""
        while self._next.startswith(b'{"position":'):
            self._next = self._file.readline()
        line, self._next = self._next, self._file.readline()
        return line


class _Restore:
    """One run of `restore`."""

    def __init__(
        self, target: TrackerStore, page_events: int, progress: Progress
    ) -> None:
        self._target = target
        self._page_events = page_events
        self._progress = progress
        self._batch: list[tuple[_Conversation, StoredConversation]] = []
        self._batch_events = 0
        self.report = MoveReport()

    async def read(self, file: IO[bytes], manifest: Manifest) -> None:
        """Restore everything that was not called off."""
        lines = _Lines(file)
        lines.other()  # the head
        number = -1
        while True:
            value = json.loads(lines.other())
            if "end" in value:
                break
            if "abandoned" in value:
                continue
            number += 1
            if number in manifest.abandoned:
                continue
            sender_id, header = header_of(value)
            if header.expires_at is None or header.expires_at > self._target._now():
                which = _Conversation(sender_id, value.get("instead_of"))
                await self._restore(which, header, lines)
            else:
                self._note_looked_at(1)
        await self._flush()

    async def _restore(
        self, which: _Conversation, header: StoredConversation, lines: _Lines
    ) -> None:
        pages = self._pages(header, lines)
        if header.version - header.first_position > self._page_events:
            await self._copy(which, pages)
            self._note_looked_at(1)
            return
        async for page in pages:
            self._batch.append((which, page))
            self._batch_events += len(page.rows)
        is_full = self._batch_events >= BATCH_EVENTS
        if is_full or len(self._batch) >= BATCH_CONVERSATIONS:
            await self._flush()

    async def _pages(
        self, header: StoredConversation, lines: _Lines
    ) -> AsyncIterator[StoredConversation]:
        position = header.first_position
        while True:
            most = min(self._page_events, header.version - position)
            rows = [parse_event(line)[1] for line in lines.events(most)]
            page = StoredConversation(
                version=header.version,
                session_start=header.session_start,
                snapshot=header.snapshot,
                created_at=header.created_at,
                updated_at=header.updated_at,
                expires_at=header.expires_at,
                user_id=header.user_id,
                first_position=position,
                rows=rows,
            )
            yield page
            position = end_of(page)
            if position >= header.version:
                return
            await asyncio.sleep(0)

    async def _flush(self) -> None:
        """Append the short ones that are new, together; the others one by one."""
        batch, self._batch, self._batch_events = self._batch, [], 0
        if not batch:
            return
        target = self._target
        reads = [
            Read(which.sender_id, target._now(), start=0, last=0) for which, _ in batch
        ]
        stored = await target._read_many(reads)
        left = [each for each, found in zip(batch, stored, strict=True) if found]
        new = [each for each, found in zip(batch, stored, strict=True) if not found]
        try:
            left += await self._append(new)
        except OF_ONE_CONVERSATION:
            left = batch  # which one, is found out by restoring each alone
        for which, page in left:
            await self._copy(which, _one(page))
        self._note_looked_at(len(batch))

    async def _append(
        self, new: list[tuple[_Conversation, StoredConversation]]
    ) -> list[tuple[_Conversation, StoredConversation]]:
        """Append conversations that are not there; return those that are after all."""
        appends = []
        for (sender_id, _), page in new:
            derive = self._target._keeps_columns
            rows = new_rows(page, page.first_position, derive=derive)
            now = self._target._now()
            append = append_of(sender_id, page, rows, expected_version=0, now=now)
            self._target._check_size(sender_id, rows, append.snapshot or "")
            appends.append(append)
        answers = await self._target._append_many(appends) if appends else []
        accepted = all_of(answers)
        others = []
        for each, append, is_stored in zip(new, appends, accepted, strict=True):
            if is_stored:
                self.report.copied += 1
                self._count(len(append.rows))
            else:
                others.append(each)
        return others

    async def _copy(
        self, which: _Conversation, pages: AsyncIterator[StoredConversation]
    ) -> None:
        done: Copied | None = None
        try:
            done = await copy_conversation(
                self._target, which.sender_id, pages, gives_way=which.is_behind
            )
        except AnotherLogError as error:
            reason = f"{error.conflict.reason}{TO_HAVE_IT}"
            self.report.add_problem(replace(error.conflict, reason=reason))
        except ConflictError as error:
            self.report.add_problem(error.conflict)
        except OF_ONE_CONVERSATION as error:
            self.report.add_problem(Conflict(which.sender_id, None, str(error)))
        if done is None:
            return
        self.report.deleted += done.replaced
        if done.began:
            self.report.copied += 1
        elif done.events:
            self.report.continued += 1
        else:
            self.report.unchanged += 1
        self._count(done.events)

    def _count(self, events: int) -> None:
        self.report.events += events
        self._progress.advance(0, events)

    def _note_looked_at(self, conversations: int) -> None:
        self.report.conversations += conversations
        self._progress.advance(conversations, 0)


async def _one(page: StoredConversation) -> AsyncIterator[StoredConversation]:
    yield page
