"""Which events of a tracker built by hand are stored: found fast, and found plainly."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker_store_async.events import EntitiesAdded, UserUttered
from tracker_store_async.overlap import (
    adds_entities,
    common_prefixes,
    keys_of,
    landed_parts,
    landed_run,
    overlap,
)
from tracker_store_async.rows import StoredConversation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def found(first_position: int, *ids: str) -> StoredConversation:
    """Return events as they are read from a log."""
    version = first_position + len(ids)
    rows = [(each, "{}") for each in ids]
    return StoredConversation(
        version, 0, None, 1.0, 1.0, first_position=first_position, rows=rows
    )


@pytest.mark.parametrize("landed", [landed_run, landed_parts])
@pytest.mark.parametrize(
    ("first_position", "start", "stored", "expected"),
    [
        pytest.param(5, 5, "a b c", (5, 3), id="all of them"),
        pytest.param(5, 5, "x a b c", (6, 3), id="behind others"),
        pytest.param(7, 5, "c", (5, 3), id="the first two are erased"),
        pytest.param(5, 5, "c", (0, 0), id="another's event of the same id"),
        pytest.param(6, 5, "c", (0, 0), id="only one can be erased"),
        pytest.param(5, 5, "x c", (0, 0), id="another's, behind others"),
        pytest.param(0, 0, "b c", (0, 0), id="another's, in a log that has just begun"),
        pytest.param(5, 5, "x y", (0, 0), id="none"),
    ],
)
def test_what_had_landed(
    landed: Callable[..., tuple[int, int]],
    first_position: int,
    start: int,
    stored: str,
    expected: tuple[int, int],
) -> None:
    conversation = found(first_position, *stored.split())
    assert landed(["a", "b", "c"], conversation, start) == expected
