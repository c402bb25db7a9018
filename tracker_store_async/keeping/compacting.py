"""Cutting within the latest session, without losing what its state rests on.

The state after a log is what a replay gives, so events of the session cannot just go.
Most of them do not count any more, though: of all that set a slot, the last one does.
Those that still count move up to right before the events that are kept, and become the
beginning of the session; what is before them may go then. That the state is the same,
at the cut and at the end, is found out by replaying both: where it is not, as in a log
of somebody else's kinds of event, the session stays whole.

It takes three steps, and each leaves a log that reads as before: the events that count
are written in front of those that are kept, in place of others that were there; the
session is said to begin there; what is before is erased. The first step gives the log
another `created_at`, so that whoever loaded it before loads it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tracker_store_async.applied import kind_of, types_in
from tracker_store_async.errors import CorruptEventError
from tracker_store_async.rows import Append, Origin, Read, Rewrite
from tracker_store_async.serialization import (
    decode_rows,
    decode_snapshot,
    derived_row,
    encode_snapshot,
)
from tracker_store_async.tracker import DialogueStateTracker

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tracker_store_async.events import Event
    from tracker_store_async.rows import NewRow, StoredConversation, StoredRow
    from tracker_store_async.store import TrackerStore


@dataclass(frozen=True, slots=True)
class Compaction:
    """How the beginning of the latest session is replaced by what counts of it.

    Attributes:
        start: Position where the session begins afterwards; everything before goes.
        rewrite: Writes the events that count there; None if they are there already.
        mark: Says that the session begins there.
    """

    start: int
    rewrite: Rewrite | None = field(repr=False)
    mark: Append = field(repr=False)


def plan_compaction(
    sender_id: str, found: StoredConversation, position: int, now: float
) -> Compaction | None:
    """Return how to cut the latest session at a position, or None if it cannot be.

    Args:
        sender_id: The conversation.
        found: All of it.
        position: The first event that is kept, behind the start of the session.
        now: The store's time.
    """
    first = found.first_position
    begin = max(found.session_start, first)
    rows = [derived_row(*row) for row in found.rows]
    session = _Session(sender_id, begin, list(found.rows)[begin - first :])
    try:
        counting = session.counting(position - begin)
        start = position - len(counting)
        if start <= begin or not session.is_same(position - begin, counting):
            return None
        state = decode_snapshot(found.snapshot, found.version, found.session_start)
        state = session.state(range(len(session))) if state is None else state
    except CorruptEventError:
        return None  # only whoever decodes it can say what it does
    changed = set()
    for at, number in enumerate(counting, start):
        row = rows[at - first]
        moved = derived_row(row.event_id, found.rows[begin - first + number][1])
        if moved.data != row.data:
            changed.add(at)
            rows[at - first] = moved
    return _compaction(sender_id, found, rows, frozenset(changed), start, now, state)


def _compaction(
    sender_id: str,
    found: StoredConversation,
    rows: Sequence[NewRow],
    changed: frozenset[int],
    start: int,
    now: float,
    state: Mapping[str, Any],
) -> Compaction:
    version = found.version
    rewrite = Rewrite(
        sender_id=sender_id,
        expected_version=version,
        first_position=found.first_position,
        created_at=found.created_at,
        rows=rows,
        changed=changed,
        snapshot=encode_snapshot(state, version, found.session_start),
        user_id=found.user_id,
        now=now,
    )
    began = rewrite.new_created_at if changed else found.created_at
    mark = Append(
        sender_id=sender_id,
        expected_version=version,
        rows=[],
        session_start=start,
        snapshot=encode_snapshot(state, version, start),
        now=now,
        expires_at=found.expires_at,
        created_at=began,
        origin=Origin(began, found.updated_at, found.first_position),
    )
    return Compaction(start, rewrite if changed else None, mark)


async def compact(store: TrackerStore, plan: Compaction) -> bool:
    """Do what was planned; False if somebody has changed the log meanwhile.

    Cut off anywhere, the log reads as before, and may be planned and compacted anew.

    Args:
        store: The open store.
        plan: The plan.
    """
    if plan.rewrite is not None and not await store._rewrite(plan.rewrite):
        return False
    mark = plan.mark
    header = await store._read(Read(mark.sender_id, store._now(), last=0))
    if header is None or header.version != mark.expected_version:
        return False
    # A backend may keep a time in steps of its own.
    origin = Origin(header.created_at, header.updated_at, header.first_position)
    mark = replace(mark, created_at=header.created_at, origin=origin)
    if not await store._append(mark):
        return False
    return await store._delete(mark.sender_id, plan.start, store._now())


class _Session:
    """The rows of the latest session, decoded anew for each replay, which changes them.

    Args:
        sender_id: The conversation.
        begin: Position of the first row.
        rows: The rows.
    """

    def __init__(self, sender_id: str, begin: int, rows: Sequence[StoredRow]) -> None:
        self._sender_id = sender_id
        self._begin = begin
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def state(self, numbers: Iterable[int]) -> dict[str, Any]:
        """Return the state that some of the events give."""
        return self._tracker(self._events(numbers)).state_snapshot()

    def is_same(self, cut: int, counting: Sequence[int]) -> bool:
        """Whether what counts gives the state that everything gives, there and later.

        Also as long as what is before it is not erased yet.

        Args:
            cut: Number of the first event that is kept.
            counting: Numbers of those before that count.
        """
        if self.state(range(cut)) != self.state(counting):
            return False
        left = [*counting, *range(cut, len(self))]
        written = [*range(cut - len(counting)), *left]
        wanted = self.state(range(len(self)))
        return self.state(left) == wanted == self.state(written)

    def counting(self, cut: int) -> list[int]:
        """Return the numbers of the events that the state before a cut rests on."""
        events = self._events(range(cut))
        numbers = {id(event): number for number, event in enumerate(events)}
        tracker = self._tracker(events)
        found = _Latest(tracker._loop_names)
        resets = types_in(events, "restart", "session")
        for number, event in enumerate(events):
            if type(event) in resets:
                found.note_reset(event, number)
        for event in tracker.applied_events():
            found.note(event, numbers[id(event)])
        return sorted(set(found.numbers.values()))

    def _events(self, numbers: Iterable[int]) -> list[Event]:
        rows = [self._rows[number] for number in numbers]
        return decode_rows(self._sender_id, self._begin, rows)

    def _tracker(self, events: list[Event]) -> DialogueStateTracker:
        tracker = DialogueStateTracker(self._sender_id, None)
        tracker.load_events(events)
        return tracker


class _Latest:
    """The last event of each kind, of each slot and each loop; all that makes a state.

    Args:
        loops: Names of the loops: their actions count one by one.
    """

    def __init__(self, loops: set[str]) -> None:
        self._loops = loops
        self.numbers: dict[tuple[object, ...], int] = {}

    def note_reset(self, event: Event, number: int) -> None:
        """Note a restart, or the start of a session, which a later one follows."""
        self.numbers = {
            key: each for key, each in self.numbers.items() if key[0] == "session"
        }
        self.numbers[kind_of(event),] = number

    def note(self, event: Event, number: int) -> None:
        """Note the next event that counts."""
        kind, name = kind_of(event), event.type_name
        numbers = self.numbers
        if name == "slot":
            numbers["slot", getattr(event, "key", None)] = number
        elif name == "reset_slots":
            self._drop("slot")
            numbers[name,] = number
        elif kind == "user":
            self._drop("entities")
            self._drop("featurisation")
            numbers["user",] = number
        elif kind == "entities" or kind == "featurisation":
            numbers[kind, number] = number
        elif kind == "loop":
            self._note_loop(getattr(event, "name", None), number)
        elif kind == "action":
            action = getattr(event, "action_name", None)
            numbers["action",] = number
            if action in self._loops:
                numbers["action", action] = number
        else:
            numbers[name,] = number

    def _note_loop(self, name: str | None, number: int) -> None:
        self.numbers["loop", name] = self.numbers["loop",] = number
        if ("user",) in self.numbers:  # what has triggered it
            self.numbers["trigger",] = self.numbers["user",]

    def _drop(self, kind: str) -> None:
        for key in [key for key in self.numbers if key[0] == kind]:
            del self.numbers[key]
