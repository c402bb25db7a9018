"""Writers on one conversation in a storm of faults, and the proof that nothing broke.

Several writers save turns to one conversation, each through a store of its own, while
what can go wrong does: an append fails before it is made, its answer is lost, a read
fails, the broker fails, a save is cancelled at any of its suspensions. A writer repeats
a save that failed, or gives it up for good. Whose turn it is at each storage operation
is drawn by lot; one seed gives one run (on a server its answers come when they come).

`check` looks at what the writers were told and at what is stored:

- what was acknowledged is stored exactly once, each save in one piece and in its
  writer's order;
- what was given up is stored once or not at all, whole;
- nothing else is stored, and positions have no gaps;
- what any read saw is the beginning of the final log;
- the published messages without repeats are what is stored, and what was given up.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tests.conformance.kit import SENDER, CancelledAt, stored_ids, turn, update
from tracker_store_async import errors, saving
from tracker_store_async import turns as turns_module
from tracker_store_async.broker import EventBroker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.conformance.backends import Storage
    from tracker_store_async.broker import EventMessage
    from tracker_store_async.rows import Read
    from tracker_store_async.store import TrackerStore

MOST_TRIES = 30
MOST_SUSPENSIONS = 25

FAULTS = ("before", "lost", "read", "publish", "cancel", "cancel late")


@dataclass
class Weather:
    """The lots that are drawn, and what they came to.

    Attributes:
        seed: Where the lots come from.
        struck: How often each fault has struck.
    """

    seed: int
    struck: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._lots = random.Random(self.seed)
        self._waiting: list[asyncio.Future[None]] = []
        self._is_over = False

    def strikes(self, fault: str, odds: float) -> bool:
        """Draw whether a fault strikes now."""
        if self._is_over or self._lots.random() >= odds:
            return False
        self.struck[fault] += 1
        return True

    def number(self, most: int) -> int:
        """Draw a number from 1."""
        return self._lots.randint(1, most)

    def toss(self, odds: float) -> bool:
        """Draw yes or no."""
        return self._lots.random() < odds

    async def turn(self) -> None:
        """Wait until this one's lot is drawn among all that wait."""
        if self._is_over:
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        await mine

    async def run(self) -> None:
        """Draw whose turn it is, for as long as the storm lasts."""
        while not self._is_over:
            await asyncio.sleep(0)
            ready = [each for each in self._waiting if not each.done()]
            if ready:
                chosen = self._lots.choice(ready)
                chosen.set_result(None)
            self._waiting = [each for each in self._waiting if not each.done()]

    def end(self) -> None:
        """Let everything go on undisturbed."""
        self._is_over = True
        for each in self._waiting:
            if not each.done():
                each.set_result(None)


class StormyBroker(EventBroker):
    """Fails before it has taken a message, or after."""

    def __init__(self, weather: Weather, published: list[EventMessage]) -> None:
        self._weather = weather
        self._published = published

    async def publish(self, message: EventMessage) -> None:
        """Keep the message for all writers, unless it fails."""
        await self._weather.turn()
        strikes = self._weather.strikes("publish", 0.1)
        if strikes and self._weather.toss(0.5):
            raise ConnectionError("the broker is down")
        self._published.append(message)
        if strikes:
            raise ConnectionError("the confirmation was lost")


@dataclass
class Save:
    """One turn of a writer: the ids of its events, and what became of it."""

    writer: int
    event_ids: list[str]
    is_acknowledged: bool = False


@dataclass
class History:
    """What the writers did and saw."""

    saves: list[Save] = field(default_factory=list)
    seen: list[list[str | None]] = field(default_factory=list)
    published: list[EventMessage] = field(default_factory=list)


def expose(store: TrackerStore, weather: Weather, history: History) -> None:
    """Let faults strike the appends and the reads of a store."""
    append, read = store._append, store._read

    async def stormy_append(request: Any) -> bool:
        await weather.turn()
        if weather.strikes("before", 0.2):
            raise errors.StoreUnavailableError("the connection was refused")
        done = await append(request)
        await weather.turn()
        if weather.strikes("lost", 0.25):
            raise errors.StoreUnavailableError("the answer was lost")
        return done

    async def stormy_read(request: Read) -> Any:
        await weather.turn()
        if weather.strikes("read", 0.1):
            raise errors.StoreUnavailableError("the connection was refused")
        found = await read(replace(request, ids=True))  # it is compared by its ids
        if found is not None and request.start == 0 and request.last is None:
            history.seen.append([event_id for event_id, _ in found.rows])
        return found

    store._append = stormy_append  # type: ignore[method-assign]
    store._read = stormy_read  # type: ignore[method-assign]


async def storm(
    storage: Storage, seed: int, *, writers: int = 4, turns: int = 5
) -> tuple[Weather, History]:
    """Have the writers save in a storm; return what happened."""
    # Else how long things take would decide whose turn it is.
    with (
        patch.object(turns_module, "TURNS_SECONDS_PER_PASS", float("inf")),
        patch.object(saving, "LONGEST_PAUSE_SECONDS", 0.0),
    ):
        return await _storm(storage, seed, writers, turns)


async def _storm(
    storage: Storage, seed: int, writers: int, turns: int
) -> tuple[Weather, History]:
    weather, history = Weather(seed), History()
    stores = []
    for _ in range(writers):
        broker = StormyBroker(weather, history.published)
        store = storage.store(event_broker=broker)
        await store.open()
        expose(store, weather, history)
        stores.append(store)
    lots = asyncio.create_task(weather.run())
    try:
        await asyncio.gather(
            *(write(s, n, turns, weather, history) for n, s in enumerate(stores))
        )
    finally:
        weather.end()
        await lots
    return weather, history


async def write(
    store: TrackerStore, writer: int, turns: int, weather: Weather, history: History
) -> None:
    """Have turns, with one tracker for some of them and a new one for others."""
    tracker: Any = None
    for number in range(turns):
        if tracker is None or weather.toss(0.4):
            tracker = await loaded(store, weather)
        update(tracker, turn(f"{writer}.{number}"))
        save = Save(writer, [entry.identify() for entry in tracker._log.pending])
        history.saves.append(save)
        save.is_acknowledged = await saved(store, tracker, weather)
        if not save.is_acknowledged:
            tracker = None  # given up: whether it has landed nobody knows


async def loaded(store: TrackerStore, weather: Weather) -> Any:
    """Load the whole conversation, or its latest session; try until it works."""
    full = weather.toss(0.5)
    while True:
        with suppress(errors.StoreUnavailableError, errors.PublishError):
            if full:
                found = await store.retrieve_full_tracker(SENDER)
            else:
                found = await store.retrieve(SENDER)
            return found or store.init_tracker(SENDER)


async def saved(store: TrackerStore, tracker: Any, weather: Weather) -> bool:
    """Save until it is acknowledged; return False if it was given up before."""
    for _ in range(MOST_TRIES):
        outcome = await tried(store, tracker, weather)
        if outcome is None:
            return True
        known = (errors.StoreUnavailableError, errors.PublishError)
        assert isinstance(outcome, (*known, asyncio.CancelledError)), repr(outcome)
        if weather.toss(0.08):
            return False
    return False


async def tried(store: TrackerStore, tracker: Any, weather: Weather) -> Any:
    """Save once, perhaps cancelled somewhere; return what was raised, or None."""
    late = weather.toss(0.5)
    at = weather.number(MOST_SUSPENSIONS) if weather.toss(0.4) else -1
    call = CancelledAt(store.save(tracker), at, late=late)

    async def run() -> None:
        await call

    [outcome] = await asyncio.gather(asyncio.create_task(run()), return_exceptions=True)
    if isinstance(outcome, asyncio.CancelledError):
        weather.struck["cancel late" if late else "cancel"] += 1
    return outcome


async def check(storage: Storage, history: History) -> None:
    """Prove that the log is what the writers were told.

    Raises:
        AssertionError: It is not.
    """
    reader = storage.store()
    log: Sequence[str | None] = await stored_ids(reader)
    assert len(set(log)) == len(log), "an event is stored twice"
    assert None not in log, "an event lost its id"
    places = {event_id: place for place, event_id in enumerate(log)}
    known: set[str] = set()
    given_up: set[str] = set()
    latest: dict[int, int] = {}
    for save in history.saves:
        known.update(save.event_ids)
        found = [places[event_id] for event_id in save.event_ids if event_id in places]
        if not save.is_acknowledged:
            given_up.update(save.event_ids)
            if not found:
                continue
        assert len(found) == len(save.event_ids), "a save is not whole"
        first = found[0]
        assert found == list(range(first, first + len(found))), "a save is in pieces"
        assert first > latest.get(save.writer, -1), "a writer's saves changed places"
        latest[save.writer] = first
    assert set(log) <= known, "something is stored that nobody saved"
    for seen in history.seen:
        assert seen == log[: len(seen)], "a read saw another log"
    _check_published(history, set(log), given_up)


def _check_published(
    history: History, stored: set[str | None], given_up: set[str]
) -> None:
    published = [message.message_id for message in history.published]
    assert stored <= set(published), "something stored was not published"
    assert set(published) - stored <= given_up, "something published was lost"
    first_of = dict.fromkeys(published)
    order = {event_id: place for place, event_id in enumerate(first_of)}
    for save in history.saves:
        places = [order[event_id] for event_id in save.event_ids if event_id in order]
        assert places == sorted(places), "a save was published out of order"
