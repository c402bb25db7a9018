"""The bound on operations: what `asyncio.timeout` would do, with one timer for all."""

from __future__ import annotations

import asyncio

import pytest

from tracker_store_async.deadlines import Deadlines

SOON = 0.001


async def forever() -> None:
    await asyncio.Event().wait()


async def value() -> int:
    await asyncio.sleep(0)
    return 7


async def test_what_is_in_time_returns_and_what_is_not_raises() -> None:
    deadlines = Deadlines(SOON)
    assert await deadlines.bound(value()) == 7
    for _ in range(2):  # the timer is set again
        with pytest.raises(TimeoutError):
            await deadlines.bound(forever())
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_each_of_several_is_bounded() -> None:
    deadlines = Deadlines(SOON)
    found = await asyncio.gather(
        *(deadlines.bound(each()) for each in (forever, value, forever)),
        return_exceptions=True,
    )
    assert [type(each) for each in found] == [TimeoutError, int, TimeoutError]


async def test_a_cancellation_from_outside_stays_one() -> None:
    deadlines = Deadlines(60.0)
    task = asyncio.ensure_future(deadlines.bound(forever()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadlines.close()


async def test_a_cancellation_beside_the_deadline_wins() -> None:
    deadlines = Deadlines(SOON)
    cancelled: list[asyncio.Task[None]] = []

    async def stubborn() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            cancelled[0].cancel()  # somebody else does, at the same time
            raise

    cancelled.append(asyncio.ensure_future(deadlines.bound(stubborn())))
    with pytest.raises(asyncio.CancelledError):
        await cancelled[0]


async def test_one_that_ends_although_it_is_cancelled_leaves_no_trace() -> None:
    async def stubborn() -> int:
        try:
            await forever()
        except asyncio.CancelledError:
            return 1
        return 0

    assert await Deadlines(SOON).bound(stubborn()) == 1
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


async def test_closing_leaves_what_is_under_way_bounded() -> None:
    deadlines = Deadlines(SOON)
    task = asyncio.ensure_future(deadlines.bound(forever()))
    await asyncio.sleep(0)
    deadlines.close()
    with pytest.raises(TimeoutError):
        await task
