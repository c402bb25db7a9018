"""How long a conversation waits whose event could not be published."""

from __future__ import annotations

import time

import pytest

from tracker_store_async import relay_holds
from tracker_store_async.relay_holds import Holds
from tracker_store_async.rows import OutboxEntry, OutboxItem


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_longer_each_time_up_to_a_limit(clock: list[float]) -> None:
    holds = Holds()
    pauses = [holds.add("alice", counts=True) for _ in range(30)]
    assert pauses[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert set(pauses[9:]) == {300}
    assert holds.waiting() == ["alice"]
    clock[0] += 300
    assert holds.waiting() == []
    assert holds.refused_count == 1
    holds.drop({"alice"})
    assert "alice" not in holds
    assert holds.add("alice", counts=True) == 1


def test_the_end_of_an_outage(clock: list[float]) -> None:
    holds = Holds()
    holds.add("refused", counts=True)
    holds.add("both", counts=True)
    for name in ("both", "only away"):
        assert holds.add(name, counts=False) == 30
    assert set(holds.waiting()) == {"refused", "both", "only away"}
    holds.end_outage()
    assert holds.waiting() == ["refused"]
    assert holds.refused_count == 2
    assert holds.add("both", counts=True) == 2  # it is not forgiven


def test_those_who_failed_longest_ago_come_first(clock: list[float]) -> None:
    holds = Holds()
    for name in ("a", "b", "a"):
        clock[0] += 1
        holds.add(name, counts=False)
    items = [
        OutboxItem(n, name, OutboxEntry(str(n), n, "{}"))
        for n, name in enumerate("ababcc")
    ]
    ordered = [(item.sender_id, item.key) for item in holds.oldest_first(items)]
    assert ordered == [("c", 4), ("c", 5), ("b", 1), ("b", 3), ("a", 0), ("a", 2)]


def test_a_query_leaves_out_no_more_than_it_can(clock: list[float]) -> None:
    holds = Holds()
    for n in range(relay_holds.MOST_HOLDS + 1):
        holds.add(str(n), counts=True)
    assert len(holds.waiting()) == relay_holds.MOST_HOLDS
    assert "0" not in holds
