"""Dropping repeats by message id, in bounded memory."""

from __future__ import annotations

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


def test_a_capacity_is_positive() -> None:
    with pytest.raises(errors.ConfigurationError):
        RepeatFilter(0)
