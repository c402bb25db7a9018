"""`LastSeen`: what was last read and written, for when the primary cannot be asked."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from tracker_store_async.rows import StoredConversation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.rows import Append, Read, StoredRow

ROW_BYTES = 200
"""About what a row costs besides its text: two objects, a tuple and an id."""

ERASED_REMEMBERED = 1_000
"""Conversations whose latest erasure is known, for what is still under way."""

LARGEST_SHARE = 8
"""One conversation gets at most this part of the memory, its latest events."""


class LastSeen:
    """Remembers the latest session of the conversations that were used last.

    It costs no request: it looks at what is read and appended anyway. When the primary
    goes away these conversations go on where they were. What was not read since the
    process began, or was pushed out by others, is not known.

    Args:
        max_conversations: Most conversations to remember.
        max_bytes: About how much memory they may take.

    Attributes:
        size_bytes: About how much they take.
        erasures: Number of erasures so far; a read that began before one and ends
            after it is not remembered.
    """

    def __init__(self, max_conversations: int, max_bytes: int) -> None:
        self._max_conversations = max_conversations
        self._max_bytes = max_bytes
        self._seen: OrderedDict[str, StoredConversation] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self.size_bytes = 0
        self.erasures = 0
        self._erased: OrderedDict[str, int] = OrderedDict()
        self._erased_before = 0  # what is older may have been erased

    def __len__(self) -> int:
        """Return the number of conversations."""
        return len(self._seen)

    def find(self, sender_id: str, now: float) -> StoredConversation | None:
        """Return a conversation, or None if it is not known or has expired."""
        found = self._seen.get(sender_id)
        if found is None or (found.expires_at is not None and found.expires_at <= now):
            return None
        return found

    def read(self, read: Read) -> StoredConversation | None:
        """Answer a read as far as it is known."""
        found = self.find(read.sender_id, read.now)
        return None if found is None else part_of(found, read)

    def note_read(
        self, read: Read, found: StoredConversation | None, erasures: int
    ) -> None:
        """Remember what was read.

        Args:
            read: The request.
            found: The answer.
            erasures: What `erasures` was when it was asked.
        """
        if self._was_erased(read.sender_id, erasures):
            return
        if found is None:
            self._drop(read.sender_id)
            return
        old = self._seen.get(read.sender_id)
        if old is None or old.created_at != found.created_at:
            if found.rows or not found.version:
                self._keep(read.sender_id, replace(found, rows=list(found.rows)))
            return
        if found.version >= old.version and (
            found.rows or found.version == old.version
        ):
            self._keep(read.sender_id, _joined(read, old, found))

    def note_append(self, append: Append, erasures: int) -> None:
        """Remember what was stored.

        Args:
            append: The append.
            erasures: What `erasures` was when it was sent.
        """
        if self._was_erased(append.sender_id, erasures):
            return
        sender_id = append.sender_id
        new: list[StoredRow] = [(row.event_id, row.data) for row in append.rows]
        old = self.find(sender_id, append.now)
        if append.expected_version == 0:
            old = None
        if old is None or old.version != append.expected_version:
            began = append.now if append.expected_version == 0 else append.created_at
            if began is None:
                self._drop(sender_id)
                return
            old = StoredConversation(
                version=append.expected_version,
                session_start=append.session_start,
                snapshot=None,
                created_at=began,
                updated_at=append.now,
                first_position=append.expected_version,
            )
        kept = max(old.first_position, min(append.session_start, old.version))
        rows = old.rows
        if kept > old.first_position or not isinstance(rows, list):
            rows = list(rows[kept - old.first_position :])
        rows += new
        self._keep(
            sender_id,
            replace(
                old,
                version=append.new_version,
                session_start=append.session_start,
                snapshot=append.snapshot,
                updated_at=append.now,
                expires_at=append.expires_at,
                user_id=append.user_id or old.user_id,
                first_position=kept,
                rows=rows,
            ),
            added=new if rows is old.rows else None,
        )

    def put(self, sender_id: str, conversation: StoredConversation) -> None:
        """Remember a conversation in place of what is known of it."""
        self._keep(sender_id, conversation)

    def forget(self, sender_id: str) -> None:
        """Forget a conversation that is being erased, and what is being read of it."""
        self.erasures += 1
        self._erased[sender_id] = self.erasures
        self._erased.move_to_end(sender_id)
        if len(self._erased) > ERASED_REMEMBERED:
            self._erased_before = self._erased.popitem(last=False)[1]
        self._drop(sender_id)

    def _was_erased(self, sender_id: str, erasures: int) -> bool:
        """Whether it was since there were so many erasures."""
        return self._erased.get(sender_id, self._erased_before) > erasures

    def _drop(self, sender_id: str) -> None:
        if self._seen.pop(sender_id, None) is not None:
            self.size_bytes -= self._sizes.pop(sender_id)

    def _keep(
        self,
        sender_id: str,
        conversation: StoredConversation,
        added: Sequence[StoredRow] | None = None,
    ) -> None:
        size = (
            _size(conversation.rows)
            if added is None
            else self._sizes[sender_id] + _size(added)
        )
        largest = self._max_bytes // LARGEST_SHARE
        if size > largest:
            size -= _cut_to(conversation, size - largest)
        self._drop(sender_id)
        self._seen[sender_id] = conversation
        self._sizes[sender_id] = size
        self.size_bytes += size
        while self._seen and (
            len(self._seen) > self._max_conversations
            or self.size_bytes > self._max_bytes
        ):
            self._drop(next(iter(self._seen)))


def part_of(conversation: StoredConversation, read: Read) -> StoredConversation:
    """Return the part of a conversation that a read asks for, as far as it is held."""
    start = conversation.session_start if read.start is None else read.start
    version, held_from = conversation.version, conversation.first_position
    first = min(max(start, held_from), version)
    if read.last is not None:
        first = max(first, version - read.last)
    rows = conversation.rows[first - held_from :]
    if read.limit is not None:
        rows = rows[: read.limit]
    return replace(conversation, first_position=first, rows=rows)


def _joined(
    read: Read, old: StoredConversation, found: StoredConversation
) -> StoredConversation:
    """Return what was read now, on top of what is known of the same session."""
    if not found.rows:
        return replace(found, first_position=old.first_position, rows=old.rows)
    rows, first = list(found.rows), found.first_position
    is_whole = read.last is None and (read.start is None or read.start == 0)
    if not is_whole and old.version >= first:
        kept = max(old.first_position, found.session_start)
        if kept < first:
            begin, end = kept - old.first_position, first - old.first_position
            rows, first = [*old.rows[begin:end], *rows], kept
    return replace(found, first_position=first, rows=rows)


def _cut_to(conversation: StoredConversation, excess_bytes: int) -> int:
    """Drop the oldest rows; return how many bytes they had."""
    dropped = count = 0
    for row in conversation.rows:
        if dropped >= excess_bytes:
            break
        dropped += _size([row])
        count += 1
    conversation.rows = list(conversation.rows[count:])
    conversation.first_position += count
    return dropped


def _size(rows: Sequence[StoredRow]) -> int:
    return sum(len(data) for _, data in rows) + ROW_BYTES * len(rows)
