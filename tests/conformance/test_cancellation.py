"""A call may be cancelled wherever it waits: the store stays whole.

Each test runs one call again and again and has it cancelled at its first suspension,
its second ... until it completes, in two ways: `interrupted` cancels as soon as the
call waits, `answer lost` just when what it waited for has happened.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import (
    CancelledAt,
    add,
    dicts,
    has,
    held,
    new_session,
    said,
    stored_dicts,
    stored_ids,
    turn,
    update,
    user,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore

MOST_SUSPENSIONS = 200
PATIENCE_SECONDS = 30

in_both_ways = pytest.mark.parametrize(
    "late", [False, True], ids=["interrupted", "answer lost"]
)


async def cancelled_everywhere(
    call: Callable[[int], Awaitable[Any]],
    check: Callable[[int, bool], Awaitable[None]],
    *,
    late: bool,
) -> int:
    """Make the call for n = 1, 2, ... and cancel it at its n-th suspension.

    Args:
        call: Makes the call; it gets n.
        check: What must be true afterwards; it gets n and whether the call completed.
        late: See `CancelledAt`.

    Returns:
        The number of suspensions of a call that nobody cancels.
    """
    for n in range(1, MOST_SUSPENSIONS):
        driven = CancelledAt(call(n), n, late=late)

        async def run(driven: CancelledAt = driven) -> None:
            await driven

        [outcome] = await asyncio.wait_for(
            asyncio.gather(asyncio.ensure_future(run()), return_exceptions=True),
            PATIENCE_SECONDS,
        )
        if outcome is not None:
            assert isinstance(outcome, asyncio.CancelledError), repr(outcome)
        await asyncio.wait_for(check(n, outcome is None), PATIENCE_SECONDS)
        if not driven.cancelled:
            assert outcome is None
            return n - 1
    raise AssertionError("the call never completed")


async def still_works(store: TrackerStore) -> None:
    """Use more connections at once than a pool could have left over by chance."""

    async def one(n: int) -> None:
        await add(store, f"still-works-{n}", user())
        assert (await store.retrieve(f"still-works-{n}")) is not None
        await store.delete(f"still-works-{n}")

    await asyncio.wait_for(
        asyncio.gather(*(one(n) for n in range(25))), PATIENCE_SECONDS
    )


@in_both_ways
async def test_a_cancelled_save_and_its_retry_store_once(
    store: TrackerStore, late: bool
) -> None:
    trackers = {}

    async def save(n: int) -> None:
        await store.save(trackers[n])

    async def check(n: int, completed: bool) -> None:
        stored = await stored_dicts(store, f"{n}")
        assert len(stored) in ((5,) if completed else (1, 5))
        await store.save(trackers[n])
        assert said(await has(store, f"{n}")) == ["mine"]
        ids = await stored_ids(store, f"{n}")
        assert len(set(ids)) == len(ids) == 5
        trackers[n].update(user("on"))
        await store.save(trackers[n])
        assert said(await has(store, f"{n}")) == ["mine", "on"]
        await prepare(n + 1)

    async def prepare(n: int) -> None:
        trackers[n] = await store.get_or_create_tracker(f"{n}")
        update(trackers[n], turn("mine"))

    await prepare(1)
    await cancelled_everywhere(save, check, late=late)
    await still_works(store)


@in_both_ways
async def test_a_cancelled_rebase_and_its_retry_store_once(
    storage: Storage, late: bool
) -> None:
    store, other = storage.store(), storage.store()
    trackers = {}

    async def save(n: int) -> None:
        await store.save(trackers[n])

    async def check(n: int, completed: bool) -> None:
        await store.save(trackers[n])
        assert said(await has(store, f"{n}")) == ["theirs", "mine"]
        assert len(await stored_ids(store, f"{n}")) == 9
        assert held(trackers[n]) == held(await has(store, f"{n}"))
        await prepare(n + 1)

    async def prepare(n: int) -> None:
        trackers[n] = await store.get_or_create_tracker(f"{n}")
        await add(other, f"{n}", *turn("theirs"))
        update(trackers[n], turn("mine"))

    await prepare(1)
    await cancelled_everywhere(save, check, late=late)
    await still_works(store)


@in_both_ways
async def test_a_cancelled_load_harms_nobody(store: TrackerStore, late: bool) -> None:
    events = [*new_session(), *(event for n in range(80) for event in turn(str(n)))]
    await add(store, "long", *events)

    async def load(n: int) -> None:
        await store.retrieve("long")

    async def check(n: int, completed: bool) -> None:
        assert held(await has(store, "long")) == dicts(events)

    await cancelled_everywhere(load, check, late=late)
    await still_works(store)


@in_both_ways
async def test_a_cancelled_creation_is_repeated(
    store: TrackerStore, late: bool
) -> None:
    await store.open()

    async def create(n: int) -> None:
        await store.get_or_create_tracker(f"{n}")

    async def check(n: int, completed: bool) -> None:
        assert len((await store.get_or_create_tracker(f"{n}")).events) == 1
        assert len(await stored_ids(store, f"{n}")) == 1

    await cancelled_everywhere(create, check, late=late)
    await still_works(store)


@in_both_ways
async def test_a_cancelled_deletion_deletes_all_or_nothing(
    store: TrackerStore, late: bool
) -> None:
    events = [*new_session(), *turn("old"), *new_session(), *turn("new")]
    await add(store, "1", *events)

    async def delete(n: int) -> None:
        await store.delete(f"{n}", *([6] if n % 2 else []))

    async def check(n: int, completed: bool) -> None:
        left = await stored_dicts(store, f"{n}")
        assert left in (dicts(events), dicts(events[6:]) if n % 2 else [])
        await store.delete(f"{n}")
        assert not await store.exists(f"{n}")
        await add(store, f"{n + 1}", *events)

    await cancelled_everywhere(delete, check, late=late)
    await still_works(store)


@in_both_ways
async def test_a_cancelled_listing_harms_nobody(
    store: TrackerStore, late: bool
) -> None:
    names = [f"{n}" for n in range(5)]
    for name in names:
        await add(store, name, user())

    async def list_all(n: int) -> None:
        async for _ in store.conversations(page_size=2):
            pass

    async def check(n: int, completed: bool) -> None:
        assert sorted(await store.keys()) == names

    await cancelled_everywhere(list_all, check, late=late)
    await still_works(store)


@in_both_ways
async def test_a_cancelled_opening_is_repeated(storage: Storage, late: bool) -> None:
    stores = {n: storage.store() for n in range(1, MOST_SUSPENSIONS)}

    async def open_it(n: int) -> None:
        await stores[n].open()

    async def check(n: int, completed: bool) -> None:
        await add(stores[n], f"{n}", user("hi"))
        assert said(await has(stores[n], f"{n}")) == ["hi"]
        await stores[n].close()

    await cancelled_everywhere(open_it, check, late=late)


@in_both_ways
async def test_a_cancelled_closing_is_repeated(storage: Storage, late: bool) -> None:
    stores = {n: storage.store() for n in range(1, MOST_SUSPENSIONS)}
    await add(stores[1], "1", user("hi"))

    async def close(n: int) -> None:
        await stores[n].close()

    async def check(n: int, completed: bool) -> None:
        await stores[n].close()
        await stores[n].open()
        assert said(await has(stores[n], f"{n}")) == ["hi"]
        await stores[n].close()
        await add(stores[n + 1], f"{n + 1}", user("hi"))

    await cancelled_everywhere(close, check, late=late)


async def test_many_saves_cancelled_at_random_times(store: TrackerStore) -> None:
    trackers = [await store.get_or_create_tracker(f"{n}") for n in range(30)]
    for tracker in trackers:
        update(tracker, turn("mine"))
    saves = [asyncio.create_task(store.save(tracker)) for tracker in trackers]
    for n, save in enumerate(saves):
        if n % 3:
            await asyncio.sleep(0.0005 * (n % 4))
        save.cancel()
    await asyncio.gather(*saves, return_exceptions=True)
    await asyncio.gather(*(store.save(tracker) for tracker in trackers))
    for tracker in trackers:
        assert said(await has(store, tracker.sender_id)) == ["mine"]
        assert len(await stored_ids(store, tracker.sender_id)) == 5
    await still_works(store)
