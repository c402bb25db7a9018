"""Bring a tracker to the state after a long history in one pass.

Applied one by one, every event that reverts others makes the tracker start again from
nothing: n events with r reverts cost O(n * r). Only the last of these restarts decides
the state, so the others can be skipped, but for one thing: `EntitiesAdded` and
`DefinePrevUserUtteredFeaturization` change the user message that is the latest one when
they are applied, and a message keeps that when they are reverted. So the skipped part
is followed as far as these two need it: which message is the latest one, and whether
the bot is listening.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from tracker_store_async.applied import AppliedEvents, kind_of, types_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker_store_async.applied import Kind
    from tracker_store_async.events import (
        ActionExecuted,
        ActiveLoop,
        Event,
        UserUttered,
    )
    from tracker_store_async.tracker import DialogueStateTracker

_LISTEN = "action_listen"
_CHANGES_MESSAGE = ("entities", "featurisation")


def replay(tracker: DialogueStateTracker, events: Sequence[Event]) -> None:
    """Apply a history to a tracker that has none, as if event by event.

    Args:
        tracker: The tracker; its `events` are not touched.
        events: The history, oldest first.
    """
    start = _after_last_revert(events)
    if start:
        followed = _FollowedHistory(tracker)
        for event in events[:start]:
            followed.follow(event)
        tracker._reset()
        for event in followed.result():
            event.apply_to(tracker)
    for event in events[start:]:
        event.apply_to(tracker)


def _after_last_revert(events: Sequence[Event]) -> int:
    reverts = types_in(events, "undo", "rewind")
    if not reverts:
        return 0
    return max(place for place, each in enumerate(events) if type(each) in reverts) + 1


class _Change(NamedTuple):
    """A change of a user message that counts.

    Attributes:
        place: Where the event stands among those that count.
        event: The event that makes the change.
        message: The message that a replay of those that count would change.
    """

    place: int
    event: Event
    message: UserUttered


class _FollowedHistory(AppliedEvents):
    """Follows a history, and makes the changes of user messages that it makes.

    Attributes:
        _message: The latest message as the events come in, reverted or not.
        _listening: Whether `action_listen` is the latest action in the same sense.
        _changes: The changes that a replay would make now, in order.
        _replayed: How many of them the latest replay has made already.
        _featurised: The featurisations in `_changes`, by the id of the message.
        _touched: Messages whose featurisation the next replay has to set again.
    """

    def __init__(self, tracker: DialogueStateTracker) -> None:
        super().__init__(set())
        self._tracker = tracker
        self._message: UserUttered | None = None
        self._listening = False

    def _clear(self) -> None:
        super()._clear()
        self._changes: list[_Change] = []
        self._replayed = 0
        self._featurised: dict[int, list[Event]] = {}
        self._touched: dict[int, UserUttered] = {}
        self._since_reset: list[Event] = []
        self._repeated: set[str | None] = set()

    def follow(self, event: Event) -> None:
        """Take one more event into account, and make the changes that it makes."""
        kind = kind_of(event)
        if kind == "user":
            self._message = cast("UserUttered", event)
        elif kind == "action":
            self._listening = _listens(cast("ActionExecuted", event))
        elif kind == "loop":
            self._learn_loop(cast("ActiveLoop", event).name)
        elif kind == "restart" or kind == "session":
            self._message, self._listening = None, False
        elif kind in _CHANGES_MESSAGE and self._listening and self._message:
            self._change(event, self._message)
        self.add(event)
        self._since_reset.append(event)
        if kind == "undo" or kind == "rewind":
            self._replay()

    def _learn_loop(self, name: str | None) -> None:
        """Treat actions of that name as a loop, also those that came before.

        A loop is usually activated by its own first run, and nothing changes. Only
        one that ran twice before makes the list start again, once for each loop.
        """
        if not name or name in self.loop_names:
            return
        self.loop_names.add(name)
        if name in self._repeated:
            events = self._since_reset
            self._clear()
            for event in events:
                self.add(event)
            self._since_reset = events

    def _replay(self) -> None:
        """Start again from nothing, with the events that count now."""
        self._message = self.latest_user
        self._listening = _listens(self.latest_action)
        for change in self._changes[self._replayed :]:
            if kind_of(change.event) == "entities":
                self._change(change.event, change.message)
        self._replayed = len(self._changes)
        for key, message in self._touched.items():
            featurisations = self._featurised.get(key)
            if featurisations:
                self._change(featurisations[-1], message)
        self._touched.clear()

    def _change(self, event: Event, message: UserUttered) -> None:
        self._tracker.latest_message = message
        self._tracker.latest_action = {"action_name": _LISTEN}
        event.apply_to(self._tracker)

    def _append(self, event: Event, kind: Kind) -> None:
        super()._append(event, kind)
        if kind in _CHANGES_MESSAGE:
            self._note_change(len(self._events) - 1, event)

    def _append_action(self, index: int, event: ActionExecuted) -> None:
        if self._executions.get(event.action_name):
            self._repeated.add(event.action_name)
        super()._append_action(index, event)

    def _note_change(self, index: int, event: Event) -> None:
        message = self.latest_user
        if message is None or not _listens(self.latest_action):
            return
        self._changes.append(_Change(index, event, message))
        if kind_of(event) == "featurisation":
            self._featurised.setdefault(id(message), []).append(event)
            self._touched[id(message)] = message

    def _taken_back(self, index: int) -> None:
        changes = self._changes
        while changes and changes[-1].place >= index:
            _, event, message = changes.pop()
            if kind_of(event) == "featurisation":
                self._featurised[id(message)].pop()
                self._touched[id(message)] = message
        self._replayed = min(self._replayed, len(changes))
        if _listens(self.latest_action):  # What a loop leaves now follows its last run.
            for place in range(index, len(self._events)):
                event_left = self._events[place]
                if event_left is not None and kind_of(event_left) == "entities":
                    self._note_change(place, event_left)


def _listens(action: ActionExecuted | None) -> bool:
    return action is not None and (action.action_name or action.action_text) == _LISTEN
