"""Where a tracker stands in the stored log, and what it has that the log has not."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, cast

from tracker_store_async.applied import kind_of

try:
    from os import getrandom

    getrandom(1)
except (ImportError, OSError):  # another system than Linux, or a very old one
    from os import urandom as getrandom  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracker_store_async.events import Event, UserUttered
    from tracker_store_async.unread_state import UnreadState


@dataclass(slots=True, eq=False)
class PendingEvent:
    """An event that is not stored yet.

    Attributes:
        event: The event.
        event_id: Its id, given once, before it is first published.
        published_by: The publisher that has taken it over, or None.
    """

    event: Event
    event_id: str | None = None
    published_by: object | None = None

    def identify(self) -> str:
        """Return the id of the event: the one it carries, or a new random UUID."""
        if self.event_id is None:
            self.event_id = self.event.event_id or _random_ids(1)[0]
        return self.event_id

    def __getstate__(self) -> dict[str, Any]:
        """Return what can be pickled: a publisher cannot be, with its connections."""
        return {"event": self.event, "event_id": self.identify()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what was pickled; another process publishes it again."""
        self.event, self.event_id = state["event"], state["event_id"]
        self.published_by = None

    def __deepcopy__(self, memo: dict[int, Any]) -> PendingEvent:
        """Return a copy of the same id, published by the same publisher."""
        event = copy.deepcopy(self.event, memo)
        return PendingEvent(event, self.identify(), self.published_by)


class LogCursor:
    """The position of one tracker in the log of its conversation.

    Attributes:
        version: Number of events stored when the tracker was last in step with the
            storage, or None for a tracker built by hand.
        created_at: When the log that `version` counts began, if that is known: a log
            that was deleted and begun again is another one.
        session_start: Position where the latest stored session starts.
        base: Position from which the tracker's state is an exact replay.
        store: The store that `version` speaks of; another one has its own log. None
            where that is not known: it was made in another process.
        sender_id: The conversation that `version` speaks of, or None.
        by_hand: Whether the tracker was built by hand and nothing of it is stored yet.
        whole: Whether the tracker was loaded from the beginning of the log.
        ends_with_session_action: Whether the last stored event is an
            `action_session_start`, which a following `session_started` belongs to.
        has_reverts: Whether an event that reverts others was loaded or recorded.
        pending: The events to be stored, oldest first.
        unread: The state that tells the channel once it is asked for, or None.
        user_id: The user that is stored with the conversation, as far as it is known.
    """

    __slots__ = (
        "_input_channel",
        "base",
        "by_hand",
        "created_at",
        "ends_with_session_action",
        "has_reverts",
        "pending",
        "sender_id",
        "session_start",
        "store",
        "unread",
        "user_id",
        "version",
        "whole",
    )

    def __init__(self) -> None:
        self.version: int | None = None
        self.created_at: float | None = None
        self.store: object | None = None
        self.sender_id: str | None = None
        self.user_id: str | None = None
        self.by_hand = False
        self.session_start = 0
        self.base = 0
        self._input_channel: str | None = None
        self.unread: UnreadState | None = None
        self.whole = False
        self.ends_with_session_action = False
        self.has_reverts = False
        self.pending: list[PendingEvent] = []

    @property
    def input_channel(self) -> str | None:
        """The channel of the latest user message in the latest stored session."""
        if self.unread is not None:
            self.input_channel = self.unread.read().channel
        return self._input_channel

    @input_channel.setter
    def input_channel(self, channel: str | None) -> None:
        self._input_channel, self.unread = channel, None

    def record(self, event: Event) -> None:
        """Remember an event that `DialogueStateTracker.update` was given."""
        if event.type_name in _REVERTING_TYPES:
            self.has_reverts = True
        self.pending.append(PendingEvent(event))

    def confirm(
        self,
        entries: Sequence[PendingEvent],
        version: int,
        session_start: int,
        message: UserUttered | None = None,
    ) -> None:
        """Note that the first pending events are stored.

        Args:
            entries: The events that were stored together, in order.
            version: Number of events stored with them.
            session_start: Position where the latest session starts with them.
            message: The latest user message among them in that session, if it is known.
        """
        pending, stored = self.pending, len(entries)
        if pending[:stored] != entries:
            message = None
            both = zip(pending, entries, strict=False)
            stored = sum(1 for _ in takewhile(lambda pair: pair[0] is pair[1], both))
        if stored:
            self.input_channel = (
                self.channel_after(pending[:stored])
                if message is None
                else message.input_channel
            )
            last = pending[stored - 1].event
            self.ends_with_session_action = is_session_action(last)
            del pending[:stored]
        self.by_hand = False
        if self.version is None or version > self.version:
            self.version = version
            self.session_start = session_start

    def channel_after(self, entries: Sequence[PendingEvent]) -> str | None:
        """Return the channel of the latest user message in the latest session.

        Args:
            entries: Pending events that are taken for stored, the first ones.
        """
        for entry in reversed(entries):
            event = entry.event
            if kind_of(event) == "user":
                return cast("UserUttered", event).input_channel
            if event.type_name == SESSION_START:
                return None
        return self.input_channel

    def hold_as_new(self, events: Iterable[Event]) -> None:
        """Forget the place in the log: these events may all be new where we are now.

        Args:
            events: All events that the tracker holds; the last of them, those that are
                pending, keep their ids.
        """
        held = list(events)
        pending = self.pending
        known = held[: max(0, len(held) - len(pending))]
        self.pending = [PendingEvent(event) for event in known] + pending
        self.version = self.created_at = self.store = self.sender_id = None
        self.user_id = None

    def speaks_of(self, store: object, sender_id: str) -> bool:
        """Whether `version` is one of this conversation in this store.

        Args:
            store: The store.
            sender_id: The conversation.
        """
        is_here = self.store is None or self.store is store
        return is_here and self.sender_id in (None, sender_id)

    def __getstate__(self) -> dict[str, Any]:
        """Return what can be pickled: a store cannot be, with its connections."""
        self._input_channel = self.input_channel  # it is read by now
        return {name: getattr(self, name) for name in self.__slots__ if name != "store"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what was pickled."""
        self.store = self.user_id = None
        for name, value in state.items():
            setattr(self, name, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> LogCursor:
        """Return a copy that speaks of the same store, with events of its own."""
        other = type(self)()
        memo[id(self)] = other
        other.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        other.store = self.store
        return other

    def copy(self) -> LogCursor:
        """Return a cursor at the same place, with pending events of its own."""
        other = LogCursor()
        other.version = self.version
        other.created_at = self.created_at
        other.store = self.store
        other.sender_id = self.sender_id
        other.user_id = self.user_id
        other.by_hand = self.by_hand
        other.session_start = self.session_start
        other.base = self.base
        other.input_channel = self.input_channel
        other.whole = self.whole
        other.ends_with_session_action = self.ends_with_session_action
        other.has_reverts = self.has_reverts
        other.pending = [
            PendingEvent(entry.event, entry.identify(), entry.published_by)
            for entry in self.pending
        ]
        return other


_REVERTING_TYPES = frozenset({"rewind", "undo"})
SESSION_START = "session_started"


def identify_all(entries: Iterable[PendingEvent]) -> None:
    """Give each event its id that has none yet; see `PendingEvent.identify`."""
    fresh = []
    for entry in entries:
        if entry.event_id is None:
            event = entry.event
            # Most have no other fields, and so none that could be an id.
            entry.event_id = event.event_id if event.__pydantic_extra__ else None
            if entry.event_id is None:
                fresh.append(entry)
    for entry, event_id in zip(fresh, _random_ids(len(fresh)), strict=True):
        entry.event_id = event_id


def _random_ids(count: int) -> list[str]:
    """Return random UUIDs (RFC 9562, version 4) as `str(uuid.uuid4())` gives them.

    The random bits are asked for once for all of them, and no `UUID` is made: that
    takes a third of the time. `getrandom`, unlike `urandom`, keeps the interpreter to
    itself: where another thread works for SQLite it takes 40 us to get it back.
    """
    if not count:
        return []
    bits = getrandom(16 * min(16, count))  # more than 256 bytes may come in parts
    while len(bits) < 16 * count:
        bits += getrandom(min(256, 16 * count - len(bits)))
    digits = bits.hex()
    return [
        f"{digits[at : at + 8]}-{digits[at + 8 : at + 12]}-4{digits[at + 13 : at + 16]}"
        f"-{_VARIANTS[digits[at + 16]]}{digits[at + 17 : at + 20]}"
        f"-{digits[at + 20 : at + 32]}"
        for at in range(0, len(digits), 32)
    ]


_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def is_session_action(event: Event) -> bool:
    """Whether the event is the `action_session_start` action."""
    return event.type_name == "action" and event.stored_name == "action_session_start"


def is_session_start(event: Event) -> bool:
    """Whether a new session starts at this event, or at the action right before it."""
    return event.type_name == SESSION_START
