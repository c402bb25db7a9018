"""Outages on demand, a load that runs through them, and the proof that all is there."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tests.conformance.kit import FailingBroker, stored_ids, turn, update
from tracker_store_async import InMemoryTrackerStore, errors
from tracker_store_async.rows import Read

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracker_store_async import DialogueStateTracker, TrackerStore
    from tracker_store_async.rows import StoredConversation
    from tracker_store_async.wrappers.failsafe import FailSafeTrackerStore


class SwitchedStore(InMemoryTrackerStore):
    """Goes away and comes back on demand.

    Attributes:
        is_down: Whether every call fails at once.
        hangs: Whether every call hangs until `resume` is called.
        loses_answers: How many appends still land although their answers are lost.
        refuses: Raised by appends in place of an answer, or None.
        calls: Number of calls.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.is_down = False
        self.hangs = False
        self.loses_answers = 0
        self.refuses: Exception | None = None
        self.calls = 0
        self._resumed = asyncio.Event()

    def resume(self) -> None:
        """Let the calls that hang, and all others, go on."""
        self.hangs = False
        self._resumed.set()

    async def _answer(self) -> None:
        self.calls += 1
        if self.hangs:
            await self._resumed.wait()
        if self.is_down:
            await asyncio.sleep(0)
            raise errors.StoreUnavailableError("the server is down")

    async def _open(self) -> None:
        await self._answer()
        await super()._open()

    async def _append(self, append: Any) -> bool:
        await self._answer()
        if self.refuses is not None:
            raise self.refuses
        answer = await super()._append(append)
        if answer and self.loses_answers:
            self.loses_answers -= 1
            self.is_down = True
            raise errors.StoreTimeoutError("the answer was lost")
        return answer

    async def _read(self, read: Any) -> Any:
        await self._answer()
        return await super()._read(read)

    async def _delete(self, sender_id: str, before: int | None, now: float) -> bool:
        await self._answer()
        return await super()._delete(sender_id, before, now)

    async def _list(self, listing: Any) -> Any:
        await self._answer()
        return await super()._list(listing)

    async def _health(self) -> Any:
        await self._answer()
        return await super()._health()


async def caught_up(store: FailSafeTrackerStore, seconds: float = 20.0) -> None:
    """Wait until the primary is back and has everything."""
    async with asyncio.timeout(seconds):
        while store._breaker.state != "closed" or store._backlog.entries:
            if store._recovery.task is not None and store._recovery.task.done():
                assert store._recovery.task.exception() is None
            await asyncio.sleep(0.002)


async def is_open(store: FailSafeTrackerStore, seconds: float = 20.0) -> None:
    """Wait until the breaker has opened."""
    async with asyncio.timeout(seconds):
        while not store._breaker.is_open:
            await asyncio.sleep(0.005)


class Load:
    """Conversations that go on, a turn after the other, whatever happens.

    Args:
        store: Where they are saved.
        names: The conversations, each with a writer of its own.

    Attributes:
        acknowledged: The ids of the events whose save returned, by conversation.
        turns: When each turn ended, by the loop's clock, and how long it took, in s.
        failures: What was raised to a caller.
    """

    def __init__(self, store: TrackerStore, names: Iterable[str]) -> None:
        self.store = store
        self.names = list(names)
        self.acknowledged: dict[str, list[str]] = defaultdict(list)
        self.turns: list[tuple[float, float]] = []
        self.failures: list[BaseException] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def __aenter__(self) -> Load:
        """Start the writers."""
        self._tasks = [asyncio.create_task(self._go_on(name)) for name in self.names]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Let every writer end its turn."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def turns_more(self, count: int, seconds: float = 30.0) -> None:
        """Wait until so many more turns have been answered."""
        goal = len(self.turns) + count
        async with asyncio.timeout(seconds):
            while len(self.turns) < goal and not self.failures:
                await asyncio.sleep(0.005)
        if self.failures:
            raise self.failures[0]

    async def _go_on(self, name: str) -> None:
        number = 0
        while not self._stopping:
            started = time.perf_counter()
            try:
                await self._take_turn(name, number)
            except Exception as error:
                self.failures.append(error)
                return
            now = time.perf_counter()
            self.turns.append((now, now - started))
            number += 1

    async def _take_turn(self, name: str, number: int) -> None:
        tracker = await self.store.get_or_create_tracker(
            name, append_action_listen=False
        )
        self.check_seen(name, tracker)
        update(tracker, turn(f"{name} {number}"))
        ids = [entry.identify() for entry in tracker._log.pending]
        await self.store.save(tracker)
        self.acknowledged[name] += ids

    def check_seen(self, name: str, tracker: DialogueStateTracker) -> None:
        """Check that a conversation with one writer is just what that has written."""
        assert (tracker.version or 0) == len(self.acknowledged[name])


async def check_all_there(
    primary: TrackerStore, load: Load, broker: FailingBroker
) -> None:
    """Prove that what was acknowledged stands in the log, once, in order, and alone.

    Args:
        primary: A store that reads the primary directly.
        load: What was written, by one writer a conversation.
        broker: What was published.
    """
    assert load.failures == []
    published = defaultdict(list)
    for message in broker.messages:
        published[message.sender_id].append(message.message_id)
    for name in load.names:
        ids = await stored_ids(primary, name)
        assert ids == load.acknowledged[name]
        assert len(ids) == len(set(ids))
        assert ids == published[name]
        await check_gapless(primary, name)


async def check_gapless(primary: TrackerStore, name: str) -> StoredConversation:
    """Check that the positions of a conversation are 0, 1, 2 ...; return it whole."""
    found = await primary._read(Read(name, primary._now(), start=0))
    assert found is not None
    assert found.first_position == 0
    assert found.version == len(found.rows)
    return found
