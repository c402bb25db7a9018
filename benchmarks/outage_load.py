"""The process that the outage benchmark watches: conversations at full load.

It prints one line a turn, so that nothing it has acknowledged is forgotten when it is
killed, and goes on until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks import outage_story, workload
from tracker_store_async import (
    DialogueStateTracker,
    FailSafeTrackerStore,
    InMemoryTrackerStore,
    TrackerStore,
    create_tracker_store,
    errors,
)
from tracker_store_async.events import event_from_dict

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_EVENT_HISTORY = 60
RECOVERY_SECONDS = 60.0


class PlainFailSafe:
    """What a fail-safe usually is: another store in memory, and nothing is replayed."""

    def __init__(self, primary: TrackerStore) -> None:
        self._primary = primary
        self._fallback = InMemoryTrackerStore(max_event_history=MAX_EVENT_HISTORY)

    async def get_or_create_tracker(
        self, sender_id: str, append_action_listen: bool = True
    ) -> DialogueStateTracker:
        """Ask the primary, or else the fallback."""
        for store in (self._primary, self._fallback):
            try:
                return await store.get_or_create_tracker(
                    sender_id, None, append_action_listen
                )
            except errors.StoreUnavailableError:
                continue
        raise AssertionError

    async def save(self, tracker: DialogueStateTracker) -> None:
        """Save in the primary, or else in the fallback."""
        try:
            await self._primary.save(tracker)
        except errors.StoreUnavailableError:
            await self._fallback.save(tracker)

    async def close(self) -> None:
        """Close both."""
        await self._primary.close()
        await self._fallback.close()


def make_store(kind: str, section: dict[str, Any], journal: str | None) -> Any:
    """Return the store to be measured.

    Args:
        kind: `fail_safe` or `plain`.
        section: The `tracker_store` section of the primary.
        journal: Path of the journal, or None for the memory.
    """
    section = {**section, "max_event_history": MAX_EVENT_HISTORY}
    if kind == "plain":
        return PlainFailSafe(create_tracker_store(section))
    keys = {} if journal is None else {"journal": journal}
    return create_tracker_store({**section, "fail_safe": keys})


def say(*words: object) -> None:
    """Print a line at once."""
    print(*words, flush=True)


async def converse(store: Any, name: str, stop: asyncio.Event) -> None:
    """Take one turn after the other, without a pause."""
    number = 0
    while not stop.is_set():
        started = time.perf_counter()
        try:
            ids = await take_turn(store, name, number)
        except Exception as error:  # noqa: BLE001  it is what is counted
            say("failed", name, time.time(), type(error).__name__)
            await asyncio.sleep(0.01)
            continue
        seconds = time.perf_counter() - started
        say("turn", name, time.time(), f"{seconds:.6f}", *ids)
        number += 1


async def take_turn(store: Any, name: str, number: int) -> list[str]:
    """Load, update and save; return the ids of what was acknowledged."""
    tracker = await store.get_or_create_tracker(name, append_action_listen=False)
    for event in events_of(number):
        tracker.update(event)
    ids = [entry.identify() for entry in tracker._log.pending]
    await store.save(tracker)
    return ids


def events_of(number: int) -> Iterator[Any]:
    """Return the events of a turn."""
    return map(event_from_dict, workload.turn(number))


async def watch(store: Any) -> None:
    """Tell when the breaker changes its state."""
    if not isinstance(store, FailSafeTrackerStore):
        return
    known = None
    while True:
        state = (store._breaker.state, not store._backlog.entries)
        if state != known:
            known = state
            say("state", time.time(), state[0], "empty" if state[1] else "backlog")
        await asyncio.sleep(0.01)


async def run(arguments: dict[str, Any]) -> None:
    """Open the store and keep the load up until standard input ends."""
    store = make_store(
        arguments["kind"], arguments["section"], arguments.get("journal")
    )
    stop = asyncio.Event()
    tell = None
    if isinstance(store, FailSafeTrackerStore):
        tell = outage_story.watch(store, say)
        await store.open()
    watching = asyncio.create_task(watch(store))
    names = [f"conversation-{n}" for n in range(arguments["conversations"])]
    say("ready", time.time())
    talking = [asyncio.create_task(converse(store, name, stop)) for name in names]
    await asyncio.to_thread(sys.stdin.read)
    stop.set()
    await asyncio.gather(*talking)
    if watching.done():
        watching.result()  # it has failed, or had nothing to watch
    if isinstance(store, FailSafeTrackerStore) and store._recovery.task is not None:
        await asyncio.wait({store._recovery.task}, timeout=RECOVERY_SECONDS)
        await asyncio.sleep(0.05)  # let it be told
    watching.cancel()
    await store.close()
    if tell is not None:
        tell()


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
