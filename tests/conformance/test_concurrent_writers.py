"""Many writers at once: every event is stored once, in its writer's order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.conformance.kit import (
    SENDER,
    Meeting,
    add,
    has,
    new_session,
    replayed,
    said,
    state,
    stored_dicts,
    stored_ids,
    turn,
    update,
    user,
    version,
)
from tracker_store_async.events import event_from_dict

if TYPE_CHECKING:
    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore

WRITERS = 8
TURNS = 5


def texts_of(writer: int) -> list[str]:
    return [f"{writer}.{n}" for n in range(TURNS)]


async def talk(store: TrackerStore, writer: int, *, keep: bool) -> None:
    """Have several turns, with one tracker or a new one for each."""
    tracker = await store.get_or_create_tracker(SENDER)
    for text in texts_of(writer):
        if not keep:
            tracker = await store.get_or_create_tracker(SENDER)
        update(tracker, turn(text))
        await store.save(tracker)


async def check_nothing_lost(store: TrackerStore) -> None:
    tracker = await has(store)
    texts = said(tracker)
    assert len(texts) == len(set(texts)) == WRITERS * TURNS
    for writer in range(WRITERS):
        own = [text for text in texts if text and text.startswith(f"{writer}.")]
        assert own == texts_of(writer)
    assert await version(store) == 1 + 4 * WRITERS * TURNS
    ids = await stored_ids(store)
    assert len(set(ids)) == len(ids) == await version(store)
    # each save is in one piece
    for n, text in enumerate(texts):
        first = 1 + 4 * n
        events = list(tracker.events)[first : first + 4]
        assert [getattr(event, "text", None) for event in events][0::2] == [
            text,
            f"re: {text}",
        ]


async def test_through_one_store(store: TrackerStore) -> None:
    await asyncio.gather(*(talk(store, n, keep=False) for n in range(WRITERS)))
    await check_nothing_lost(store)


async def test_through_a_store_object_each(storage: Storage) -> None:
    stores = [storage.store() for _ in range(WRITERS)]
    Meeting(stores, WRITERS)
    await asyncio.gather(*(talk(s, n, keep=False) for n, s in enumerate(stores)))
    await check_nothing_lost(storage.store())


async def test_with_a_tracker_that_is_kept(storage: Storage) -> None:
    await asyncio.gather(*(talk(storage.store(), n, keep=True) for n in range(WRITERS)))
    await check_nothing_lost(storage.store())


async def test_the_state_is_right_after_many_writers(storage: Storage) -> None:
    stores = [storage.store(max_event_history=2) for _ in range(WRITERS)]
    await asyncio.gather(*(talk(s, n, keep=False) for n, s in enumerate(stores)))
    log = [event_from_dict(fields) for fields in await stored_dicts(stores[0])]
    assert state(await has(stores[0])) == state(replayed(log))


async def test_creating_at_once_creates_once(storage: Storage) -> None:
    stores = [storage.store() for _ in range(WRITERS)]
    Meeting(stores, WRITERS * 3)
    created = await asyncio.gather(
        *(s.get_or_create_tracker(SENDER) for s in stores for _ in range(3))
    )
    [listen] = await stored_dicts(stores[0])
    assert listen["name"] == "action_listen"
    for tracker in created:
        assert [event.as_dict() for event in tracker.events] == [listen]
        assert tracker.version == 1


async def test_sessions_started_at_once_are_all_kept(storage: Storage) -> None:
    stores = [storage.store() for _ in range(WRITERS)]
    Meeting(stores, WRITERS)
    await asyncio.gather(
        *(add(s, SENDER, *new_session(), user(f"{n}")) for n, s in enumerate(stores))
    )
    store = stores[0]
    found = await has(store)
    assert len(found.events) == 3
    texts = said(await store.retrieve_full_tracker(SENDER))
    assert sorted(map(str, texts)) == [str(n) for n in range(WRITERS)]
    assert said(found) == texts[-1:]


async def test_one_tracker_saved_twice_at_once(store: TrackerStore) -> None:
    tracker = await store.get_or_create_tracker(SENDER)
    update(tracker, turn("one"))
    await asyncio.gather(*(store.save(tracker) for _ in range(4)))
    assert said(await has(store)) == ["one"]
    update(tracker, turn("two"))
    await store.save(tracker)
    assert said(await has(store)) == ["one", "two"]
    assert store.conflict_count == 0


async def test_many_conversations_at_once(store: TrackerStore) -> None:
    async def one(n: int) -> None:
        for text in ("a", "b"):
            await add(store, f"user-{n}", *turn(f"{n}{text}"))

    await asyncio.gather(*(one(n) for n in range(40)))
    for n in range(40):
        assert said(await has(store, f"user-{n}")) == [f"{n}a", f"{n}b"]


async def test_readers_see_whole_saves_only(storage: Storage) -> None:
    writing = True

    async def read(store: TrackerStore) -> None:
        while writing:
            tracker = await store.retrieve(SENDER)
            if tracker is not None:
                assert len(tracker.events) % 4 == 0
                assert tracker.version == len(tracker.events)
            await asyncio.sleep(0.001)

    readers = [asyncio.create_task(read(storage.store())) for _ in range(3)]
    try:
        for n in range(15):
            await add(storage.store(), SENDER, *turn(str(n)))
    finally:
        writing = False
        await asyncio.gather(*readers)
