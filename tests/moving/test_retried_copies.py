"""Copies through wrappers that repeat, or watch over, what they ask of the store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.moving.kit import BEGAN, append, contents, memory
from tests.outages import SwitchedStore
from tracker_store_async import (
    FailSafeTrackerStore,
    InMemoryTrackerStore,
    RetryingTrackerStore,
    errors,
)
from tracker_store_async.moving import backup, migrate, restore

if TYPE_CHECKING:
    from pathlib import Path

    from tracker_store_async.rows import Append


class LosesAnswers(InMemoryTrackerStore):
    """Does what it is asked, and loses the answer to every first try of an append."""

    def __init__(self, lost: type[Exception] = errors.StoreTimeoutError) -> None:
        super().__init__()
        self._tried: set[Any] = set()
        self._lost = lost

    async def _append(self, append: Append) -> bool:
        answer = await super()._append(append)
        name = (append.sender_id, append.expected_version, len(append.rows))
        if name not in self._tried:
            self._tried.add(name)
            raise self._lost("the answer was lost")
        return answer


async def test_a_copy_whose_answers_are_lost_is_no_conflict() -> None:
    source = await memory(alice=1, bob=57, carol=20)
    async with RetryingTrackerStore(LosesAnswers()) as target:
        report = await migrate(source, target, page_events=20, check=True)
        assert report.problems == []
        assert await contents(target) == await contents(source)


async def test_neither_is_what_a_later_run_adds() -> None:
    source = await memory(bob=57)
    async with RetryingTrackerStore(LosesAnswers()) as target:
        await migrate(source, target, page_events=20)
        more = append("bob", 57, 5, 57, session_start=54, user_id="another")
        assert await source._append(more)
        report = await migrate(source, target, page_events=20)
        assert (report.problems, report.continued) == ([], 1)
        header = append("bob", 62, 0, 62, session_start=54, expires_at=BEGAN * 2)
        assert await source._append(header)
        report = await migrate(source, target, page_events=20)
        assert report.problems == []
        assert await contents(target) == await contents(source)


async def test_nor_what_a_backup_brings_back(tmp_path: Path) -> None:
    source = await memory(bob=3000, carol=3)
    path = tmp_path / "b.jsonl.gz"
    await backup(source, path)
    async with RetryingTrackerStore(LosesAnswers()) as target:
        report = await restore(path, target)
        assert report.problems == []
        assert await contents(target) == await contents(source)


async def test_another_writer_is_still_a_conflict() -> None:
    class Busy(InMemoryTrackerStore):
        async def _append(self, append: Append) -> bool:
            if append.expected_version == 20:
                theirs = replace(append, rows=append.rows[::-1])
                assert await super()._append(theirs)
            return await super()._append(append)

    source = await memory(bob=57)
    async with Busy() as target:
        report = await migrate(source, target, page_events=20)
        [problem] = report.problems
        assert (problem.sender_id, problem.position) == ("bob", 20)


async def test_two_moves_at_once_help_each_other() -> None:
    class Slow(InMemoryTrackerStore):
        async def _append(self, append: Append) -> bool:
            await asyncio.sleep(0)
            return await super()._append(append)

    source = await memory(bob=57, carol=90)
    async with Slow() as target:
        both = [migrate(source, target, page_events=20) for _ in range(2)]
        for report in await asyncio.gather(*both):
            assert report.problems == []
        assert await contents(target) == await contents(source)


async def test_a_fail_safe_notices_an_outage_by_a_copy_and_asks_no_more() -> None:
    source, primary = await memory(bob=3), SwitchedStore()
    async with FailSafeTrackerStore(primary, probe_min_seconds=60) as store:
        [summary] = [each async for each in source.conversations()]
        first = append(summary.sender_id, 0, 3, 0)
        primary.is_down = True
        with pytest.raises(errors.StoreUnavailableError):
            await store._append(first)
        assert store._breaker.is_open
        calls = primary.calls
        with pytest.raises(errors.StoreUnavailableError, match="nothing was copied"):
            await store._append(first)
        with pytest.raises(errors.StoreUnavailableError, match="nothing was tidied"):
            await store._upkeep(apply=True)
        assert primary.calls == calls


async def test_a_copy_that_hangs_is_given_up_by_a_fail_safe() -> None:
    primary = SwitchedStore()
    async with FailSafeTrackerStore(
        primary, timeout_seconds=0.01, probe_min_seconds=60
    ) as store:
        primary.hangs = True
        with pytest.raises(errors.StoreTimeoutError):
            await store._append(append("bob", 0, 3, 0))
        primary.resume()


async def test_upkeep_may_take_longer_than_a_fail_safe_waits() -> None:
    class Slow(InMemoryTrackerStore):
        async def _upkeep(self, *, apply: bool) -> Any:
            await asyncio.sleep(0.03)
            return await super()._upkeep(apply=apply)

    async with FailSafeTrackerStore(Slow(), timeout_seconds=0.01) as store:
        assert (await store._upkeep(apply=True)) is not None
        assert not store._breaker.is_open
