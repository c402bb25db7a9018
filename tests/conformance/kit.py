"""What the guarantees are written with: conversations, clocks, spies and faults."""

from __future__ import annotations

import asyncio
import itertools
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.canaries import TEXT
from tracker_store_async import errors
from tracker_store_async.broker import EventBroker
from tracker_store_async.events import (
    ActionExecuted,
    BotUttered,
    SessionStarted,
    SlotSet,
    UserUttered,
    event_from_dict,
)
from tracker_store_async.rows import Read
from tracker_store_async.tracker import DialogueStateTracker, EventVerbosity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable

    from tracker_store_async.broker import EventMessage
    from tracker_store_async.events import Event
    from tracker_store_async.store import TrackerStore

SENDER = "alice"
START = 1_700_000_000.0
"""When the conversations of the suite begin, in seconds since the epoch."""

_stamps = itertools.count()


def stamp() -> float:
    """Return the next timestamp: no two events of the suite share one."""
    return START + next(_stamps) * 0.25


# -- conversations --


def user(text: str = "hi", **fields: Any) -> UserUttered:
    """Return what a user says; with it goes a text that nothing may give away."""
    fields.setdefault("metadata", {"canary": TEXT})
    return UserUttered(text, timestamp=stamp(), **fields)


def bot(text: str = "hello") -> BotUttered:
    """Return what the bot says."""
    return BotUttered(text, timestamp=stamp())


def action(name: str = "action_listen") -> ActionExecuted:
    """Return an action."""
    return ActionExecuted(name, timestamp=stamp())


def slot(name: str, value: Any = None) -> SlotSet:
    """Return the setting of a slot."""
    return SlotSet(name, value, timestamp=stamp())


def turn(text: str = "hi") -> list[Event]:
    """Return four events: the user says something and the bot answers."""
    return [user(text), action("utter_greet"), bot(f"re: {text}"), action()]


def new_session() -> list[Event]:
    """Return the two events that Rasa begins a session with."""
    return [action("action_session_start"), SessionStarted(timestamp=stamp())]


def said(tracker: DialogueStateTracker | None) -> list[str | None]:
    """Return what the users said, in order."""
    assert tracker is not None
    return [event.text for event in tracker.events if isinstance(event, UserUttered)]


def update(tracker: DialogueStateTracker, events: Iterable[Event]) -> None:
    """Add events to a tracker."""
    for event in events:
        tracker.update(event)


async def add(store: TrackerStore, sender_id: str, *events: Event) -> None:
    """Add events to a conversation as an assistant does: load, update, save."""
    tracker = await store.get_or_create_tracker(sender_id, append_action_listen=False)
    update(tracker, events)
    await store.save(tracker)


async def has(store: TrackerStore, sender_id: str = SENDER) -> DialogueStateTracker:
    """Return the tracker of the latest session, which must exist."""
    tracker = await store.retrieve(sender_id)
    assert tracker is not None
    return tracker


async def has_full(
    store: TrackerStore, sender_id: str = SENDER
) -> DialogueStateTracker:
    """Return the tracker of all sessions, which must exist."""
    tracker = await store.retrieve_full_tracker(sender_id)
    assert tracker is not None
    return tracker


def dicts(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Return the JSON objects of events."""
    return [event.as_dict() for event in events]


def held(tracker: DialogueStateTracker | None) -> list[dict[str, Any]]:
    """Return the JSON objects of the events that a tracker holds."""
    assert tracker is not None
    return dicts(tracker.events)


def state(tracker: DialogueStateTracker | None) -> dict[str, Any]:
    """Return everything that Rasa calls the state of a tracker, but the events."""
    assert tracker is not None
    seen = tracker.current_state(EventVerbosity.NONE)
    seen["rejected"] = tracker.is_active_loop_rejected
    seen["interrupted"] = tracker.is_active_loop_interrupted
    seen["latest_bot_utterance"] = tracker.latest_bot_utterance.text
    return seen


def replayed(
    events: Iterable[Event], store: TrackerStore | None = None
) -> DialogueStateTracker:
    """Return a tracker to which copies of the events were given one by one."""
    if store is None:
        tracker = DialogueStateTracker(SENDER)
    else:
        tracker = store.init_tracker(SENDER)
    for event in events:
        tracker.update(event_from_dict(event.as_dict()))
    return tracker


# -- what lies in the store --


async def stored(
    store: TrackerStore, sender_id: str = SENDER
) -> list[tuple[str | None, str]]:
    """Return the id and the text of every stored event, as the backend gives them."""
    await store._ensure_open()
    found = await store._read(Read(sender_id, store._now(), start=0))
    if found is None:
        return []
    assert found.version == found.first_position + len(found.rows)
    return [
        (event_id, data if isinstance(data, str) else data.decode())
        for event_id, data in found.rows
    ]


async def stored_dicts(
    store: TrackerStore, sender_id: str = SENDER
) -> list[dict[str, Any]]:
    """Return the JSON object of every stored event."""
    return [json.loads(data) for _, data in await stored(store, sender_id)]


async def stored_ids(store: TrackerStore, sender_id: str = SENDER) -> list[str | None]:
    """Return the id of every stored event."""
    return [event_id for event_id, _ in await stored(store, sender_id)]


async def version(store: TrackerStore, sender_id: str = SENDER) -> int:
    """Return the number of events stored so far; 0 if there is no conversation."""
    await store._ensure_open()
    found = await store._read(Read(sender_id, store._now(), start=None, last=0))
    return 0 if found is None else found.version


# -- time, spies, faults --


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def drive(self, store: TrackerStore) -> None:
        """Make it the clock of a store."""
        store._now = self  # type: ignore[method-assign]


PRIMITIVES = ("_append", "_read", "_delete", "_list")


class Spy:
    """Notes which primitives of a store are called.

    Attributes:
        calls: Their names, in order.
    """

    def __init__(self, store: TrackerStore) -> None:
        self.calls: list[str] = []
        for name in PRIMITIVES:
            setattr(store, name, self._noting(name, getattr(store, name)))

    def _noting(self, name: str, primitive: Any) -> Any:
        async def noted(*arguments: Any) -> Any:
            self.calls.append(name)
            return await primitive(*arguments)

        return noted


class Meeting:
    """Lets the first readers go on only when all have read: then they surely race.

    Args:
        stores: The stores that they read from.
        readers: How many there are.
    """

    def __init__(self, stores: Iterable[TrackerStore], readers: int) -> None:
        self._missing = readers
        self._complete = asyncio.Event()
        for store in stores:
            store._read = partial(self._read_and_wait, store._read)  # type: ignore[method-assign]

    async def _read_and_wait(self, read: Any, request: Read) -> Any:
        found = await read(request)
        self._missing -= 1
        if self._missing <= 0:
            self._complete.set()
        await self._complete.wait()
        return found


class LostAcknowledgement:
    """Lets appends land, but loses the answer to some of them.

    Args:
        store: The store whose appends are tampered with.
        times: How many answers are lost.
        error: What the caller gets in place of the answer.
        landed: Called after each append whose answer is lost.
    """

    def __init__(
        self,
        store: TrackerStore,
        times: int = 1,
        error: BaseException | None = None,
        landed: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.left = times
        self._append = store._append
        self._error = error or errors.StoreUnavailableError("the connection was lost")
        self._landed = landed
        store._append = self  # type: ignore[method-assign]

    async def __call__(self, append: Any) -> bool:
        answer = await self._append(append)
        if answer and self.left:
            self.left -= 1
            if self._landed is not None:
                await self._landed()
            raise self._error
        return answer


class FailingBroker(EventBroker):
    """Keeps what it is given, unless it is down.

    Attributes:
        messages: What was published, in order.
        is_down: Whether it refuses what it is given.
        fails_at: Refuse the message with this number, from 1, once.
    """

    def __init__(self) -> None:
        self.messages: list[EventMessage] = []
        self.is_down = False
        self.fails_at: int | None = None

    async def publish(self, message: EventMessage) -> None:
        """Keep the message, or fail."""
        await asyncio.sleep(0)
        if self.is_down or self.fails_at == len(self.messages) + 1:
            self.fails_at = None
            raise ConnectionError("the broker is down")
        self.messages.append(message)

    @property
    def ids(self) -> list[str]:
        """The ids of what was published, in order."""
        return [message.message_id for message in self.messages]

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The bodies of what was published, in order."""
        return [message.body for message in self.messages]


class CancelledAt:
    """Awaits something, and has the running task cancelled at its n-th suspension.

    Args:
        awaited: What to await.
        n: At which suspension to cancel, from 1.
        late: Cancel when what was waited for has just happened, so that its result is
            lost, rather than at once, so that it is interrupted.
    """

    def __init__(self, awaited: Awaitable[Any], n: int, *, late: bool) -> None:
        self._awaited = awaited
        self._n = n
        self._late = late
        self.cancelled = False

    def __await__(self) -> Generator[Any, Any, Any]:
        """Pass on what is waited for, and count."""
        steps = self._awaited.__await__()
        resume = partial(steps.send, None)
        for count in itertools.count(1):
            try:
                waiting_for = resume()
            except StopIteration as done:
                return done.value
            if count == self._n:
                self._cancel(waiting_for)
            try:
                yield waiting_for
            except BaseException as error:
                resume = partial(steps.throw, error)
            else:
                resume = partial(steps.send, None)
        return None

    def _cancel(self, waiting_for: Any) -> None:
        self.cancelled = True
        task = asyncio.current_task()
        assert task is not None
        if self._late and isinstance(waiting_for, asyncio.Future):
            waiting_for.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()
