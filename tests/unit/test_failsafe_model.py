"""Outages one upon the other, answers that are lost, others who write: each once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.kit import SENDER, add, has, said, stored_ids, turn
from tests.outages import SwitchedStore, caught_up, check_gapless
from tracker_store_async import FailSafeTrackerStore
from tracker_store_async.wrappers import failsafe_pieces

if TYPE_CHECKING:
    from collections.abc import Sequence

FAST = {"probe_min_seconds": 0.0005, "probe_max_seconds": 0.001}
STEPS = st.lists(
    st.sampled_from(["ours", "theirs", "lose", "down", "up"]), min_size=6, max_size=40
)


async def outages(steps: Sequence[str]) -> None:
    primary = SwitchedStore()
    said_by: dict[str, list[str]] = {"ours": [], "theirs": []}
    async with FailSafeTrackerStore(primary, **FAST) as store, SwitchedStore() as other:
        # has no outage
        other._conversations = primary._conversations
        other._sorted_ids = primary._sorted_ids
        for number, step in enumerate(steps):
            text = f"{step} {number}"
            if step == "ours":
                await add(store, SENDER, *turn(text))
            elif step == "theirs":
                await add(other, SENDER, *turn(text))
            else:
                primary.is_down = step == "down"
                primary.loses_answers += step == "lose"
                await asyncio.sleep(0.004)  # time for a probe and a replay
            if step in said_by:
                said_by[step].append(text)
        primary.is_down, primary.loses_answers = False, 0
        await caught_up(store)
        if not any(said_by.values()):
            return
        ids = await stored_ids(primary)
        assert len(ids) == len(set(ids))
        texts = said(await has(primary))
        for name, expected in said_by.items():
            assert [text for text in texts if text.startswith(name)] == expected
        await check_gapless(primary, SENDER)


@given(STEPS, st.sampled_from([8, 500]))
@settings(max_examples=100, deadline=None)
def test_each_event_is_stored_once_and_in_order(
    steps: list[str], piece_events: int
) -> None:
    with mock.patch.object(failsafe_pieces, "PIECE_EVENTS", piece_events):
        asyncio.run(outages(steps))
