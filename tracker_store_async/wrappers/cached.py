"""`CachedTrackerStore`: recent conversations stay here, and a read brings what is new.

Every read asks the storage, for the header and the events after those that are held. So
it is as fresh as without a cache, whoever else writes, and costs what has changed. What
is kept are the stored rows, which nobody can change: each caller decodes what it
touches, as without a cache.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.packed_rows import (
    PackedRows,
    packed,
    position_after,
    rest_after,
)
from tracker_store_async.wrappers.base import WrapperTrackerStore

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracker_store_async.rows import Health, Rewrite, StoredConversation
    from tracker_store_async.store import TrackerStore
    from tracker_store_async.tracker import DialogueStateTracker

DEFAULT_MAX_TRACKERS = 1_000
DEFAULT_MAX_BYTES = 64 * 2**20
MAX_ATTEMPTS = 8
"""Reads after which one that others keep overtaking goes past the cache."""


@dataclass(slots=True)
class _Entry:
    """The latest session of one conversation, or the last events of it, as rows.

    Attributes:
        created_at, version, session_start: The header of the log that it was read from.
        last: The bound that it was read with, or None.
        is_window: Whether the session has earlier events than those that are held.
        rows: The text of the events. A longer list takes its place, it never changes.
        size_bytes: Length of the rows.
    """

    created_at: float
    version: int
    session_start: int
    last: int | None
    is_window: bool
    rows: list[str | bytes]
    size_bytes: int = 0

    def rest_in(self, stored: StoredConversation) -> StoredConversation | None:
        """Return the rest of what is held, if what was read goes on with that."""
        if (
            stored.created_at == self.created_at
            and stored.version >= self.version
            and stored.session_start == self.session_start
            # A session that outgrows its bound becomes a window: another thing.
            and (self.is_window or self.last is None or self.fits(stored.version))
        ):
            return rest_after(self.rows, self.version, stored)
        return None

    def fits(self, version: int) -> bool:
        """Whether the session is within the bound at a version."""
        return self.last is None or version - self.session_start <= self.last

    def extend(self, stored: StoredConversation) -> int:
        """Take over what was appended since; return by how much the size changes."""
        self.version = stored.version
        if not stored.rows:
            return 0
        rows = [*self.rows, *packed(stored.rows)]
        gone = 0 if self.last is None else max(0, len(rows) - self.last)
        change = _size_of(rows[len(self.rows) :]) - _size_of(rows[:gone])
        self.rows = rows[gone:] if gone else rows
        return change

    def continued(self, stored: StoredConversation) -> StoredConversation:
        """Return what a read of everything would have, with the header of the rest."""
        rows = PackedRows(self.rows)
        return stored.with_rows(stored.version - len(rows), rows)


class CachedTrackerStore(WrapperTrackerStore):
    """Keeps the stored rows of the latest sessions of recent conversations.

    `retrieve` reads the header and what was appended since, in one round trip, and
    decodes nothing. `retrieve_full_tracker` is not cached. It belongs outside of
    other wrappers: what wraps a cache reads past it.

    The events of a conversation that another process deletes stay in this one's memory
    until it is asked for again or gives way to others.

    Args:
        store: The store to read from; it is owned, opened and closed.
        max_trackers: Most conversations to keep.
        max_bytes: Most bytes to keep, counted as the text of the events that is stored,
            which is what is kept. A conversation longer than this is not kept.

    Attributes:
        hits: Reads that brought only what was new, or nothing.
        misses: Reads that brought everything.

    Raises:
        ConfigurationError: `store` is no store, or one that cannot tell a log from the
            one before it (`AwaitableTrackerStore`); or a bound is not a positive int.
    """

    _carries_outbox = True

    def __init__(
        self,
        store: TrackerStore,
        *,
        max_trackers: int = DEFAULT_MAX_TRACKERS,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        super().__init__(store)
        if not self._tells_logs_apart:
            raise ConfigurationError(
                f"{type(store).__name__} cannot tell a conversation from a deleted one "
                "of the same name: what is cached of it could be out of date"
            )
        self.max_trackers = _check_bound("max_trackers", max_trackers)
        self.max_bytes = _check_bound("max_bytes", max_bytes)
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._size_bytes = 0

    @property
    def cached_count(self) -> int:
        """Number of conversations that are kept."""
        return len(self._entries)

    @property
    def cached_bytes(self) -> int:
        """Bytes that are kept, counted as `max_bytes` counts them."""
        return self._size_bytes

    # -- reading -----------------------------------------------------------------------

    async def _load(
        self, sender_id: str, *, start: int | None, last: int | None
    ) -> DialogueStateTracker | None:
        if start is None and last != 0:
            for _ in range(MAX_ATTEMPTS):
                entry = self._entries.get(sender_id)
                if entry is None or entry.last != last:
                    return await self._load_everything(sender_id, last)
                found = await self._load_the_rest(sender_id, entry)
                if found is not entry:
                    return found  # type: ignore[return-value]
        return await super()._load(sender_id, start=start, last=last)

    async def _load_the_rest(
        self, sender_id: str, entry: _Entry
    ) -> DialogueStateTracker | _Entry | None:
        """Return the tracker, None if there is none, or the entry to try again."""
        version = entry.version
        start = position_after(entry.rows, version)
        stored = await self._fetch(sender_id, start=start, last=None, ids=False)
        if entry.version != version:
            return None if stored is None else entry  # another read was faster
        rest = None if stored is None else entry.rest_in(stored)
        if rest is None:
            self._forget(sender_id, entry)
            return None if stored is None else entry
        if self._entries.get(sender_id) is not entry:
            return entry  # it had to go
        self.hits += 1
        self._keep(sender_id, entry, entry.extend(rest))
        tracker = await self._tracker_of(sender_id, entry.last, entry.continued(rest))
        if tracker is None:  # an older version of this library wrote the latest rows
            self._forget(sender_id, entry)
            return entry
        return tracker

    async def _load_everything(
        self, sender_id: str, last: int | None
    ) -> DialogueStateTracker | None:
        stored = await self._fetch(sender_id, start=None, last=last, ids=False)
        if stored is None:
            return None
        if last is None and stored.first_position > stored.session_start:
            # The store could not get hold of the rest, as in an outage.
            return await super()._load(sender_id, start=None, last=last)
        self.misses += 1
        rows = await self._loader.packed(stored.rows)
        entry = _entry_of(stored, rows, last)
        older = self._entries.get(sender_id)
        if older is not None:
            self._forget(sender_id, older)
        self._entries[sender_id] = entry
        self._keep(sender_id, entry, _size_of(rows))
        tracker = await self._tracker_of(sender_id, last, entry.continued(stored))
        if tracker is None:
            # Rasa wrote it: only a replay of the whole session gives the state.
            self._forget(sender_id, entry)
            return await super()._load(sender_id, start=None, last=last)
        return tracker

    async def _tracker_of(
        self, sender_id: str, last: int | None, stored: StoredConversation
    ) -> DialogueStateTracker | None:
        return await self._loader.build(sender_id, stored, start=None, last=last)

    # -- keeping -----------------------------------------------------------------------

    def _keep(self, sender_id: str, entry: _Entry, added_bytes: int) -> None:
        """Make it the most recent one, and let the others go that are too many."""
        entry.size_bytes += added_bytes
        self._size_bytes += added_bytes
        self._entries.move_to_end(sender_id)
        if entry.size_bytes > self.max_bytes:
            self._forget(sender_id, entry)
        while (
            len(self._entries) > self.max_trackers or self._size_bytes > self.max_bytes
        ):
            oldest = next(iter(self._entries))
            self._forget(oldest, self._entries[oldest])

    def _forget(self, sender_id: str, entry: _Entry) -> None:
        if self._entries.get(sender_id) is entry:
            del self._entries[sender_id]
            self._size_bytes -= entry.size_bytes

    def clear(self) -> None:
        """Forget everything that is kept."""
        self._entries.clear()
        self._size_bytes = 0

    # -- primitives --------------------------------------------------------------------

    async def _delete(
        self,
        sender_id: str,
        before: int | None,
        now: float,
        version: int | None = None,
    ) -> bool:
        try:
            return await super()._delete(sender_id, before, now, version)
        finally:
            entry = self._entries.get(sender_id)
            if entry is not None:
                self._forget(sender_id, entry)

    async def _rewrite(self, rewrite: Rewrite) -> bool:
        try:
            return await super()._rewrite(rewrite)
        finally:
            entry = self._entries.get(rewrite.sender_id)
            if entry is not None:
                self._forget(rewrite.sender_id, entry)

    async def _close(self) -> None:
        self.clear()
        await super()._close()

    async def _health(self) -> Health:
        health = await super()._health()
        cache = {
            "trackers": self.cached_count,
            "bytes": self.cached_bytes,
            "hits": self.hits,
            "misses": self.misses,
        }
        return replace(health, details={**health.details, "cache": cache})


def _entry_of(
    stored: StoredConversation, rows: list[str | bytes], last: int | None
) -> _Entry:
    is_window = last is not None and stored.first_position > stored.session_start
    return _Entry(
        created_at=stored.created_at,
        version=stored.version,
        session_start=stored.session_start,
        last=last,
        is_window=is_window,
        rows=rows,
    )


def _size_of(rows: Iterable[str | bytes]) -> int:
    return sum(map(len, rows))


def _check_bound(name: str, value: int) -> int:
    if type(value) is not int or value < 1:
        raise ConfigurationError(f"{name} must be a whole number of 1 or more")
    return value
