"""`DialogueStateTracker`: the events of one conversation and the state they add up to.

It behaves as Rasa's class of this name, without the parts for policies, featurisation
and stories. Where it differs, on purpose:

- The state after many events is computed in one pass (`tracker_store_async.replay`).
- A tracker that holds only the last events has the right state, see `load_events`.
- A copy shares no user message with its original, so that neither changes the other.
- Without a domain, a reset forgets the slots; Rasa keeps them with the value None.
- `recreate_from_dialogue` gives the state of the tracker that the dialogue came from.
  Rasa applies what counts, which is not the same after a restart or within a loop.
- Sessions start where `tracker_store_async.sessions` says.
"""

from __future__ import annotations

import time
from collections import deque
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Self

from tracker_store_async.cursor import LogCursor
from tracker_store_async.dialogue import Dialogue
from tracker_store_async.errors import InvalidInputError
from tracker_store_async.events import Event, UserUttered, event_from_dict
from tracker_store_async.events.base import isolated
from tracker_store_async.history import ConversationHistory, EventVerbosity
from tracker_store_async.replay import replay
from tracker_store_async.sessions import split_sessions
from tracker_store_async.slots import AnySlotDict
from tracker_store_async.snapshot import copy_message
from tracker_store_async.state import TrackerActiveLoop

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tracker_store_async.domain import Domain
    from tracker_store_async.save_turn import SaveTurn
    from tracker_store_async.slots import Slot
    from tracker_store_async.unread_state import UnreadState

__all__ = [
    "AnySlotDict",
    "Dialogue",
    "DialogueStateTracker",
    "EventVerbosity",
    "TrackerActiveLoop",
    "TrackerEventDiffEngine",
    "get_trackers_for_conversation_sessions",
]


class DialogueStateTracker(ConversationHistory):
    """One conversation: its events and the state that they add up to.

    Args:
        sender_id: The conversation.
        slots: The slots that can be set, usually `domain.slots`; they are copied. None
            accepts every slot.
        max_event_history: Most events to hold, or None for all. The state still counts
            the ones that were dropped.
        sender_source: Where the conversation comes from, such as a file.

    Attributes:
        model_id: Added to the metadata of each new event that has none, or None.
        assistant_id: Likewise.
        user_id: The user that the conversation belongs to, or None.

    Raises:
        InvalidInputError: `max_event_history` is negative.
    """

    def __init__(
        self,
        sender_id: str,
        slots: Iterable[Slot] | None = None,
        max_event_history: int | None = None,
        sender_source: str | None = None,
    ) -> None:
        super().__init__(slots, max_event_history)
        self.sender_id = sender_id
        self.sender_source = sender_source
        self.model_id: str | None = None
        self.assistant_id: str | None = None
        self.user_id: str | None = None
        self._log = LogCursor()
        self._save_under_way: SaveTurn | None = None

    @classmethod
    def of_stored(
        cls,
        sender_id: str,
        events: deque[Event],
        unread: UnreadState,
        *,
        max_event_history: int | None,
    ) -> Self:
        """Return a tracker of stored events, whose state is read when it is touched.

        Args:
            sender_id: The conversation.
            events: All events since the state began, oldest first; it becomes `events`
                of the tracker, and sees to it that one of them is the latest message.
            unread: The state after them.
            max_event_history: Most events to hold, or None for all.
        """
        tracker = cls.__new__(cls)
        # Not by way of __init__: the attributes of the state have to be missing.
        tracker.__dict__ = {
            "_unread_state": unread,
            "_max_event_history": max_event_history,
            "events": events,
            "is_truncated": False,
            "state_needs_reload": False,
            "_earlier_input_channel": None,
            "_earlier_loop_names": frozenset(),
            "_known_state": None,
            "_dropped_since_known": 0,
            "sender_id": sender_id,
            "sender_source": None,
            "model_id": None,
            "assistant_id": None,
            "user_id": None,
            "_log": LogCursor(),
            "_save_under_way": None,
        }
        return tracker

    if not TYPE_CHECKING:  # who misspells an attribute is to be told so

        def __getattr__(self, name: str) -> Any:
            """Read the state, of which an attribute is asked for the first time."""
            if "_unread_state" not in self.__dict__:
                raise AttributeError(
                    f"{type(self).__name__!r} object has no attribute {name!r}",
                    name=name,
                    obj=self,
                )
            self._read_state()
            return getattr(self, name)

    def _read_state(self) -> None:
        """Have the state as attributes, if it is not read yet."""
        fields = self.__dict__
        unread = fields.get("_unread_state")
        if unread is not None:
            for name, value in unread.read().attributes.items():
                fields.setdefault(name, value)  # what was set meanwhile stays
            fields.pop("_unread_state", None)

    def __getstate__(self) -> dict[str, Any]:
        """Return what can be copied and pickled: not what a save waits for."""
        self._read_state()
        return {**self.__dict__, "_save_under_way": None}

    @classmethod
    def from_dict(
        cls,
        sender_id: str,
        events_as_dict: Iterable[Mapping[str, Any]],
        slots: Iterable[Slot] | None = None,
        max_event_history: int | None = None,
    ) -> Self:
        """Create a tracker from events as `as_dict` gives them; see `from_events`."""
        events = [event_from_dict(fields) for fields in events_as_dict]
        return cls.from_events(sender_id, events, slots, max_event_history)

    @classmethod
    def from_events(
        cls,
        sender_id: str,
        evts: Iterable[Event],
        slots: Iterable[Slot] | None = None,
        max_event_history: int | None = None,
        sender_source: str | None = None,
        domain: Domain | None = None,
    ) -> Self:
        """Create a tracker as if updated with each event; none of them counts as saved.

        Args:
            sender_id: The conversation.
            evts: The events, oldest first.
            slots: The slots that can be set.
            max_event_history: Most events to hold, or None for all.
            sender_source: Where the conversation comes from.
            domain: Gives the slots where `slots` is None.

        Raises:
            InvalidInputError: One of them is not an event.
        """
        if slots is None and domain is not None:
            slots = domain.slots
        tracker = cls(sender_id, slots, max_event_history, sender_source)
        tracker._extend(evts)
        return tracker

    # -- events ------------------------------------------------------------------------

    def update(self, event: Event, domain: Domain | None = None) -> None:
        """Add an event and change the state as it says.

        Args:
            event: The event; the tracker's model id and assistant id are added to its
                metadata where it has none.
            domain: Not used. Rasa's code passes it, and Rasa does not use it either.

        Raises:
            InvalidInputError: It is not an event.
        """
        _check_event(event)
        if self.model_id and "model_id" not in event.metadata:
            event.metadata = {**event.metadata, "model_id": self.model_id}
        if self.assistant_id and "assistant_id" not in event.metadata:
            event.metadata = {**event.metadata, "assistant_id": self.assistant_id}
        self._hold(event)
        self._log.record(event)
        event.apply_to(self)

    def update_with_events(
        self,
        new_events: Iterable[Event],
        domain: Domain | None = None,
        override_timestamp: bool = True,
    ) -> None:
        """Add several events.

        Args:
            new_events: The events, oldest first.
            domain: Not used, as in `update`.
            override_timestamp: Whether each event gets the current time.

        Raises:
            InvalidInputError: One of them is not an event.
        """
        for event in new_events:
            _check_event(event)
            if override_timestamp:
                event.timestamp = time.time()
            self.update(event, domain)

    def load_events(
        self,
        events: Iterable[Event],
        *,
        snapshot: Mapping[str, Any] | None = None,
        truncated: bool = False,
    ) -> None:
        """Take over events that are stored already: they do not count as unsaved.

        Args:
            events: The events, oldest first.
            snapshot: The state after them, from `state_snapshot`; the tracker keeps it.
                Without it, they are applied: the state is as if each had been given to
                `update`, also that of a window (`max_event_history`).
            truncated: Whether there are earlier events. Needs a snapshot.

        Raises:
            InvalidInputError: `truncated` without a snapshot.
        """
        loaded = list(events)
        if snapshot is not None:
            self._hold_many(loaded)
            self.is_truncated = self.is_truncated or truncated
            self.restore_state(snapshot)
            self._known_state, self._dropped_since_known = snapshot, 0
            if not self.is_truncated:
                self._earlier_input_channel = None
            return
        if truncated:
            raise InvalidInputError(
                "the state of a part of the events needs a snapshot"
            )
        if self.events or self.is_truncated:
            for event in loaded:
                self._hold(event)
                event.apply_to(self)
            return
        replay(self, loaded)
        self._note_loops(loaded)
        self._hold_many(loaded)

    def hold_stored(
        self, events: deque[Event], snapshot: Mapping[str, Any], *, truncated: bool
    ) -> None:
        """Take over a deque of stored events as it is, and the state after them.

        None of the events is looked at.

        Args:
            events: The events, oldest first; it becomes `events` of this tracker, and
                sees to it that one of them is the latest message.
            snapshot: The state after them, from `state_snapshot`; the tracker keeps it
                as its own.
            truncated: Whether there are earlier events.
        """
        self.events = events
        self.is_truncated = truncated
        # Only a tracker that has dropped events, or will, goes back to a known state.
        is_window = truncated or self._max_event_history is not None
        self._restore(snapshot, is_given_up=not is_window)
        self._known_state = snapshot if is_window else None
        self._dropped_since_known = 0
        if not truncated:
            self._earlier_input_channel = None

    def _extend(self, events: Iterable[Event]) -> None:
        """Take over events that are not stored yet."""
        added = list(events)
        for event in added:
            _check_event(event)
        self.load_events(added)
        for event in added:
            self._log.record(event)

    @property
    def version(self) -> int | None:
        """Number of events that are stored as far as known; None if never stored."""
        return self._log.version

    @property
    def unsaved_events(self) -> list[Event]:
        """The events that `save` will store, oldest first."""
        return [entry.event for entry in self._log.pending]

    # -- state -------------------------------------------------------------------------

    def current_state(
        self, event_verbosity: EventVerbosity = EventVerbosity.NONE
    ) -> dict[str, Any]:
        """Return the state under Rasa's keys.

        Args:
            event_verbosity: Which events `events` tells; None for `NONE`.
        """
        events = self._events_for_verbosity(event_verbosity)
        loop = self.active_loop
        return {
            "sender_id": self.sender_id,
            "slots": self.current_slot_values(),
            "latest_message": isolated(self._latest_message_data()),
            "latest_event_time": self.events[-1].timestamp if self.events else None,
            "followup_action": self.followup_action,
            "paused": self.is_paused(),
            "events": None if events is None else [each.as_dict() for each in events],
            "latest_input_channel": self.get_latest_input_channel(),
            "active_loop": {} if loop is None else loop.as_dict(),
            "latest_action": self.latest_action,
            "latest_action_name": self.latest_action_name,
        }

    # -- copies ------------------------------------------------------------------------

    def init_copy(self) -> Self:
        """Return a tracker of the same kind without events."""
        slots = None if isinstance(self.slots, AnySlotDict) else self.slots.values()
        return type(self)(
            self.sender_id, slots, self._max_event_history, self.sender_source
        )

    def copy(self) -> Self:
        """Return a duplicate with the same unsaved events and place in the log."""
        other = self.init_copy()
        other.model_id = self.model_id
        other.assistant_id = self.assistant_id
        other.user_id = self.user_id
        copies: dict[int, UserUttered] = {}
        for event in (*self.events, *self.unsaved_events, self.latest_message):
            if isinstance(event, UserUttered) and id(event) not in copies:
                copied = copy_message(event)
                copies[id(event)] = copies[id(event.parse_data)] = copied
        other.events.extend(copies.get(id(event), event) for event in self.events)
        other._copy_window(self)
        other.slots = self._copied_slots()
        other._assigned_slots = dict(self._assigned_slots)
        other._copy_state(self, copies)
        other._log = self._log.copy()
        for entry in other._log.pending:
            entry.event = copies.get(id(entry.event), entry.event)
        return other

    def travel_back_in_time(self, target_time: float) -> Self:
        """Return a tracker with the events up to a time; none of them counts as saved.

        Args:
            target_time: Seconds since the epoch. The first event after it ends the
                search, whatever follows.
        """
        tracker = self.init_copy()
        events = takewhile(lambda each: _is_by(each, target_time), self.events)
        tracker._extend(_own(events))
        tracker.is_truncated = tracker.is_truncated or self.is_truncated
        tracker.state_needs_reload = tracker.is_truncated
        return tracker

    def adopt(self, other: Self, *, max_event_history: int | None) -> None:
        """Become what another tracker of the same conversation is.

        The slots are still those of this tracker's domain, and it keeps its model id,
        assistant id and, if it was given one that is not stored, its user id.

        Args:
            other: The other tracker; do not use it any more.
            max_event_history: Most events to hold from now on, or None for all.
        """
        is_theirs = other._log.version and self.user_id == self._log.user_id
        if is_theirs or self.user_id is None:
            self.user_id = other.user_id
        self._log = other._log
        self._reset_slots()
        for name, value in other._assigned_slots.items():
            self._set_slot(name, value)
        self._copy_state(other, {})
        self._copy_window(other)
        self._max_event_history = max_event_history
        if other.events.maxlen == max_event_history:
            self.events = other.events  # as it is: not all of it may be decoded
            return
        self.events = deque(maxlen=max_event_history)
        self._hold_many(other.events)

    def as_dialogue(self) -> Dialogue:
        """Return the sender id and the events, enough to rebuild the tracker."""
        return Dialogue(self.sender_id, list(self.events))

    def recreate_from_dialogue(self, dialogue: Dialogue) -> None:
        """Take over the events of a dialogue; none of them counts as saved.

        Args:
            dialogue: What `as_dialogue` gave.

        Raises:
            InvalidInputError: It is not a `Dialogue`.
        """
        if not isinstance(dialogue, Dialogue):
            raise InvalidInputError(
                f"expected a Dialogue, not {type(dialogue).__name__}: read it with "
                "Dialogue.from_parameters first"
            )
        self._extend(_own(dialogue.events))

    def __eq__(self, other: object) -> bool:
        """Two trackers are equal if sender id and held events are (Rasa's rule)."""
        if not isinstance(other, DialogueStateTracker):
            return NotImplemented
        return self.sender_id == other.sender_id and self.events == other.events

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show the conversation and how much is held; the content may be private."""
        return f"<{type(self).__name__}({self.sender_id!r}, {len(self.events)} events)>"


class TrackerEventDiffEngine:
    """Rasa's way to find what a tracker has that an older one has not."""

    @staticmethod
    def event_difference(
        original: DialogueStateTracker | None, tracker: DialogueStateTracker
    ) -> list[Event]:
        """Return the events of `tracker` after as many as `original` holds.

        Args:
            original: The older tracker, or None.
            tracker: The newer one, which begins with the same events.
        """
        offset = 0 if original is None else len(original.events)
        return list(islice(tracker.events, offset, None))


def get_trackers_for_conversation_sessions(
    tracker: DialogueStateTracker,
) -> list[DialogueStateTracker]:
    """Return one tracker for each session that a tracker holds.

    Args:
        tracker: The tracker; it stays as it is.
    """
    parts = []
    for events in split_sessions(tracker.events):
        part = tracker.init_copy()
        part._extend(_own(events))
        parts.append(part)
    return parts


def _check_event(event: object) -> None:
    if not isinstance(event, Event):
        raise InvalidInputError(
            f"a tracker is updated with events, not with {type(event).__name__}"
        )


def _own(events: Iterable[Event]) -> Iterator[Event]:
    """Yield the events, messages as copies, for a tracker that may change them."""
    for event in events:
        yield copy_message(event) if isinstance(event, UserUttered) else event


def _is_by(event: Event, target_time: float) -> bool:
    """Whether an event happened by then; a row of others may have no usable time."""
    timestamp = event.timestamp
    return not isinstance(timestamp, int | float) or timestamp <= target_time
