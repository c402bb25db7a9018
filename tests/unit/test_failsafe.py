"""`FailSafeTrackerStore`, step by step, on a primary that goes away on demand."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import (
    SENDER,
    Clock,
    FailingBroker,
    add,
    has,
    new_session,
    said,
    slot,
    state,
    stored_ids,
    turn,
    update,
    user,
    version,
)
from tests.outages import SwitchedStore, caught_up, is_open
from tracker_store_async import (
    AwaitableTrackerStore,
    CachedTrackerStore,
    FailSafeTrackerStore,
    InMemoryTrackerStore,
    SQLTrackerStore,
    errors,
)
from tracker_store_async.rows import Append, Read
from tracker_store_async.wrappers import failsafe_pieces
from tracker_store_async.wrappers.failsafe_backlog import new_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tracker_store_async.events import Event

FAST = {"probe_min_seconds": 0.01, "probe_max_seconds": 0.02}


@pytest.fixture
def primary() -> SwitchedStore:
    return SwitchedStore(event_broker=FailingBroker())


@pytest.fixture
async def store(primary: SwitchedStore) -> AsyncIterator[FailSafeTrackerStore]:
    async with FailSafeTrackerStore(primary, **FAST) as store:
        yield store


async def back(primary: SwitchedStore, store: FailSafeTrackerStore) -> None:
    """End the outage, and wait until everything is replayed."""
    primary.is_down = False
    primary.resume()
    await caught_up(store)


# -- an outage -------------------------------------------------------------------------


async def test_a_known_conversation_continues_where_it_was(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    await add(store, SENDER, slot("people", 4), *turn("before"))
    primary.is_down = True
    await add(store, SENDER, *turn("during"))
    assert said(await has(store)) == ["before", "during"]
    assert not store.is_provisional(SENDER)
    tracker = await has(store)
    assert tracker.get_slot("people") == 4
    assert said(await store.retrieve_full_tracker(SENDER)) == ["before", "during"]
    await back(primary, store)
    assert said(await has(primary)) == ["before", "during"]
    update(tracker, turn("after"))
    await store.save(tracker)  # the tracker goes on as if nothing had been
    assert said(await has(primary)) == ["before", "during", "after"]
    assert store.conflict_count == 0
    assert tracker.events == (await has(primary)).events
    assert isinstance(primary.event_broker, FailingBroker)
    assert primary.event_broker.ids == await stored_ids(primary)


async def test_a_tracker_of_before_the_outage_is_saved_in_it(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    primary.is_down = True
    for text in ("one", "two"):
        update(tracker, turn(text))
        await store.save(tracker)
    primary.is_down = False
    update(tracker, turn("three"))
    await store.save(tracker)
    await caught_up(store)
    assert said(await has(primary)) == ["one", "two", "three"]
    assert state(await has(primary)) == state(tracker)


async def test_one_that_is_not_known_begins_and_is_marked(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    primary.is_down = True
    assert await store.retrieve(SENDER) is None
    tracker = await store.get_or_create_tracker(SENDER)
    tracker.update(user("hello"))
    await store.save(tracker)
    assert store.is_provisional(SENDER)
    details = (await store.health()).details["fail_safe"]
    assert details["provisional_conversations"] == 1
    assert details["backlog_events"] == 2
    await back(primary, store)
    assert not store.is_provisional(SENDER)
    tracker.update(user("again"))
    await store.save(tracker)
    assert said(await has(primary)) == ["hello", "again"]
    assert store.conflict_count == 0  # it is the same log, by its time too


async def test_one_that_only_the_primary_knew_is_joined_behind_it(
    primary: SwitchedStore,
) -> None:
    await add(primary, SENDER, *new_session(), slot("people", 4), *turn("before"))
    await primary.close()
    async with FailSafeTrackerStore(primary, **FAST) as store:
        primary.is_down = True
        await add(store, SENDER, slot("city", "Bern"), *turn("during"))
        assert store.is_provisional(SENDER)
        await back(primary, store)
        tracker = await has(store)
        assert said(tracker) == ["before", "during"]
        assert (tracker.get_slot("people"), tracker.get_slot("city")) == (4, "Bern")
        windowed = await store.get_or_create_tracker(SENDER, max_event_history=1)
        assert windowed.get_slot("people") == 4  # so the snapshot is right
        assert store.conflict_count == 1


async def test_conflicts_are_rebased_with_session_and_state(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    await add(store, SENDER, *new_session(), slot("a", 1))
    other = SwitchedStore()
    other._conversations, other._sorted_ids = primary._conversations, []
    primary.is_down = True
    await add(store, SENDER, slot("b", 2), *turn("ours"))
    await add(other, SENDER, *new_session(), slot("c", 3), *turn("theirs"))
    await back(primary, store)
    tracker = await has(store)
    assert said(tracker) == ["theirs", "ours"]
    assert tracker._log.session_start == 3
    slots = {name: tracker.get_slot(name) for name in "abc"}
    windowed = await store.get_or_create_tracker(SENDER, max_event_history=1)
    assert {name: windowed.get_slot(name) for name in "abc"} == slots
    assert (slots["b"], slots["c"]) == (2, 3)
    ids = await stored_ids(store)
    assert len(ids) == len(set(ids)) == 3 + 5 + 2 + 5
    await other.close()


async def test_an_append_whose_answer_was_lost_is_recognised(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    primary.loses_answers = 1
    for text in ("landed", "in the outage"):
        update(tracker, turn(text))
        await store.save(tracker)
    await back(primary, store)
    assert said(await has(primary)) == ["landed", "in the outage"]
    assert await stored_ids(primary) == primary.event_broker.ids  # type: ignore[union-attr]
    assert store.conflict_count == 0
    assert store._replayer.replayed.landed == 4


async def test_the_first_append_of_all_may_be_the_one_that_landed(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    await store.open()
    primary.loses_answers = 1
    tracker = await store.get_or_create_tracker(SENDER)
    update(tracker, turn("hello"))
    await store.save(tracker)
    await back(primary, store)
    assert await stored_ids(primary) == primary.event_broker.ids  # type: ignore[union-attr]
    assert store.conflict_count == 0


async def test_another_writer_comes_behind_the_append_that_landed(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    primary.loses_answers = 1
    update(tracker, turn("landed"))
    await store.save(tracker)
    update(tracker, turn("waits"))
    await store.save(tracker)
    other = SwitchedStore()
    other._conversations, other._sorted_ids = primary._conversations, []
    await add(other, SENDER, *turn("theirs"))
    await back(primary, store)
    assert said(await has(primary)) == ["landed", "theirs", "waits"]
    assert store.conflict_count == 1
    ids = await stored_ids(primary)
    assert len(ids) == len(set(ids)) == 13
    await other.close()


async def test_two_callers_of_one_conversation_rebase_in_the_outage_too(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    await add(store, SENDER, *turn("before"))
    trackers = [await has(store) for _ in range(3)]
    primary.is_down = True
    for number, tracker in enumerate(trackers):
        update(tracker, turn(str(number)))
    await asyncio.gather(*map(store.save, trackers))
    seen = said(await has(store))
    assert sorted(map(str, seen)) == ["0", "1", "2", "before"]
    await back(primary, store)
    assert said(await has(primary)) == seen


async def test_windows_and_sessions_in_the_outage(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    store.max_event_history = 5
    await add(store, SENDER, slot("people", 4), *turn("one"), *turn("two"))
    primary.is_down = True
    await add(store, SENDER, *turn("three"))
    tracker = await has(store)
    assert tracker.get_slot("people") == 4
    assert len(tracker.events) == 5
    await add(store, SENDER, *new_session(), *turn("four"))
    assert said(await has(store)) == ["four"]
    await back(primary, store)
    assert state(await has(primary)) == state(await has(store))
    full = await primary.retrieve_full_tracker(SENDER)
    assert said(full) == ["one", "two", "three", "four"]
    assert (await has(primary))._log.session_start == 13


async def test_what_was_pushed_out_of_memory_goes_on_in_the_outage() -> None:
    primary = SwitchedStore()
    async with FailSafeTrackerStore(
        primary, remembered_conversations=1, **FAST
    ) as store:
        await add(store, SENDER, slot("people", 4), *turn("before"))
        tracker = await has(store)
        await add(store, "another", *turn())
        primary.is_down = True
        update(tracker, turn("during"))
        await store.save(tracker)  # the tracker knows where it stands
        found = await has(store)
        assert said(found) == ["during"]
        assert found.get_slot("people") == 4  # by its snapshot
        update(found, turn("more"))
        await store.save(found)
        await back(primary, store)
        assert said(await has(primary)) == ["before", "during", "more"]
        assert store.conflict_count == 0


async def test_the_memory_is_bounded() -> None:
    async with FailSafeTrackerStore(
        InMemoryTrackerStore(), remembered_conversations=50, remembered_bytes=100_000
    ) as store:
        for number in range(100):
            await add(store, f"c{number}", *turn("x" * 1000))
        seen = store._seen
        assert seen.size_bytes <= 100_000
        assert 10 < len(seen) <= 50
        for _ in range(30):
            await add(store, "long", *turn("y" * 1000))
        assert len(seen) > 5  # one that is long does not push out all others
        assert seen.size_bytes == sum(
            sum(len(data) + 200 for _, data in one.rows) for one in seen._seen.values()
        )


async def test_what_expired_is_gone_in_the_outage_too(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    clock = Clock()
    clock.drive(store)
    clock.drive(primary)
    store.record_exp = 60
    await add(store, SENDER, *turn("before"))
    primary.is_down = True
    assert await store.exists(SENDER)
    await add(store, SENDER, *turn("during"))
    clock.advance(61)
    assert not await store.exists(SENDER)
    await add(store, SENDER, *turn("anew"))
    assert said(await has(store)) == ["anew"]
    await back(primary, store)
    assert said(await has(primary)) == ["anew"]


# -- deleting and listing --------------------------------------------------------------


async def test_nothing_is_deleted_or_listed_in_the_outage(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    await add(store, SENDER, *turn("before"))
    primary.is_down = True
    await add(store, SENDER, *turn("during"))
    with pytest.raises(errors.StoreUnavailableError, match="nothing was erased"):
        await store.delete(SENDER)
    with pytest.raises(errors.StoreUnavailableError, match="cannot be listed"):
        await store.keys()
    assert said(await has(store)) == ["before", "during"]
    primary.is_down = False
    await caught_up(store)
    assert await store.keys() == [SENDER]
    assert await store.delete(SENDER)
    assert not await store.exists(SENDER)
    primary.is_down = True
    assert not await store.exists(SENDER)  # it is not remembered either


async def test_a_deletion_comes_after_the_replay(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    await add(store, SENDER, *turn("before"))
    primary.is_down = True
    await add(store, SENDER, *turn("during"))
    await add(store, "another", *turn("during"))
    primary.is_down = False
    store._breaker.half_open()  # the probe was answered, nothing is replayed yet
    assert await store.delete(SENDER)
    assert list(await store.keys()) == ["another"]
    await caught_up(store)
    assert not await store.exists(SENDER)


# -- the breaker -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        errors.StoreAccessError("refused"),
        errors.StoreDataError("refused"),
        errors.SchemaError("another layout"),
        TypeError("a bug"),
        KeyError("a bug"),
    ],
)
async def test_only_unavailability_counts(
    primary: SwitchedStore, store: FailSafeTrackerStore, error: Exception
) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    primary.refuses = error
    tracker.update(user())
    with pytest.raises(type(error)):
        await store.save(tracker)
    assert store._breaker.state == "closed"
    assert not store._backlog.entries


async def test_a_dead_primary_is_not_asked() -> None:
    primary = SwitchedStore()
    async with FailSafeTrackerStore(primary, probe_min_seconds=60) as store:
        await add(store, SENDER, *turn())
        primary.is_down = True
        await add(store, SENDER, *turn())
        calls = primary.calls
        for _ in range(20):
            await add(store, SENDER, *turn())
        assert not (await store.health()).reachable
        assert primary.calls == calls


async def test_one_that_hangs_costs_its_timeout_once_and_for_all() -> None:
    primary = SwitchedStore()
    async with FailSafeTrackerStore(primary, timeout_seconds=0.2, **FAST) as store:
        for number in range(50):
            await add(store, f"c{number}", *turn("before"))
        primary.hangs = True
        loop = asyncio.get_running_loop()
        started = loop.time()
        await asyncio.gather(
            *(add(store, f"c{number}", *turn("during")) for number in range(50))
        )
        for number in range(50):
            await add(store, f"c{number}", *turn("still"))
        assert loop.time() - started < 1.0
        await back(primary, store)
        for number in range(50):
            found = await has(primary, f"c{number}")
            assert said(found) == ["before", "during", "still"]
            ids = await stored_ids(primary, f"c{number}")
            assert len(set(ids)) == len(ids)


async def test_all_that_wait_are_let_go_when_one_finds_out() -> None:
    primary = SwitchedStore()
    async with FailSafeTrackerStore(primary, timeout_seconds=None, **FAST) as store:
        await add(store, SENDER, *turn("before"))
        primary.hangs = True
        waiting = asyncio.create_task(add(store, SENDER, *turn("during")))
        await asyncio.sleep(0.02)
        primary.hangs, primary.is_down = False, True
        await add(store, "another", *turn())
        await asyncio.wait_for(waiting, 1.0)
        assert said(await has(store)) == ["before", "during"]
        await back(primary, store)
        assert said(await has(primary)) == ["before", "during"]


async def test_two_lines_tell_of_an_outage(
    primary: SwitchedStore,
    store: FailSafeTrackerStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="tracker_store_async")
    await add(store, SENDER, *turn("a secret"))
    primary.is_down = True
    for number in range(5):
        await add(store, f"c{number % 2}", *turn("a secret"))
    await asyncio.sleep(0.1)  # some probes
    await back(primary, store)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "saves go to the fallback (in_memory)" in lines[0]
    assert "replayed 20 events of 2 conversations" in lines[1]
    assert "a secret" not in caplog.text


async def test_health_tells_of_breaker_and_backlog(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    await add(store, SENDER, *turn())
    health = await store.health()
    assert health.reachable
    assert health.backend == "in_memory"
    assert health.details["conversations"] == 1  # the primary's own
    assert health.details["fail_safe"]["state"] == "closed"
    primary.is_down = True
    await add(store, SENDER, *turn())
    health = await store.health()
    assert not health.reachable
    assert health.error == "the server is down"
    assert health.details["fail_safe"]["state"] == "open"
    assert health.details["fail_safe"]["backlog_events"] == 4
    assert health.details["fail_safe"]["backlog_conversations"] == 1


async def test_health_alone_finds_out(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    primary.is_down = True
    assert not (await store.health()).reachable
    assert store._breaker.is_open
    await back(primary, store)
    assert (await store.health()).reachable


@pytest.mark.parametrize("is_async", [True, False])
async def test_the_callback_is_told(primary: SwitchedStore, is_async: bool) -> None:
    told: list[Exception] = []

    async def tell(error: Exception) -> None:
        told.append(error)
        raise ValueError("a bug in the callback")

    store = FailSafeTrackerStore(primary, None, tell if is_async else told.append)
    async with store:
        primary.is_down = True
        await add(store, SENDER, *turn())
    assert [str(error) for error in told] == ["the server is down"]


# -- opening and closing ---------------------------------------------------------------


async def test_it_opens_although_the_primary_does_not(
    primary: SwitchedStore,
) -> None:
    primary.is_down = True
    async with FailSafeTrackerStore(primary, **FAST) as store:
        await add(store, SENDER, *turn("during"))
        await back(primary, store)
        assert said(await has(primary)) == ["during"]
    with pytest.raises(errors.StoreClosedError):
        await primary.retrieve(SENDER)


async def test_a_primary_that_refuses_the_credentials_is_no_outage() -> None:
    class Refusing(SwitchedStore):
        async def _open(self) -> None:
            raise errors.StoreAccessError("wrong password")

    store = FailSafeTrackerStore(Refusing())
    with pytest.raises(errors.StoreAccessError):
        await store.open()
    await store.close()


async def test_memory_that_is_lost_is_told_loudly(
    primary: SwitchedStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="tracker_store_async")
    async with FailSafeTrackerStore(primary) as store:
        await add(store, SENDER, *turn("before"))
        primary.is_down = True
        await add(store, SENDER, *turn("during"))
    last = caplog.records[-1]
    assert last.levelno == logging.CRITICAL
    assert "4 events of 1 conversations" in last.getMessage()
    assert "LOST" in last.getMessage()
    primary.is_down = False
    async with store:  # the same object still has them
        assert said(await has(store)) == ["before", "during"]


async def test_closing_replays_what_it_can(primary: SwitchedStore) -> None:
    async with FailSafeTrackerStore(primary, probe_min_seconds=60) as store:
        await store.open()
        primary.is_down = True
        await add(store, SENDER, *turn("during"))
        primary.is_down = False
        store._breaker.half_open()
    await primary.open()
    assert said(await has(primary)) == ["during"]


async def test_a_refused_replay_is_told_and_kept(
    primary: SwitchedStore,
    store: FailSafeTrackerStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await add(store, SENDER, *turn("before"))
    primary.is_down = True
    await add(store, SENDER, *turn("during"))
    primary.refuses = errors.StoreDataError("too large")
    primary.is_down = False
    async with asyncio.timeout(5):
        await asyncio.wait({store._recovery.task})  # type: ignore[arg-type]
    assert "stay in the fallback: too large" in caplog.text
    with pytest.raises(errors.StoreDataError):  # never masked
        await store.retrieve(SENDER)
    assert await store.retrieve("another") is None
    primary.refuses = None
    assert said(await has(store)) == ["before", "during"]
    await caught_up(store)


# -- fallbacks -------------------------------------------------------------------------


def journal_at(directory: Path) -> dict[str, Any]:
    return {"journal": str(directory / "journal.db"), **FAST}


async def test_the_journal_survives(
    tmp_path: Path, primary: SwitchedStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="tracker_store_async")
    options = journal_at(tmp_path)
    async with FailSafeTrackerStore(primary, **options) as store:
        await add(store, SENDER, slot("people", 4), *turn("before"))
        primary.is_down = True
        await add(store, SENDER, *turn("during"))
        await add(store, "new", *turn("during"))
        details = (await store.health()).details["fail_safe"]
        assert details["journal"] == options["journal"]
    assert "kept in the journal" in caplog.records[-1].getMessage()
    async with FailSafeTrackerStore(primary, **options) as store:
        tracker = await has(store)  # nothing but the journal knows it
        assert said(tracker) == ["before", "during"]
        assert tracker.get_slot("people") == 4
        assert (store.is_provisional(SENDER), store.is_provisional("new")) == (
            False,
            True,
        )
        update(tracker, turn("still"))
        await store.save(tracker)
        await back(primary, store)
        assert said(await has(primary)) == ["before", "during", "still"]
        assert said(await has(primary, "new")) == ["during"]
        assert store.conflict_count == 0
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["journal.db", "journal.db.lock"]
    assert b"during" not in (tmp_path / "journal.db").read_bytes()


async def test_processes_share_the_path_and_take_up_what_was_left(
    tmp_path: Path, primary: SwitchedStore
) -> None:
    options = journal_at(tmp_path)
    others = []
    for _ in range(2):
        other = SwitchedStore()
        await other.open()
        other._conversations = primary.__dict__.setdefault("_conversations", {})
        other._sorted_ids = primary.__dict__.setdefault("_sorted_ids", [])
        others.append(other)
    primary.is_down = True
    stores = [FailSafeTrackerStore(each, **options) for each in (primary, *others)]
    for number, store in enumerate(stores):
        if number:
            others[number - 1].is_down = True
        await store.open()
        await add(store, "shared", *turn(str(number)))
        await add(store, f"own-{number}", *turn(str(number)))
    for store in stores:
        await store.close()
    assert (tmp_path / "journal-3.db").exists()
    async with FailSafeTrackerStore(primary, **options) as store:
        assert len(store._files) == 3
        assert said(await has(store, "own-2")) == ["2"]
        await back(primary, store)
        assert said(await has(store, "shared")) == ["0", "1", "2"]
        for number in range(3):
            assert said(await has(primary, f"own-{number}")) == [str(number)]


async def test_a_fallback_of_ones_own(primary: SwitchedStore, tmp_path: Path) -> None:
    fallback = SQLTrackerStore(db=str(tmp_path / "fallback.db"))
    async with FailSafeTrackerStore(primary, fallback, **FAST) as store:
        await add(store, SENDER, *turn("before"))
        primary.is_down = True
        await add(store, SENDER, *turn("during"))
        assert said(await has(fallback)) == ["before", "during"]  # it reads as one
        await back(primary, store)
        assert await version(fallback) == 0
    with pytest.raises(errors.StoreClosedError):
        await fallback.retrieve(SENDER)


async def test_conversations_of_somebody_else_are_not_taken_for_a_backlog(
    primary: SwitchedStore,
) -> None:
    fallback = InMemoryTrackerStore()
    await add(fallback, "theirs", *turn())
    store = FailSafeTrackerStore(primary, fallback)
    with pytest.raises(errors.StoreDataError, match="of its own"):
        await store.open()
    await store.close()


async def test_when_the_fallback_fails_too_the_caller_is_told(
    primary: SwitchedStore,
) -> None:
    fallback = SwitchedStore()
    async with FailSafeTrackerStore(primary, fallback, **FAST) as store:
        tracker = await store.get_or_create_tracker(SENDER)
        primary.is_down = fallback.is_down = True
        update(tracker, turn("kept by the caller"))
        with pytest.raises(errors.StoreUnavailableError):
            await store.save(tracker)
        fallback.is_down = False
        await store.save(tracker)
        await back(primary, store)
        assert said(await has(primary)) == ["kept by the caller"]


# -- arguments -------------------------------------------------------------------------


def test_rasas_arguments_are_understood(primary: SwitchedStore) -> None:
    def on_error(error: Exception) -> None:
        """Take note."""

    fallback = InMemoryTrackerStore()
    ours = FailSafeTrackerStore(primary, fallback, on_error)
    positional = FailSafeTrackerStore(primary, on_error, fallback)
    named = FailSafeTrackerStore(
        tracker_store=primary,
        on_tracker_store_error=on_error,
        fallback_tracker_store=fallback,
    )
    only_callback = FailSafeTrackerStore(primary, on_error)
    for store in (ours, positional, named):
        assert store.fallback_tracker_store is fallback
        assert store._on_error is on_error
    assert only_callback._on_error is on_error
    assert isinstance(only_callback.fallback_tracker_store, InMemoryTrackerStore)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"primary": None}, "wraps a TrackerStore, not NoneType"),
        ({"fallback": "memory"}, "wraps a TrackerStore, not str"),
        ({"journal": "x.db", "fallback": InMemoryTrackerStore()}, "give one of them"),
        ({"on_tracker_store_error": 5}, "must be a function"),
        ({"timeout_seconds": 0}, "timeout_seconds must be"),
        ({"probe_min_seconds": -1}, "probe_min_seconds must be"),
        ({"probe_max_seconds": "5"}, "probe_max_seconds must be"),
        ({"remembered_bytes": 0}, "remembered_bytes must be"),
        ({"remembered_conversations": 1.5}, "remembered_conversations must be"),
        ({"tracker_store": InMemoryTrackerStore()}, "given twice"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], words: str) -> None:
    given = {"primary": InMemoryTrackerStore(), **arguments}
    with pytest.raises(errors.ConfigurationError, match=words):
        FailSafeTrackerStore(**given)


def test_a_store_that_cannot_be_a_fallback(primary: SwitchedStore) -> None:
    from tests.unit.legacy_stores import JSONTextStore

    with pytest.raises(errors.ConfigurationError, match="its own fallback"):
        FailSafeTrackerStore(primary, primary)
    with pytest.raises(errors.ConfigurationError, match="keeps no event ids"):
        FailSafeTrackerStore(primary, AwaitableTrackerStore(JSONTextStore()))


async def test_a_journal_in_no_directory(primary: SwitchedStore) -> None:
    store = FailSafeTrackerStore(primary, journal="/no/such/directory/journal.db")
    with pytest.raises(errors.ConfigurationError, match="does not exist"):
        await store.open()
    await store.close()


async def test_the_probe_waits_for_nobody(store: FailSafeTrackerStore) -> None:
    """Closing in an outage ends at once, whatever pause the probe is in."""
    store._recovery.pauses = (60.0, 60.0)
    store._wrapped.is_down = True  # type: ignore[attr-defined]
    await add(store, SENDER, *turn())
    await is_open(store)
    async with asyncio.timeout(2):
        await store.close()


async def test_a_long_outage_is_replayed_in_pieces_that_tear_no_save_apart(
    primary: SwitchedStore,
    store: FailSafeTrackerStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failsafe_pieces, "PIECE_EVENTS", 100)
    await add(store, SENDER, *turn("before"))
    other = SwitchedStore()
    other._conversations, other._sorted_ids = primary._conversations, []
    primary.is_down = True
    for name in (SENDER, "new", "long"):
        for number in range(60):
            await add(store, name, *(new_session() if number == 40 else []), *turn("x"))
    await add(store, "long", *[user("y" * 1000) for _ in range(300)])
    await add(other, SENDER, *turn("theirs"))
    pieces: dict[str, list[Any]] = {SENDER: [], "new": [], "long": []}
    taken = primary._append

    async def take(append: Any) -> bool:
        if await taken(append):
            pieces[append.sender_id].append(append)
            return True
        return False

    primary._append = take  # type: ignore[method-assign]
    await back(primary, store)
    for name, found in pieces.items():
        assert len(found) > 2
        sizes = [len(append.rows) for append in found]
        assert max(sizes) == (300 if name == "long" else 100)
        tracker = await primary.retrieve_full_tracker(name)
        assert tracker is not None
        starts = [
            position
            for position, event in enumerate(tracker.events)
            if event.type_name == "session_started"
        ]
        for append in found:
            began = [at - 1 for at in starts if at < append.new_version]
            assert append.session_start == (began or [0])[-1]
        windowed = await primary.get_or_create_tracker(name, max_event_history=2)
        assert state(windowed)["slots"] == state(await has(primary, name))["slots"]
        ids = await stored_ids(primary, name)
        assert len(ids) == len(set(ids)) == len(tracker.events)
    assert store.conflict_count == 1
    await other.close()


async def test_a_replay_that_is_cut_between_two_pieces_goes_on(
    primary: SwitchedStore,
    store: FailSafeTrackerStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failsafe_pieces, "PIECE_EVENTS", 100)
    await add(store, SENDER, *turn("before"))
    primary.is_down = True
    for number in range(100):
        await add(store, SENDER, *turn(str(number)))
    primary.loses_answers = 3  # one piece each time, and away again
    for _ in range(3):
        primary.is_down = False
        async with asyncio.timeout(5):
            while not primary.is_down:
                await asyncio.sleep(0.005)
    await back(primary, store)
    assert said(await has(primary)) == ["before", *map(str, range(100))]
    assert await stored_ids(primary) == primary.event_broker.ids  # type: ignore[union-attr]
    assert store.conflict_count == 0


async def test_one_that_lands_while_the_replay_looks_is_not_stored_again(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    """What was under way when the outage began may arrive at any moment."""
    await add(store, SENDER, *turn("before"))
    primary.is_down = True
    await add(store, SENDER, *turn("late"))
    entry = store._backlog.entries[SENDER]
    held = await store._backlog.read(entry, Read(SENDER, 0.0, start=0))
    assert held is not None
    await add_behind(primary, "theirs")
    rows = new_rows(held.rows[entry.confirmed :])
    read, landed = primary._read, False

    async def read_and_land(request: Any) -> Any:
        nonlocal landed
        found = await read(request)
        if request.start is not None and not landed:
            landed = True
            taken = Append(SENDER, found.version, rows, 0, "{}", found.updated_at)
            assert await InMemoryTrackerStore._append(primary, taken)
        return found

    primary._read = read_and_land  # type: ignore[method-assign]
    await back(primary, store)
    assert landed
    assert said(await has(primary)) == ["before", "theirs", "late"]
    ids = await stored_ids(primary)
    assert len(ids) == len(set(ids))


async def add_behind(primary: SwitchedStore, text: str, *before: Event) -> None:
    """Add a turn as another process does, past the outage."""
    other = SwitchedStore()
    other._conversations, other._sorted_ids = primary._conversations, []
    await add(other, SENDER, *before, *turn(text))
    await other.close()


async def cut_after_an_append(primary: SwitchedStore) -> None:
    """Let the replay store one append more, whose answer is lost."""
    primary.loses_answers, primary.is_down = 1, False
    async with asyncio.timeout(5):
        while primary.loses_answers:
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "new"])
async def test_what_landed_in_parts_with_others_between_is_not_stored_again(
    primary: SwitchedStore, store: FailSafeTrackerStore, is_known: bool
) -> None:
    if is_known:
        await add(store, SENDER, *turn("before"))
    await store.open()
    primary.loses_answers = 1
    for text in ("landed", "waits"):
        await add(store, SENDER, *turn(text))
    await add_behind(primary, "theirs")
    await cut_after_an_append(primary)
    await add(store, SENDER, *turn("waits, too"))
    await add_behind(primary, "theirs, too")
    await cut_after_an_append(primary)
    await back(primary, store)
    before = ["before"] if is_known else []
    landed = ["landed", "theirs", "waits", "theirs, too", "waits, too"]
    assert said(await has(primary)) == before + landed
    ids = await stored_ids(primary)
    assert len(ids) == len(set(ids))
    published = primary.event_broker.ids  # type: ignore[union-attr]
    assert [each for each in ids if each in published] == published


async def test_what_landed_in_parts_is_known_although_the_first_was_erased(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    await add(store, SENDER, *turn("before"))
    primary.loses_answers = 1
    for text in ("landed", "waits"):
        await add(store, SENDER, *turn(text))
    await add_behind(primary, "theirs", *new_session())
    await cut_after_an_append(primary)
    await InMemoryTrackerStore._delete(primary, SENDER, 8, primary._now())
    await back(primary, store)
    assert said(await has(primary)) == ["theirs", "waits"]
    ids = await stored_ids(primary)
    assert len(ids) == len(set(ids))


async def test_a_tracker_of_a_log_that_was_deleted_is_a_conflict_in_the_outage_too(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    clock = Clock()
    clock.drive(store)
    clock.drive(primary)
    await add(store, SENDER, slot("people", 4), *turn("erased"))
    old = await has(store)
    await store.delete(SENDER)
    clock.advance(1)
    await add(store, SENDER, slot("city", "Bern"), *turn("anew"))
    primary.is_down = True
    update(old, turn("more"))
    await store.save(old)
    for each in (store, primary):
        assert said(await has(each)) == ["anew", "more"]
        windowed = await each.get_or_create_tracker(SENDER, max_event_history=1)
        assert windowed.get_slot("people") is None
        assert windowed.get_slot("city") == "Bern"
        await back(primary, store)


async def test_what_was_being_read_as_it_was_deleted_is_not_remembered(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    await add(store, SENDER, *turn("erased"))
    read, may_end = primary._read, asyncio.Event()

    async def read_slowly(request: Any) -> Any:
        found = await read(request)
        await may_end.wait()
        return found

    primary._read = read_slowly  # type: ignore[method-assign]
    reading = asyncio.create_task(store.retrieve(SENDER))
    await asyncio.sleep(0.01)
    assert await store.delete(SENDER)
    may_end.set()
    assert said(await reading) == ["erased"]
    primary.is_down = True
    assert await store.retrieve(SENDER) is None


async def test_what_is_read_in_parts_is_remembered_as_a_whole(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    await add(store, SENDER, *turn("one"))
    for text in ("two", "three"):
        await add_behind(primary, text)
        await store.get_or_create_tracker(SENDER, max_event_history=6)
    primary.is_down = True
    assert said(await has(store)) == ["one", "two", "three"]


async def test_a_part_that_does_not_join_stands_alone(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    await add(store, SENDER, slot("people", 4), *turn("one"))
    await add_behind(primary, "two")
    await add_behind(primary, "three")
    await store.get_or_create_tracker(SENDER, max_event_history=4)
    primary.is_down = True
    found = await has(store)
    assert said(found) == ["three"]
    assert found.get_slot("people") == 4
    assert found.version == 13


async def test_who_waits_for_a_replay_is_served_by_the_primary_then(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    """Else each conversation would go on in the fallback for ever under load."""
    tracker = await store.get_or_create_tracker(SENDER)
    primary.is_down = True
    update(tracker, turn("during"))
    await store.save(tracker)
    append, begun, may_end = primary._append, asyncio.Event(), asyncio.Event()

    async def append_slowly(request: Any) -> bool:
        begun.set()
        await may_end.wait()
        return await append(request)

    primary._append = append_slowly  # type: ignore[method-assign]
    primary.is_down = False
    await begun.wait()  # the replay is under way
    update(tracker, turn("after"))
    saving = asyncio.create_task(store.save(tracker))
    reading = asyncio.create_task(store.retrieve(SENDER))
    await asyncio.sleep(0.01)
    assert not saving.done()
    may_end.set()
    await asyncio.gather(saving, reading)
    assert store._replayer.replayed.conversations == 1
    assert said(await has(primary)) == ["during", "after"]
    await caught_up(store)


# -- beside others ---------------------------------------------------------------------


@pytest.mark.parametrize("is_cached", [True, False])
async def test_what_a_replay_came_behind_is_seen(is_cached: bool) -> None:
    """Whoever read in the outage holds another order of the same log."""
    primary = SwitchedStore()
    other = InMemoryTrackerStore()
    inner = FailSafeTrackerStore(primary, **FAST)
    store = CachedTrackerStore(inner) if is_cached else inner
    async with other, store:
        other._conversations = primary._conversations  # as on a server
        await add(store, SENDER, *turn("before"))
        primary.is_down = True
        await add(store, SENDER, *turn("in the outage"))
        held = await has(store)
        await add(other, SENDER, slot("paid", True), *turn("of another"))
        await back(primary, inner)
        everything = ["before", "of another", "in the outage"]
        assert said(await has(other)) == everything
        assert said(await store.retrieve(SENDER, since=held)) == everything
        assert said(await has(store)) == everything
        await add(store, SENDER, *turn("after"))
        window = await other.get_or_create_tracker(SENDER, max_event_history=2)
        assert window.get_slot("paid") is True
        assert said(await has(store)) == said(await has(other))


async def test_a_page_is_not_read_from_what_is_remembered(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    """A copy of that would be too little, and nobody would be told."""
    await add(store, SENDER, *turn("one"))
    primary.is_down = True
    assert said(await has(store)) == ["one"]
    for name in (SENDER, "never read"):
        with pytest.raises(errors.StoreUnavailableError, match="cannot be copied"):
            await store._read(Read(name, store._now(), start=0, limit=10))
    await back(primary, store)
    page = await store._read(Read(SENDER, store._now(), start=0, limit=3))
    assert page is not None
    assert len(page.rows) == 3


@pytest.mark.parametrize(
    "refusal",
    [
        errors.StoreAccessError("the password is being changed"),
        errors.ConcurrentSaveError("ada", 4, 4),  # others were faster each time
    ],
    ids=type,
)
async def test_a_replay_that_is_refused_for_a_moment_is_tried_again(
    primary: SwitchedStore, store: FailSafeTrackerStore, refusal: Exception
) -> None:
    primary.is_down = True
    for name in ("ada", "bob"):
        await add(store, name, *turn("hello"))
    primary.refuses = refusal
    primary.is_down = False
    async with asyncio.timeout(10):
        while store._breaker.is_open:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert store._backlog.entries.keys() == {"ada", "bob"}
        primary.refuses = None
        while store._backlog.entries:  # nobody asks for them
            await asyncio.sleep(0.01)
    assert said(await primary.retrieve("ada")) == ["hello"]
    assert said(await primary.retrieve("bob")) == ["hello"]


async def test_a_replay_that_loses_every_race_fails_no_save(
    primary: SwitchedStore, store: FailSafeTrackerStore
) -> None:
    primary.is_down = True
    await add(store, SENDER, *turn("during"))
    primary.refuses = errors.ConcurrentSaveError(SENDER, 4, 4)
    primary.is_down = False
    async with asyncio.timeout(5):
        while store._breaker.is_open:
            await asyncio.sleep(0.01)
    await add(store, SENDER, *turn("after"))
    assert said(await has(store)) == ["during", "after"]
    primary.refuses = None
    await caught_up(store)
    assert said(await has(primary)) == ["during", "after"]
    assert isinstance(primary.event_broker, FailingBroker)
    assert primary.event_broker.ids == await stored_ids(primary)


async def test_an_answer_that_an_erasure_overtook_is_not_remembered(
    primary: SwitchedStore, store: FailSafeTrackerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(store, SENDER, *turn("one"))
    await add(store, "bob", *turn("kept"))
    append, stored, go_on = primary._append, asyncio.Event(), asyncio.Event()

    async def late(request: Append) -> bool:
        answer = await append(request)
        stored.set()
        await go_on.wait()
        return answer

    monkeypatch.setattr(primary, "_append", late)
    saving = asyncio.create_task(add(store, SENDER, user("erased")))
    await stored.wait()
    assert await store.delete(SENDER)
    go_on.set()
    await saving
    primary.is_down = True
    assert await store.retrieve(SENDER) is None
    assert said(await has(store, "bob")) == ["kept"]
