"""The sync facade: the same store without await, from any thread."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.conformance.kit import FailingBroker
from tracker_store_async import errors
from tracker_store_async.backends.memory import InMemoryTrackerStore
from tracker_store_async.brokers.recording import RecordingBroker
from tracker_store_async.domain import Domain
from tracker_store_async.events import SlotSet, UserUttered
from tracker_store_async.serialization import SerializedTrackerAsText
from tracker_store_async.sync import SyncTrackerStore


def facade_threads():
    return [t for t in threading.enumerate() if t.name.startswith("SyncTrackerStore")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert facade_threads() == []


@pytest.fixture
def store():
    with SyncTrackerStore(InMemoryTrackerStore()) as store:
        yield store


def say(store, sender_id, text):
    tracker = store.get_or_create_tracker(sender_id)
    tracker.update(UserUttered(text))
    store.save(tracker)
    return tracker


def texts(tracker):
    return [event.text for event in tracker.events if isinstance(event, UserUttered)]


class TestCalls:
    def test_a_new_broker_gets_the_backlog_though_nobody_saves(self):
        """The backlog belongs to the loop: it is handed over there."""
        former, broker = FailingBroker(), FailingBroker()
        former.is_down = True
        inner = InMemoryTrackerStore(
            event_broker=former, on_publish_error="best_effort"
        )
        with SyncTrackerStore(inner) as store:
            say(store, "alice", "hi")
            store.event_broker = broker
            for _ in range(1000):
                if "hi" in [body.get("text") for body in broker.bodies]:
                    break
                time.sleep(0.005)
            else:
                pytest.fail("the new broker did not get the backlog")

    def test_a_conversation(self, store):
        say(store, "alice", "hi")
        say(store, "alice", "bye")
        assert texts(store.retrieve("alice")) == ["hi", "bye"]
        assert texts(store.retrieve_full_tracker("alice")) == ["hi", "bye"]
        assert texts(store.get_or_create_full_tracker("alice")) == ["hi", "bye"]
        assert store.retrieve("bob") is None
        assert store.exists("alice")
        assert list(store.keys()) == ["alice"]
        assert store.delete("alice")
        assert not store.exists("alice")

    def test_create_tracker(self, store):
        assert len(store.create_tracker("alice").events) == 1
        assert len(store.create_tracker("bob", append_action_listen=False).events) == 0
        assert list(store.keys()) == ["alice"]

    def test_save_many_takes_a_generator_that_calls_the_facade(self, store):
        def trackers():
            for name in ("alice", "bob"):
                tracker = store.get_or_create_tracker(name)
                tracker.update(UserUttered(name))
                yield tracker

        store.save_many(trackers())
        assert texts(store.retrieve("alice")) == ["alice"]
        assert texts(store.retrieve("bob")) == ["bob"]

    def test_what_needs_no_loop(self, store):
        assert store.init_tracker("alice").sender_id == "alice"
        text = SerializedTrackerAsText.serialise_tracker(say(store, "alice", "hi"))
        assert texts(store.deserialise_tracker("bob", text)) == ["hi"]

    def test_stream_events(self, store):
        store.event_broker = RecordingBroker()
        tracker = store.init_tracker("alice")
        tracker.update(SlotSet("city", "Rome"))
        store.stream_events(tracker)
        assert [m.type_name for m in store.event_broker.messages] == ["slot"]

    def test_health(self, store):
        assert store.health().reachable

    def test_errors_come_through_as_they_are(self, store):
        with pytest.raises(errors.InvalidSenderIdError):
            store.save(store._store()._new_tracker(""))

    def test_system_exit_is_for_the_caller(self):
        class Leaving(InMemoryTrackerStore):
            async def _read(self, read):
                raise SystemExit(3)

        with SyncTrackerStore(Leaving()) as store:
            with pytest.raises(SystemExit):
                store.exists("alice")
            assert store.health().reachable

    def test_the_callers_context_is_seen_inside(self):
        request = contextvars.ContextVar("request", default="none")

        class Seeing(InMemoryTrackerStore):
            async def _read(self, read):
                seen.append(request.get())

        seen = []
        with SyncTrackerStore(Seeing()) as store:
            request.set("r1")
            store.exists("alice")
        assert seen == ["r1"]


class TestListing:
    @pytest.mark.parametrize("page_size", [1, 2, 5, 6, 500])
    def test_pages(self, store, page_size):
        names = [f"user-{number}" for number in range(6)]
        for name in names:
            store.create_tracker(name)
        listing = store.conversations(page_size=page_size)
        assert [summary.sender_id for summary in listing] == names

    def test_filters_and_cursor(self, store):
        for name in ("a", "b", "c"):
            tracker = store.get_or_create_tracker(name)
            tracker.user_id = "even" if name == "b" else "odd"
            tracker.update(UserUttered("hi"))
            store.save(tracker)
        odd = list(store.conversations(user_id="odd"))
        assert [summary.sender_id for summary in odd] == ["a", "c"]
        after = store.conversations(user_id="odd", cursor=odd[0].cursor)
        assert [summary.sender_id for summary in after] == ["c"]
        assert list(store.conversations(updated_before=1.0)) == []
        assert len(list(store.conversations(updated_from=1.0))) == 3

    def test_it_pulls_one_page_at_a_time_and_holds_nothing_open(self):
        class Counting(InMemoryTrackerStore):
            async def _list(self, listing):
                pages.append(listing.limit)
                return await super()._list(listing)

        pages = []
        with SyncTrackerStore(Counting()) as store:
            for number in range(5):
                store.create_tracker(f"user-{number}")
            listing = store.conversations(page_size=2)
            assert pages == []
            next(listing)
            next(listing)
            assert pages == [2]
            store.close()
            with pytest.raises(errors.StoreClosedError):
                next(listing)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"page_size": 0},
            {"page_size": "many"},
            {"cursor": 3},
            {"user_id": 3},
            {"updated_from": "today"},
            {"updated_before": "today"},
            {"timeout_seconds": 0},
        ],
    )
    def test_what_is_wrong_is_refused_by_the_call(self, store, wrong):
        with pytest.raises(errors.InvalidInputError):
            store.conversations(**wrong)


class TestThreads:
    def test_many_threads_on_one_conversation_lose_nothing(self, store):
        with ThreadPoolExecutor(16) as pool:
            said = [f"t{number}" for number in range(64)]
            list(pool.map(lambda text: say(store, "alice", text), said))
        assert sorted(texts(store.retrieve("alice"))) == sorted(said)

    def test_many_threads_that_use_it_first_share_one_loop(self):
        store = SyncTrackerStore(InMemoryTrackerStore())
        barrier = threading.Barrier(8)

        def use(number):
            barrier.wait()
            say(store, f"user-{number}", "hi")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(use, range(8)))
        assert len(facade_threads()) == 1
        assert len(list(store.keys())) == 8
        store.close()

    def test_many_threads_may_use_it_after_it_was_opened_again(self):
        class SlowToOpen(InMemoryTrackerStore):
            async def _open(self):
                await asyncio.sleep(0.02)
                await super()._open()

        def use(number):
            store.open()
            say(store, f"user-{number}", "hi")

        with closing(SyncTrackerStore(SlowToOpen())) as store:
            for times in (1, 2, 3):
                with ThreadPoolExecutor(8) as pool:
                    list(pool.map(use, range(8)))
                assert texts(store.retrieve("user-0")) == ["hi"] * times
                store.close()

    def test_each_facade_has_a_thread_of_its_own(self, store):
        with SyncTrackerStore(InMemoryTrackerStore()):
            assert len(facade_threads()) == 2

    async def test_from_a_running_loop(self):
        with SyncTrackerStore(InMemoryTrackerStore()) as store:
            say(store, "alice", "hi")
            tracker = await asyncio.to_thread(store.retrieve, "alice")
            assert texts(tracker) == ["hi"]

    def test_a_call_from_its_own_loop_is_refused(self):
        class Recursive(RecordingBroker):
            async def publish(self, message):
                with pytest.raises(errors.WrongLoopError, match="await the async"):
                    store.exists("bob")
                with pytest.raises(errors.WrongLoopError):
                    store.close()
                await super().publish(message)

        broker = Recursive()
        with SyncTrackerStore(InMemoryTrackerStore(event_broker=broker)) as store:
            say(store, "alice", "hi")
        assert len(broker.messages) == 2

    def test_a_store_that_is_open_on_another_loop_is_refused(self):
        inner = InMemoryTrackerStore()

        async def use():
            async with inner:
                with pytest.raises(errors.WrongLoopError):
                    SyncTrackerStore(inner).__enter__()

        asyncio.run(use())

    def test_closing_a_facade_that_could_not_open_hides_nothing(self):
        inner = InMemoryTrackerStore()

        async def use():
            async with inner:
                store = SyncTrackerStore(inner)
                with pytest.raises(errors.WrongLoopError, match="another event loop"):
                    store.exists("alice")
                store.close()
                assert await inner.exists("alice") is False

        asyncio.run(use())

    def test_a_store_that_was_left_open_on_a_loop_that_ended_is_not_closed(self):
        inner = InMemoryTrackerStore()
        asyncio.run(inner.open())
        with pytest.raises(errors.WrongLoopError):
            SyncTrackerStore(inner).__enter__()
        assert not inner._closed


class TestSharing:
    """Two facades of one store: the one that opens it first has it."""

    @pytest.mark.parametrize("used", [False, True])
    def test_the_other_one_does_not_close_it(self, used):
        inner = InMemoryTrackerStore()
        mine, other = SyncTrackerStore(inner), SyncTrackerStore(inner)
        if used:
            say(mine, "alice", "hi")
            with pytest.raises(errors.WrongLoopError, match="share one SyncTracker"):
                other.exists("alice")
        other.close()
        assert texts(say(mine, "alice", "bye"))[-1] == "bye"
        with pytest.raises(errors.StoreClosedError, match="SyncTrackerStore is closed"):
            other.exists("alice")
        mine.close()
        assert inner._closed

    def test_one_that_failed_to_open_it_does_not_close_it(self):
        class Flaky(InMemoryTrackerStore):
            async def _open(self):
                if failing:
                    raise errors.StoreUnavailableError("gone")
                await super()._open()

        inner, failing = Flaky(), [1]
        other, mine = SyncTrackerStore(inner), SyncTrackerStore(inner)
        with pytest.raises(errors.StoreUnavailableError), other:
            pass
        failing.clear()
        with closing(mine):
            assert not mine.exists("alice")

    def test_after_closing_the_other_one_may_open_it(self):
        inner = InMemoryTrackerStore()
        mine, other = SyncTrackerStore(inner), SyncTrackerStore(inner)
        say(mine, "alice", "hi")
        mine.close()
        with closing(other):
            with pytest.raises(errors.StoreClosedError, match=r"InMemory.* is closed"):
                other.exists("alice")
            other.open()
            assert texts(other.retrieve("alice")) == ["hi"]


class TestClosing:
    def test_it_joins_the_thread_and_closes_the_store(self):
        inner = InMemoryTrackerStore()
        store = SyncTrackerStore(inner)
        store.open()
        assert len(facade_threads()) == 1
        store.close()
        assert facade_threads() == []
        assert inner._closed
        store.close()

    def test_closed_store_is_refused_until_it_is_opened(self, store):
        say(store, "alice", "hi")
        store.close()
        with pytest.raises(errors.StoreClosedError, match="open"):
            store.exists("alice")
        assert facade_threads() == []
        store.open()
        assert texts(store.retrieve("alice")) == ["hi"]

    def test_closing_one_that_was_never_used(self):
        store = SyncTrackerStore(InMemoryTrackerStore())
        store.close()
        with pytest.raises(errors.StoreClosedError):
            store.health()

    def test_what_is_under_way_is_cancelled(self):
        store = SyncTrackerStore(Stuck())
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(store.exists, name) for name in ("alice", "bob")]
            assert Stuck.begun.acquire(timeout=5)
            assert Stuck.begun.acquire(timeout=5)
            store.close()
            for call in calls:
                with pytest.raises(errors.StoreClosedError, match="saving the same"):
                    call.result(5)

    def test_several_threads_may_close_it(self):
        class Slow(InMemoryTrackerStore):
            async def _close(self):
                closed.append(1)
                await asyncio.sleep(0.05)

        closed = []
        store = SyncTrackerStore(Slow())
        store.open()

        def close_and_look(_):
            store.close()
            return facade_threads()

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(close_and_look, range(4))) == [[], [], [], []]
        assert closed == [1]

    def test_failing_to_close_ends_the_thread_all_the_same(self):
        class Failing(InMemoryTrackerStore):
            async def _close(self):
                raise errors.StoreUnavailableError("gone")

        store = SyncTrackerStore(Failing())
        store.open()
        with pytest.raises(errors.StoreUnavailableError, match="gone"):
            store.close()
        assert facade_threads() == []
        store.close()

    def test_failing_to_open_leaves_no_thread(self):
        class Unreachable(InMemoryTrackerStore):
            async def _open(self):
                raise errors.StoreUnavailableError("gone")

        with pytest.raises(errors.StoreUnavailableError, match="gone"):
            SyncTrackerStore(Unreachable()).__enter__()
        assert facade_threads() == []

    def test_one_that_is_forgotten_warns_and_ends_its_thread(self):
        store = SyncTrackerStore(InMemoryTrackerStore())
        store.open()
        (thread,) = facade_threads()
        held = [store]
        del store
        with pytest.warns(ResourceWarning, match="unclosed <SyncTrackerStore of InMem"):
            held.clear()
        thread.join(5)
        assert not thread.is_alive()

    @pytest.mark.parametrize("use", [False, True])
    def test_one_that_is_closed_or_was_never_used_does_not_warn(self, use):
        store = SyncTrackerStore(InMemoryTrackerStore())
        if use:
            store.open()
            store.close()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del store
            gc.collect()


class Stuck(InMemoryTrackerStore):
    """A store that never answers a read."""

    begun = threading.Semaphore(0)

    async def _read(self, read):
        self.begun.release()
        await asyncio.sleep(3600)


class TestConstruction:
    def test_nothing_is_done_before_the_first_use(self):
        made = []
        SyncTrackerStore(lambda: made.append(1))
        assert made == []
        assert facade_threads() == []

    def test_a_factory_is_called_once_inside_the_loop(self):
        def make():
            made.append(asyncio.get_running_loop())
            return InMemoryTrackerStore(max_event_history=3)

        made = []
        with SyncTrackerStore(make) as store:
            assert store.max_event_history == 3
            say(store, "alice", "hi")
            store.close()
            store.open()
            assert store.exists("alice")
        assert len(made) == 1

    def test_a_class_is_a_factory(self):
        store = SyncTrackerStore(InMemoryTrackerStore)
        assert repr(store) == "<SyncTrackerStore of InMemoryTrackerStore>"
        assert store.domain.slots is not None
        store.close()

    def test_what_is_no_store(self):
        with pytest.raises(errors.ConfigurationError, match="AwaitableTrackerStore"):
            SyncTrackerStore(object())
        with (
            SyncTrackerStore(InMemoryTrackerStore()) as other,
            pytest.raises(errors.ConfigurationError, match="not SyncTrackerStore"),
        ):
            SyncTrackerStore(other)

    def test_a_factory_that_makes_no_store(self):
        store = SyncTrackerStore(object)
        with pytest.raises(errors.ConfigurationError, match="not object"):
            store.open()
        store.close()

    def test_create(self):
        domain = Domain.empty()
        store = SyncTrackerStore.create(None, domain, None)
        assert store.domain is domain
        assert SyncTrackerStore.create(store) is store
        with SyncTrackerStore.create(InMemoryTrackerStore()) as other:
            assert other.health().reachable

    def test_properties_can_be_set(self, store):
        domain, broker = Domain.empty(), RecordingBroker()
        store.domain, store.event_broker, store.max_event_history = domain, broker, 7
        inner = store._store()
        assert (inner.domain, inner.event_broker) == (domain, broker)
        assert (store.domain, store.event_broker) == (domain, broker)
        assert inner.max_event_history == store.max_event_history == 7
