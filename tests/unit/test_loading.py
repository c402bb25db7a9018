"""A long history is applied in pieces, with the result of one pass."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.histories import Row, domain, events_of, everything_of, histories, loaded
from tracker_store_async import InMemoryTrackerStore
from tracker_store_async.loading import EVENTS_PER_REPLAY, EVENTS_PER_TURN

if TYPE_CHECKING:
    from random import Random


@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(histories(max_size=40), st.randoms(use_true_random=False), st.booleans())
def test_a_long_history_is_loaded_as_in_one_pass(
    rows: list[Row], lots: Random, reverts: bool
) -> None:
    kinds = ("session_started", *(() if reverts else ("undo", "rewind")))
    pool = [row for row in rows if row["event"] not in kinds] or [{"event": "pause"}]
    count = EVENTS_PER_REPLAY * 2 + EVENTS_PER_TURN
    long = [
        {**lots.choice(pool), "timestamp": 1000.0 + n}
        for n in range(count + lots.randint(0, 9))
    ]

    async def run() -> None:
        store = InMemoryTrackerStore(domain())
        tracker = store.init_tracker("random")
        for event in events_of(long):
            tracker.update(event)
        await store.save(tracker)
        found = await store.retrieve("random")
        assert found is not None
        assert everything_of(found) == everything_of(loaded(long))

    asyncio.run(run())


@pytest.mark.parametrize("count", [0, 1, -1])
async def test_no_event_is_left_out_at_the_edges(count: int) -> None:
    rows = [
        {"event": "slot", "name": "name", "value": n, "timestamp": 1.0 + n}
        for n in range(EVENTS_PER_REPLAY * 2 + count)
    ]
    store = InMemoryTrackerStore(domain())
    tracker = store.init_tracker("random")
    for event in events_of(rows):
        tracker.update(event)
    await store.save(tracker)
    found = await store.retrieve("random")
    assert found is not None
    assert [event.as_dict()["value"] for event in found.events] == list(
        range(len(rows))
    )
    assert found.get_slot("name") == len(rows) - 1
