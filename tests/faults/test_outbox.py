"""The outbox: what is stored is published, in order, whoever crashes when."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conformance.kit import (
    CancelledAt,
    FailingBroker,
    add,
    new_session,
    said,
    stored_ids,
    turn,
    user,
)
from tests.outboxes import (
    EACH_OUTBOX,
    EACH_SQL,
    Place,
    RefusingBroker,
    free,
    idle,
    place_for,
    relay_of,
    until,
)
from tracker_store_async import RepeatFilter, errors, relay, relay_holds
from tracker_store_async.keeping.anonymising import anonymise_one
from tracker_store_async.keeping.rules import rules_from

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers


@pytest.fixture(params=[EACH_OUTBOX[0], EACH_OUTBOX[-1]])
def place(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[Place]:
    with place_for(request.param, servers, tmp_path) as found:
        yield found


everywhere = pytest.mark.parametrize("place", EACH_OUTBOX, indirect=True)
"""For what each database does in its own way; else a queue and marks are enough."""


@everywhere
async def test_stored_first_and_published_in_order(place: Place) -> None:
    broker = FailingBroker()
    async with place.store(broker) as store:
        for name in ("alice", "bob"):
            for text in ("one", "two", "three"):
                await add(store, name, *turn(text))
        await until(broker, 24)
        for name in ("alice", "bob"):
            own = [m for m in broker.messages if m.sender_id == name]
            assert [m.message_id for m in own] == await stored_ids(store, name)
            assert [m.position for m in own] == list(range(12))
            assert all(m.body["sender_id"] == name for m in own)


@pytest.mark.parametrize("place", [*EACH_SQL, EACH_OUTBOX[-1]], indirect=True)
async def test_a_batch_is_published_in_order(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = FailingBroker()
    names = [f"user-{n}" for n in range(5)]
    async with place.store(broker) as store:
        trackers = [store.init_tracker(name) for name in names]
        await store.save_many(trackers)
        for text in ("one", "two"):
            for tracker in trackers:
                tracker.update_with_events(turn(text))
            with monkeypatch.context() as patch:
                if text == "two":  # an append that is known to have landed is not read
                    patch.setattr(store, "_read", None)
                await store.save_many(trackers)
        await until(broker, 40)
        for name in names:
            own = [m for m in broker.messages if m.sender_id == name]
            assert [m.message_id for m in own] == await stored_ids(store, name)


async def test_the_messages_are_those_of_a_store_without(place: Place) -> None:
    direct, relayed = FailingBroker(), FailingBroker()
    plain = place.store(direct, outbox=False)
    async with plain, place.store(relayed) as store:
        for each, name in ((plain, "alice"), (store, "bob")):
            tracker = await each.get_or_create_tracker(name, append_action_listen=False)
            tracker.update(user("ü \N{PILE OF POO} \0 end", input_channel="rest"))
            tracker.user_id = "a user"
            await each.save(tracker)
        await until(relayed, len(direct.messages))
    for one, other in zip(direct.bodies, relayed.bodies, strict=True):
        changed = {**one, "sender_id": "bob"}
        for body in (changed, other):
            body.pop("timestamp")
            body.pop("message_id", None)
        assert changed == other


async def test_a_save_does_not_wait_for_a_broker_that_is_down(place: Place) -> None:
    broker = FailingBroker()
    async with place.store(broker) as store:
        broker.is_down = True
        await add(store, "alice", *turn("one"))
        await add(store, "alice", *turn("two"))
        assert len(await stored_ids(store, "alice")) == 8
        broker.is_down = False
        await until(broker, 8)
        assert broker.ids == await stored_ids(store, "alice")


async def test_what_a_closed_store_left_the_next_one_publishes(place: Place) -> None:
    broker = FailingBroker()
    async with place.store(broker) as store:
        broker.is_down = True
        await add(store, "alice", *turn("one"))
    other = FailingBroker()
    async with place.store(other) as store:
        await until(other, 4)
        assert other.ids == await stored_ids(store, "alice")


async def test_a_store_opens_while_the_broker_is_down(place: Place) -> None:
    class Closed(FailingBroker):
        async def open(self) -> None:
            if self.is_down:
                raise ConnectionError("no broker")

    broker = Closed()
    broker.is_down = True
    async with place.store(broker) as store:
        await add(store, "alice", user("one"))
        broker.is_down = False
        await until(broker, 1)


async def test_another_broker_gets_what_waits(place: Place) -> None:
    first, second = FailingBroker(), FailingBroker()
    async with place.store(first) as store:
        first.is_down = True
        await add(store, "alice", user("one"))
        store.event_broker = second
        await add(store, "alice", user("two"))
        await until(second, 2)
        assert second.ids == await stored_ids(store, "alice")
    assert not first.messages


async def test_who_has_no_broker_leaves_it_to_another_process(place: Place) -> None:
    async with place.store() as store:
        await add(store, "alice", *turn("one"))
    broker = FailingBroker()
    async with place.store(broker) as store:
        await until(broker, 4)
        assert broker.ids == await stored_ids(store, "alice")


async def test_what_was_published_before_there_was_an_outbox(place: Place) -> None:
    broker = FailingBroker()
    async with place.store(FailingBroker(), outbox=False) as store:
        await add(store, "alice", *turn("one"))
    async with place.store(broker) as store:
        await add(store, "alice", *turn("two"))
        await until(broker, 4)
        await idle(store)
        assert broker.ids == (await stored_ids(store, "alice"))[4:]


async def test_a_failed_save_publishes_nothing(place: Place) -> None:
    broker = FailingBroker()
    async with place.store(broker, on_conflict="raise") as store:
        await add(store, "alice", user("one"))
        first = await store.get_or_create_tracker("alice")
        second = await store.get_or_create_tracker("alice")
        for tracker, text in ((first, "two"), (second, "never")):
            tracker.update(user(text))
        await store.save(first)
        with pytest.raises(errors.ConcurrentSaveError):
            await store.save(second)
        await until(broker, 2)
        await idle(store)
    assert [body["text"] for body in broker.bodies] == ["one", "two"]


async def test_two_relays_keep_the_order(place: Place) -> None:
    broker = FailingBroker()
    async with place.store(broker) as one, place.store(broker) as other:
        for n in range(10):
            await add((one, other)[n % 2], "alice", user(str(n)))
        await until(broker, 10)
        await idle(one)
        assert broker.ids == await stored_ids(one, "alice")


async def test_a_relay_that_died_is_followed_by_another(place: Place) -> None:
    broker = FailingBroker()
    async with place.store(broker) as store:
        await add(store, "alice", user("one"))
        await until(broker, 1)
        relay_of(store)._task.cancel()  # as if its process were gone
        await add(store, "alice", user("two"))
        other = FailingBroker()
        async with place.store(other) as successor:
            assert not await successor._outbox.lease("another", relay.LEASE_SECONDS)
            await free(successor)
            await until(other, 1)
            ids = await stored_ids(store, "alice")
            assert broker.ids + other.ids == ids


@pytest.mark.parametrize("hours", [-1, 1])
async def test_the_clocks_of_the_processes_do_not_matter(
    place: Place, monkeypatch: pytest.MonkeyPatch, hours: float
) -> None:
    import time

    now = time.time
    async with place.store(FailingBroker()) as store:
        outbox = store._outbox
        assert await outbox.lease("one", relay.LEASE_SECONDS)
        monkeypatch.setattr(time, "time", lambda: now() + hours * 3600)
        assert not await outbox.lease("other", relay.LEASE_SECONDS)
        assert await outbox.lease("one", relay.LEASE_SECONDS)
        await outbox.release("one")
        assert await outbox.lease("other", relay.LEASE_SECONDS)
        monkeypatch.undo()
        assert not await outbox.lease("one", relay.LEASE_SECONDS)


# -- erasing ---------------------------------------------------------------------------


@everywhere
async def test_what_is_erased_is_not_published(place: Place) -> None:
    broker = RefusingBroker(
        *("secret", "one", "two", "afresh", None), error=ConnectionError("it is down")
    )
    async with place.store(broker) as store:
        await add(store, "alice", user("secret"))
        await add(store, "bob", user("one"), *new_session(), user("two"))
        await store.delete("alice")
        assert await store._delete("bob", 1, store._now())
        waiting = await store._outbox.read(10)
        assert [(i.sender_id, i.entry.position) for i in waiting] == [
            *(("bob", 1), ("bob", 2), ("bob", 3))
        ]
        await add(store, "alice", user("afresh"))
        async with asyncio.timeout(15):  # so what was read before is behind it
            while "afresh" not in broker.attempts:
                await asyncio.sleep(0.01)
        broker.refused.clear()
        await until(broker, 4)
        await idle(store)
    texts = [body.get("text") for body in broker.bodies]
    assert sorted(filter(None, texts)) == ["afresh", "two"]


@everywhere
async def test_a_store_without_an_outbox_erases_from_it_too(place: Place) -> None:
    async with place.store(outbox=True) as store, place.store(outbox=False) as other:
        await add(store, "alice", user("secret"))
        assert await store._outbox.count(10) == 1
        assert await other.delete("alice")
        assert await store._outbox.count(10) == 0


@everywhere
@pytest.mark.parametrize("has_outbox", [True, False])
async def test_what_is_anonymised_is_published_so(
    place: Place, has_outbox: bool
) -> None:
    """Also where a store without an outbox, such as the command line's, does it."""
    broker = FailingBroker()
    rule = {"text": "user", "pattern": "secret", "action": "replace", "with": "hidden"}
    rules = rules_from({"rules": [rule]})
    async with place.store() as store, place.store(outbox=has_outbox) as other:
        await add(store, "alice", user("my secret"), user("no more"))
        await add(store, "bob", user("secret of another"))
        summaries = [each async for each in other.conversations()]
        done = await anonymise_one(other, summaries[0], rules)
        assert done.events == 1
        ids = await stored_ids(store, "alice")
    async with place.store(broker):
        await until(broker, 3)
    texts = {m.message_id: m.body["text"] for m in broker.messages}
    assert [texts.pop(each) for each in ids] == ["my hidden", "no more"]
    assert list(texts.values()) == ["secret of another"]
    assert all(m.body["sender_id"] == m.sender_id for m in broker.messages)


@everywhere
async def test_what_expired_is_not_published_after_its_successor(place: Place) -> None:
    broker = RefusingBroker("old", "new", error=ConnectionError("the broker is down"))
    async with place.store(broker, record_exp=100) as store:
        await add(store, "alice", user("old"))
        clock = store._now
        store._now = lambda: clock() + 200
        await add(store, "alice", user("new"))
        async with asyncio.timeout(15):  # so what was read before is behind it
            while "new" not in broker.attempts:
                await asyncio.sleep(0.01)
        broker.refused.clear()
        await until(broker, 1)
        await idle(store)
    assert [body["text"] for body in broker.bodies] == ["new"]


# -- what cannot be delivered ----------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon."""
    monkeypatch.setattr(relay_holds, "FIRST_HOLD_SECONDS", 0.05)
    monkeypatch.setattr(relay, "POLL_SECONDS", 0.05)


def seen(broker: FailingBroker) -> list[str]:
    """Return the texts that a consumer who drops repeats has seen."""
    repeats = RepeatFilter()
    found = [m for m in broker.messages if repeats.is_new(m.message_id)]
    return [message.body["text"] for message in found]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "error", [errors.BrokerRefusedError("too large"), KeyError("x")], ids=type
)
async def test_a_refused_event_holds_up_its_own_conversation_alone(
    place: Place, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    broker = RefusingBroker("p2", error=error)
    with caplog.at_level(logging.WARNING, "tracker_store_async.relay"):
        async with place.store(broker) as store:
            for name, letter in (("alice", "p"), ("bob", "b"), ("carol", "c")):
                texts = [f"{letter}{n}" for n in range(1, 4)]
                await add(store, name, *map(user, texts))
            while broker.attempts.get("p2", 0) < 4 or len(seen(broker)) < 7:
                await asyncio.sleep(0.01)
            assert seen(broker) == ["p1", "b1", "b2", "b3", "c1", "c2", "c3"]
            details = (await store.health()).details["outbox"]
            assert details["held_conversations"] == 1
            assert details["published"] >= 7
            assert details["failures"] >= 4
            assert details["waiting"] == (1 if place.name else 2)
            await add(store, "dave", user("d1"))  # the others still go on
            while "d1" not in seen(broker):
                await asyncio.sleep(0.01)
            broker.refused.clear()
            await idle(store)
            assert seen(broker)[7:] == ["d1", "p2", "p3"]
            health = await store.health()
            assert health.details["outbox"]["held_conversations"] == 0
    assert "conversation 'alice' could not be published" in caplog.text
    assert not any(word in caplog.text for word in ("p2", "too large", "'bob'"))


@pytest.mark.usefixtures("quick")
async def test_many_refused_ones_do_not_look_like_an_outage(place: Place) -> None:
    poison = [f"p{n}" for n in range(5)]
    broker = RefusingBroker(*poison, error=KeyError("x"))
    async with place.store(broker) as store:
        for text in poison:
            await add(store, text, user(text))
        for n in range(3):
            await add(store, "alice", user(str(n)))
            await until(broker, n + 1)
        assert broker.ids == await stored_ids(store, "alice")


async def test_a_refused_event_is_not_tried_all_the_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_holds, "FIRST_HOLD_SECONDS", 1000)
    monkeypatch.setattr(relay_holds, "LONGEST_HOLD_SECONDS", 1000)
    broker = RefusingBroker("p1", error=errors.BrokerRefusedError("too large"))
    async with place.store(broker) as store:
        await add(store, "alice", user("p1"))
        while broker.attempts.get("p1", 0) < 2:  # with the others, and by itself
            await asyncio.sleep(0.01)
        for n in range(3):
            await add(store, "alice", user(f"after {n}"))
            await add(store, "bob", user(str(n)))
            await until(broker, n + 1)
        assert broker.attempts["p1"] == 2
        assert [body["text"] for body in broker.bodies] == ["0", "1", "2"]


async def test_nobody_is_held_for_long_by_an_outage(place: Place) -> None:
    broker = FailingBroker()
    broker.is_down = True
    async with place.store(broker) as store:
        names = [f"user {n}" for n in range(6)]
        for name in names:
            await add(store, name, user(name))
        async with asyncio.timeout(15):
            while not (await store.health()).details["outbox"]["broker_is_away"]:
                await asyncio.sleep(0.01)
        broker.is_down = False
        await until(broker, 6)
        await idle(store)
        assert sorted(body["text"] for body in broker.bodies) == names
        assert not (await store.health()).details["outbox"]["broker_is_away"]


# -- saves -----------------------------------------------------------------------------


async def test_streamed_events_are_not_published_twice(place: Place) -> None:
    broker = FailingBroker()
    async with place.store(broker) as store:
        tracker = await store.get_or_create_tracker("alice", append_action_listen=False)
        tracker.update(user("one"))
        await store.stream_events(tracker)
        tracker.update(user("two"))
        await store.save(tracker)
        await until(broker, 2)
        await idle(store)
    assert [body["text"] for body in broker.bodies] == ["one", "two"]


@everywhere
@pytest.mark.parametrize("late", [False, True], ids=["interrupted", "answer lost"])
async def test_a_cancelled_save_is_stored_and_published_or_neither(
    place: Place, late: bool
) -> None:
    broker = FailingBroker()
    async with place.store(broker) as store:
        for n in range(1, 8):
            tracker = await store.get_or_create_tracker(
                "alice", append_action_listen=False
            )
            tracker.update(user(f"cancelled {n}"))
            try:
                await CancelledAt(store.save(tracker), n, late=late)
            except asyncio.CancelledError:
                await store.save(tracker)  # as who tries again
            await add(store, "alice", user(f"next {n}"))
        await until(broker, 14)
        await idle(store)
        assert broker.ids == await stored_ids(store, "alice")
        assert len(said(await store.retrieve("alice"))) == 14


# -- processes -------------------------------------------------------------------------

PROGRAM = """
import asyncio, os, signal, sys
from tracker_store_async import MongoTrackerStore, SQLTrackerStore
from tracker_store_async.brokers.file import FileEventBroker
from tracker_store_async.events import UserUttered

url, name, log, dies_at, when = sys.argv[1:]
left = int(dies_at)

def count():
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

class Dying(FileEventBroker):
    async def publish_many(self, messages):
        if when == "before":
            count()
        await super().publish_many(messages)
        if when == "after":
            count()

async def main():
    options = {"host": url, "event_broker": Dying(log, with_headers=True)}
    if name:
        store = MongoTrackerStore(db=name, outbox=True, **options)
    else:
        store = SQLTrackerStore(outbox=True, **options)
    async with store:
        tracker = await store.get_or_create_tracker("alice")
        for n in range(6):
            tracker.update(UserUttered(f"message {n}"))
            await store.save(tracker)
            if when == "append":
                count()
            await asyncio.sleep(0.02)

asyncio.run(main())
"""


@everywhere
@pytest.mark.parametrize("when", ["append", "before", "after"])
async def test_killed(place: Place, tmp_path: Path, when: str) -> None:
    """With kill -9: after an append, before it is published, and before it is marked.

    What the file says is what a consumer has seen.
    """
    log = tmp_path / "log"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, place.url, place.name, str(log), "2", when
    )
    assert await process.wait() == -signal.SIGKILL
    broker = FailingBroker()
    async with place.store(broker) as store:
        await free(store)
        await idle(store)
        ids = await stored_ids(store, "alice")
        assert len(ids) >= 2
    lines = log.read_text().splitlines() if log.exists() else []
    seen = [*(json.loads(line)["message_id"] for line in lines), *broker.ids]
    repeats = RepeatFilter()
    assert [each for each in seen if repeats.is_new(each)] == ids
    if when == "after":
        assert repeats.repeats
    if when == "before":
        assert not repeats.repeats


@pytest.mark.parametrize("place", [*EACH_SQL, EACH_OUTBOX[-1]], indirect=True)
async def test_more_are_refused_than_can_be_held_by_name(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "BATCH", 4)
    monkeypatch.setattr(relay_holds, "FIRST_SWEEP_SECONDS", 0.01)
    broker = RefusingBroker("bad", error=errors.BrokerRefusedError("too large"))
    names = [f"refused-{n}" for n in range(12)]
    async with place.store() as store:  # without a relay
        for name in names:
            await add(store, name, user("bad"))
        for name in names:
            await add(store, name, user("behind it"))
        for n in range(6):
            await add(store, "healthy", user(str(n)))
    async with place.store(broker) as store:
        relay_of(store)._holds = relay_holds.Holds(3)
        await until(broker, 6)
        assert broker.ids == await stored_ids(store, "healthy")
        await add(store, "later", user("one"))
        await until(broker, 7)
        assert broker.messages[-1].sender_id == "later"
        assert await store.delete(names.pop(0))
        broker.refused.clear()
        async with asyncio.timeout(15):
            while len(broker.messages) < 29:
                relay_of(store).wake()
                await asyncio.sleep(0.05)
        await idle(store)
        for name in names:
            own = [m.message_id for m in broker.messages if m.sender_id == name]
            assert own == await stored_ids(store, name)
