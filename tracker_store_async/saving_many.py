"""How many trackers are saved together: each all or nothing, appended as one batch.

Each tracker is prepared, encoded and published as in a save of its own. Then all
appends go to the storage at once, in the way that suits it, and those that were refused
go on alone: somebody else was faster, or an earlier attempt had landed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from tracker_store_async.errors import SaveManyError
from tracker_store_async.observation import observed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from tracker_store_async.rows import Append
    from tracker_store_async.saving import Prepared
    from tracker_store_async.store import TrackerStore
    from tracker_store_async.tracker import DialogueStateTracker

T = TypeVar("T")
R = TypeVar("R")

CONCURRENCY = 16
"""Most trackers that are prepared, or sent one by one, at once."""

BATCH_SIZE = 64
"""Most appends in one batch: it holds locks, and costs little more than one alone."""


async def save_many(
    store: TrackerStore, trackers: Sequence[DialogueStateTracker], *, rebase: bool
) -> None:
    """Save trackers; see `TrackerStore.save_many`.

    Args:
        store: The store.
        trackers: The trackers. Those of one conversation are saved in this order.
        rebase: Append after another writer's events rather than raise.

    Raises:
        SaveManyError: Some were not saved; it says what went wrong, by conversation.
    """
    failures: dict[str, BaseException] = {}
    for batch in _batches(trackers):
        errors = await _save_batch(store, batch, rebase=rebase)
        for tracker, error in zip(batch, errors, strict=True):
            if error is not None:
                failures[tracker.sender_id] = error
    if failures:
        raise SaveManyError(failures, len(trackers))


def _batches(
    trackers: Iterable[DialogueStateTracker],
) -> Iterator[list[DialogueStateTracker]]:
    """Yield the trackers in batches in which every conversation is once."""
    rounds: list[list[DialogueStateTracker]] = []
    seen: Counter[str] = Counter()
    for tracker in trackers:
        number = seen[tracker.sender_id]
        seen[tracker.sender_id] += 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(tracker)
    for each in rounds:
        for offset in range(0, len(each), BATCH_SIZE):
            yield each[offset : offset + BATCH_SIZE]


async def _save_batch(
    store: TrackerStore, batch: Sequence[DialogueStateTracker], *, rebase: bool
) -> list[BaseException | None]:
    saver = store._saver
    if len(batch) == 1:
        return [await _error_of(saver.save(batch[0], rebase=rebase))]
    async with AsyncExitStack() as turns:
        # Who waited for a turn while holding others could wait for ever.
        busy = [tracker for tracker in batch if tracker._save_under_way is not None]
        ready = [tracker for tracker in batch if tracker._save_under_way is None]
        for tracker in ready:
            await turns.enter_async_context(saver.turn(tracker))
        found = await _each(
            ready, lambda tracker: saver.prepare_append(tracker, rebase=rebase)
        )
        results: dict[int, Any] = {
            id(tracker): error for tracker, error in zip(ready, found, strict=True)
        }
        prepared: list[tuple[DialogueStateTracker, Prepared]] = []
        for tracker, each in zip(ready, found, strict=True):
            if each is not None and not isinstance(each, BaseException):
                prepared.append((tracker, each))
        refused = []
        if prepared:
            answers = await _appended(store, [each.request for _, each in prepared])
            for (tracker, each), answer in zip(prepared, answers, strict=True):
                results[id(tracker)] = answer if answer is not True else None
                if answer is True:
                    saver.confirm(tracker, each)
                elif answer is False:
                    refused.append(tracker)
        again = await _each(
            refused, lambda tracker: saver.save_refused(tracker, rebase=rebase)
        )
        results |= zip(map(id, refused), again, strict=True)
    alone = await _each(busy, lambda tracker: saver.save(tracker, rebase=rebase))
    results |= zip(map(id, busy), alone, strict=True)
    return [results[id(tracker)] for tracker in batch]


async def _appended(
    store: TrackerStore, requests: Sequence[Append]
) -> Sequence[bool | BaseException]:
    """Return what a store answers, or what it raises, to each append of a batch."""
    appending = store._append_many(requests)
    try:
        return await observed(store, "append", appending, None, requests)
    except Exception as error:  # noqa: BLE001  it is handed over
        return [error] * len(requests)


async def _each(
    items: Sequence[T], work: Callable[[T], Awaitable[R]]
) -> list[R | BaseException]:
    """Return the results or errors of some work, some of it at a time, in order."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def one(item: T) -> R:
        async with slots:
            return await work(item)

    return await asyncio.gather(*map(one, items), return_exceptions=True)


async def one_by_one(
    send: Callable[[T], Awaitable[R]], requests: Sequence[T]
) -> list[R | BaseException]:
    """Send requests each by itself, some at a time: what every backend can do.

    Args:
        send: Sends one of them.
        requests: The requests.

    Returns:
        The answers or errors, in order.
    """
    return await _each(requests, send)


async def settled_alone(
    answers: Sequence[R | None],
    send: Callable[[T], Awaitable[R]],
    requests: Sequence[T],
) -> list[R | BaseException]:
    """Send the requests of a batch that got no answer in it each by itself.

    Args:
        answers: The answers of the batch, or None.
        send: Sends one of them.
        requests: The requests.

    Returns:
        All answers or errors, in order.
    """
    left = [at for at, answer in enumerate(answers) if answer is None]
    alone = await one_by_one(send, [requests[at] for at in left])
    found = dict(zip(left, alone, strict=True))
    return [
        found[at] if answer is None else answer for at, answer in enumerate(answers)
    ]


def all_of(answers: Iterable[R | BaseException]) -> list[R]:
    """Return the answers, or raise the first error among them."""
    found: list[R] = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
        found.append(answer)
    return found


async def _error_of(work: Awaitable[None]) -> BaseException | None:
    try:
        await work
    except Exception as error:  # noqa: BLE001  it is handed over
        return error
    return None
