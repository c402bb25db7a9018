"""Dropping repeats by message id, in bounded memory."""

from __future__ import annotations

import asyncio

import pytest

from tracker_store_async import RepeatFilter, errors


def test_a_repeat_is_told_and_counted() -> None:
    repeats = RepeatFilter()
    found = [repeats.is_new(each) for each in ("a", "b", "a", "c", "b", "a")]
    assert found == [True, True, False, True, False, False]
    assert repeats.repeats == 3


def test_it_forgets_what_it_met_longest_ago() -> None:
    repeats = RepeatFilter(capacity=2)
    for each in ("a", "b", "a", "c"):  # `a` was met again, so `b` goes
        repeats.is_new(each)
    assert len(repeats) == 2
    assert not repeats.is_new("a")
    assert not repeats.is_new("c")
    assert repeats.is_new("b")


def fail(repeats: RepeatFilter) -> None:
    """Handle the message `a`, and fail."""
    with repeats.handling("a") as is_new:
        raise OSError(f"new: {is_new}")


def test_what_was_not_handled_is_new_again() -> None:
    repeats = RepeatFilter()
    with pytest.raises(OSError, match="new: True"):
        fail(repeats)
    assert len(repeats) == 0
    with repeats.handling("a") as is_new:
        assert is_new
    with repeats.handling("a") as is_new:
        assert not is_new
    assert repeats.repeats == 1


def test_a_repeat_that_fails_is_a_repeat_all_the_same() -> None:
    repeats = RepeatFilter()
    assert repeats.is_new("a")
    with pytest.raises(OSError, match="new: False"):
        fail(repeats)
    assert not repeats.is_new("a")


async def test_a_handler_that_is_cancelled_has_not_handled() -> None:
    repeats = RepeatFilter()
    started = asyncio.Event()

    async def handle() -> None:
        with repeats.handling("a"):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(handle())
    async with asyncio.timeout(5):
        await started.wait()
    # a repeat that arrives meanwhile is left to whoever is at it
    with repeats.handling("a") as is_new:
        assert not is_new
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with repeats.handling("a") as is_new:
        assert is_new


def test_what_is_being_handled_is_not_forgotten_for_want_of_room() -> None:
    repeats = RepeatFilter(capacity=1)
    with repeats.handling("a"):
        assert repeats.is_new("b")
        assert repeats.is_new("c")
        assert not repeats.is_new("a")
    assert not repeats.is_new("a")


def test_an_id_can_be_forgotten() -> None:
    repeats = RepeatFilter()
    assert repeats.is_new("a")
    repeats.forget("a")
    repeats.forget("never met")
    assert repeats.is_new("a")


def test_a_capacity_is_positive() -> None:
    with pytest.raises(errors.ConfigurationError):
        RepeatFilter(0)
