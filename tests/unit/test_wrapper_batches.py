"""A batch stays a batch in a wrapper, and the wrapper does what it is for."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import said, turn
from tests.unit.test_audited import ListSink
from tracker_store_async import (
    CachedTrackerStore,
    DialogueStateTracker,
    FailSafeTrackerStore,
    InMemoryTrackerStore,
    RetryingTrackerStore,
    errors,
)
from tracker_store_async.saving_many import one_by_one
from tracker_store_async.wrappers.audited import AuditedTrackerStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracker_store_async import TrackerStore
    from tracker_store_async.rows import Append

AWAY = errors.StoreUnavailableError("the connection was lost")


class Batching(InMemoryTrackerStore):
    """Takes batches, and fails as it is told to.

    Attributes:
        batches: The conversations of each batch.
        singles: The conversations that came alone.
        fails: For each of the next batches, which conversations get no answer.
        is_late: Whether those are stored all the same.
        is_away: Whether everything else fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []
        self.singles: list[str] = []
        self.fails: list[set[str]] = []
        self.is_late = self.is_away = False

    async def _append(self, append: Append) -> bool:
        self.singles.append(append.sender_id)
        if self.is_away:
            raise AWAY
        return await super()._append(append)

    async def _read(self, read: Any) -> Any:
        if self.is_away:
            raise AWAY
        return await super()._read(read)

    async def _append_many(
        self, appends: Sequence[Append]
    ) -> list[bool | BaseException]:
        self.batches.append([each.sender_id for each in appends])
        lost = self.fails.pop(0) if self.fails else set()

        async def append(each: Append) -> bool:
            if each.sender_id in lost and not self.is_late:
                raise AWAY
            landed = await InMemoryTrackerStore._append(self, each)
            if each.sender_id in lost:
                raise AWAY
            return landed

        return await one_by_one(append, appends)


def names(count: int = 5) -> list[str]:
    return [f"user-{n}" for n in range(count)]


def audited(store: TrackerStore) -> TrackerStore:
    return AuditedTrackerStore(store, ListSink())


def encrypted(store: TrackerStore) -> TrackerStore:
    pytest.importorskip("cryptography", reason="the extra is not installed")
    from tests.conformance.backends import TEST_KEY
    from tracker_store_async.wrappers.encrypted import EncryptedTrackerStore

    return EncryptedTrackerStore(store, {"k1": TEST_KEY})


WRAPPERS = [
    RetryingTrackerStore,
    FailSafeTrackerStore,
    CachedTrackerStore,
    audited,
    encrypted,
]


async def begun(store: TrackerStore, count: int = 5) -> list[DialogueStateTracker]:
    trackers = [store.init_tracker(name) for name in names(count)]
    for tracker in trackers:
        tracker.update_with_events(turn("one"))
    await store.save_many(trackers)
    for tracker in trackers:
        tracker.update_with_events(turn("two"))
    return trackers


async def check(store: TrackerStore, trackers: list[DialogueStateTracker]) -> None:
    for tracker in trackers:
        found = await store.retrieve(tracker.sender_id)
        assert said(found) == said(tracker)
        assert found is not None
        assert len(found.events) == len(tracker.events)


@pytest.mark.parametrize("wrap", WRAPPERS)
async def test_a_batch_stays_one(wrap: Callable[[TrackerStore], TrackerStore]) -> None:
    inner = Batching()
    async with wrap(inner) as store:
        trackers = await begun(store)
        await store.save_many(trackers)
        assert inner.batches == [names(), names()]
        assert inner.singles == []
        await check(store, trackers)


@pytest.mark.parametrize("wrap", WRAPPERS)
async def test_who_overrides_an_append_sees_each(
    wrap: Callable[[TrackerStore], TrackerStore],
) -> None:
    inner = Batching()
    kind = type(wrap(Batching()))
    seen = []

    async def append(self: Any, request: Append) -> bool:
        seen.append(request.sender_id)
        return await kind._append(self, request)

    async with wrap(inner) as store:
        store.__class__ = type("Own", (kind,), {"_append": append})
        await begun(store)
        assert sorted(seen) == names()
        assert inner.batches == []


@pytest.mark.parametrize("is_late", [False, True])
async def test_only_what_failed_is_retried(is_late: bool) -> None:
    inner = Batching()
    async with RetryingTrackerStore(inner) as store:
        trackers = await begun(store)
        inner.batches.clear()
        inner.is_late = is_late
        inner.fails = [{"user-1", "user-3"}, {"user-3"}]
        await store.save_many(trackers)
        assert inner.batches == [names(), ["user-1", "user-3"], ["user-3"]]
        await check(store, trackers)
        assert store.conflict_count == 0


async def test_what_never_gets_an_answer_is_named() -> None:
    inner = Batching()
    async with RetryingTrackerStore(inner, attempts=2) as store:
        trackers = await begun(store)
        inner.fails = [{"user-1", "user-3"}, {"user-3"}, {"user-3"}]
        with pytest.raises(errors.SaveManyError) as raised:
            await store.save_many(trackers)
        assert raised.value.failures == {"user-3": AWAY}
        await store.save_many(trackers)
        await check(store, trackers)


@pytest.mark.parametrize("is_late", [False, True])
async def test_an_outage_in_the_middle_of_a_batch_loses_nothing(is_late: bool) -> None:
    inner = Batching()
    seen: list[Exception] = []
    store = FailSafeTrackerStore(
        inner, None, seen.append, probe_min_seconds=0.01, probe_max_seconds=0.01
    )
    async with store:
        trackers = await begun(store)
        inner.fails, inner.is_late = [{"user-1", "user-3"}], is_late
        inner.is_away = True
        await store.save_many(trackers)
        assert seen == [AWAY]
        assert {*store._backlog.entries} == {"user-1", "user-3"}
        await check(store, trackers)
        for tracker in trackers:
            tracker.update_with_events(turn("three"))
        await store.save_many(trackers)  # none of it reaches the primary
        assert {*store._backlog.entries} == {*names()}
        inner.is_away = False
        async with asyncio.timeout(10):
            while store._backlog.entries:
                await asyncio.sleep(0.01)
        await check(store, trackers)
        await check(inner, trackers)
        assert store.conflict_count == 0


async def test_what_waits_for_a_replay_goes_behind_it() -> None:
    inner = Batching()
    store = FailSafeTrackerStore(inner, probe_min_seconds=60, probe_max_seconds=60)
    async with store:
        trackers = await begun(store)
        inner.is_away = True
        await store.save(trackers[2])
        inner.is_away = False
        store._breaker.half_open()
        trackers[2].update_with_events(turn("three"))
        inner.batches.clear()
        await store.save_many(trackers)
        assert inner.batches == [[each for each in names() if each != "user-2"]]
        await check(inner, trackers)


async def test_what_cannot_be_recorded_is_not_sent() -> None:
    inner, sink = Batching(), ListSink()
    async with AuditedTrackerStore(inner, sink) as store:
        trackers = await begun(store)
        inner.fails = [{"user-1"}]
        await inner.delete("user-2")
        with pytest.raises(errors.SaveManyError) as raised:
            await store.save_many(trackers)
        assert raised.value.failures == {"user-1": AWAY}
        await asyncio.sleep(0)
        inner.batches.clear()
        sink.is_full = True
        trackers[3].update_with_events(turn("three"))
        with pytest.raises(errors.SaveManyError) as raised:
            await store.save_many(trackers)
        assert {*map(type, raised.value.failures.values())} == {errors.AuditError}
        assert inner.batches == []
        sink.is_full = False
    records = [json.loads(line) for line in sink.lines]
    of = {each["id"]: each["sender_id"] for each in records}
    outcomes = {(of[r["of"]], r["outcome"]) for r in records if "of" in r}
    assert outcomes == {("user-1", "StoreUnavailableError"), ("user-2", "refused")}


async def test_one_that_cannot_be_sealed_does_not_stop_the_others() -> None:
    inner = Batching()
    async with encrypted(inner) as store:
        trackers = await begun(store)
        held: Any = store
        held._keys.clear()
        inner._conversations["user-2"].snapshot = '{"sealed": 99}'
        with pytest.raises(errors.SaveManyError) as raised:
            await store.save_many(trackers)
        assert set(raised.value.failures) == {"user-2"}
        assert inner.batches[-1] == [each for each in names() if each != "user-2"]
        await check(store, [each for each in trackers if each.sender_id != "user-2"])
