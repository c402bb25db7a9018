"""Cutting within a session: what the state rests on stays, in three safe steps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import SENDER, add, has, has_full, said, slot, state, turn
from tests.histories import rasas_histories
from tracker_store_async import DialogueStateTracker, InMemoryTrackerStore, errors
from tracker_store_async.events import ActionReverted, SlotSet
from tracker_store_async.keeping import Retention, prune
from tracker_store_async.keeping.compacting import plan_compaction
from tracker_store_async.rows import StoredConversation
from tracker_store_async.serialization import decode_rows, decode_snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

RETENTION = Retention(keep_last_events=5)


async def filled() -> InMemoryTrackerStore:
    store = InMemoryTrackerStore()
    talk = [each for n in range(9) for each in turn(f"message {n}")]
    await add(store, SENDER, slot("name", "Ada"), *talk)
    return store


@pytest.mark.parametrize("step", ["_rewrite", "_append", "_delete"])
@pytest.mark.parametrize("lands", [False, True])
async def test_it_may_be_cut_off_at_any_step(step: str, lands: bool) -> None:
    store = await filled()
    before = state(await has(store))
    do = getattr(store, step)

    async def failing(*arguments: Any) -> Any:
        if lands:
            await do(*arguments)
        raise errors.StoreUnavailableError("it is away")

    setattr(store, step, failing)
    with pytest.raises(errors.StoreUnavailableError):
        [_ async for _ in prune(store, RETENTION)]
    setattr(store, step, do)
    assert state(await has(store)) == state(await has_full(store)) == before
    cuts = [cut async for cut in prune(store, RETENTION)]
    assert (cuts == [None]) == (lands and step == "_delete")
    assert state(await has(store)) == state(await has_full(store)) == before
    assert len((await has_full(store)).events) < 12
    assert [cut async for cut in prune(store, RETENTION)] == [None]


@pytest.mark.parametrize("step", ["_rewrite", "_append", "_delete"])
async def test_what_others_add_meanwhile_is_kept(step: str) -> None:
    store = await filled()
    do = getattr(store, step)

    async def late(*arguments: Any) -> Any:
        setattr(store, step, do)
        await add(store, SENDER, *turn("meanwhile"))
        return await do(*arguments)

    setattr(store, step, late)
    [_ async for _ in prune(store, RETENTION)]
    tracker = await has(store)
    assert said(tracker)[-1] == "meanwhile"
    assert tracker.get_slot("name") == "Ada"
    assert state(await has_full(store)) == state(tracker)


async def test_what_reaches_behind_the_cut_keeps_the_session_whole() -> None:
    store = await filled()
    await add(store, SENDER, *(ActionReverted() for _ in range(12)))
    assert [cut async for cut in prune(store, RETENTION)] == [None]


async def test_a_row_that_is_no_event_keeps_the_session_whole() -> None:
    store = await filled()
    store._conversations[SENDER].rows[3] = ("x", "no json")
    assert [cut async for cut in prune(store, RETENTION)] == [None]


async def test_there_is_nothing_to_gain_where_every_event_counts() -> None:
    store = InMemoryTrackerStore()
    await add(store, SENDER, *(SlotSet(f"slot {n}", n) for n in range(40)))
    assert [cut async for cut in prune(store, RETENTION)] == [None]


def test_random_histories_give_the_state_that_they_gave() -> None:
    planned = 0
    for number, history in enumerate(rasas_histories()["histories"]):
        rows = [(f"id-{n}", json.dumps(row)) for n, row in enumerate(history["rows"])]
        found = StoredConversation(len(rows), 0, None, 1.0, 2.0, None, None, 0, rows)
        plan = plan_compaction("a", found, len(rows) * (2 + number % 7) // 10, 3.0)
        if plan is None:
            continue
        planned += 1
        kept = rows if plan.rewrite is None else [r[:2] for r in plan.rewrite.rows]
        assert [event_id for event_id, _ in kept] == [each[0] for each in rows]
        expected = replayed(rows)
        assert replayed(kept) == replayed(kept[plan.start :]) == expected
        for snapshot, start in ((plan.mark.snapshot, plan.start),):
            decoded = decode_snapshot(snapshot, len(rows), start)
            assert decoded == json.loads(json.dumps(expected))
    assert planned > 60


def replayed(rows: Sequence[Any]) -> dict[str, Any]:
    tracker = DialogueStateTracker("a", None)
    tracker.load_events(decode_rows("a", 0, list(rows)))
    return tracker.state_snapshot()
