"""Legacy stores behind `AwaitableTrackerStore`: sync or async, they mean the same."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from tests.unit import legacy_stores as legacy
from tests.unit.legacy_stores import said, say
from tracker_store_async import errors
from tracker_store_async.backends.memory import InMemoryTrackerStore
from tracker_store_async.broker import EventMessage
from tracker_store_async.brokers.recording import RecordingBroker
from tracker_store_async.config import EndpointConfig
from tracker_store_async.domain import Domain
from tracker_store_async.events import (
    ActionExecuted,
    SessionStarted,
    SlotSet,
    UserUttered,
    event_from_dict,
)
from tracker_store_async.rows import Read
from tracker_store_async.store import TrackerStore
from tracker_store_async.sync import SyncTrackerStore
from tracker_store_async.wrappers import awaitable
from tracker_store_async.wrappers.awaitable import AwaitableTrackerStore
from tracker_store_async.wrappers.legacy_trackers import is_same

KINDS = [
    legacy.JSONTextStore,
    legacy.TextStore,
    legacy.BlockingStore,
    legacy.AsyncStore,
    legacy.AppendingStore,
    legacy.ForeignStore,
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


async def add(store, sender_id, *texts):
    tracker = await store.get_or_create_tracker(sender_id)
    say(tracker, *texts)
    await store.save(tracker)
    return tracker


def pool_threads():
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("legacy-tracker-store")]


class TestEveryKind:
    async def test_turns_are_kept_in_order(self, kind):
        async with AwaitableTrackerStore(kind()) as store:
            await add(store, "alice", "hi")
            tracker = await add(store, "alice", "how are you")
            say(tracker, "bye")
            await store.save(tracker)
            await store.save(tracker)
            stored = await store.retrieve("alice")
            assert said(stored) == ["hi", "how are you", "bye"]
            assert stored.version == len(stored.events) == 7
            assert stored.get_slot("said") == "bye"
            assert await store.retrieve("bob") is None
            assert await store.exists("alice")
            assert not await store.exists("bob")

    async def test_sessions(self, kind):
        async with AwaitableTrackerStore(kind()) as store:
            tracker = await add(store, "alice", "hi")
            tracker.update(ActionExecuted("action_session_start"))
            tracker.update(SessionStarted())
            say(tracker, "again")
            await store.save(tracker)
            await add(store, "alice", "more")
            latest = await store.retrieve("alice")
            assert said(latest) == ["again", "more"]
            assert isinstance(latest.events[0], ActionExecuted)
            full = await store.retrieve_full_tracker("alice")
            assert said(full) == ["hi", "again", "more"]
            assert full.version == len(full.events)

    async def test_many_tasks_on_one_conversation_lose_nothing(self, kind):
        async with AwaitableTrackerStore(kind()) as store:
            texts = [str(number) for number in range(12)]
            await asyncio.gather(*(add(store, "alice", text) for text in texts))
            assert store._turns._locks == store._turns._users == {}
            assert sorted(said(await store.retrieve("alice")), key=int) == texts

    async def test_unknown_events_survive(self, kind):
        async with AwaitableTrackerStore(kind()) as store:
            tracker = store.init_tracker("alice")
            tracker.update(SlotSet("n", 1.0, timestamp=5))
            odd = {"event": "flow_started", "timestamp": 6.5, "flow_id": "x"}
            say(tracker, "hi")
            tracker.update(event_from_dict(odd))
            await store.save(tracker)
            stored = await store.retrieve("alice")
            assert stored.events[-1].as_dict() == odd

    async def test_listing(self, kind):
        async with AwaitableTrackerStore(kind(), max_workers=2) as store:
            for number in range(5):
                await add(store, f"user-{number}", "hi")
            assert sorted(await store.keys()) == [f"user-{n}" for n in range(5)]
            summaries = [s async for s in store.conversations(page_size=2)]
            assert [s.sender_id for s in summaries] == [f"user-{n}" for n in range(5)]
            assert {s.version for s in summaries} == {3}
            after = store.conversations(cursor=summaries[2].cursor)
            assert [s.sender_id async for s in after] == ["user-3", "user-4"]

    async def test_health(self, kind):
        async with AwaitableTrackerStore(kind(), max_workers=3) as store:
            health = await store.health()
        assert (health.reachable, health.backend) == (True, "awaitable")
        assert health.details == {"legacy_store": kind.__name__, "max_workers": 3}


RasaBroker = legacy.RasaBroker


class AsyncBroker(RasaBroker):
    """A broker of Rasa's kind whose `publish` is async."""

    async def publish(self, event):
        await asyncio.sleep(0)
        super().publish(event)


class VeryBlockingStore(legacy.BlockingStore):
    """Takes so long that the machine's other work cannot be mistaken for it."""

    pause_seconds = 0.2


class TestEventLoop:
    async def test_it_is_not_stopped_by_a_store_that_blocks(self):
        longest = 0.0

        async def tick():
            nonlocal longest
            while True:
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                longest = max(longest, time.perf_counter() - before)

        async with AwaitableTrackerStore(VeryBlockingStore()) as store:
            ticking = asyncio.create_task(tick())
            await asyncio.gather(*(store.create_tracker(f"u{n}") for n in range(8)))
            ticking.cancel()
        assert longest < VeryBlockingStore.pause_seconds * 0.75

    async def test_conversations_do_not_wait_for_each_other(self):
        inner = VeryBlockingStore()
        async with AwaitableTrackerStore(inner, max_workers=8) as store:
            started = time.perf_counter()
            await asyncio.gather(*(store.exists(f"user-{n}") for n in range(8)))
            elapsed = time.perf_counter() - started
        assert elapsed < 4 * inner.pause_seconds

    async def test_workers_are_bounded_and_end_with_the_store(self):
        async with AwaitableTrackerStore(
            legacy.BlockingStore(), max_workers=2
        ) as store:
            await asyncio.gather(*(store.exists(f"user-{n}") for n in range(6)))
            assert len(pool_threads()) == 2
        assert pool_threads() == []

    async def test_async_methods_run_on_the_loop(self):
        class Watched(legacy.AsyncStore):
            async def retrieve_full_tracker(self, sender_id):
                threads.add(threading.current_thread())
                return await super().retrieve_full_tracker(sender_id)

        threads = set()
        async with AwaitableTrackerStore(Watched()) as store:
            await store.exists("alice")
        assert threads == {threading.main_thread()}

    async def test_async_methods_need_no_thread(self):
        broker = AsyncBroker()
        store = AwaitableTrackerStore(legacy.JSONTextStore(event_broker=broker))
        await store.event_broker.publish(EventMessage("1", "alice", 0, {"a": 1}))
        assert broker.published == [{"a": 1}]
        assert pool_threads() == []

    async def test_a_sync_method_may_return_something_to_await(self):
        class Mixed(legacy.AsyncStore):
            def save(self, tracker):
                return super().save(tracker)

            def retrieve_full_tracker(self, sender_id):
                return super().retrieve_full_tracker(sender_id)

        async with AwaitableTrackerStore(Mixed()) as store:
            await add(store, "alice", "hi")
            assert said(await store.retrieve("alice")) == ["hi"]

    def test_behind_the_sync_facade(self):
        with SyncTrackerStore(AwaitableTrackerStore(legacy.BlockingStore())) as store:
            tracker = store.get_or_create_tracker("alice")
            say(tracker, "hi")
            store.save(tracker)
            assert said(store.retrieve("alice")) == ["hi"]
        assert pool_threads() == []

    async def test_one_loop_after_another(self):
        store = AwaitableTrackerStore(legacy.BlockingStore(event_broker=RasaBroker()))

        async def use():
            async with store:
                await asyncio.gather(*(add(store, "alice", str(n)) for n in range(4)))

        for _ in range(2):
            await asyncio.to_thread(asyncio.run, use())
        async with store:
            assert len(said(await store.retrieve("alice"))) == 8


class GatedStore(legacy.JSONTextStore):
    """Waits in `save` until it is let go, before or after it has written."""

    def __init__(self, *, write_first=False):
        super().__init__()
        self.write_first = write_first
        self.reached = threading.Event()
        self.gate = threading.Event()

    def save(self, tracker):
        if self.write_first:
            super().save(tracker)
        self.reached.set()
        assert self.gate.wait(10)
        if not self.write_first:
            super().save(tracker)


async def until(event):
    while not event.is_set():
        await asyncio.sleep(0.001)


class TestRetries:
    @pytest.mark.parametrize("write_first", [True, False])
    async def test_a_cancelled_save_that_lands_is_recognised(self, write_first):
        inner = GatedStore(write_first=write_first)
        async with AwaitableTrackerStore(inner) as store:
            tracker = store.init_tracker("alice")
            say(tracker, "hi")
            saving = asyncio.create_task(store.save(tracker))
            await until(inner.reached)
            saving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await saving
            again = asyncio.create_task(store.save(tracker))
            await asyncio.sleep(0.02)
            assert not again.done()  # the first one still runs in its thread
            inner.gate.set()
            await again
            assert said(await store.retrieve("alice")) == ["hi"]
            assert store.conflict_count == 0

    async def test_closing_waits_for_a_cancelled_save(self):
        inner = GatedStore()
        store = AwaitableTrackerStore(inner)
        tracker = store.init_tracker("alice")
        say(tracker, "hi")
        saving = asyncio.create_task(store.save(tracker))
        await until(inner.reached)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0.02)
        assert not closing.done()
        inner.gate.set()
        await closing
        assert list(inner.texts) == ["alice"]
        assert pool_threads() == []

    async def test_a_save_whose_answer_is_lost_is_recognised(self):
        class Losing(legacy.JSONTextStore):
            def save(self, tracker):
                super().save(tracker)
                if failing:
                    raise failing.pop()

        failing = [ConnectionResetError("no answer")]
        async with AwaitableTrackerStore(Losing()) as store:
            tracker = store.init_tracker("alice")
            say(tracker, "hi")
            with pytest.raises(errors.StoreUnavailableError):
                await store.save(tracker)
            await add(store, "alice", "in between")
            await store.save(tracker)
            say(tracker, "bye")
            await store.save(tracker)
            assert said(await store.retrieve("alice")) == ["hi", "in between", "bye"]

    async def test_a_store_that_keeps_less_than_it_is_given(self):
        class Lossy(legacy.JSONTextStore):
            """Every number is a float, and unknown fields are dropped."""

            def save(self, tracker):
                events = [dict(event.as_dict()) for event in tracker.events]
                for fields in events:
                    fields.pop("mood", None)
                    fields["metadata"] = {"only": "ours"}
                    if isinstance(fields.get("value"), int):
                        fields["value"] = float(fields["value"])
                self.texts[tracker.sender_id] = json.dumps({"events": events})
                if failing:
                    raise failing.pop()

        failing = [TimeoutError()]
        async with AwaitableTrackerStore(Lossy()) as store:
            tracker = store.init_tracker("alice")
            fields = {"event": "slot", "name": "n", "value": 1, "timestamp": 1.5}
            tracker.update(event_from_dict(fields | {"mood": "good"}))
            with pytest.raises(errors.StoreTimeoutError):
                await store.save(tracker)
            await store.save(tracker)
            assert len((await store.retrieve("alice")).events) == 1

    async def test_an_event_that_carries_its_id_is_recognised_by_another_process(self):
        inner = legacy.JSONTextStore()
        async with AwaitableTrackerStore(inner) as store:
            tracker = store.init_tracker("alice")
            message = UserUttered("hi")
            message.event_id = "id-1"
            tracker.update(message)
            await store.save(tracker)
        async with AwaitableTrackerStore(inner) as store:
            repeated = store.init_tracker("alice")
            repeated._log.version = 0  # as loaded before the first save
            repeated.update(message)
            await store.save(repeated)
            assert said(await store.retrieve("alice")) == ["hi"]

    async def test_ids_of_earlier_conversations_are_forgotten(self, monkeypatch):
        from tracker_store_async.wrappers import legacy_trackers

        monkeypatch.setattr(legacy_trackers, "REMEMBERED_EVENTS", 6)
        async with AwaitableTrackerStore(legacy.JSONTextStore()) as store:
            for number in range(5):
                await add(store, f"user-{number}", "hi")
            held = {key: len(value) for key, value in store._recent._written.items()}
            assert held == {"user-3": 3, "user-4": 3}
            await add(store, "user-4", *"abcdef")
            assert list(store._recent._written["user-4"]) == list(range(9, 15))
            assert store._recent._count == 6


USER = {"event": "user", "timestamp": 1.5, "text": "hi", "parse_data": {}, "n": 1}


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"n": 1.0}, True),
        ({"parse_data": {"entities": [1]}, "metadata": {}}, True),
        ({"n": 2}, False),
        ({"text": "bye"}, False),
        ({"timestamp": 1.6}, False),
        ({"event": "bot"}, False),
    ],
)
def test_which_stored_event_counts_as_the_written_one(changes, same):
    assert is_same(json.dumps(USER), json.dumps(USER | changes)) is same
    less = {name: USER[name] for name in ("event", "timestamp")}
    assert is_same(json.dumps(USER), json.dumps(less))
    assert not is_same(json.dumps(USER), json.dumps({"event": "user"}))


class TestConflicts:
    async def other_process(self, inner, *texts):
        async with AwaitableTrackerStore(inner) as other:
            await add(other, "alice", *texts)

    async def test_rebase(self):
        inner = legacy.JSONTextStore()
        async with AwaitableTrackerStore(inner) as store:
            tracker = await add(store, "alice", "hi")
            say(tracker, "mine")
            await self.other_process(inner, "theirs")
            await store.save(tracker)
            assert said(tracker) == ["hi", "theirs", "mine"]
            assert store.conflict_count == 1

    async def test_raise(self):
        inner = legacy.JSONTextStore()
        async with AwaitableTrackerStore(inner, on_conflict="raise") as store:
            tracker = await add(store, "alice", "hi")
            say(tracker, "mine")
            await self.other_process(inner, "theirs")
            with pytest.raises(errors.ConcurrentSaveError):
                await store.save(tracker)

    async def test_another_process_that_comes_in_between_is_noticed(self):
        class Interrupted(legacy.AppendingStore):
            def save(self, tracker):
                if theirs:
                    self.rows[tracker.sender_id].append(theirs.pop())
                super().save(tracker)

            def _additional_events(self, tracker):
                return list(tracker.events)[3:]  # it had three

        theirs = []
        inner = Interrupted()
        inner.rows["alice"] = [
            UserUttered(text, timestamp=1.0).as_dict() for text in ("a", "b", "c")
        ]
        async with AwaitableTrackerStore(inner) as store:
            tracker = await store.retrieve("alice")
            say(tracker, "mine")
            theirs.append(UserUttered("theirs", timestamp=2.0).as_dict())
            await store.save(tracker)
            assert said(tracker) == ["a", "b", "c", "theirs", "mine"]
            assert tracker.unsaved_events == []
            assert tracker.version == 6


class TestStoresThatDoNotKeepWhatTheyAreGiven:
    @pytest.fixture(autouse=True)
    def no_pauses(self, monkeypatch):
        monkeypatch.setattr(awaitable, "PAUSES_SECONDS", (0.0, 0.01))

    async def refusal(self, store):
        tracker = await store.get_or_create_tracker("alice", append_action_listen=False)
        say(tracker, "secret words")
        with pytest.raises(errors.StoreDataError) as raised:
            await store.save(tracker)
        assert "secret" not in str(raised.value)
        return str(raised.value)

    async def test_one_that_stores_nothing(self):
        class Forgetful(legacy.JSONTextStore):
            def save(self, tracker):
                pass

        async with AwaitableTrackerStore(Forgetful()) as store:
            assert "given 2 new events for the 0" in await self.refusal(store)

    async def test_one_that_keeps_the_last_few(self):
        class Bounded(legacy.AppendingStore):
            def save(self, tracker):
                super().save(tracker)
                del self.rows[tracker.sender_id][:-4]

        async with AwaitableTrackerStore(Bounded()) as store:
            await add(store, "alice", "hi")
            assert "now has 4" in await self.refusal(store)

    async def test_one_that_wants_the_latest_session_and_is_given_all(self):
        inner = legacy.AppendingStore()
        inner.rows["alice"] = [
            UserUttered("hi").as_dict(),
            SessionStarted().as_dict(),
            UserUttered("again").as_dict(),
        ]
        async with AwaitableTrackerStore(inner, save_scope="all_events") as store:
            assert "set save_scope='latest_session'" in await self.refusal(store)
        inner.rows["alice"] = inner.rows["alice"][:3]
        async with AwaitableTrackerStore(inner) as store:
            await add(store, "alice", "more")
            full = await store.retrieve_full_tracker("alice")
            assert said(full) == ["hi", "again", "more"]

    async def test_one_that_shows_a_save_a_little_later_is_trusted(self):
        class Lagging(legacy.JSONTextStore):
            def retrieve_full_tracker(self, sender_id):
                if lag and lag.pop():
                    return None
                return super().retrieve_full_tracker(sender_id)

        lag = []
        async with AwaitableTrackerStore(Lagging()) as store:
            tracker = store.init_tracker("alice")
            tracker._log.version = 0
            say(tracker, "hi")
            lag += [True, False]
            await store.save(tracker)
            assert said(await store.retrieve("alice")) == ["hi"]


class TestPublishing:
    @pytest.mark.parametrize("is_async", [False, True])
    async def test_the_legacy_broker_is_taken_over_and_published_to_once(
        self, is_async
    ):
        broker = AsyncBroker() if is_async else RasaBroker()
        inner = legacy.JSONTextStore(event_broker=broker)
        async with AwaitableTrackerStore(inner) as store:
            assert inner.event_broker is None
            await add(store, "alice", "hi")
            await add(store, "alice", "bye")
        events = [event["event"] for event in broker.published]
        assert events == ["action", "user", "slot", "user", "slot"]
        assert {event["sender_id"] for event in broker.published} == {"alice"}
        assert not broker.closed

    async def test_the_broker_is_closed_if_the_store_owns_it(self):
        broker = RasaBroker()
        store = AwaitableTrackerStore(legacy.JSONTextStore(event_broker=broker))
        store.owns_broker = True
        async with store:
            await store.health()
        assert broker.closed

    async def test_a_sync_broker_is_called_off_the_loop_and_one_call_at_a_time(self):
        class Slow(RasaBroker):
            def publish(self, event):
                threads.add(threading.current_thread().name[:6])
                assert busy.acquire(blocking=False)
                time.sleep(0.002)
                busy.release()
                super().publish(event)

        threads, busy = set(), threading.Lock()
        broker = Slow()
        async with AwaitableTrackerStore(legacy.JSONTextStore(None, broker)) as store:
            await asyncio.gather(*(add(store, f"user-{n}", "hi") for n in range(6)))
        assert len(broker.published) == 18
        assert threads == {"legacy"}

    async def test_a_call_that_was_given_up_is_waited_for_by_the_next_one(self):
        class Stuck(RasaBroker):
            def publish(self, event):
                assert busy.acquire(blocking=False)
                assert go_on.wait(10)
                busy.release()
                super().publish(event)

        busy, go_on = threading.Lock(), threading.Event()
        broker = Stuck()
        store = AwaitableTrackerStore(legacy.JSONTextStore(event_broker=broker))
        store.event_broker.timeout_seconds = 0.02
        async with store:
            for _ in range(2):
                with pytest.raises(errors.PublishError, match=r"within 0\.02 s"):
                    await store.create_tracker("alice")
            go_on.set()
            store.event_broker.timeout_seconds = 5
            await store.create_tracker("alice")
        assert len(broker.published) == 2  # the first one went on in its thread

    async def test_a_broker_that_fails_stores_nothing(self):
        class Failing(RasaBroker):
            def publish(self, event):
                raise ValueError("no")

        inner = legacy.JSONTextStore(event_broker=Failing())
        async with AwaitableTrackerStore(inner) as store:
            with pytest.raises(errors.PublishError):
                await store.create_tracker("alice")
        assert inner.texts == {}

    async def test_a_broker_of_ours_stays_as_it_is(self):
        broker = RecordingBroker()
        store = AwaitableTrackerStore(legacy.JSONTextStore(event_broker=broker))
        assert store.event_broker is broker

    def test_whether_it_is_ready(self):
        broker = RasaBroker()
        store = AwaitableTrackerStore(legacy.JSONTextStore(event_broker=broker))
        assert store.event_broker.is_ready()
        broker.is_ready = lambda: False
        assert not store.event_broker.is_ready()

    def test_a_broker_that_cannot_be_taken_over(self):
        class Fixed(legacy.JSONTextStore):
            event_broker = property(lambda self: RasaBroker(), lambda self, value: None)

        class ReadOnly(legacy.AppendingStore):
            event_broker = property(lambda self: RasaBroker())

        for inner in (Fixed(), ReadOnly()):
            with pytest.raises(errors.ConfigurationError, match="event_broker"):
                AwaitableTrackerStore(inner)


class TestSettings:
    def test_domain_is_the_legacy_stores(self):
        domain, other = Domain.empty(), Domain.from_dict({"slots": {}})
        inner = legacy.JSONTextStore(domain)
        store = AwaitableTrackerStore(inner)
        store.domain = other
        assert inner.domain is other
        store.domain = None
        assert inner.domain.is_empty()

    async def test_slots_of_the_legacy_domain_are_used(self):
        class TheirDomain:
            def as_dict(self):
                return {
                    "slots": {
                        "city": {
                            "type": "text",
                            "initial_value": "Rome",
                            "mappings": [{"type": "from_text"}],
                        }
                    }
                }

        store = AwaitableTrackerStore(legacy.JSONTextStore(TheirDomain()))
        assert store.init_tracker("alice").get_slot("city") == "Rome"
        assert [slot.name for slot in store.domain.slots][:1] == ["city"]
        assert store.domain is store.domain  # converted once

    def test_an_empty_domain_accepts_every_slot(self):
        """Rasa gives a store without a domain an empty one."""
        store = AwaitableTrackerStore(legacy.JSONTextStore(Domain.empty()))
        tracker = store.init_tracker("alice")
        tracker.update(SlotSet("anything", 1))
        assert tracker.get_slot("anything") == 1

    async def test_max_event_history_is_taken_over(self):
        inner = legacy.JSONTextStore()
        inner.max_event_history = 3
        async with AwaitableTrackerStore(inner) as store:
            assert (store.max_event_history, inner.max_event_history) == (3, None)
            await add(store, "alice", "a", "b", "c")
            tracker = await store.retrieve("alice")
            assert len(tracker.events) == 3
            assert tracker.version == 7
            await add(store, "alice", "d")
            assert len((await store.retrieve_full_tracker("alice")).events) == 9

    async def test_a_window_has_the_state_and_costs_one_retrieval(self):
        class Counting(legacy.JSONTextStore):
            def retrieve_full_tracker(self, sender_id):
                calls.append(sender_id)
                return super().retrieve_full_tracker(sender_id)

        calls = []
        async with AwaitableTrackerStore(Counting(), max_event_history=2) as store:
            tracker = await store.get_or_create_tracker("alice")
            tracker.update(SlotSet("city", "Rome"))
            say(tracker, "a", "b")
            await store.save(tracker)
            calls.clear()
            tracker = await store.retrieve("alice")
            assert len(tracker.events) == 2
            assert tracker.get_slot("city") == "Rome"
            assert calls == ["alice"]
            stored = await store._read(Read("alice", time.time(), last=2))
            assert [len(stored.rows), stored.first_position] == [2, 4]

    def test_the_given_bound_goes_before(self):
        inner = legacy.JSONTextStore()
        inner.max_event_history = 3
        assert AwaitableTrackerStore(inner, max_event_history=5).max_event_history == 5

    @pytest.mark.parametrize(
        "options",
        [
            {"max_workers": 0},
            {"max_workers": "8"},
            {"max_workers": True},
            {"record_exp": 60},
            {"save_scope": "some"},
            {"on_conflict": "ignore"},
        ],
    )
    def test_options_that_cannot_be_had(self, options):
        with pytest.raises(errors.ConfigurationError):
            AwaitableTrackerStore(legacy.JSONTextStore(), **options)

    @pytest.mark.parametrize(
        "inner", [object(), None, legacy.JSONTextStore, InMemoryTrackerStore()]
    )
    def test_what_is_no_legacy_store(self, inner):
        with pytest.raises(errors.ConfigurationError):
            AwaitableTrackerStore(inner)

    def test_create(self):
        inner, ours = legacy.JSONTextStore(), InMemoryTrackerStore()
        domain, broker = Domain.empty(), RecordingBroker()
        store = AwaitableTrackerStore.create(inner, domain, broker)
        assert type(store) is AwaitableTrackerStore
        assert (inner.domain, store.event_broker) == (domain, broker)
        assert AwaitableTrackerStore.create(ours) is ours
        config = EndpointConfig(type="in_memory")
        assert type(AwaitableTrackerStore.create(config)) is InMemoryTrackerStore
        with pytest.raises(errors.ConfigurationError, match="NoneType"):
            AwaitableTrackerStore.create(None)

    async def test_open_and_close_are_passed_on(self):
        class Opening(legacy.AsyncStore):
            def open(self):
                calls.append("open")

            async def close(self):
                calls.append("close")

        class Filing(legacy.JSONTextStore):
            def open(self, path):
                raise AssertionError("not ours to call")

        calls = []
        async with AwaitableTrackerStore(Opening()) as store:
            await store.exists("alice")
        assert calls == ["open", "close"]
        async with AwaitableTrackerStore(Filing()) as store:
            await store.exists("alice")


class TestInheritedRetrieval:
    """Rasa's base class has an async `retrieve_full_tracker` that awaits `retrieve`."""

    class RasaBase:
        async def retrieve_full_tracker(self, sender_id):
            return await self.retrieve(sender_id)

    async def test_sync_retrieve_in_a_subclass(self):
        class Sync(self.RasaBase):
            def __init__(self):
                self.inner = legacy.JSONTextStore()
                self.save, self.keys = self.inner.save, self.inner.keys

            def retrieve(self, sender_id):
                return self.inner.retrieve_full_tracker(sender_id)

        async with AwaitableTrackerStore(Sync()) as store:
            await add(store, "alice", "hi")
            assert said(await store.retrieve("alice")) == ["hi"]

    async def test_its_own_one_is_used_where_there_is_one(self):
        class Own(legacy.JSONTextStore):
            async def retrieve_full_tracker(self, sender_id):
                return JSONTextStore.retrieve_full_tracker(self, sender_id)

            def retrieve(self, sender_id):
                raise AssertionError("not all sessions")

        JSONTextStore = legacy.JSONTextStore  # noqa: N806
        async with AwaitableTrackerStore(Own()) as store:
            await add(store, "alice", "hi")


class TestErrors:
    @pytest.mark.parametrize(
        ("raised", "expected"),
        [
            (ConnectionRefusedError("at secret:pw@host"), errors.StoreUnavailableError),
            (OSError("disk"), errors.StoreUnavailableError),
            (TimeoutError(), errors.StoreTimeoutError),
            (KeyError("x"), KeyError),
            (errors.StoreAccessError("no"), errors.StoreAccessError),
            (StopIteration(), RuntimeError),
        ],
    )
    @pytest.mark.parametrize("is_async", [False, True])
    async def test_translation(self, raised, expected, is_async):
        class Failing(legacy.AsyncStore if is_async else legacy.JSONTextStore):
            def retrieve_full_tracker(self, sender_id):
                raise raised

        async with AwaitableTrackerStore(Failing()) as store:
            with pytest.raises(expected) as found:
                await store.retrieve("alice")
        assert type(found.value) is expected
        if expected is not type(raised):
            assert found.value.__cause__ is raised
            assert "secret" not in str(found.value)

    async def test_health_says_what_is_wrong(self):
        class Down(legacy.JSONTextStore):
            def retrieve(self, sender_id):
                raise ConnectionError

        async with AwaitableTrackerStore(Down()) as store:
            health = await store.health()
        assert not health.reachable
        assert "Down.retrieve of the legacy tracker store failed" in health.error

    @pytest.mark.parametrize("found", [5, [1], {"no": "events"}, "no json"])
    async def test_what_is_no_tracker(self, found):
        class Odd(legacy.JSONTextStore):
            def retrieve_full_tracker(self, sender_id):
                return found

        async with AwaitableTrackerStore(Odd()) as store:
            with pytest.raises(errors.TrackerDeserialisationError):
                await store.retrieve("alice")

    async def test_what_is_no_event(self):
        class Odd(legacy.JSONTextStore):
            def retrieve_full_tracker(self, sender_id):
                return legacy.ForeignTracker(sender_id, [object()])

        async with AwaitableTrackerStore(Odd()) as store:
            with pytest.raises(errors.TrackerDeserialisationError, match="as_dict"):
                await store.retrieve("alice")

    async def test_events_that_are_plain_dicts(self):
        class Plain(legacy.JSONTextStore):
            def retrieve_full_tracker(self, sender_id):
                if sender_id in self.texts:
                    events = json.loads(self.texts[sender_id])["events"]
                    return legacy.ForeignTracker(sender_id, events)
                return None

        store = AwaitableTrackerStore(Plain())
        async with store:
            tracker = store.init_tracker("alice")
            say(tracker, "hi")
            await store.save(tracker)
            assert said(await store.retrieve("alice")) == ["hi"]


class TestDeleting:
    @pytest.mark.parametrize("kind", [legacy.JSONTextStore, legacy.AsyncStore])
    async def test_it_is_the_legacy_stores(self, kind):
        inner = kind()
        async with AwaitableTrackerStore(inner) as store:
            tracker = await add(store, "alice", "hi")
            assert await store.delete("alice")
            assert not await store.delete("alice")
            assert inner.texts == {}
            assert "alice" not in store._recent._written
            say(tracker, "again")
            await store.save(tracker)
            assert said(await store.retrieve("alice")) == ["again"]

    async def test_a_store_that_cannot_delete(self):
        async with AwaitableTrackerStore(legacy.AppendingStore()) as store:
            await add(store, "alice", "hi")
            with pytest.raises(errors.ConfigurationError, match="method delete"):
                await store.delete("alice")

    async def test_a_part_cannot_be_deleted(self):
        async with AwaitableTrackerStore(legacy.JSONTextStore()) as store:
            await add(store, "alice", "hi")
            with pytest.raises(errors.ConfigurationError, match="a part"):
                await store.delete("alice", 0)


class TestListing:
    async def test_times_are_those_of_the_events(self):
        inner = legacy.AppendingStore()
        for number in range(4):
            message = UserUttered("hi", timestamp=100.0 + number)
            inner.rows[f"user-{number}"] = [message.as_dict()] * 2
        async with AwaitableTrackerStore(inner) as store:
            listing = store.conversations(updated_from=101.0, updated_before=103.0)
            found = [s async for s in listing]
            assert [s.sender_id for s in found] == ["user-1", "user-2"]
            assert found[0].created_at == found[0].updated_at == 101.0

    @pytest.mark.parametrize("odd", [None, "soon", float("nan"), 10**400])
    async def test_events_without_a_usable_time_count_as_of_now(self, odd):
        inner = legacy.AppendingStore()
        inner.rows["alice"] = [{"event": "x", "timestamp": odd}]
        before = time.time()
        async with AwaitableTrackerStore(inner) as store:
            [found] = [s async for s in store.conversations()]
        assert before <= found.updated_at <= time.time()

    async def test_by_user_is_refused(self):
        async with AwaitableTrackerStore(legacy.JSONTextStore()) as store:
            with pytest.raises(errors.ConfigurationError, match="user_id"):
                _ = [s async for s in store.conversations(user_id="u")]

    async def test_a_user_id_that_cannot_be_stored_is_said_once(self, caplog):
        async with AwaitableTrackerStore(legacy.JSONTextStore()) as store:
            for name in ("alice", "bob"):
                tracker = store.init_tracker(name)
                tracker.user_id = "u"
                say(tracker, "hi")
                await store.save(tracker)
        assert caplog.text.count("cannot store the user_id") == 1

    async def test_keys_as_rasas_redis_store_gives_them(self):
        class Redis(legacy.JSONTextStore):
            key_prefix = "tracker:"

            def keys(self):
                return [f"{self.key_prefix}{key}".encode() for key in self.texts]

        async with AwaitableTrackerStore(Redis()) as store:
            await add(store, "alice", "hi")
            assert list(await store.keys()) == ["alice"]
            assert [s.sender_id async for s in store.conversations()] == ["alice"]

    async def test_one_that_goes_meanwhile_is_left_out(self):
        class Stale(legacy.JSONTextStore):
            def keys(self):
                return ["alice", "gone"]

        async with AwaitableTrackerStore(Stale()) as store:
            await add(store, "alice", "hi")
            assert [s.sender_id async for s in store.conversations()] == ["alice"]


def test_it_is_one_of_ours():
    store = AwaitableTrackerStore(legacy.JSONTextStore())
    assert TrackerStore in type(store).__mro__
    assert TrackerStore.create(store) is store
