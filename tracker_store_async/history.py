"""The events that a tracker holds: all of a conversation, or a window of the last."""

from __future__ import annotations

from collections import deque
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tracker_store_async.applied import (
    applied_events,
    kind_of,
    loop_names_in,
    types_in,
)
from tracker_store_async.errors import InvalidInputError
from tracker_store_async.events import ActionExecuted, Event, UserUttered
from tracker_store_async.events.base import isolated
from tracker_store_async.snapshot import restore_snapshot, take_snapshot
from tracker_store_async.state import ACTION_LISTEN, ConversationState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tracker_store_async.encoded_events import EncodedEvents
    from tracker_store_async.slots import Slot

AnyEvent = TypeVar("AnyEvent", bound=Event)


class EventVerbosity(Enum):
    """Which events `DialogueStateTracker.current_state` tells.

    `NONE` tells none, `APPLIED` those that nothing later has taken back,
    `AFTER_RESTART` those after the latest restart, `ALL` every one that is held.
    """

    NONE = 1
    APPLIED = 2
    AFTER_RESTART = 3
    ALL = 4


class ConversationHistory(ConversationState):
    """Events, and the state that they add up to.

    Args:
        slots: The slots that can be set; they are copied. None accepts every slot.
        max_event_history: Most events to hold, or None for all. The state still counts
            the ones that were dropped.

    Attributes:
        events: The events that are held, oldest first.
        is_truncated: Whether there are earlier events that are not held.
        state_needs_reload: Whether an event reverted others while earlier events were
            not held: then the state is a best guess until the next save, which reads
            the session again. A restart or a new session makes it exact as well.

    Raises:
        InvalidInputError: `max_event_history` is negative.
    """

    def __init__(
        self, slots: Iterable[Slot] | None, max_event_history: int | None
    ) -> None:
        if max_event_history is not None and max_event_history < 0:
            raise InvalidInputError(
                f"max_event_history must be 0 or more, not {max_event_history}"
            )
        self._max_event_history = max_event_history
        self.events: deque[Event] = deque(maxlen=max_event_history)
        self.is_truncated = False
        self.state_needs_reload = False
        # What is known of the events that are not held: the channel of the latest user
        # message among them, and the state after all of them and some that are held.
        self._earlier_input_channel: str | None = None
        # Loops of earlier sessions, and those whose events are not held any more.
        self._earlier_loop_names: frozenset[str] = frozenset()
        self._known_state: Mapping[str, Any] | None = None
        self._dropped_since_known = 0
        super().__init__(slots)

    @property
    def max_event_history(self) -> int | None:
        """Most events that are held, or None for all."""
        return self._max_event_history

    def _hold_many(self, events: Sequence[Event]) -> None:
        """Hold events that the state accounts for, or will in a moment."""
        limit = self._max_event_history
        excess = 0 if limit is None else len(self.events) + len(events) - limit
        if excess > 0:
            for event in [*self.events, *events][:excess]:
                self._note_dropped(event)
            self.remember_state()
            self.is_truncated = True
        self.events.extend(events)

    def _hold(self, event: Event) -> None:
        limit = self._max_event_history
        if limit is not None and len(self.events) >= limit:
            self._drop(self.events[0] if limit else event, limit)
        self.events.append(event)

    def _drop(self, event: Event, limit: int) -> None:
        """Note what is known of an event that is about to leave the window.

        The known state is refreshed before an event leaves that it does not account
        for, so that nothing which was set is forgotten when others are reverted.
        """
        if self._known_state is None or self._dropped_since_known >= limit:
            self.remember_state()
        self._dropped_since_known += 1
        self.is_truncated = True
        self._note_dropped(event)

    def remember_state(self) -> None:
        """Keep the state as it is now, for the time when events have been dropped."""
        self._known_state = isolated(self.state_snapshot())
        self._dropped_since_known = 0

    def _note_dropped(self, dropped: Event) -> None:
        kind = kind_of(dropped)
        if kind == "user":
            self._earlier_input_channel = cast("UserUttered", dropped).input_channel
        elif kind == "loop":  # a state that was loaded does not tell earlier sessions'
            self._earlier_loop_names |= loop_names_in((dropped,))

    def get_latest_input_channel(self) -> str | None:
        """Return the channel that the latest user message came through, or None."""
        latest_channel = getattr(self.events, "latest_channel", None)
        if latest_channel is not None:  # not all of them may be decoded
            return latest_channel(self._earlier_input_channel)  # type: ignore[no-any-return]
        for event in reversed(self.events):
            if kind_of(event) == "user":
                return cast("UserUttered", event).input_channel
        return self._earlier_input_channel

    def idx_after_latest_restart(self) -> int:
        """Return the place after the latest restart in `events`, or 0."""
        for index, event in enumerate(reversed(self.events)):
            if kind_of(event) == "restart":
                return len(self.events) - index
        return 0

    def events_after_latest_restart(self) -> list[Event]:
        """Return the events after the latest restart, or all of them."""
        return list(islice(self.events, self.idx_after_latest_restart(), None))

    def applied_events(self) -> list[Event]:
        """Return the events that nothing later has taken back."""
        loop_names = loop_names_in(self.events)
        if self.is_truncated:
            loop_names |= self._loop_names | self._earlier_loop_names
        return applied_events(self.events, loop_names)

    def get_last_event_for(
        self,
        event_type: type[AnyEvent] | tuple[type[AnyEvent], ...],
        action_names_to_exclude: Sequence[str] | None = None,
        skip: int = 0,
        event_verbosity: EventVerbosity = EventVerbosity.APPLIED,
    ) -> AnyEvent | None:
        """Return the latest event of a type, or None.

        Args:
            event_type: The type, or several.
            action_names_to_exclude: Actions that do not count, such as `action_listen`.
            skip: How many matching events to pass over.
            event_verbosity: Which events to search.
        """
        excluded = action_names_to_exclude or ()
        for event in reversed(self._events_for_verbosity(event_verbosity) or ()):
            if not isinstance(event, event_type):
                continue
            if isinstance(event, ActionExecuted) and event.action_name in excluded:
                continue
            if skip <= 0:
                return event
            skip -= 1
        return None

    def last_executed_action_has(self, name: str, skip: int = 0) -> bool:
        """Whether the latest action other than `action_listen` has this name.

        Args:
            name: The name.
            skip: How many actions to pass over.
        """
        last = self.get_last_event_for(ActionExecuted, [ACTION_LISTEN], skip=skip)
        return last is not None and last.action_name == name

    def _events_for_verbosity(self, verbosity: EventVerbosity) -> list[Event] | None:
        if verbosity is EventVerbosity.ALL:
            return list(self.events)
        if verbosity is EventVerbosity.AFTER_RESTART:
            return self.events_after_latest_restart()
        if verbosity is EventVerbosity.APPLIED:
            return self.applied_events()
        return None

    # -- state -------------------------------------------------------------------------

    def _reset(self) -> None:
        super()._reset()
        self.state_needs_reload = False

    def _begin_session(self) -> None:
        if self._loop_names:
            self._earlier_loop_names |= self._loop_names
        super()._begin_session()

    def _note_loops(self, events: Sequence[Event]) -> None:
        """Note the loops of a whole history, of which a part was not applied."""
        if not types_in(events, "loop"):
            return
        starts = types_in(events, "session")
        places = (place for place, each in enumerate(events) if type(each) in starts)
        start = max(places, default=0) if starts else 0
        self._loop_names |= loop_names_in(events[start:])
        self._earlier_loop_names |= loop_names_in(events[:start])

    @property
    def has_earlier_loops(self) -> bool:
        """Whether loops count that no event which is held has activated."""
        return bool(self._earlier_loop_names)

    def replay_events(self) -> None:
        """Apply again what counts; the events that revert others do this.

        On a truncated tracker it starts from what was known of the earlier events.
        """
        if self.is_truncated and not types_in(self.events, "restart", "session"):
            if self._known_state is not None:
                restore_snapshot(self, isolated(self._known_state), is_given_up=True)
            self.state_needs_reload = True
        for event in self.applied_events():
            event.apply_to(self)

    def state_snapshot(self, texts: EncodedEvents | None = None) -> dict[str, Any]:
        """Return the state without the events, as data that JSON can hold.

        `tracker_store_async.snapshot` says what is in it. It shares values with the
        tracker: encode or copy it before the tracker changes again.

        Args:
            texts: Events that are encoded already; what stands for them is put in
                their place.
        """
        state = take_snapshot(self, texts)
        state["latest_input_channel"] = self.get_latest_input_channel()
        return state

    def restore_state(self, snapshot: Mapping[str, Any]) -> None:
        """Take over the state of another tracker; the events stay as they are.

        Afterwards `current_state()` is that of the other one, except for the time of
        the latest event, and further events change it in the same way.

        Args:
            snapshot: The other tracker's `state_snapshot`; the tracker keeps it.
        """
        self._restore(snapshot)
        message = self.latest_message
        for event in reversed(self.events):
            if (
                isinstance(event, UserUttered)
                and message is not None
                and event.timestamp == message.timestamp
                and event.text == message.text
                and event.message_id == message.message_id
            ):
                # The event that is held is the message: it has to change with it.
                event.parse_data = message.parse_data
                event.entities = message.entities
                decided = message.use_text_for_featurization
                event.use_text_for_featurization = decided
                self.latest_message = event
                break

    def _restore(
        self, snapshot: Mapping[str, Any], *, is_given_up: bool = False
    ) -> None:
        restore_snapshot(self, snapshot, is_given_up=is_given_up)
        self.state_needs_reload = False
        self._earlier_input_channel = snapshot["latest_input_channel"]

    def _copy_window(self, other: ConversationHistory) -> None:
        """Know of earlier events what another one knows."""
        self.is_truncated = other.is_truncated
        self.state_needs_reload = other.state_needs_reload
        self._earlier_input_channel = other._earlier_input_channel
        self._earlier_loop_names = other._earlier_loop_names
        self._known_state = other._known_state
        self._dropped_since_known = other._dropped_since_known
