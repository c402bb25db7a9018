"""The backlog of an outage: whole conversations in another store, until they replay.

Each conversation that is written to while the primary is away is kept in the fallback
under its own name: first the events that it is known to begin with, then those of the
outage. What the fail-safe itself has to know, where the outage begins above all, stands
in the envelope around the state snapshot. So one atomic append keeps everything that a
new process needs, whatever store the fallback is.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import StoreDataError, StoreUnavailableError
from tracker_store_async.redaction import get_logger
from tracker_store_async.rows import Append, Listing, NewRow, Read, StoredConversation
from tracker_store_async.serialization import derived_row
from tracker_store_async.settling import settled
from tracker_store_async.wrappers.failsafe_memory import ROW_BYTES
from tracker_store_async.wrappers.failsafe_pieces import PIECE_BYTES, with_save

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracker_store_async.rows import StoredRow
    from tracker_store_async.store import TrackerStore

logger = get_logger(__name__)

CONVERSATION_BYTES = 2_000
"""About what a conversation costs besides its rows and its two snapshots."""

ENVELOPE_FORMAT = "fail-safe 1"
PAGE_SIZE = 500
ALWAYS = 0.0
"""The time of every read here: what waits in a backlog does not expire there."""


@dataclass(frozen=True, slots=True)
class FirstSave:
    """The first save of a conversation that began in the outage, to be replayed alone.

    So the primary stores when the conversation began, which tells it from others.
    """

    count: int
    session_start: int
    snapshot: str = field(repr=False)
    expires_at: float | None
    user_id: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one conversation of the backlog stands.

    Attributes:
        sender_id: The conversation.
        store: The fallback that holds it.
        base: Position of the first event that is held.
        confirmed: Number of events that the primary is known to have stored.
        version: Number of events with those of the outage.
        session_start: Position where the latest session starts.
        created_at: When the log began, in s since the epoch.
        expires_at: When it expires, or None.
        user_id: The user that a save of the outage named, or None.
        provisional: Whether nothing was known of it when it was first written to.
        first: Its first save, if it began in the outage.
        saves: How many events the saves of the outage have, and where the latest
            session starts after them; those that are replayed together are one. No save
            is torn apart when it is replayed.
        last_bytes: How many bytes the events of the last of these have.
        size_bytes: About how much the fallback holds of it.
    """

    sender_id: str
    store: TrackerStore = field(repr=False)
    base: int
    confirmed: int
    version: int
    session_start: int
    created_at: float
    expires_at: float | None
    user_id: str | None
    provisional: bool
    first: FirstSave | None
    saves: tuple[tuple[int, int], ...] = field(default=(), repr=False)
    last_bytes: int = 0
    size_bytes: int = 0

    @property
    def event_count(self) -> int:
        """Number of events to be replayed."""
        return self.version - self.confirmed

    def has_expired(self, now: float) -> bool:
        """Whether it has expired by a time in s since the epoch."""
        return self.expires_at is not None and self.expires_at <= now


class Backlog:
    """The conversations that wait for the primary.

    Args:
        max_bytes: About how much they may take in all, or None. What goes beyond that
            is refused: nothing that was acknowledged is ever dropped for it.

    Attributes:
        entries: Where each of them stands, the one that was begun first first.
        size_bytes: About how much they take.
        refused_saves: Number of saves that were refused because of `max_bytes`.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self.entries: dict[str, Entry] = {}
        self.size_bytes = 0
        self.refused_saves = 0
        self._max_bytes = max_bytes
        self._is_full = False
        self._queued: list[tuple[str, TrackerStore]] = []

    @property
    def event_count(self) -> int:
        """Number of events to be replayed."""
        return sum(entry.event_count for entry in self.entries.values())

    @property
    def provisional_count(self) -> int:
        """Number of conversations of which nothing was known."""
        return sum(entry.provisional for entry in self.entries.values())

    async def load(self, store: TrackerStore) -> None:
        """Take up what an earlier process, or an earlier use, has left in a fallback.

        Raises:
            StoreDataError: It holds conversations of somebody else.
        """
        after: str | None = None
        while True:
            page = await store._list(Listing(ALWAYS, PAGE_SIZE, after))
            for summary in page:
                await self._take_up(summary.sender_id, store)
            if len(page) < PAGE_SIZE:
                return
            after = page[-1].cursor

    async def _take_up(self, sender_id: str, store: TrackerStore) -> None:
        known = self.entries.get(sender_id)
        if known is not None and known.store is not store:
            # Two processes that died had both served it: one after the other.
            self._queued.append((sender_id, store))
            return
        entry = await self._entry_in(sender_id, store)
        if entry is not None:
            self._put(entry)

    def _put(self, entry: Entry) -> None:
        known = self.entries.get(entry.sender_id)
        self.size_bytes += entry.size_bytes - (known.size_bytes if known else 0)
        self.entries[entry.sender_id] = entry

    def clear(self) -> None:
        """Forget where they stand; the fallback keeps what it has."""
        self.entries.clear()
        self.size_bytes = 0

    async def _entry_in(self, sender_id: str, store: TrackerStore) -> Entry | None:
        held = await store._read(Read(sender_id, ALWAYS, last=0))
        if held is None:
            return None
        envelope = _open_envelope(sender_id, held.snapshot)
        first = envelope["first"]
        return Entry(
            sender_id=sender_id,
            store=store,
            base=envelope["base"],
            confirmed=envelope["confirmed"],
            version=envelope["base"] + held.version,
            session_start=envelope["session_start"],
            created_at=envelope["created_at"],
            expires_at=envelope["expires_at"],
            user_id=envelope["user_id"],
            provisional=envelope["provisional"],
            first=None if first is None else FirstSave(**first),
            saves=tuple((count, start) for count, start in envelope["saves"]),
            # Without it, nothing is put together with the last one.
            last_bytes=envelope.get("last_bytes", PIECE_BYTES),
            size_bytes=envelope.get("size_bytes", 0),
        )

    async def append(
        self, append: Append, seen: StoredConversation | None, store: TrackerStore
    ) -> bool:
        """Keep a save of the outage, whole or not at all, even if cancelled meanwhile.

        Args:
            append: The save.
            seen: What is known of the conversation, or None.
            store: Where a conversation is begun that has no entry yet.

        Returns:
            False if the conversation is known to be at another version.

        Raises:
            StoreUnavailableError: The fallback cannot be reached either.
        """
        return await settled(self._append(append, seen, store))

    async def _append(
        self, append: Append, seen: StoredConversation | None, store: TrackerStore
    ) -> bool:
        entry = self.entries.get(append.sender_id)
        if entry is not None and entry.has_expired(append.now):
            await self._remove(entry)
            entry, seen = self.entries.get(append.sender_id), None
        head: list[NewRow] = []
        held = before = 0
        if entry is None:
            if seen is not None and not _goes_on(append, seen):
                return False
            entry, head = _begin(append, seen, store)
        elif append.expected_version != entry.version or not _goes_on(append, entry):
            return False
        else:
            held, before = entry.version - entry.base, entry.size_bytes
        entry = _extended(entry, append, head)
        self._check_room(entry.size_bytes - before)
        request = Append(
            sender_id=append.sender_id,
            expected_version=held,
            rows=[*head, *append.rows],
            session_start=max(0, entry.session_start - entry.base),
            snapshot=_envelope(entry, append.snapshot or ""),
            now=append.now,
            user_id=append.user_id or (seen.user_id if seen else None),
        )
        if not await entry.store._append(request):
            return await self._recover_place(entry)
        self._put(entry)
        return True

    def _check_room(self, added_bytes: int) -> None:
        if self._max_bytes is None:
            return
        if self.size_bytes + added_bytes <= self._max_bytes:
            self._is_full = False
            return
        self.refused_saves += 1
        problem = (
            f"the fallback is full: {self.size_bytes} bytes of {len(self.entries)} "
            f"conversations wait for the primary, and max_backlog_bytes is "
            f"{self._max_bytes}"
        )
        if not self._is_full:
            self._is_full = True
            logger.critical("Saves are refused from now on, %s", problem)
        raise StoreUnavailableError(f"{problem}; nothing was stored")

    async def _recover_place(self, entry: Entry) -> bool:
        """Look up where the fallback stands: an append failed there, but landed."""
        found = await self._entry_in(entry.sender_id, entry.store)
        if found is not None:
            self._put(found)
        return False

    async def read(self, entry: Entry, read: Read) -> StoredConversation | None:
        """Answer a read of a conversation in the backlog."""
        if entry.has_expired(read.now):
            return None
        start = entry.session_start if read.start is None else read.start
        within = replace(read, now=ALWAYS, start=max(0, start - entry.base))
        held = await entry.store._read(within)
        if held is None:
            return None
        envelope = _open_envelope(entry.sender_id, held.snapshot)
        return replace(
            held,
            version=entry.base + held.version,
            session_start=entry.session_start,
            snapshot=envelope["snapshot"],
            created_at=entry.created_at,
            expires_at=entry.expires_at,
            first_position=entry.base + held.first_position,
        )

    async def remove(self, entry: Entry) -> None:
        """Forget a conversation that the primary has, even if cancelled meanwhile."""
        await settled(self._remove(entry))

    async def _remove(self, entry: Entry) -> None:
        await entry.store._delete(entry.sender_id, None, ALWAYS)
        self.size_bytes -= self.entries.pop(entry.sender_id).size_bytes
        for queued in self._queued:
            if queued[0] == entry.sender_id:
                self._queued.remove(queued)
                await self._take_up(*queued)
                return


def new_rows(rows: Iterable[StoredRow]) -> list[NewRow]:
    """Return stored rows as rows to be stored somewhere else, byte for byte."""
    return [derived_row(event_id, data) for event_id, data in rows]


def size_of(rows: Iterable[NewRow]) -> int:
    """Return about how many bytes rows take in memory."""
    return sum(ROW_BYTES + len(row.data) for row in rows)


def _goes_on(append: Append, known: StoredConversation | Entry) -> bool:
    """Whether an append goes on with the log that is known.

    A caller may know of more than we do: it read that before others pushed it out.
    """
    if append.expected_version == 0:
        return known.version == 0
    if append.created_at not in (None, known.created_at):
        return False
    return append.expected_version >= known.version


def _begin(
    append: Append, seen: StoredConversation | None, store: TrackerStore
) -> tuple[Entry, list[NewRow]]:
    """Return a new entry, before its first save, and the rows that it begins with."""
    version = append.expected_version
    head: list[NewRow] = []
    if seen is not None and seen.version == version and version:
        head = new_rows(seen.rows)
    first = None
    if not version:
        first = FirstSave(
            count=len(append.rows),
            session_start=append.session_start,
            snapshot=append.snapshot or "",
            expires_at=append.expires_at,
            user_id=append.user_id,
        )
    began = append.created_at
    if began is None:
        began = seen.created_at if seen is not None and version else append.now
    entry = Entry(
        sender_id=append.sender_id,
        store=store,
        base=version - len(head),
        confirmed=version,
        version=version,
        session_start=append.session_start,
        created_at=began,
        expires_at=None,
        user_id=None,
        provisional=seen is None and not version,
        first=first,
        size_bytes=CONVERSATION_BYTES + 2 * len(append.snapshot or ""),
    )
    return entry, head


def _extended(entry: Entry, append: Append, head: list[NewRow]) -> Entry:
    added_bytes = size_of(append.rows)
    saves, last_bytes = with_save(
        entry.saves,
        entry.last_bytes,
        (len(append.rows), append.session_start),
        added_bytes,
        alone=0 if entry.first is None else 1,
    )
    return replace(
        entry,
        version=append.new_version,
        session_start=append.session_start,
        expires_at=append.expires_at,
        user_id=append.user_id or entry.user_id,
        saves=saves,
        last_bytes=last_bytes,
        size_bytes=entry.size_bytes + size_of(head) + added_bytes,
    )


def _envelope(entry: Entry, snapshot: str) -> str:
    return json.dumps(
        {
            "format": ENVELOPE_FORMAT,
            "base": entry.base,
            "confirmed": entry.confirmed,
            "session_start": entry.session_start,
            "created_at": entry.created_at,
            "expires_at": entry.expires_at,
            "user_id": entry.user_id,
            "provisional": entry.provisional,
            "first": None if entry.first is None else asdict(entry.first),
            "saves": entry.saves,
            "last_bytes": entry.last_bytes,
            "size_bytes": entry.size_bytes,
            "snapshot": snapshot,
        }
    )


def _open_envelope(sender_id: str, text: str | bytes | None) -> dict[str, Any]:
    try:
        envelope = json.loads(text or "")
        if envelope["format"] == ENVELOPE_FORMAT:
            return dict(envelope)
    except (ValueError, TypeError, KeyError):
        pass
    raise StoreDataError(
        f"the fallback holds a conversation {sender_id!r} that no fail-safe wrote: "
        "give the fail-safe a fallback, or a journal, of its own"
    )
