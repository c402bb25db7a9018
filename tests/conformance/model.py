"""A simple model of what a store keeps, to compare a store with: lists of events."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracker_store_async import DialogueStateTracker
from tracker_store_async.events import event_from_dict

if TYPE_CHECKING:
    from collections.abc import Iterable

LIFE_SECONDS = 100.0

_keys = itertools.count()


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of the model: its JSON object, and a key that no other entry has."""

    fields: dict[str, Any]
    key: int = field(default_factory=lambda: next(_keys))


@dataclass(slots=True)
class Log:
    """One conversation: its events from position `first` on.

    A log that was deleted, or has expired, is replaced by a new one.
    """

    first: int = 0
    entries: list[Entry] = field(default_factory=list)
    expires_at: float = 0.0
    number: int = field(default_factory=lambda: next(_keys))

    @property
    def version(self) -> int:
        """Number of events stored so far."""
        return self.first + len(self.entries)

    @property
    def session_start(self) -> int:
        """Position where the latest session starts, searched from the end."""
        for at in reversed(range(len(self.entries))):
            if self.entries[at].fields["event"] == "session_started":
                before = self.entries[at - 1].fields if at else {}
                is_start = before.get("name") == "action_session_start"
                return self.first + at - (1 if is_start else 0)
        return 0

    def since(self, position: int, end: int | None = None) -> list[Entry]:
        """Return the entries from a position on, up to another one."""
        stop = None if end is None else end - self.first
        return self.entries[max(0, position - self.first) : stop]


def replay(entries: Iterable[Entry]) -> DialogueStateTracker:
    """Return a tracker that was given the events one by one."""
    tracker = DialogueStateTracker("model")
    for entry in entries:
        tracker.update(event_from_dict(entry.fields))
    return tracker


@dataclass(slots=True)
class Handle:
    """A tracker somebody holds, and what the model knows of it.

    Attributes:
        name: The conversation.
        tracker: The tracker.
        version: Number of events that it takes for stored; None if built by hand.
        pending: What it has that was not confirmed to be stored.
        log_number: Which log its version counts.
    """

    name: str
    tracker: DialogueStateTracker
    version: int | None
    pending: list[Entry]
    log_number: int | None


def landed(log: Log, handle: Handle) -> tuple[int, int]:
    """Return where the first pending entries stand in the log already, and how many."""
    keys = [entry.key for entry in log.entries]
    own = [entry.key for entry in handle.pending]
    places = [keys.index(key) if key in keys else None for key in own]
    found = [place for place in places if place is not None]
    if not found or (places[0] is None and found[0] != 0):
        return 0, 0
    # the first ones may have been erased: then the log begins in the middle of them
    count = places.index(found[-1]) + 1
    return log.first + found[-1] + 1 - count, count


def known_by_content(log: Log, handle: Handle) -> tuple[int, bool]:
    """Return how much of a tracker built by hand is stored, and whether it diverged."""
    stored = [entry.fields["timestamp"] for entry in log.entries]
    own = [entry.fields["timestamp"] for entry in handle.pending]
    if not stored:
        return 0, False
    if own[0] not in stored and stored[0] not in own:
        return 0, True
    known = max(at + 1 for at, stamp in enumerate(own) if stamp in stored)
    is_at_end = own[known - 1] == stored[-1]
    return known, known < len(own) and not is_at_end


def expected_save(log: Log, handle: Handle) -> tuple[list[Entry], bool]:
    """Return what a save has to append, and whether it meets a conflict."""
    if handle.version is None:
        known, diverged = known_by_content(log, handle)
        return handle.pending[known:], diverged
    position, count = landed(log, handle)
    rest = handle.pending[count:]
    # Who knows of no event at all cannot tell one beginning from another.
    is_another = bool(handle.version) and log.number != handle.log_number
    if count and (is_another or position != handle.version):
        return rest, False  # found behind others' events: it is brought up to date
    return rest, bool(rest) and (is_another or log.version != handle.version + count)
