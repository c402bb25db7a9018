"""Events that stay the text they are stored as until somebody looks at them.

The state of a conversation is stored beside its events, so most of a long history is
loaded for nothing. Here an event is decoded when it is touched, once, and is then the
same object for good. A row that nobody touches costs its bytes and two pointers.

Three rules make the result that of decoding and applying everything at once:

- An `EntitiesAdded` or a featurisation changes the user message before it. So a turn is
  decoded as one: a message and what follows, up to the next message.
- Where an event reverts others, only a replay tells which message is changed: there the
  first touch decodes everything. So it does where a row does not begin with its type.
- The latest message of the state is the event that is held, not another one like it.
"""

from __future__ import annotations

from collections import deque
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any, SupportsIndex, cast, overload

from tracker_store_async import errors
from tracker_store_async.applied import kind_of
from tracker_store_async.events import UserUttered, decode_event
from tracker_store_async.message_changes import (
    MessageChanges,
    listens_after,
    message_key,
)
from tracker_store_async.row_types import kind_of_row, needs_replay
from tracker_store_async.tracker import DialogueStateTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Self

    from tracker_store_async.events import Event
    from tracker_store_async.unread_state import UnreadState

_get: Callable[[Any, int], Event | None] = deque.__getitem__
_extend: Callable[[Any, Iterable[Event | None]], None] = deque.extend
_UNKNOWN: Any = object()


class LazyEvents(deque["Event"]):
    """A deque whose leading events are decoded when they are touched.

    It is used as any other deque. It holds no store and no connection.

    Args:
        events: Events that are decoded already.
        maxlen: Most events to hold, or None.
    """

    # Places from `_undecoded` on hold events; those before it an event or None, and the
    # row of place p is `_rows[_skipped + p]`, at `_first_position + _skipped + p`.
    __slots__ = (
        "_channel",
        "_first_position",
        "_is_whole",
        "_message",
        "_message_key",
        "_needs_replay",
        "_rows",
        "_sender_id",
        "_skipped",
        "_undecoded",
        "_unread",
    )

    def __init__(self, events: Iterable[Event] = (), maxlen: int | None = None) -> None:
        self._undecoded = 0
        super().__init__(events, maxlen)
        self._rows: Sequence[str | bytes] = ()
        self._skipped = self._first_position = 0
        self._sender_id = ""
        self._is_whole = False
        self._message: UserUttered | None = None
        self._message_key: tuple[Any, ...] | None = None
        self._channel: Any = _UNKNOWN
        self._needs_replay: bool | None = None
        self._unread: UnreadState | None = None

    @classmethod
    def of_rows(
        cls,
        sender_id: str,
        first_position: int,
        rows: Sequence[str | bytes],
        *,
        maxlen: int | None,
        is_whole: bool,
        unread: UnreadState | None = None,
    ) -> Self:
        """Return the events of stored rows, without decoding any.

        Args:
            sender_id: The conversation, for errors.
            first_position: Position of the first row, for errors.
            rows: The JSON text of each event. They are kept as they are: nobody may
                change the list any more.
            maxlen: Most events to hold, or None.
            is_whole: Whether they begin where the state began: then the messages are
                as the events after them have left them, and else as they were stored.
            unread: The state after them, which tells the latest message and the channel
                once they are asked for; None where `expect` and `know_channel` do.
        """
        events = cls((), maxlen)
        _extend(events, repeat(None, len(rows)))
        events._undecoded = len(events)
        events._rows = rows
        events._skipped = len(rows) - len(events)
        events._sender_id, events._first_position = sender_id, first_position
        events._is_whole, events._unread = is_whole, unread
        return events

    def expect(self, message: UserUttered) -> None:
        """Take the latest message of the state for the event that it is.

        Args:
            message: The message, which says something.
        """
        self._message, self._message_key = message, message_key(message)

    def _read_state(self) -> None:
        if self._unread is not None:
            found = self._unread.read()
            self._unread = None
            self._message, self._message_key = found.message, found.message_key
            self._channel = found.channel
            if found.events is not None:
                self._put(0, found.events)

    def know_channel(self, input_channel: str | None) -> None:
        """Remember the channel of the last user message among the stored events."""
        self._channel = input_channel

    def latest_channel(self, otherwise: str | None) -> str | None:
        """Return the channel of the last user message; decode only if it is not known.

        Whoever has changed the latest message has changed the event, too.

        Args:
            otherwise: What to return if there is no message.
        """
        message = self._last_message(self._undecoded)
        if message is None:
            self._read_state()
            is_same = message_key(self._message) == self._message_key
            if self._undecoded and self._channel is not _UNKNOWN and is_same:
                return self._channel  # type: ignore[no-any-return]
            self.decode()
            message = self._last_message(0)
        return otherwise if message is None else message.input_channel

    def _last_message(self, start: int) -> UserUttered | None:
        for place in reversed(range(start, len(self))):
            event = _get(self, place)
            if event is not None and kind_of(event) == "user":
                return cast("UserUttered", event)
        return None

    @property
    def stored(self) -> tuple[int, Sequence[str | bytes]]:
        """The position of the first row that is held, and the rows as they are stored.

        Events that were added since are not among them. There are none once events
        were changed in another way than at the ends.
        """
        first = self._first_position + self._skipped
        return first, self._rows[self._skipped :] if self._skipped else self._rows

    # -- decoding ----------------------------------------------------------------------

    def decode(self, first: int = 0, last: int | None = None) -> None:
        """Decode the events at some places, and those they hang together with.

        Args:
            first: The first place.
            last: The place after the last one; None for all.

        Raises:
            CorruptEventError: A row is not a JSON object.
        """
        end = self._undecoded
        last = end if last is None else min(last, end)
        if first >= last:
            return
        if self._unread is not None:
            self._read_state()
            self.decode(first, last)
            return
        if not self._is_whole:
            held = self._decoded(first, last)
            self._put(first, self._with_latest_message(first, held))
            return
        if self._needs_replay is None:
            rows = islice(self._rows, self._skipped, self._skipped + end)
            self._needs_replay = needs_replay(rows)
        if not self._needs_replay:
            turns = self._decoded_turns(first, last)
            if turns is not None:
                self._put(*turns)
                return
        self._put(0, self._replayed())

    def _decoded(self, first: int, last: int) -> list[Event]:
        """Return the events at some places; those decoded before as they are."""
        return [
            self._decoded_row(place) if event is None else event
            for place in range(first, last)
            for event in (_get(self, place),)
        ]

    def _decoded_row(self, place: int) -> Event:
        try:
            return decode_event(self._rows[self._skipped + place])
        except ValueError as error:
            position = self._first_position + self._skipped + place
            raise errors.CorruptEventError(
                self._sender_id, position, "it is not a JSON object"
            ) from error

    def _put(self, first: int, events: list[Event]) -> None:
        last = first + len(events)
        if last >= self._undecoded:
            self._undecoded = first
        if len(events) < len(self) // 8:
            for place, event in enumerate(events, first):
                super().__setitem__(place, event)
            return
        # A deque's middle is far away from both of its ends.
        held = list(super().__iter__())
        held[first:last] = events
        super().clear()
        super().extend(held)

    def _with_latest_message(self, first: int, held: list[Event]) -> list[Event]:
        """Put the latest message in its place: the last one that looks like it."""
        for place in reversed(range(first, first + len(held))):
            event = held[place - first]
            if (
                self._message is not None
                and _get(self, place) is None
                and kind_of(event) == "user"
                and isinstance(event, UserUttered)
                and message_key(event) == self._message_key
                and not self._is_repeated(place)
            ):
                held[place - first], self._message = self._message, None
        return held

    def _is_repeated(self, place: int) -> bool:
        row = self._rows[self._skipped + place]
        later = range(self._skipped + place + 1, self._skipped + self._undecoded)
        return any(self._rows[at] == row for at in later)

    # -- decoding what begins where the state began ------------------------------------

    def _kind(self, place: int) -> str | None:
        event = _get(self, place)
        if event is None:
            return kind_of_row(self._rows[self._skipped + place])
        return kind_of(event)

    def _decoded_turns(self, first: int, last: int) -> tuple[int, list[Event]] | None:
        """Return the turns around some places, or None if a replay has to tell."""
        end = self._undecoded
        while first and self._kind(first) != "user":
            first -= 1
        while last < end and self._kind(last) != "user":
            last += 1
        held = self._decoded(first, last)
        # A row that does not fit its class does not begin a turn.
        if last < end and kind_of(self._decoded(last, last + 1)[0]) != "user":
            return None
        for place, event in enumerate(held, first):
            if self._kind(place) == "user" and kind_of(event) != "user":
                return None
        fresh = {place for place in range(first, last) if _get(self, place) is None}
        self._change_messages(first, held, fresh)
        if last == end:
            self._place_message(held)
        return first, held

    def _change_messages(self, first: int, held: list[Event], fresh: set[int]) -> None:
        """Apply to each message what the events of its turn change on it."""
        changes = MessageChanges(listens=bool(fresh) and self._listens_before(first))
        for place, event in enumerate(held, first):
            changes.follow(event, is_new=place in fresh)

    def _listens_before(self, place: int) -> bool:
        while place:
            place -= 1
            if self._kind(place) in ("action", "restart", "session"):
                event = self._decoded(place, place + 1)[0]
                kind = kind_of(event)
                if kind == "action":
                    return listens_after(event)
                if kind == "restart" or kind == "session":
                    return False
        return False

    def _place_message(self, held: list[Event]) -> None:
        """Put the latest message in its place: the last one since the state began."""
        message, self._message = self._message, None
        for place in reversed(range(len(held))):
            kind = kind_of(held[place])
            if kind == "restart" or kind == "session":
                return
            if kind == "user":
                if message is not None and type(message) is type(held[place]):
                    held[place] = message
                return

    def _replayed(self) -> list[Event]:
        """Return all events as applying them leaves them."""
        held = self._decoded(0, self._undecoded)
        replay = DialogueStateTracker(self._sender_id)
        replay.load_events(held)
        message, self._message = self._message, None
        if message is not None:
            for place, event in enumerate(held):
                if event is replay.latest_message:
                    held[place] = message
        return held

    # -- looking -----------------------------------------------------------------------

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> Event: ...
    @overload
    def __getitem__(self, key: slice, /) -> Any: ...
    def __getitem__(self, key: Any, /) -> Any:
        found = _get(self, key)
        if found is not None:
            return found
        place = key.__index__()
        place += len(self) if place < 0 else 0
        self.decode(place, place + 1)
        return super().__getitem__(place)

    def __iter__(self) -> Iterator[Event]:
        return self._forwards() if self._undecoded else super().__iter__()

    def _forwards(self) -> Iterator[Event]:
        # Decoded in growing pieces: few are asked for, or all of them.
        size, first, step = len(self), 0, 8
        while first < size:
            self.decode(first, first + step)
            piece = list(islice(super().__iter__(), first, first + step))
            for event in piece:
                yield event
                if len(self) != size:
                    raise RuntimeError("the events changed while they were looked at")
            first, step = first + step, step * 2

    def __reversed__(self) -> Iterator[Event]:
        return self._backwards() if self._undecoded else super().__reversed__()

    def _backwards(self) -> Iterator[Event]:
        size, last, step = len(self), len(self), 1
        while last > 0:
            first = max(0, last - step)
            self.decode(first, last)
            for place in reversed(range(first, last)):
                yield super().__getitem__(place)
                if len(self) != size:
                    raise RuntimeError("the events changed while they were looked at")
            last, step = first, step * 2

    def __contains__(self, event: object, /) -> bool:
        self.decode()
        return super().__contains__(event)

    def index(self, event: Event, /, *bounds: int) -> int:
        """Return the place of an event."""
        self.decode()
        return super().index(event, *bounds)

    def count(self, event: Event, /) -> int:
        """Return how many events are equal to this one."""
        self.decode()
        return super().count(event)

    def copy(self) -> Self:
        """Return a deque of the same events."""
        self.decode()
        other = type(self)((), self.maxlen)
        deque.extend(other, super().__iter__())
        return other

    __copy__ = copy

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a plain deque of events."""
        return deque, (list(self), self.maxlen)

    # -- changing ----------------------------------------------------------------------

    def _settle(self) -> None:
        """Become a deque like any other."""
        self.decode()
        self._rows, self._skipped, self._undecoded = (), 0, 0

    def _make_room(self) -> None:
        """Account for the first event, which is about to go."""
        if self._is_whole:
            self.decode()  # what is left does not begin where the state began
        self._undecoded = max(0, self._undecoded - 1)
        self._skipped = min(self._skipped + 1, len(self._rows))

    def append(self, event: Event, /) -> None:
        """Add an event at the end; the first one goes if there is no room."""
        if len(self) == self.maxlen and self._rows:
            self._make_room()
        super().append(event)

    def extend(self, events: Iterable[Event], /) -> None:
        """Add events at the end."""
        for event in list(events):
            self.append(event)

    def pop(self) -> Event:  # type: ignore[override]
        """Remove the last event and return it."""
        self._settle()
        return super().pop()

    def popleft(self) -> Event:
        """Remove the first event and return it."""
        event = self[0]
        self._make_room()
        super().popleft()
        return event

    def clear(self) -> None:
        """Remove every event."""
        self._rows, self._skipped, self._undecoded = (), 0, 0
        super().clear()

    def __setitem__(self, key: Any, event: Event, /) -> None:  # type: ignore[override]
        self._settle()
        super().__setitem__(key, event)

    def __delitem__(self, key: Any, /) -> None:
        self._settle()
        super().__delitem__(key)

    def __iadd__(self, events: Iterable[Event], /) -> Self:
        self.extend(events)
        return self

    def __imul__(self, times: int, /) -> Self:
        self._settle()
        return super().__imul__(times)

    def appendleft(self, event: Event, /) -> None:
        """Add an event at the beginning."""
        self._settle()
        super().appendleft(event)

    def extendleft(self, events: Iterable[Event], /) -> None:
        """Add events at the beginning, one after the other."""
        self._settle()
        super().extendleft(events)

    def insert(self, place: int, event: Event, /) -> None:
        """Put an event at a place."""
        self._settle()
        super().insert(place, event)

    def remove(self, event: Event, /) -> None:
        """Remove the first event that is equal to this one."""
        self._settle()
        super().remove(event)

    def reverse(self) -> None:
        """Turn the order round."""
        self._settle()
        super().reverse()

    def rotate(self, steps: int = 1, /) -> None:
        """Move events from the end to the beginning."""
        self._settle()
        super().rotate(steps)
