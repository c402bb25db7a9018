"""Looking after a storage: it says what it takes, and nothing stored changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conformance.kit import SENDER, add, has_full, held, turn
from tracker_store_async.keeping.statistics import gather_statistics

if TYPE_CHECKING:
    from tracker_store_async import TrackerStore


async def test_optimising_changes_nothing_that_is_stored(store: TrackerStore) -> None:
    for n in range(20):
        await add(store, f"user-{n}", *turn("x" * 500))
    await add(store, SENDER, *turn("kept"))
    before = held(await has_full(store))
    planned = await store._upkeep(apply=False)
    done = await store._upkeep(apply=True)
    assert done.size_bytes is None or done.size_bytes >= 0
    assert list(done.steps) == list(planned.steps)
    assert held(await has_full(store)) == before
    await add(store, SENDER, *turn("on"))
    assert len(await store.keys()) == 21  # type: ignore[arg-type]


async def test_the_numbers_of_a_store(store: TrackerStore) -> None:
    for n in range(12):
        await add(store, f"user-{n:02}", *(turn() * (1 + n // 4)))
    found = await gather_statistics(store)
    assert (found.conversations, found.events) == (12, 4 * (4 + 8 + 12))
    assert found.longest[0] == (12, "user-11")
    assert len(found.longest) == 10
    assert found.lengths == {2: 4, 3: 4, 4: 4}
    assert sum(found.begun.values()) == 12
