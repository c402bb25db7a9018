"""Which events of a history count: those that nothing later has taken back.

The rules are those of Rasa's `DialogueStateTracker.applied_events`:

- `Restarted` and `SessionStarted` take back everything before them.
- `ActionReverted` takes back everything from the latest action on.
- `UserUtteranceReverted` takes back everything from the latest user message on, and
  then from the action before it on.
- A loop that runs again without an unhappy path in between takes back the actions and
  user messages since it ran before, and is itself left out.

Rasa copies and searches the list for each of these. Here each event is added and
removed once, so that a history of n events costs O(n).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

from tracker_store_async.events import (
    ActionExecuted,
    ActionExecutionRejected,
    ActionReverted,
    ActiveLoop,
    DefinePrevUserUtteredFeaturization,
    EntitiesAdded,
    Event,
    Restarted,
    SessionStarted,
    UserUtteranceReverted,
    UserUttered,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Kind: TypeAlias = Literal[
    "action",
    "user",
    "featurisation",
    "entities",
    "loop",
    "rejection",
    "restart",
    "session",
    "undo",
    "rewind",
    "other",
]
"""What an event means for the events around it."""

_BASES: tuple[tuple[type[Event], Kind], ...] = (
    (ActionExecuted, "action"),
    (UserUttered, "user"),
    (DefinePrevUserUtteredFeaturization, "featurisation"),
    (EntitiesAdded, "entities"),
    (ActiveLoop, "loop"),
    (ActionExecutionRejected, "rejection"),
    (Restarted, "restart"),
    (SessionStarted, "session"),
    (ActionReverted, "undo"),
    (UserUtteranceReverted, "rewind"),
    (Event, "other"),
)
_kinds: dict[type, Kind] = {}


def kind_of(event: Event) -> Kind:
    """Return the kind of an event; subclasses are of the kind of their base.

    Looked up by type: `isinstance` on pydantic models costs ten times as much.
    """
    return _kinds.get(type(event)) or kind_of_type(type(event))


def kind_of_type(event_type: type[Event]) -> Kind:
    """Return the kind of the events of a class."""
    known = _kinds.get(event_type)
    if known:
        return known
    kind = next(kind for base, kind in _BASES if issubclass(event_type, base))
    _kinds[event_type] = kind
    return kind


def types_in(events: Iterable[Event], *kinds: Kind) -> set[type[Event]]:
    """Return the types of these kinds that occur among the events."""
    found = set(map(type, events))
    return {each for each in found if (_kinds.get(each) or kind_of_type(each)) in kinds}


def loop_names_in(events: Collection[Event]) -> set[str]:
    """Return the names of the loops that the events activate."""
    wanted = types_in(events, "loop")
    if not wanted:
        return set()
    names = (cast("ActiveLoop", each).name for each in events if type(each) in wanted)
    return {name for name in names if name}


def applied_events(events: Iterable[Event], loop_names: set[str]) -> list[Event]:
    """Return the events that count.

    Args:
        events: The history, oldest first.
        loop_names: Names of all loops activated in it, also later on.
    """
    applied = AppliedEvents(loop_names)
    for event in events:
        applied.add(event)
    return applied.result()


class _Action(NamedTuple):
    """An action that counts.

    Attributes:
        place: Where it stands.
        event: The action.
        answered: Where the latest user message stands that is directly followed by a
            named action, up to this one; -1 if there is none.
    """

    place: int
    event: ActionExecuted
    answered: int


class AppliedEvents:
    """The events that count, kept up to date as events are added.

    Args:
        loop_names: Names of the actions that are loops. The set is used as it is, so a
            name may be added to it before the events that it matters to.
    """

    def __init__(self, loop_names: set[str]) -> None:
        self.loop_names = loop_names
        self._clear()

    def _clear(self) -> None:
        # What was taken back from the middle leaves a None, so that places stay valid.
        # The other lists hold places in this one, in ascending order.
        self._events: list[Event | None] = []
        self._actions: list[_Action] = []
        self._users: list[int] = []
        self._loop_ends: list[int] = []
        self._revocable: list[int] = []
        self._executions: dict[str | None, list[int]] = {}
        self._rejections: dict[str | None, list[int]] = {}

    @property
    def latest_user(self) -> UserUttered | None:
        """The latest user message that counts."""
        if not self._users:
            return None
        return cast("UserUttered", self._events[self._users[-1]])

    @property
    def latest_action(self) -> ActionExecuted | None:
        """The latest action that counts."""
        return self._actions[-1].event if self._actions else None

    def result(self) -> list[Event]:
        """Return the events that count, oldest first."""
        return [event for event in self._events if event is not None]

    def add(self, event: Event) -> None:
        """Take one more event into account."""
        kind = kind_of(event)
        if kind == "other":
            self._events.append(event)
        elif kind == "restart" or kind == "session":
            self._clear()
        elif kind == "undo":
            self._take_back_to("action")
        elif kind == "rewind":
            self._take_back_to("user")
            self._take_back_to("action")
        elif kind == "action" and self._continues_loop(event):
            self._take_back_to_loop(event)
        else:
            self._append(event, kind)

    def _append(self, event: Any, kind: Kind) -> None:
        index = len(self._events)
        self._events.append(event)
        if kind == "action":
            self._append_action(index, event)
        elif kind == "user":
            self._users.append(index)
            self._revocable.append(index)
        elif kind == "featurisation":
            self._revocable.append(index)
        elif kind == "rejection":
            self._rejections.setdefault(event.action_name, []).append(index)
        elif kind == "loop" and event.name is None:
            self._loop_ends.append(index)

    def _append_action(self, index: int, event: ActionExecuted) -> None:
        before, answered = -1, -1
        if self._actions:
            before, answered = self._actions[-1].place, self._actions[-1].answered
        if event.action_name is not None and self._users and self._users[-1] > before:
            answered = self._users[-1]
        self._actions.append(_Action(index, event, answered))
        self._executions.setdefault(event.action_name, []).append(index)
        self._revocable.append(index)

    def _continues_loop(self, event: Any) -> bool:
        """Whether a loop goes on here without an unhappy path since it ran before.

        It is an unhappy path if the loop was rejected since, or if a user message was
        answered by another action. The end of any loop makes this the first run.
        """
        name = event.action_name
        runs = self._executions.get(name) if name in self.loop_names else None
        if not runs:
            return False
        rejections = self._rejections.get(name)
        return not (
            (self._loop_ends and self._loop_ends[-1] > runs[-1])
            or (rejections and rejections[-1] > runs[-1])
            or self._actions[-1].answered > runs[-1]
        )

    def _take_back_to_loop(self, event: Any) -> None:
        run = self._executions[event.action_name][-1]
        while self._revocable[-1] > run:
            index = self._revocable[-1]
            taken = self._events[index]
            self._events[index] = None
            if taken is not None:
                self._forget(taken)
        self._taken_back(run + 1)

    def _take_back_to(self, kind: Kind) -> None:
        while self._events:
            event = self._events.pop()
            if event is None:
                continue
            self._forget(event)
            if kind_of(event) == kind:
                break
        self._taken_back(len(self._events))

    def _forget(self, event: Any) -> None:
        """Drop the latest place noted for an event of this kind."""
        kind = kind_of(event)
        if kind == "action":
            self._actions.pop()
            self._executions[event.action_name].pop()
            self._revocable.pop()
        elif kind == "user":
            self._users.pop()
            self._revocable.pop()
        elif kind == "featurisation":
            self._revocable.pop()
        elif kind == "rejection":
            self._rejections[event.action_name].pop()
        elif kind == "loop" and event.name is None:
            self._loop_ends.pop()

    def _taken_back(self, index: int) -> None:
        """Note that user messages and actions from a place on are gone."""
