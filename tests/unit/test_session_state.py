"""The state that a save keeps is the one that a replay of the latest session gives.

A window (`max_event_history`), earlier sessions, loops that were activated in them and
events that revert others: whatever a tracker went through, what it stores is compared
with the plainest replay of the rows, event by event and without a bound.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.histories import Row, events_of
from tracker_store_async import DialogueStateTracker, InMemoryTrackerStore
from tracker_store_async.events import UserUttered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tracker_store_async.events import Event

SENDER = "alice"
PARTS: dict[str, Callable[[list[Row], int], list[Row]]] = {
    "by hand": lambda rows, _: rows,
    "by hand, from the middle": lambda rows, middle: rows[middle:],
    "by hand, up to the middle": lambda rows, middle: rows[:middle],
}
HOW = ("cold", "cold", "warm", "copy")
WINDOWS = (None, 1, 2, 3, 5, 8)
ENTITY = {"entity": "e", "value": 1}


def action(name: str) -> Row:
    return {"event": "action", "name": name}


def loop(name: str | None) -> Row:
    return {"event": "active_loop", "name": name}


def message(text: str, channel: str | None = None) -> Row:
    parse_data = {"text": text, "entities": [{"entity": "n"}]}
    return {
        "event": "user",
        "text": text,
        "parse_data": parse_data,
        "input_channel": channel,
    }


def slot(value: Any) -> Row:
    return {"event": "slot", "name": "a", "value": value}


LISTEN, F, G = action("action_listen"), action("f"), action("g")
SESSION = [action("action_session_start"), {"event": "session_started"}]
ODD_SESSION = [{**row, "metadata": "odd"} for row in SESSION]
UNDO, REWIND = {"event": "undo"}, {"event": "rewind"}
REJECTED = {"event": "action_execution_rejected", "name": "f"}
EVENTS: list[list[Row]] = [
    *([F], [F], [G], [LISTEN], [action("utter_x")], [message("hi")], [F, F]),
    *([message("yo", "web")], [LISTEN, message("hi")], [slot(1)], [slot([2])]),
    *([loop("f"), F], [loop("f")], [loop("g")], [loop(None)], [REJECTED]),
    [{"event": "loop_interrupted", "is_interrupted": True}],
    *([UNDO], [UNDO], [REWIND], [UNDO, UNDO]),
    *([{"event": "restart"}], SESSION, SESSION, SESSION[1:], ODD_SESSION),
    [LISTEN, message("4"), {"event": "entities", "entities": [ENTITY]}],
    [{"event": "user_featurization", "use_text_for_featurization": True}],
]


def timed(rows: Iterable[Row], first: int) -> list[Row]:
    return [{**row, "timestamp": 1.0 + at} for at, row in enumerate(rows, first)]


def uttered(rows: Iterable[Row]) -> Iterator[Event]:
    """Yield the events, messages as an assistant makes them, not as they are loaded."""
    for event in events_of(rows):
        if isinstance(event, UserUttered):
            event = UserUttered(
                event.text,
                entities=event.entities,
                timestamp=event.timestamp,
                input_channel=event.input_channel,
            )
        yield event


def plain(rows: Iterable[Row]) -> DialogueStateTracker:
    """Return a tracker without a bound that was given the rows one by one."""
    tracker = DialogueStateTracker(SENDER)
    for event in events_of(rows):
        tracker.update(event)
    return tracker


def observed(tracker: DialogueStateTracker) -> Row:
    """Return the state, without what only the held events tell."""
    seen: Row = json.loads(json.dumps(tracker.current_state()))
    del seen["latest_event_time"]
    said: Any = tracker.latest_message
    seen["use_text"] = said.use_text_for_featurization
    return without_copies(seen)


def kept(state: Row) -> Row:
    """Return what a save keeps, without the time of a message that says nothing."""
    state = json.loads(json.dumps(state))
    message = state["latest_message"]
    if message:
        stored = message["event"]["parse_data"].pop("entities")
        message.setdefault("entities", stored)
        if not message["event"]["text"]:
            del message["event"]["timestamp"]
    return without_copies(state)


def without_copies(state: Row) -> Row:
    """Drop what a loaded message shares with its parse data, and a new one does not."""
    trigger = (state["active_loop"] or {}).get("trigger_message")
    if trigger:
        del trigger["entities"]
    return state


class Conversation:
    """One conversation in a store, and the rows that it has to hold."""

    def __init__(self, window: int | None) -> None:
        self.store = InMemoryTrackerStore()
        self.rows: list[Row] = []
        self.tracker = DialogueStateTracker(SENDER, max_event_history=window)
        self.pending: list[Row] = []

    def since(self, position: int) -> list[Row]:
        return self.rows[position:]

    @property
    def session(self) -> int:
        """Position where the latest session starts."""
        for at in reversed(range(len(self.rows))):
            if self.rows[at]["event"] == "session_started":
                before = self.rows[at - 1] if at else {}
                return at - (before.get("name") == "action_session_start")
        return 0

    def update(self, rows: list[Row]) -> None:
        made = timed(rows, len(self.rows) + len(self.pending))
        self.pending += made
        for event in uttered(made):
            self.tracker.update(event)

    async def save(self) -> None:
        await self.store.save(self.tracker)
        if self.rows or self.pending:
            stored = self.store._conversations[SENDER].rows
            assert len(stored) == len(self.rows) + len(self.pending)
            self.rows += [json.loads(data) for _, data in stored[len(self.rows) :]]
            self.pending = []
            await self.check()

    async def load(self, how: str, window: int | None) -> None:
        await self.save()
        if not self.rows:
            return
        if how == "full":
            tracker = await self.store.retrieve_full_tracker(SENDER)
        elif how == "warm":
            tracker = await self.store.retrieve(SENDER, since=self.tracker)
        elif how == "copy":
            tracker = self.tracker.copy()
        elif how in PARTS:
            part = PARTS[how](self.rows, len(self.rows) // 2)
            self.tracker = DialogueStateTracker.from_events(
                SENDER, uttered(part), max_event_history=window
            )
            self.update([slot(0)])
            await self.save()
            return
        else:
            tracker = await self.store.get_or_create_tracker(SENDER, window)
        assert tracker is not None
        self.tracker = tracker
        self.check_tracker()

    def check_tracker(self) -> None:
        assert self.tracker.version == len(self.rows)
        expected = observed(plain(self.since(self.tracker._log.base)))
        assert observed(self.tracker) == expected

    async def check(self) -> None:
        session = plain(self.since(self.session))
        log = self.store._conversations[SENDER]
        assert log.session_start == self.session
        assert log.snapshot is not None
        state = json.loads(log.snapshot)["state"]
        assert kept(state) == kept(session.state_snapshot())
        self.check_tracker()
        for size in (None, 1, 3):
            for lazily in (True, False):
                self.store._lazy_events = lazily
                tracker = await self.store.get_or_create_tracker(SENDER, size)
                assert observed(tracker) == observed(session)
        self.store._lazy_events = True


FEW: list[list[Row]] = [
    *([F], [F], [LISTEN, message("1")], [loop("f")], SESSION, [UNDO], [slot(3)])
]
"""What it takes to make a loop of an earlier session count."""


def _steps(kinds: list[list[Row]], how: Sequence[str]) -> st.SearchStrategy[list[Any]]:
    """Return updates, saves and loads; a save is None, a load is how and a window."""
    updates = st.lists(st.sampled_from(kinds), min_size=1, max_size=5)
    loads = st.tuples(st.sampled_from(how), st.sampled_from(WINDOWS))
    steps = st.one_of(updates, updates, st.none(), st.none(), loads)
    return st.lists(steps, max_size=20)


# A full tracker may have changed its messages by loops of earlier sessions, and what is
# stored of them is not at hand: so nothing in `FEW` changes a message.
_few = _steps(FEW, (*HOW, "full", *PARTS))
OF_EARLIER = [loop("f")], SESSION
SLOTS = [[slot(number)] for number in range(5)]
SAID, FOUND = [LISTEN, message("1")], [{"event": "entities", "entities": [ENTITY]}]
TWICE = [F], [F], [UNDO]
"""Two runs of a loop count as one, so that `undo` takes back both."""


@given(_steps(EVENTS, HOW) | _few, st.sampled_from(WINDOWS))
@example([[*OF_EARLIER]], None)  # nothing of an earlier session is kept
@example([[*OF_EARLIER, *TWICE]], 1)
@example([[*OF_EARLIER, *TWICE]], None)
@example([[*OF_EARLIER, *TWICE, [loop("f")]]], 1)
@example([[*OF_EARLIER], None, [*TWICE, *SLOTS]], 5)  # only the store has the session
@example([[*OF_EARLIER], None, [*TWICE], None, SLOTS], 5)
@example([[[loop("f")], *SLOTS], ("cold", 5), [SESSION, *TWICE]], None)
@example([[*OF_EARLIER], ("full", None), [*TWICE]], None)
@example([[*OF_EARLIER, SAID, *TWICE, FOUND]], None)
@example([[*OF_EARLIER, SAID], ("full", None), [*TWICE, FOUND]], None)
@example([[*OF_EARLIER], ("by hand, up to the middle", 5), ("warm", 1), [*TWICE]], 1)
@example([[[loop("f")], *SLOTS], ("cold", 5), [SESSION], ("copy", 1), [*TWICE]], None)
@example([[*OF_EARLIER], ("by hand", None)], None)
@example([[[F], [F], SESSION, [F]], ("by hand, up to the middle", 1), ("warm", 1)], 1)
@example([[*OF_EARLIER, [UNDO]], ("by hand", 5), [*TWICE]], None)
@example([[*OF_EARLIER], ("by hand, up to the middle", 5), [*TWICE, *SLOTS]], None)
@example([[[slot(1)], ODD_SESSION, [slot([2])]], ("cold", 1), [[UNDO]]], None)
@settings(max_examples=300, deadline=None)
def test_what_is_kept_is_what_a_replay_gives(
    steps: list[Any], window: int | None
) -> None:
    async def run() -> None:
        talk = Conversation(window)
        for step in steps:
            if step is None:
                await talk.save()
            elif isinstance(step, tuple):
                await talk.load(*step)
            else:
                talk.update([row for rows in step for row in rows])
        await talk.save()

    asyncio.run(run())
