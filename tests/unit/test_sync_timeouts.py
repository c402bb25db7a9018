"""`timeout_seconds` of the sync facade: cancel inside the loop, settle, then raise."""

from __future__ import annotations

import asyncio
import math
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tracker_store_async import errors, lifecycle, loop_thread
from tracker_store_async.backends.memory import InMemoryTrackerStore
from tracker_store_async.events import UserUttered
from tracker_store_async.sync import SyncTrackerStore


class SlowStore(InMemoryTrackerStore):
    """Takes its time before or after it appends, and tells what became of the call."""

    def __init__(self, *, before=0.0, after=0.0, settle=0.0):
        super().__init__()
        self.before, self.after, self.settle = before, after, settle
        self.begun = threading.Event()
        self.outcome = []

    async def _append(self, append):
        self.begun.set()
        try:
            await asyncio.sleep(self.before)
            appended = await super()._append(append)
            await asyncio.sleep(self.after)
        except asyncio.CancelledError:
            await asyncio.sleep(self.settle)
            self.outcome.append("cancelled")
            raise
        self.outcome.append("done")
        return appended


def tracker_of(store, text="hi"):
    tracker = store.init_tracker("alice")
    tracker.update(UserUttered(text))
    return tracker


def test_a_call_that_takes_too_long_is_cancelled_and_has_settled():
    inner = SlowStore(before=3600, settle=0.1)
    with SyncTrackerStore(inner) as store:
        started = time.monotonic()
        with pytest.raises(errors.CallTimeoutError, match="same tracker again is safe"):
            store.save(tracker_of(store), timeout_seconds=0.05)
        assert 0.15 <= time.monotonic() - started < 2
        assert inner.outcome == ["cancelled"]
        assert not store.exists("alice")


def test_saving_again_after_a_timeout_stores_what_had_landed_once():
    inner = SlowStore(after=3600)
    with SyncTrackerStore(inner) as store:
        tracker = tracker_of(store)
        with pytest.raises(errors.CallTimeoutError):
            store.save(tracker, timeout_seconds=0.05)
        inner.after = 0
        store.save(tracker)
        assert len(store.retrieve("alice").events) == 1


def test_it_is_a_timeout_error():
    with (
        SyncTrackerStore(SlowStore(before=3600)) as store,
        pytest.raises(TimeoutError),
    ):
        store.save(tracker_of(store), timeout_seconds=0.01)


def test_the_facades_own_limit_counts_where_the_call_gives_none():
    with SyncTrackerStore(SlowStore(before=0.1), timeout_seconds=0.02) as store:
        tracker = tracker_of(store)
        with pytest.raises(errors.CallTimeoutError, match=r"0\.02 s"):
            store.save(tracker)
        store.save(tracker, timeout_seconds=5)
        tracker.update(UserUttered("bye"))
        store.save(tracker, timeout_seconds=math.inf)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, True, "x", [1], 1j])
def test_a_limit_that_is_none(seconds):
    with pytest.raises(errors.ConfigurationError, match="positive number of seconds"):
        SyncTrackerStore(InMemoryTrackerStore(), timeout_seconds=seconds)
    with SyncTrackerStore(InMemoryTrackerStore()) as store:
        with pytest.raises(errors.InvalidInputError, match="positive"):
            store.exists("alice", timeout_seconds=seconds)
        with pytest.raises(errors.InvalidInputError, match="positive"):
            store.close(timeout_seconds=seconds)


def test_other_calls_go_on():
    with (
        SyncTrackerStore(SlowStore(before=0.2)) as store,
        ThreadPoolExecutor(2) as pool,
    ):
        saved = pool.submit(store.save, tracker_of(store))
        with pytest.raises(errors.CallTimeoutError):
            store.save(tracker_of(store, "bye"), timeout_seconds=0.05)
        saved.result(5)
        assert len(store.retrieve("alice").events) == 1


def test_a_timeout_of_the_storage_is_told_apart():
    class Timing(InMemoryTrackerStore):
        async def _read(self, read):
            try:
                await asyncio.sleep(3600 if read.sender_id == "late" else 0)
            except asyncio.CancelledError:
                raise errors.StoreTimeoutError("no answer") from None
            raise TimeoutError("a driver's own")

    with SyncTrackerStore(Timing()) as store:
        with pytest.raises(TimeoutError, match="a driver's own"):
            store.exists("alice", timeout_seconds=5)
        with pytest.raises(errors.StoreTimeoutError, match="no answer"):
            store.exists("late", timeout_seconds=0.05)


def test_a_result_that_comes_in_spite_of_the_cancellation_counts():
    class Stubborn(InMemoryTrackerStore):
        async def _append(self, append):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                return await super()._append(append)

    with SyncTrackerStore(Stubborn()) as store:
        store.save(tracker_of(store), timeout_seconds=0.05)
        assert store.exists("alice")


class BlockingStore(InMemoryTrackerStore):
    """Blocks its own event loop, as a driver that is not async does."""

    release = threading.Event()
    begun = threading.Event()

    async def _append(self, append):
        self.begun.set()
        self.release.wait(20)
        return await super()._append(append)


def test_a_loop_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(loop_thread, "SETTLE_SECONDS", 0.1)
    BlockingStore.release.clear()
    with SyncTrackerStore(BlockingStore()) as store:
        with pytest.raises(errors.CallTimeoutError, match="still under way"):
            store.save(tracker_of(store), timeout_seconds=0.1)
        with pytest.raises(
            errors.CallTimeoutError, match="could not be closed in time"
        ):
            store.close(timeout_seconds=0.1)
        with pytest.raises(errors.StoreClosedError, match="being closed"):
            store.open()
        BlockingStore.release.set()


def test_a_call_that_never_began_says_so():
    BlockingStore.release.clear()
    BlockingStore.begun.clear()
    with (
        SyncTrackerStore(BlockingStore()) as store,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(store.save, tracker_of(store))
        assert BlockingStore.begun.wait(5)
        second = pool.submit(store.exists, "alice", timeout_seconds=0.05)
        time.sleep(0.1)
        BlockingStore.release.set()
        with pytest.raises(errors.CallTimeoutError, match="nothing was done"):
            second.result(5)
        first.result(5)


def test_closing_takes_no_longer_than_its_limit(monkeypatch):
    monkeypatch.setattr(lifecycle, "CLOSE_SECONDS", 0.05)

    class SlowToClose(InMemoryTrackerStore):
        async def _close(self):
            await asyncio.sleep(3600)

    store = SyncTrackerStore(SlowToClose())
    store.open()
    with pytest.raises(errors.CallTimeoutError, match=r"0\.05 s"):
        store.close(timeout_seconds=0.05)
    assert store._thread is None
    store.close()


def test_each_page_of_a_listing_is_limited():
    class SlowToList(InMemoryTrackerStore):
        async def _list(self, listing):
            await asyncio.sleep(0 if listing.after is None else 3600)
            return await super()._list(listing)

    with SyncTrackerStore(SlowToList()) as store:
        store.create_tracker("alice")
        store.create_tracker("bob")
        listing = store.conversations(page_size=1, timeout_seconds=0.05)
        assert next(listing).sender_id == "alice"
        with pytest.raises(errors.CallTimeoutError):
            next(listing)


class AlarmError(Exception):
    """What a signal handler raises, as a task queue does at its soft time limit."""


@pytest.fixture
def alarm():
    def ring(signal_number, frame):
        raise AlarmError

    before = signal.signal(signal.SIGALRM, ring)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_an_exception_from_a_signal_handler_cancels_the_call(alarm):
    inner = SlowStore(before=3600, settle=0.05)
    with SyncTrackerStore(inner) as store:
        tracker = tracker_of(store)
        alarm(0.1)
        started = time.monotonic()
        with pytest.raises(AlarmError):
            store.save(tracker)
        assert time.monotonic() - started < 5
        assert inner.outcome == ["cancelled"]
        inner.before = 0
        store.save(tracker)
        assert len(store.retrieve("alice").events) == 1


def test_a_signal_handler_may_use_the_facade(alarm):
    with SyncTrackerStore(SlowStore(before=0.3)) as store:
        tracker = tracker_of(store)
        seen = []
        signal.signal(signal.SIGALRM, lambda *_: seen.append(store.exists("bob")))
        alarm(0.1)
        store.save(tracker)
        assert seen == [False]


def test_no_lock_stands_in_the_way_of_a_signal_handler():
    """A handler runs in the middle of what its thread does, whatever that holds."""
    with SyncTrackerStore(InMemoryTrackerStore()) as store:
        with store._lifecycle, store._lock, store._thread._lock:
            assert not store.exists("alice")
            store.close()
        with pytest.raises(errors.StoreClosedError):
            store.exists("alice")
