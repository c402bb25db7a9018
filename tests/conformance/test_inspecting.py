"""What the inspector reads of a long log, wherever that lies: pages and states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conformance.kit import SENDER, add, new_session, slot
from tracker_store_async.ops.inspector.reading import Reader

if TYPE_CHECKING:
    from tracker_store_async.store import TrackerStore


async def test_pages_and_states_are_those_of_the_log(store: TrackerStore) -> None:
    await add(store, SENDER, *[slot("n", n) for n in range(30)])
    await add(store, SENDER, *new_session(), *[slot("m", n) for n in range(15)])
    reader = Reader(store)
    # position, length, and what stands at its ends: (first, end, last slot, state)
    expected = {5: (5, 15, "n", 14), 28: (28, 38, "m", 5), 44: (44, 47, "m", 14)}
    for start, (first, end, name, value) in expected.items():
        page = await reader.page(SENDER, start, 10)
        assert page is not None
        assert (page.first, page.end, page.is_last) == (first, end, end == 47)
        assert page.before is not None
        tracker = await reader.state_after(SENDER, page)
        assert tracker is not None
        assert tracker.current_slot_values() == {name: value}
    last = await reader.last_page(SENDER, 10)
    header = await reader.header(SENDER)
    assert last is not None
    assert header is not None
    assert (last.first, last.end, header.version) == (37, 47, 47)
    assert reader.began(last.header) == reader.began(header)
    beyond = await reader.page(SENDER, 99, 10)
    assert beyond is not None
    assert beyond.events == []
    assert await reader.header("nobody") is None
