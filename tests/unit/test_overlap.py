"""Which events of a tracker built by hand are stored: found fast, and found plainly."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tracker_store_async.events import EntitiesAdded, UserUttered
from tracker_store_async.overlap import (
    adds_entities,
    common_prefixes,
    keys_of,
    overlap,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ITEMS = st.lists(st.sampled_from("abc"), max_size=12)


def plain_overlap(stored: Sequence[str], own: Sequence[str]) -> tuple[int, int]:
    """Try every place."""
    places = [(0, at) for at in reversed(range(len(stored)))]
    places += [(at, 0) for at in range(1, len(own))]
    best, known, end = (0, False), 0, 0
    for mine, theirs in places:
        longest = min(len(own) - mine, len(stored) - theirs)
        run = 0
        while run < longest and own[mine + run] == stored[theirs + run]:
            run += 1
        if run and (run, run == longest) > best:
            best, known, end = (run, run == longest), mine + run, theirs + run
    return known, end


@given(ITEMS, ITEMS)
def test_it_finds_what_trying_every_place_finds(
    stored: list[str], own: list[str]
) -> None:
    assert overlap(stored, own) == plain_overlap(stored, own)


@given(ITEMS, ITEMS)
def test_prefixes(pattern: list[str], text: list[str]) -> None:
    for at, length in enumerate(common_prefixes(pattern, text)):
        assert text[at : at + length] == pattern[:length]
        longer = length + 1
        assert (
            longer > len(pattern)
            or at + longer > len(text)
            or text[at : at + longer] != pattern[:longer]
        )


def test_equal_events_take_linear_time() -> None:
    def seconds(count: int) -> float:
        started = time.perf_counter()
        overlap(["a"] * count, ["a"] * (count - 1) + ["b"])
        return time.perf_counter() - started

    seconds(100)
    assert seconds(20_000) < 100 * max(seconds(1_000), 0.001)


def test_entities_that_were_added_later_do_not_make_another_message() -> None:
    said = UserUttered("to Paris", entities=[{"entity": "city"}], timestamp=1.0)
    seen = UserUttered("to Paris", entities=[{"entity": "city"}, {}], timestamp=1.0)
    added = EntitiesAdded([{}], timestamp=2.0)
    other = UserUttered("to Rome", entities=[{"entity": "city"}], timestamp=1.0)
    assert not adds_entities([said, seen])
    assert adds_entities([said, seen, added])
    exact = keys_of([said, seen, other], without_entities=False)
    assert len(set(exact)) == 3
    loose = keys_of([said, seen, other], without_entities=True)
    assert loose[0] == loose[1] != loose[2]
