"""Coming back: somebody waits for the primary, and replays what an outage has left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tracker_store_async.errors import (
    ConcurrentSaveError,
    StoreAccessError,
    StoreUnavailableError,
)
from tracker_store_async.observation import noted, observed
from tracker_store_async.wrappers.failsafe_breaker import pause_seconds
from tracker_store_async.wrappers.failsafe_log import tell_left_over, tell_recovery

if TYPE_CHECKING:
    from tracker_store_async.wrappers.failsafe import FailSafeTrackerStore

PASSING = (StoreAccessError, ConcurrentSaveError)
"""What may pass: a password is being changed, or others were faster each time."""

REPLAYS_AT_ONCE = 8
"""Conversations that are replayed at a time once the primary is back: few, so that each
of them waits for its own replay alone, and others are served meanwhile."""


class Recovery:
    """Waits for the primary of a fail-safe, and replays what waits for it.

    Args:
        store: The fail-safe.
        pauses: Shortest and longest pause between two probes, in seconds.

    Attributes:
        task: What is under way, or has ended; None before there was anything to do.
        is_replaying: Whether what waits is being replayed at this moment.
        has_left_over: Whether an earlier process has left something that is not
            replayed yet.
    """

    def __init__(
        self, store: FailSafeTrackerStore, pauses: tuple[float, float]
    ) -> None:
        self._store = store
        self.pauses = pauses
        self.task: asyncio.Task[None] | None = None
        self.is_replaying = False
        self.has_left_over = False

    def soon(self) -> None:
        """See to it that somebody waits for the primary and replays what is left."""
        if self.task is not None and not self.task.done():
            return
        store = self._store
        if store._breaker.state != "closed" or store._backlog.entries:
            self.task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Wait for nothing any more."""
        task, self.task = self.task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self) -> None:
        store = self._store
        attempt = 0
        while True:
            if store._breaker.is_open:
                await asyncio.sleep(pause_seconds(attempt, *self.pauses))
                attempt += 1
                if not await store._answers():
                    continue
                store._breaker.half_open()
            refused = await self.replay_all()
            if store._breaker.is_open or store._backlog.entries.keys() - refused.keys():
                continue
            tries_again = any(isinstance(e, PASSING) for e in refused.values())
            if store._breaker.state == "half_open":
                noted(store, "closed")
                done = store._replayer.replayed
                tell_recovery(store._breaker.close(), done, refused)
            elif self.has_left_over and not tries_again:
                tell_left_over(store._replayer.replayed, refused)
            self.has_left_over = tries_again
            if not tries_again:
                return
            await asyncio.sleep(pause_seconds(attempt, *self.pauses))
            attempt += 1

    async def replay_all(self) -> dict[str, Exception]:
        """Replay what is left; return the errors of what the primary refuses."""
        return await observed(self._store, "replay", self._replay_all())

    async def _replay_all(self) -> dict[str, Exception]:
        store = self._store
        refused: dict[str, Exception] = {}
        todo = iter(list(store._backlog.entries))

        async def work() -> None:
            for sender_id in todo:
                if store._breaker.is_open:
                    return
                try:
                    await store._replay(sender_id)
                except StoreUnavailableError as error:
                    store._note_outage(error)
                except Exception as error:  # noqa: BLE001  the others go on
                    refused[sender_id] = error

        self.is_replaying = True
        try:
            await asyncio.gather(*(work() for _ in range(REPLAYS_AT_ONCE)))
        finally:
            self.is_replaying = False
        return refused
