"""`CachedTrackerStore`: recent trackers stay decoded, and a read brings what is new.

Every read asks the storage, for the header and the events after those that are held. So
it is as fresh as without a cache, whoever else writes, and costs what has changed. What
is kept is never handed out: a caller gets copies, made when an event is touched.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.events.json_values import isolated
from tracker_store_async.isolated_events import IsolatedEvents
from tracker_store_async.serialization import decode_snapshot
from tracker_store_async.tracker import DialogueStateTracker
from tracker_store_async.wrappers.base import WrapperTrackerStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tracker_store_async.events import Event
    from tracker_store_async.rows import Health, Rewrite, StoredConversation, StoredRow
    from tracker_store_async.store import TrackerStore

DEFAULT_MAX_TRACKERS = 1_000
DEFAULT_MAX_BYTES = 64 * 2**20
MAX_ATTEMPTS = 8
"""Reads after which one that others keep overtaking goes past the cache."""


@dataclass(slots=True)
class _Entry:
    """The latest session of one conversation, or the last events of it, decoded.

    Attributes:
        created_at, version, session_start: The header of the log that it was read from.
        last: The bound that it was read with, or None.
        is_window: Whether the session has earlier events than those that are held.
        events: The events. Those of a window are as they were stored; those of a whole
            session are as the events after them have left them.
        replay: Brings the events of a whole session up to date.
        size_bytes: Length of the events' stored text.
    """

    created_at: float
    version: int
    session_start: int
    last: int | None
    is_window: bool
    events: deque[Event]
    replay: DialogueStateTracker | None
    size_bytes: int

    def is_continued_by(self, stored: StoredConversation) -> bool:
        """Whether a read from our version on is the rest of what is held."""
        return (
            stored.created_at == self.created_at
            and stored.version >= self.version
            and stored.session_start == self.session_start
            and stored.first_position == self.version
            # A session that outgrows its bound becomes a window: another thing.
            and (self.is_window or self.last is None or self.fits(stored.version))
        )

    def fits(self, version: int) -> bool:
        """Whether the session is within the bound at a version."""
        return self.last is None or version - self.session_start <= self.last

    def extend(self, stored: StoredConversation, added: Sequence[Event]) -> None:
        """Take over what was appended since."""
        if self.replay is None:
            self.events.extend(added)
        else:
            self.replay.load_events(added)
        self.version = stored.version

    def state(self, stored: StoredConversation) -> dict[str, Any] | None:
        """Return the state for somebody else to keep; None if it is not known."""
        if self.replay is not None:
            return dict(isolated(self.replay.state_snapshot()))
        return decode_snapshot(stored.snapshot, stored.version, stored.session_start)


class CachedTrackerStore(WrapperTrackerStore):
    """Keeps the latest sessions of recent conversations decoded.

    `retrieve` reads the header and what was appended since, in one round trip, and
    decodes only that. `retrieve_full_tracker` is not cached. It belongs outside of
    other wrappers: what wraps a cache reads past it.

    The events of a conversation that another process deletes stay in this one's memory
    until it is asked for again or gives way to others.

    Args:
        store: The store to read from; it is owned, opened and closed.
        max_trackers: Most conversations to keep.
        max_bytes: Most bytes to keep, counted as the text of the events that is stored;
            decoded they take several times as much. One longer than this is not kept.

    Attributes:
        hits: Reads that decoded only what was new, or nothing.
        misses: Reads that decoded everything.

    Raises:
        ConfigurationError: `store` is no store, or one that cannot tell a log from the
            one before it (`AwaitableTrackerStore`); or a bound is not a positive int.
    """

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
        stored = await self._fetch(sender_id, start=version, last=None)
        if stored is None or not entry.is_continued_by(stored):
            if entry.version == version:
                self._forget(sender_id, entry)
            return None if stored is None else entry
        added = await self._loader.decode(sender_id, stored)
        async with self._loop_turns:
            if self._entries.get(sender_id) is not entry or entry.version != version:
                return entry  # another read of it was faster, or it had to go
            entry.extend(stored, added)
            state = entry.state(stored)
            if state is None:  # an older version of this library wrote the latest rows
                self._forget(sender_id, entry)
                return entry
            self.hits += 1
            self._keep(sender_id, entry, _size_of(stored.rows))
            return self._tracker_of(sender_id, entry, stored, state)

    async def _load_everything(
        self, sender_id: str, last: int | None
    ) -> DialogueStateTracker | None:
        stored = await self._fetch(sender_id, start=None, last=last)
        if stored is None:
            return None
        if last is None and stored.first_position > stored.session_start:
            # The store could not get hold of the rest, as in an outage.
            return await super()._load(sender_id, start=None, last=last)
        events = await self._loader.decode(sender_id, stored)
        self.misses += 1
        async with self._loop_turns:
            entry = _entry_of(sender_id, stored, events, last)
            state = entry.state(stored)
            if state is not None:
                older = self._entries.get(sender_id)
                if older is not None:
                    self._forget(sender_id, older)
                self._entries[sender_id] = entry
                self._keep(sender_id, entry, _size_of(stored.rows))
                return self._tracker_of(sender_id, entry, stored, state)
        # Rasa wrote it: only a replay of the whole session gives the state.
        return await super()._load(sender_id, start=None, last=last)

    def _tracker_of(
        self,
        sender_id: str,
        entry: _Entry,
        stored: StoredConversation,
        state: Mapping[str, Any],
    ) -> DialogueStateTracker:
        """Return a tracker that shares nothing that can change."""
        tracker = self._new_tracker(sender_id, max_event_history=entry.last)
        tracker.user_id = stored.user_id
        events = IsolatedEvents(entry.events, entry.last)
        tracker.hold_stored(events, state, truncated=entry.is_window)
        tracker.keep_assigned_slots()
        self._loader.place(tracker, stored, events, whole=False)
        return tracker

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
    sender_id: str, stored: StoredConversation, events: list[Event], last: int | None
) -> _Entry:
    is_window = last is not None and stored.first_position > stored.session_start
    replay = None
    if is_window:
        held = deque(events, last)
    else:
        replay = DialogueStateTracker(sender_id, None)
        replay.load_events(events)
        held = replay.events
    return _Entry(
        created_at=stored.created_at,
        version=stored.version,
        session_start=stored.session_start,
        last=last,
        is_window=is_window,
        events=held,
        replay=replay,
        size_bytes=0,
    )


def _size_of(rows: Iterable[StoredRow]) -> int:
    size_bytes = 0
    for _, data in rows:
        if isinstance(data, str) and not data.isascii():
            data = data.encode()
        size_bytes += len(data)
    return size_bytes


def _check_bound(name: str, value: int) -> int:
    if type(value) is not int or value < 1:
        raise ConfigurationError(f"{name} must be a whole number of 1 or more")
    return value
