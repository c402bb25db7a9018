"""A store connects at its first use, belongs to one event loop and closes whole."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import SENDER, add, has, said, user
from tracker_store_async import DialogueStateTracker, TrackerStore, errors
from tracker_store_async.store import is_tracker_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from tests.conformance.backends import Storage


def on_another_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in another thread, on a loop of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


class Opens:
    """Counts how often a store is really opened, and lets others run meanwhile."""

    def __init__(self, store: TrackerStore) -> None:
        self.count = 0
        self._open = store._open
        store._open = self  # type: ignore[method-assign]

    async def __call__(self) -> None:
        self.count += 1
        await asyncio.sleep(0.01)
        await self._open()


async def test_a_store_is_a_tracker_store(store: TrackerStore) -> None:
    assert is_tracker_store(store)
    assert TrackerStore.create(store) is store


async def test_the_constructor_connects_to_nothing(storage: Storage) -> None:
    store = storage.store()
    opens = Opens(store)
    store.init_tracker(SENDER)
    assert opens.count == 0


USES: dict[str, Callable[[TrackerStore], Awaitable[Any]]] = {
    "retrieve": lambda store: store.retrieve(SENDER),
    "retrieve_full_tracker": lambda store: store.retrieve_full_tracker(SENDER),
    "get_or_create_tracker": lambda store: store.get_or_create_tracker(SENDER),
    "get_or_create_full_tracker": lambda s: s.get_or_create_full_tracker(SENDER),
    "create_tracker": lambda store: store.create_tracker(SENDER),
    "save": lambda store: store.save(built()),
    "save_many": lambda store: store.save_many([built()]),
    "stream_events": lambda store: store.stream_events(built()),
    "exists": lambda store: store.exists(SENDER),
    "keys": lambda store: store.keys(),
    "conversations": lambda store: listed(store),
    "delete": lambda store: store.delete(SENDER),
    "health": lambda store: store.health(),
}


def built() -> DialogueStateTracker:
    return DialogueStateTracker.from_events(SENDER, [user()])


async def listed(store: TrackerStore) -> None:
    async for _ in store.conversations():
        pass


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_the_first_use_opens(
    store: TrackerStore, use: Callable[[TrackerStore], Awaitable[Any]]
) -> None:
    opens = Opens(store)
    await use(store)
    await use(store)
    await store.open()
    assert opens.count == 1


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_no_use_after_closing(
    store: TrackerStore, use: Callable[[TrackerStore], Awaitable[Any]]
) -> None:
    await store.open()
    await store.close()
    with pytest.raises((errors.StoreClosedError, errors.SaveManyError)) as raised:
        await use(store)
    assert "open()" in str(raised.value)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_no_use_on_another_loop(
    store: TrackerStore, use: Callable[[TrackerStore], Awaitable[Any]]
) -> None:
    await store.open()

    async def run() -> None:
        await use(store)

    with pytest.raises((errors.WrongLoopError, errors.SaveManyError)) as raised:
        on_another_loop(run())
    assert "loop" in str(raised.value)
    await add(store, SENDER, user("hi"))
    assert said(await has(store)) == ["hi"]


async def test_many_first_uses_at_once_open_once(store: TrackerStore) -> None:
    opens = Opens(store)
    await asyncio.gather(*(store.exists(f"{n}") for n in range(20)))
    assert opens.count == 1


async def test_an_opening_that_failed_is_tried_again(store: TrackerStore) -> None:
    opening = store._open

    async def fail() -> None:
        raise errors.StoreUnavailableError("nobody is there")

    store._open = fail  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(errors.StoreUnavailableError):
            await store.exists(SENDER)
    results = await asyncio.gather(
        *(store.exists(SENDER) for _ in range(3)), return_exceptions=True
    )
    assert [type(each) for each in results] == [errors.StoreUnavailableError] * 3
    store._open = opening  # type: ignore[method-assign]
    assert not await store.exists(SENDER)


async def test_it_closes_as_a_context_manager(storage: Storage) -> None:
    async with storage.store() as store:
        await add(store, SENDER, user("hi"))
    with pytest.raises(errors.StoreClosedError):
        await store.retrieve(SENDER)


async def test_it_closes_when_its_block_fails(storage: Storage) -> None:
    store = storage.store()
    with pytest.raises(ZeroDivisionError):
        async with store:
            raise ZeroDivisionError
    with pytest.raises(errors.StoreClosedError):
        await store.retrieve(SENDER)


async def test_closing_twice_or_before_opening_does_nothing(storage: Storage) -> None:
    store = storage.store()
    await store.close()
    await store.close()
    store = storage.store()
    await store.open()
    await store.close()
    await asyncio.gather(store.close(), store.close())


async def test_what_is_closed_can_be_opened_again(store: TrackerStore) -> None:
    await add(store, SENDER, user("one"))
    tracker = await has(store)
    for text in ("two", "three"):
        await store.close()
        await store.open()
        tracker.update(user(text))
        await store.save(tracker)
    assert said(await has(store)) == ["one", "two", "three"]


async def test_a_store_closed_on_one_loop_is_opened_on_another(
    storage: Storage,
) -> None:
    store = storage.store()

    async def use(text: str) -> None:
        async with store:
            await asyncio.gather(*(store.exists(f"{n}") for n in range(10)))
            events = [user(f"{text} {n}") for n in range(100)]
            await add(store, SENDER, *events)
            await asyncio.gather(*(store.retrieve(SENDER) for _ in range(10)))

    for text in ("one", "two"):
        on_another_loop(use(text))
    await store.open()
    assert len(said(await has(store))) == 200


async def test_first_uses_at_once_on_one_loop_after_another(storage: Storage) -> None:
    store = storage.store()

    async def use() -> None:
        Opens(store)
        await asyncio.gather(*(store.exists(f"{n}") for n in range(5)))
        await store.close()
        store._closed = False

    on_another_loop(use())
    on_another_loop(use())


async def test_it_is_not_closed_from_another_loop(store: TrackerStore) -> None:
    await add(store, SENDER, user("hi"))
    with pytest.raises(errors.WrongLoopError):
        on_another_loop(store.close())
    assert said(await has(store)) == ["hi"]


async def test_closing_while_it_is_being_opened(store: TrackerStore) -> None:
    Opens(store)
    opening = asyncio.create_task(store.open())
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(opening, return_exceptions=True)
    with pytest.raises(errors.StoreClosedError):
        await store.exists(SENDER)
    await store.open()
    await add(store, SENDER, user("hi"))
    assert said(await has(store)) == ["hi"]


async def test_what_is_stored_outlives_the_store(storage: Storage) -> None:
    async with storage.store() as store:
        await add(store, SENDER, user("hi"))
    async with storage.store() as store:
        assert said(await has(store)) == ["hi"]


async def test_a_healthy_store_says_so(store: TrackerStore) -> None:
    health = await store.health()
    assert health.reachable
    assert health.error is None
    assert health.backend
    assert health.backend == store.backend_name
    assert 0 <= health.latency_seconds < 30


async def test_trouble_is_an_answer_and_no_error(store: TrackerStore) -> None:
    await store.open()

    async def fail() -> None:
        raise errors.StoreUnavailableError("nobody is there")

    store._health = fail  # type: ignore[method-assign, assignment]
    health = await store.health()
    assert not health.reachable
    assert health.error == "nobody is there"
