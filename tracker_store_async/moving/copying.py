"""How one conversation is copied: exactly, and only behind what is there already.

The log in the target is a prefix of the one in the source at every moment, and each
append is conditional on its length. So a copy may be cut off anywhere, and be run again
by anybody: it compares what is there, row by row, and goes on behind it. What is there
and is not the same is a conflict. It is reported and never overwritten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracker_store_async.moving.pages import (
    SessionScan,
    as_text,
    difference_of_headers,
    end_of,
    same_rows,
)
from tracker_store_async.moving.reports import Conflict
from tracker_store_async.rows import Append, NewRow, Origin, Read
from tracker_store_async.serialization import check_sender_id, derived_row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from tracker_store_async.rows import StoredConversation
    from tracker_store_async.store import TrackerStore


WRITTEN_MEANWHILE = "the target was written to by somebody else meanwhile"


class ConflictError(Exception):
    """What is in the target is not a prefix of what is to be copied there."""

    def __init__(self, conflict: Conflict) -> None:
        super().__init__(str(conflict))
        self.conflict = conflict


class AnotherLogError(ConflictError):
    """The target has another log of this id, which was begun at another time."""


def gives_way_never(_stored: StoredConversation) -> bool:
    """Say that no other log in the target may be erased."""
    return False


@dataclass(slots=True)
class Copied:
    """What was done with one conversation.

    Attributes:
        events: Events that were written.
        began: Whether the conversation did not exist in the target.
        replaced: Whether another log of this id was erased first.
        version: Version of the copy.
    """

    events: int = 0
    began: bool = False
    replaced: bool = False
    version: int = 0


async def copy_conversation(
    target: TrackerStore,
    sender_id: str,
    pages: AsyncIterator[StoredConversation],
    *,
    gives_way: Callable[[StoredConversation], bool] = gives_way_never,
) -> Copied | None:
    """Copy one conversation behind what the target has of it.

    Args:
        target: Where to.
        sender_id: The conversation.
        pages: What is to be copied, from the beginning, without a gap.
        gives_way: Whether a log of this id that was begun at another time, of which it
            is passed the header, is erased in the target first.

    Returns:
        What was done; None if there is nothing to be copied.

    Raises:
        ConflictError: The target holds something else under this id.
    """
    copy: _Copy | None = None
    async for page in pages:
        if copy is None:
            name = check_sender_id(sender_id)
            copy = await _begin(target, name, page, gives_way)
        await copy.add(page)
    if copy is None:
        return None
    await copy.end()
    return copy.done


def append_of(
    sender_id: str,
    page: StoredConversation,
    rows: list[NewRow],
    *,
    expected_version: int,
    now: float,
    scan: SessionScan | None = None,
) -> Append:
    """Return the append that adds rows of a page to the copy.

    Args:
        sender_id: The conversation.
        page: Header and rows of the source.
        rows: The rows to add, the last ones of the page.
        expected_version: Version of the copy before; 0 begins it.
        now: The target's clock.
        scan: Where sessions start, if the log goes on behind the page: what is stored
            then is a log of its own right, of which only the state is not known.
    """
    is_last = end_of(page) >= page.version
    snapshot = as_text(page.snapshot) if page.snapshot and is_last else None
    session_start = page.session_start
    if not is_last and scan is not None:
        session_start = scan.start
    return Append(
        sender_id=sender_id,
        expected_version=expected_version,
        rows=rows,
        session_start=session_start,
        snapshot=snapshot,
        now=now,
        expires_at=page.expires_at,
        user_id=page.user_id,
        created_at=page.created_at if expected_version else None,
        origin=Origin(page.created_at, page.updated_at, page.first_position),
    )


def new_rows(
    page: StoredConversation, from_position: int, *, derive: bool = True
) -> list[NewRow]:
    """Return the rows of a page from a position on, as they are appended.

    Args:
        page: The page.
        from_position: Position of the first row that is wanted.
        derive: Whether the target keeps the columns that are derived from an event.
    """
    rows: Sequence[Any] = page.rows[max(0, from_position - page.first_position) :]
    if rows and isinstance(rows[0], NewRow):
        return list(rows)
    if derive:
        return [derived_row(*row) for row in rows]
    return [NewRow(row[0], as_text(row[1]), "", None, None, None) for row in rows]


async def _header(store: TrackerStore, sender_id: str) -> StoredConversation | None:
    await store._ensure_open()
    return await store._read(Read(sender_id, store._now(), start=0, limit=1))


async def _begin(
    target: TrackerStore,
    sender_id: str,
    page: StoredConversation,
    gives_way: Callable[[StoredConversation], bool],
) -> _Copy:
    stored = await _header(target, sender_id)
    replaced = False
    if stored is not None and stored.created_at != page.created_at:
        if gives_way(stored):
            # Guarded by its version: what somebody adds to there meanwhile stays.
            now, version = target._now(), stored.version
            replaced = await target._delete(sender_id, None, now, version)
        if not replaced:
            reason = (
                "the target has another conversation of this id, begun at another time"
            )
            raise AnotherLogError(Conflict(sender_id, None, reason))
        stored = None
    if stored is not None and stored.first_position > page.first_position:
        reason = "its beginning was erased in the target"
        raise ConflictError(Conflict(sender_id, page.first_position, reason))
    if stored is not None and stored.version < page.first_position:
        # Of the same log, but its end was erased in the source since: it starts anew.
        check_is_no_newer(sender_id, page, stored)
        now, version = target._now(), stored.version
        if not await target._delete(sender_id, None, now, version):
            raise ConflictError(Conflict(sender_id, version, WRITTEN_MEANWHILE))
        stored = None
    return _Copy(target, sender_id, page, stored, replaced=replaced)


def check_is_no_newer(
    sender_id: str, page: StoredConversation, stored: StoredConversation
) -> None:
    """Refuse to undo what was saved in the target since, where no event tells it.

    Raises:
        ConflictError: The target was saved later than the source.
    """
    if stored.updated_at > page.updated_at:
        reason = "the target was saved later than what is to be copied there"
        raise ConflictError(Conflict(sender_id, None, reason))


class _Copy:
    """The copy of one conversation, under way.

    Args:
        target: Where to.
        sender_id: The conversation.
        page: The first page of the source.
        stored: Header of what the target has, and its first row.
        replaced: Whether something else was erased there.
    """

    def __init__(
        self,
        target: TrackerStore,
        sender_id: str,
        page: StoredConversation,
        stored: StoredConversation | None,
        *,
        replaced: bool = False,
    ) -> None:
        self._target = target
        self._sender_id = sender_id
        self._stored = stored
        self._version = 0 if stored is None else stored.version
        self._exists = stored is not None
        self._first = page.first_position
        self._scan = SessionScan(page.first_position)
        self._last = page
        self.done = Copied(began=stored is None, replaced=replaced)

    async def add(self, page: StoredConversation) -> None:
        """Compare what is there of a page, and append the rest.

        Raises:
            ConflictError: They differ.
        """
        self._last = page
        self._scan.add(page.first_position, page.rows)
        await self._compare(page)
        is_last = end_of(page) >= page.version
        if self._version > page.version:
            if not is_last:
                return  # the source may have grown by the next page
            raise self._conflict(page.version, "the target has more events")
        rows = new_rows(
            page,
            self._version if self._exists else page.first_position,
            derive=self._target._keeps_columns,
        )
        if rows or not self._exists:
            await self._append(page, rows)

    async def _compare(self, page: StoredConversation) -> None:
        stored = self._stored
        if stored is None or page.first_position >= stored.version:
            return
        count = min(end_of(page), stored.version) - page.first_position
        if count <= 0:
            return
        read = Read(
            self._sender_id,
            self._target._now(),
            start=page.first_position,
            limit=count,
        )
        found = await self._target._read(read)
        theirs = () if found is None else found.rows
        number = same_rows(page.rows[:count], theirs)
        if number is not None:
            position = page.first_position + number
            raise self._conflict(position, "the target has another event there")

    async def _append(self, page: StoredConversation, rows: list[NewRow]) -> None:
        append = append_of(
            self._sender_id,
            page,
            rows,
            expected_version=self._version if self._exists else 0,
            now=self._target._now(),
            scan=self._scan,
        )
        self._target._check_size(self._sender_id, rows, append.snapshot or "")
        if await self._target._append(append):
            self._note(append.new_version, len(rows))
        else:
            await self._look_again(page, append)

    def _note(self, version: int, events: int) -> None:
        self._exists = True
        self._version = version
        self.done.events += events
        self.done.version = version

    async def _look_again(self, page: StoredConversation, append: Append) -> None:
        """Find out what an append was refused for.

        It had landed where it was repeated after its answer was lost, and another copy
        of the same log may have been faster: then the target has what was to be
        appended, or a beginning of it, and this goes on behind that.

        Raises:
            ConflictError: The target has something else.
        """
        at, rows = append.position, append.rows
        limit = max(1, len(rows))
        read = Read(self._sender_id, self._target._now(), start=at, limit=limit)
        found = await self._target._read(read)
        reason = WRITTEN_MEANWHILE
        if found is None or found.created_at != page.created_at:
            raise self._conflict(at, reason)
        theirs = found.rows[: len(rows)]
        number = same_rows([row[:2] for row in rows[: len(theirs)]], theirs)
        if found.first_position != at or number is not None:
            raise self._conflict(at + (number or 0), reason)
        if not theirs and (rows or difference_of_headers(page, found)):
            raise self._conflict(at, reason)
        is_last = end_of(page) >= page.version
        if is_last and found.version > page.version:
            raise self._conflict(page.version, "the target has more events")
        self._note(at + len(theirs), len(theirs))
        if len(theirs) < len(rows):
            await self._append(page, list(rows[len(theirs) :]))
        elif is_last and difference_of_headers(page, found):
            check_is_no_newer(self._sender_id, page, found)
            await self._append(page, [])

    async def end(self) -> None:
        """Bring the header up to date, and cut off what the source has erased.

        Raises:
            ConflictError: The target was written to meanwhile.
        """
        last, stored = self._last, self._stored
        self.done.version = self._version
        if stored is None:
            return
        if not self.done.events and difference_of_headers(last, stored):
            check_is_no_newer(self._sender_id, last, stored)
            await self._append(last, [])
        if stored.first_position < self._first:
            now = self._target._now()
            await self._target._delete(self._sender_id, self._first, now)

    def _conflict(self, position: int, reason: str) -> ConflictError:
        return ConflictError(Conflict(self._sender_id, position, reason))
