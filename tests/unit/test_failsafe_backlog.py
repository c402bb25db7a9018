"""What an outage costs: the same for every save, and never more than is allowed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import add, has, said, stored_ids, turn
from tests.outages import SwitchedStore, caught_up
from tracker_store_async import FailSafeTrackerStore, InMemoryTrackerStore, errors
from tracker_store_async.config import EndpointConfig
from tracker_store_async.factory import create_tracker_store

if TYPE_CHECKING:
    from pathlib import Path

    from tracker_store_async.rows import Append

FAST: dict[str, Any] = {"probe_min_seconds": 0.01, "probe_max_seconds": 0.02}
SENDER = "busy"
TURNS = 400


class Metered(InMemoryTrackerStore):
    """Notes how many bytes each append hands over."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[int] = []

    async def _append(self, append: Append) -> bool:
        rows = sum(len(row.data) + len(row.event_id) for row in append.rows)
        self.written.append(rows + len(append.snapshot))
        return await super()._append(append)


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_save_costs_the_same_however_long_the_outage(is_known: bool) -> None:
    primary, fallback = SwitchedStore(max_event_history=20), Metered()
    async with FailSafeTrackerStore(primary, fallback, **FAST) as store:
        if is_known:
            await add(store, SENDER, *turn("before"))
        primary.is_down = True
        texts = [f"{number:05}" for number in range(TURNS)]
        for text in texts:
            await add(store, SENDER, *turn(text))
        assert len(fallback.written) == TURNS
        early, late = fallback.written[5:25], fallback.written[-20:]
        assert max(late) < max(early) + 100
        primary.is_down = False
        await caught_up(store)
        found = await primary.retrieve_full_tracker(SENDER)
        assert said(found)[-TURNS:] == texts
        assert len(await stored_ids(primary, SENDER)) == 4 * (TURNS + is_known)


async def test_a_journal_of_the_time_before_is_taken_up(tmp_path: Path) -> None:
    """Each save had a note of its own, and nothing told of bytes."""
    import json

    from tracker_store_async.wrappers import failsafe_backlog

    journal = str(tmp_path / "journal.db")
    primary = SwitchedStore()
    new = failsafe_backlog._envelope

    def old(entry: Any, snapshot: str) -> str:
        envelope = json.loads(new(entry, snapshot))
        del envelope["last_bytes"], envelope["size_bytes"]
        first, rest = envelope["saves"][0], envelope["saves"][1:]
        for count, start in rest:
            first = [first, *([4, start] for _ in range(count // 4))]
        envelope["saves"] = first if rest else [first]
        return json.dumps(envelope)

    failsafe_backlog._envelope = old
    try:
        store = FailSafeTrackerStore(primary, journal=journal, **FAST)
        await store.open()
        primary.is_down = True
        for number in range(3):
            await add(store, SENDER, *turn(str(number)))
        await store.close()
    finally:
        failsafe_backlog._envelope = new
    async with FailSafeTrackerStore(primary, journal=journal, **FAST) as again:
        await add(again, SENDER, *turn("3"))
        primary.is_down = False
        await caught_up(again)
        assert said(await has(primary, SENDER)) == ["0", "1", "2", "3"]


async def test_beyond_the_bound_a_save_is_refused_and_nothing_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    primary = SwitchedStore()
    failsafe = FailSafeTrackerStore(primary, max_backlog_bytes=24_000, **FAST)
    async with failsafe as store:
        primary.is_down = True
        kept = []
        for number in range(20):
            try:
                await add(store, f"c{number}", *turn(str(number)))
            except errors.StoreUnavailableError as error:
                assert "max_backlog_bytes" in str(error)  # noqa: PT017
            else:
                kept.append(f"c{number}")
        assert 1 < len(kept) < 19
        shown = (await store.health()).details["fail_safe"]
        assert shown["refused_saves"] == 20 - len(kept)
        assert 12_000 < shown["backlog_bytes"] <= 24_000
        full = [r for r in caplog.records if r.levelno == logging.CRITICAL]
        assert len(full) == 1
        assert "max_backlog_bytes" in full[0].getMessage()
        primary.is_down = False
        await caught_up(store)
        assert sorted(await primary.keys()) == sorted(kept)
        assert store._backlog.size_bytes == 0
        primary.is_down = True
        await add(store, "after", *turn())  # there is room again
        assert (await store.health()).details["fail_safe"]["backlog_bytes"] > 0


async def test_what_is_left_of_a_conversation_counts_after_a_restart(
    tmp_path: Path,
) -> None:
    journal = str(tmp_path / "journal.db")
    primary = SwitchedStore()
    async with FailSafeTrackerStore(primary, journal=journal, **FAST) as store:
        primary.is_down = True
        await add(store, SENDER, *turn("one"))
        size_bytes = store._backlog.size_bytes
        assert size_bytes > 0
    async with FailSafeTrackerStore(primary, journal=journal, **FAST) as store:
        assert store._backlog.size_bytes == size_bytes


def test_the_bound_is_for_the_memory_unless_it_is_given(tmp_path: Path) -> None:
    journal = str(tmp_path / "journal.db")
    options: list[dict[str, Any]] = [
        {},
        {"journal": journal},
        {"fallback": InMemoryTrackerStore()},
        {"journal": journal, "max_backlog_bytes": 7},
    ]
    bounds = [
        FailSafeTrackerStore(SwitchedStore(), **given)._backlog._max_bytes
        for given in options
    ]
    assert bounds == [256 * 2**20, None, None, 7]
    with pytest.raises(errors.ConfigurationError, match="max_backlog_bytes"):
        FailSafeTrackerStore(SwitchedStore(), max_backlog_bytes=0)
    section = EndpointConfig(type="in_memory", fail_safe={"max_backlog_bytes": 9})
    made: Any = create_tracker_store(section)
    assert made._backlog._max_bytes == 9


async def test_what_an_earlier_process_left_is_told_when_it_is_replayed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The primary is there all the time, so no breaker closes that would tell it."""
    journal = str(tmp_path / "journal.db")
    primary = SwitchedStore()
    async with FailSafeTrackerStore(primary, journal=journal, **FAST) as store:
        primary.is_down = True
        await add(store, "kept", *turn("one"))
        await add(store, "refused", *turn("two"))
    primary.is_down = False
    append = primary._append

    async def refuse(request: Append) -> bool:
        if request.sender_id == "refused":
            raise errors.StoreDataError("too large")
        return await append(request)

    primary._append = refuse  # type: ignore[method-assign]
    caplog.clear()
    async with FailSafeTrackerStore(primary, journal=journal, **FAST) as store:
        assert store._recovery.task is not None
        await store._recovery.task
        told = [one for one in caplog.records if one.levelno >= logging.WARNING]
        lines = [record.getMessage() for record in told]
        assert len(lines) == 3
        assert "wait in the fallback" in lines[0]
        assert "replayed 4 events of 1 conversations" in lines[1]
        assert "'refused', which stay in the fallback: too large" in lines[2]
