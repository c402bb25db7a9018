"""The outbox of the MongoDB store: the mark is set and moved with what it speaks of."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import FailingBroker, add, new_session, stored_ids, user
from tests.faults import test_mongo_crashes
from tests.faults.test_mongo_crashes import begin, crash_everywhere, more, numbered
from tests.mongo_databases import LAYOUT_DOCUMENT, rasa_events
from tests.outboxes import idle, until
from tests.sql_databases import NOW
from tracker_store_async import errors, relay
from tracker_store_async.backends.mongo.outbox import LEASE_ID
from tracker_store_async.rows import OutboxEntry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.faults.test_mongo_crashes import Doomed
    from tests.mongo_databases import MongoTarget
    from tracker_store_async import MongoTrackerStore

pytestmark = pytest.mark.backend("mongo")
target, doomed = test_mongo_crashes.target, test_mongo_crashes.doomed


def queued(version: int, count: int = 3, **changes: Any) -> Any:
    """Return an append whose events are all to be published."""
    entries = [OutboxEntry("x", n, "") for n in range(version, version + count)]
    return more(version, count, outbox=entries, **changes)


async def waiting(store: MongoTrackerStore) -> list[int]:
    """Return the positions of what waits, all of the one conversation."""
    assert store._outbox is not None
    items = await store._outbox.read(500)
    assert [item.entry.message_id for item in items] == [
        f"id-{item.entry.position}" for item in items
    ]
    return [item.entry.position for item in items]


# -- a crash at any command ------------------------------------------------------------


def landed_or_not(
    before: int, after: int
) -> Callable[[MongoTrackerStore], Awaitable[None]]:
    """Return a check: exactly what was appended is to be published."""

    async def check(store: MongoTrackerStore) -> None:
        found = await test_mongo_crashes.stored(store)
        assert len(found) in (before, after)
        assert await waiting(store) == list(range(before, len(found)))
        assert await store._append(queued(len(found)))
        assert await waiting(store) == list(range(before, len(found) + 3))

    return check


@pytest.mark.parametrize(
    ("counts", "count"),
    [((3, 3, 3), 3), ((2,), 40), ((), 3), ((), 40)],
    ids=["full tail", "large", "first", "large first"],
)
async def test_an_append(
    target: MongoTarget, doomed: Doomed, counts: tuple[int, ...], count: int
) -> None:
    version = sum(counts)
    await crash_everywhere(
        target,
        doomed,
        lambda store: store._append(queued(version, count)),
        lambda store: begin(store, *counts),
        landed_or_not(version, version + count),
        outbox=True,
    )


async def test_a_take_over(target: MongoTarget, doomed: Doomed) -> None:
    """What Rasa has published is not published again."""

    async def check(store: MongoTrackerStore) -> None:
        header = target.raw.conversations_log.find_one({"_id": "conversation"})
        has_landed = header is not None and not header.get("hidden")
        assert await waiting(store) == ([12, 13, 14] if has_landed else [])

    async def prepare(store: MongoTrackerStore) -> None:
        target.add_rasas(rasa_events(12), "conversation")

    await crash_everywhere(
        target,
        doomed,
        lambda store: store._append(queued(12)),
        prepare,
        check,
        outbox=True,
    )


async def test_moving_the_mark(target: MongoTarget, doomed: Doomed) -> None:
    async def prepare(store: MongoTrackerStore) -> None:
        for version in (0, 3, 6, 9):
            assert await store._append(queued(version))

    async def remove(store: MongoTrackerStore) -> None:
        assert store._outbox is not None
        await store._outbox.remove(await store._outbox.read(10))

    async def check(store: MongoTrackerStore) -> None:
        # Half of the limit is the most that one conversation gets.
        assert await waiting(store) in (list(range(12)), list(range(5, 12)))
        assert store._outbox is not None
        while items := await store._outbox.read(10):
            await store._outbox.remove(items)
        assert "outbox" not in target.header("conversation")

    await crash_everywhere(target, doomed, remove, prepare, check, outbox=True)


@pytest.mark.parametrize("before", [None, 5, 10])
async def test_an_erasure(
    target: MongoTarget, doomed: Doomed, before: int | None
) -> None:
    async def prepare(store: MongoTrackerStore) -> None:
        for version in (0, 3, 6, 9):
            assert await store._append(queued(version, session_start=11))

    async def check(store: MongoTrackerStore) -> None:
        left = [] if before is None else list(range(before, 12))
        assert await waiting(store) in (list(range(12)), left)
        await store._delete("conversation", before, NOW)
        assert await waiting(store) == left

    await crash_everywhere(
        target,
        doomed,
        lambda store: store._delete("conversation", before, NOW),
        prepare,
        check,
        outbox=True,
    )


# -- relays ----------------------------------------------------------------------------


async def test_a_lease_ends_by_the_clock_of_the_server(target: MongoTarget) -> None:
    log = target.raw.conversations_log
    async with target.store(outbox=True) as store:
        outbox = store._outbox
        assert outbox is not None
        assert await outbox.lease("one", relay.LEASE_SECONDS)
        assert not await outbox.lease("other", relay.LEASE_SECONDS)
        # Ahead by more than a lease lasts: the clock was set back since.
        for seconds, is_free in ((5, False), (-0.1, True), (3600, True)):
            now = log.find_one({"_id": LEASE_ID})["asked_at"]
            end = {"owner": "one", "expires_at": now + timedelta(seconds=seconds)}
            log.update_one({"_id": LEASE_ID}, {"$set": end})
            assert await outbox.lease("other", relay.LEASE_SECONDS) is is_free
        assert not await outbox.lease("one", relay.LEASE_SECONDS)
        await outbox.release("one")
        assert not await outbox.lease("one", relay.LEASE_SECONDS)
        await outbox.release("other")
        assert await outbox.lease("one", relay.LEASE_SECONDS)


async def test_a_relay_that_slept_does_not_move_the_mark_back(
    target: MongoTarget,
) -> None:
    async with target.store(outbox=True) as store:
        outbox = store._outbox
        assert outbox is not None
        assert await store._append(queued(0))
        slept = await outbox.read(500)
        assert await store._append(queued(3))
        await outbox.remove(await outbox.read(500))
        assert await store._append(queued(6))
        await outbox.remove(slept)
        assert await waiting(store) == [6, 7, 8]
        # Nor of a log that was begun again.
        await store._delete("conversation", None, NOW)
        assert await store._append(queued(0))
        await outbox.remove(slept)
        assert await waiting(store) == [0, 1, 2]


async def test_a_long_backlog_is_published_in_order(
    target: MongoTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "BATCH", 7)
    broker = FailingBroker()
    broker.is_down = True
    async with target.store(outbox=True, event_broker=broker) as store:
        for n in range(12):
            await add(store, "alice", *(user(f"{n}.{m}") for m in range(3)))
        await add(store, "bob", user("once"))
        assert len(target.buckets()) > 5
        broker.is_down = False
        await until(broker, 37)
        await idle(store)
        own = [m for m in broker.messages if m.sender_id == "alice"]
        assert [m.message_id for m in own] == await stored_ids(store, "alice")
        # The others do not wait for the end of it.
        assert [m.sender_id for m in broker.messages].index("bob") < 10


async def test_missing_rows_hold_up_their_conversation_alone(
    target: MongoTarget,
) -> None:
    broker = FailingBroker()
    broker.is_down = True
    async with target.store(outbox=True, event_broker=broker) as store:
        for n in range(4):
            await add(store, "alice", *(user(f"{n}.{m}") for m in range(3)))
        target.raw.conversations_events.delete_many({})
        await add(store, "bob", user("once"))
        broker.is_down = False
        await until(broker, 1)
        assert [m.sender_id for m in broker.messages] == ["bob"]
        while not (await store.health()).details["outbox"]["held_conversations"]:
            await asyncio.sleep(0.01)
        with pytest.raises(errors.CorruptEventError):
            await store.retrieve_full_tracker("alice")


async def test_an_append_in_the_middle_of_a_cut_keeps_its_mark(
    target: MongoTarget,
) -> None:
    async with target.store(outbox=True) as store:
        await add(store, "alice", user("one"), *new_session(), user("two"))
        assert await store._delete("alice", 1, store._now())
        await add(store, "alice", user("three"))
        assert store._outbox is not None
        items = await store._outbox.read(10)
        assert [item.entry.position for item in items] == [1, 2, 3, 4]


async def test_what_is_stored(target: MongoTarget) -> None:
    """No copy of the events, one sparse index, and nothing without an outbox."""
    async with target.store(outbox=True) as store:
        assert await store._append(queued(0))
        assert await store._append(queued(3, now=NOW + 5))
        assert target.header("conversation")["outbox"] == {"from": 0, "since": NOW}
        assert store._outbox is not None
        assert await store._outbox.lease("me", relay.LEASE_SECONDS)
        assert await test_mongo_crashes.stored(store) == numbered(6)
        listed = [each.sender_id async for each in store.conversations()]
        assert listed == ["conversation"]
    lease = target.raw.conversations_log.find_one({"_id": LEASE_ID})
    assert lease.keys() == {"_id", "asked_at", "owner", "expires_at"}
    indexes = target.raw.conversations_log.index_information()
    assert indexes["outbox.since_1"]["sparse"]
    query = {"outbox.since": {"$gt": 0}}
    plan = target.raw.conversations_log.find(query).sort("outbox.since", 1).explain()
    assert "IXSCAN" in str(plan["queryPlanner"]["winningPlan"])
    assert "SORT" not in str(plan["queryPlanner"]["winningPlan"])


async def test_without_an_outbox_nothing_of_it_is_there(target: MongoTarget) -> None:
    async with target.store() as store:
        assert await store._append(more(0))
        assert "outbox" not in target.header("conversation")
        await store._delete("conversation", None, NOW)
    assert "outbox.since_1" not in target.raw.conversations_log.index_information()
    assert list(target.raw.conversations_log.find()) == [LAYOUT_DOCUMENT]
