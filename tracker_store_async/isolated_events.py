"""Events that are shared until somebody looks at them, and are copied then.

A cache hands out the same long history again and again. Most of its events are never
looked at, so only those that are touched are copied; what a caller changes is the
caller's own.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from tracker_store_async.events.json_values import JSON_ATOMS, isolated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from tracker_store_async.events import Event

_new = object.__new__
_set = object.__setattr__


def isolated_event(event: Event) -> Event:
    """Return a copy of a stored event that shares no list or dict with it.

    Lists and dicts that are one in the event, such as the entities of a message and
    those in its `parse_data`, are one in the copy.
    """
    twins: dict[int, Any] = {}
    attributes = {}
    for name, value in event.__dict__.items():
        if type(value) in JSON_ATOMS:
            attributes[name] = value
        elif name == "parse_data" and type(value) is dict:
            attributes[name] = {key: _once(item, twins) for key, item in value.items()}
        else:
            attributes[name] = _once(value, twins)
    copied = _new(type(event))
    _set(copied, "__dict__", attributes)
    _set(copied, "__pydantic_fields_set__", event.__pydantic_fields_set__)
    extra = {key: _once(item, twins) for key, item in (event.model_extra or {}).items()}
    _set(copied, "__pydantic_extra__", extra)
    _set(copied, "__pydantic_private__", None)
    return copied


def _once(value: Any, twins: dict[int, Any]) -> Any:
    if type(value) in JSON_ATOMS:
        return value
    found = twins.get(id(value))
    if found is None:
        found = twins[id(value)] = isolated(value)
    return found


class IsolatedEvents(deque["Event"]):
    """A deque whose leading events are somebody else's until they are touched.

    It is used as any other deque. Touching an event copies it and those after it:
    trackers look at the end of their history.

    Args:
        events: Stored events of somebody else; they are never changed.
        maxlen: Most events to hold, or None.
    """

    def __init__(self, events: Iterable[Event] = (), maxlen: int | None = None) -> None:
        super().__init__(events, maxlen)
        self._shared = len(self)

    def _own(self, first: int) -> None:
        """Copy the shared events from a place on."""
        count = self._shared - first
        if count <= 0:
            return
        self._shared = first
        if count < len(self) // 8:
            for place in range(first, first + count):
                shared = super().__getitem__(place)
                super().__setitem__(place, isolated_event(shared))
            return
        # A deque's middle is far away from both of its ends.
        held = list(super().__iter__())
        held[first : first + count] = map(isolated_event, held[first : first + count])
        super().clear()
        super().extend(held)

    # -- looking -----------------------------------------------------------------------

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> Event: ...
    @overload
    def __getitem__(self, key: slice, /) -> Any: ...
    def __getitem__(self, key: Any, /) -> Any:
        if not isinstance(key, slice):
            place = key.__index__()
            place += len(self) if place < 0 else 0
            if 0 <= place < self._shared:
                self._own(place)
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Event]:
        self._own(0)
        return super().__iter__()

    def __reversed__(self) -> Iterator[Event]:
        if self._shared == 0:
            return super().__reversed__()
        return self._backwards()

    def _backwards(self) -> Iterator[Event]:
        # Copied in growing pieces: few are asked for, or all of them.
        size, first, step = len(self), len(self), 4
        while first > 0:
            last, first = first, max(0, first - step)
            self._own(first)
            yield from reversed(list(islice(super().__iter__(), first, last)))
            if len(self) != size:
                raise RuntimeError("the events changed while they were looked at")
            step *= 2

    def __contains__(self, event: object, /) -> bool:
        self._own(0)
        return super().__contains__(event)

    def index(self, event: Event, /, *bounds: int) -> int:
        """Return the place of an event."""
        self._own(0)
        return super().index(event, *bounds)

    def count(self, event: Event, /) -> int:
        """Return how many events are equal to this one."""
        self._own(0)
        return super().count(event)

    def copy(self) -> Self:
        """Return a deque of the same events."""
        self._own(0)
        other = type(self)((), self.maxlen)
        deque.extend(other, super().__iter__())
        return other

    __copy__ = copy

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a plain deque of events of its own."""
        return deque, (list(self), self.maxlen)

    # -- changing ----------------------------------------------------------------------

    def append(self, event: Event, /) -> None:
        """Add an event at the end; the first one goes if there is no room."""
        if len(self) == self.maxlen and self._shared:
            self._shared -= 1
        super().append(event)

    def extend(self, events: Iterable[Event], /) -> None:
        """Add events at the end."""
        for event in events:
            self.append(event)

    def pop(self) -> Event:  # type: ignore[override]
        """Remove the last event and return it."""
        self._own(len(self) - 1)
        return super().pop()

    def popleft(self) -> Event:
        """Remove the first event and return it."""
        if not self._shared:
            return super().popleft()
        self._shared -= 1
        return isolated_event(super().popleft())

    def clear(self) -> None:
        """Remove every event."""
        self._shared = 0
        super().clear()

    def __setitem__(self, key: Any, event: Event, /) -> None:  # type: ignore[override]
        self._own(0)
        super().__setitem__(key, event)

    def __delitem__(self, key: Any, /) -> None:
        self._own(0)
        super().__delitem__(key)

    def __iadd__(self, events: Iterable[Event], /) -> Self:
        self.extend(events)
        return self

    def appendleft(self, event: Event, /) -> None:
        """Add an event at the beginning."""
        self._own(0)
        super().appendleft(event)

    def extendleft(self, events: Iterable[Event], /) -> None:
        """Add events at the beginning, one after the other."""
        self._own(0)
        super().extendleft(events)

    def insert(self, place: int, event: Event, /) -> None:
        """Put an event at a place."""
        self._own(0)
        super().insert(place, event)

    def remove(self, event: Event, /) -> None:
        """Remove the first event that is equal to this one."""
        self._own(0)
        super().remove(event)

    def reverse(self) -> None:
        """Turn the order round."""
        self._own(0)
        super().reverse()

    def rotate(self, steps: int = 1, /) -> None:
        """Move events from the end to the beginning."""
        self._own(0)
        super().rotate(steps)
