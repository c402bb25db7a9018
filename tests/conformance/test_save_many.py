"""`save_many` saves each tracker all or nothing, and names those that it did not."""

from __future__ import annotations

import asyncio
import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.backends import BACKENDS
from tests.conformance.kit import SENDER, has, held, said, turn, update, user, version
from tracker_store_async import DialogueStateTracker, errors
from tracker_store_async.rows import Append, NewRow, Read
from tracker_store_async.saving_many import BATCH_SIZE, one_by_one

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.conformance.backends import Storage
    from tracker_store_async import TrackerStore

NOW = 1_000_000.0


def built(count: int) -> list[DialogueStateTracker]:
    return [
        DialogueStateTracker.from_events(f"user-{n}", turn(str(n)))
        for n in range(count)
    ]


def send_through(
    store: TrackerStore, append: Callable[[Append], Awaitable[bool]]
) -> None:
    """Have every append of a store go through a function."""
    store._append = append  # type: ignore[method-assign, assignment]
    store._append_many = partial(  # type: ignore[method-assign, assignment]
        one_by_one, append
    )


async def test_all_are_saved(store: TrackerStore) -> None:
    count = BATCH_SIZE + 3
    await store.save_many(built(count))
    for n in range(count):
        assert said(await has(store, f"user-{n}")) == [str(n)]


async def test_none_is_fine(store: TrackerStore) -> None:
    await store.save_many([])
    await store.save_many(iter(()))


async def test_those_that_fail_do_not_stop_the_others(store: TrackerStore) -> None:
    await store.open()
    trackers = built(8)
    bad = user("secret")
    bad.metadata = {"x": {1, 2}}
    trackers[2].update(bad)
    append = store._append

    async def failing(request: Append) -> bool:
        if request.sender_id == "user-5":
            raise errors.StoreUnavailableError("the connection was lost")
        return await append(request)

    send_through(store, failing)
    with pytest.raises(errors.SaveManyError) as raised:
        await store.save_many(trackers)
    failures = raised.value.failures
    assert {name: type(error) for name, error in failures.items()} == {
        "user-2": errors.EventSerialisationError,
        "user-5": errors.StoreUnavailableError,
    }
    assert raised.value.total == 8
    assert "secret" not in str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    for n in range(8):
        assert await version(store, f"user-{n}") == (0 if n in (2, 5) else 4)


async def test_those_that_failed_can_be_saved_again(store: TrackerStore) -> None:
    await store.open()
    trackers = built(4)
    append, left = store._append, ["user-1", "user-3"]

    async def failing(request: Append) -> bool:
        landed = await append(request)
        if request.sender_id in left:
            left.remove(request.sender_id)
            raise errors.StoreUnavailableError("the answer was lost")
        return landed

    send_through(store, failing)
    with pytest.raises(errors.SaveManyError):
        await store.save_many(trackers)
    await store.save_many(trackers)
    for n in range(4):
        assert said(await has(store, f"user-{n}")) == [str(n)]


async def test_one_conversation_twice(storage: Storage) -> None:
    store = storage.store()
    await store.get_or_create_tracker("user")
    trackers = [await has(store, "user") for _ in range(3)]
    for n, tracker in enumerate(trackers):
        update(tracker, turn(str(n)))
    await store.save_many([*trackers, trackers[0]])
    assert sorted(map(str, said(await has(store, "user")))) == ["0", "1", "2"]


async def test_what_is_no_tracker_stops_all_of_them(store: TrackerStore) -> None:
    tracker = store.init_tracker(SENDER)
    tracker.update(user("hi"))
    with pytest.raises(errors.InvalidInputError, match="a tracker is expected"):
        await store.save_many([tracker, None])  # type: ignore[list-item]
    assert not await store.exists(SENDER)


async def test_each_conversation_of_a_batch_is_for_itself(storage: Storage) -> None:
    store, other = storage.store(), storage.store()
    trackers = [await store.create_tracker(f"user-{n}") for n in range(6)]
    trackers += built(9)[6:]
    for n, tracker in enumerate(trackers[:6]):
        update(tracker, turn(str(n)))
    ahead = await has(other, "user-3")
    update(ahead, turn("first"))
    await other.save(ahead)
    copied = pickle.loads(pickle.dumps(trackers[4]))
    await store.save(trackers[4])
    trackers[4] = copied  # it has landed, and nobody told
    update(trackers[5], [user(str(n)) for n in range(40)])
    await store.save_many(trackers)
    assert store.conflict_count == 1
    for n in range(9):
        expected = {3: ["first", "3"], 5: ["5", *map(str, range(40))]}
        found = await has(store, f"user-{n}")
        assert said(found) == expected.get(n, [str(n)])
        assert held(found) == held(trackers[n])
    await store.save_many(trackers)
    assert await version(store, "user-8") == 4


async def test_a_batch_that_meets_itself(store: TrackerStore) -> None:
    trackers = built(12)
    for n, tracker in enumerate(trackers):
        update(tracker, [user("more")] * (n % 3))
    results = await asyncio.gather(
        store.save_many(trackers),
        store.save_many(trackers[::-1]),
        *map(store.save, trackers[::5]),
    )
    assert results == [None] * len(results)
    for n in range(12):
        assert said(await has(store, f"user-{n}")) == [str(n), *["more"] * (n % 3)]


async def test_who_may_not_rebase_is_named(storage: Storage) -> None:
    store, other = storage.store(on_conflict="raise"), storage.store()
    trackers = [await store.create_tracker(f"user-{n}") for n in range(3)]
    for tracker in trackers:
        tracker.update(user("hi"))
    ahead = await has(other, "user-1")
    ahead.update(user("first"))
    await other.save(ahead)
    with pytest.raises(errors.SaveManyError) as raised:
        await store.save_many(trackers)
    failures = raised.value.failures
    assert {name: type(error) for name, error in failures.items()} == {
        "user-1": errors.ConcurrentSaveError
    }
    for n, expected in enumerate((["hi"], ["first"], ["hi"])):
        assert said(await has(store, f"user-{n}")) == expected


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.backend(BACKENDS[name].server))
        for name in (
            *("sqlite", "postgresql", "pgbouncer", "mariadb", "redis", "redis_cluster"),
            *("mongo", "mongo_pymongo", "cached_postgresql", "encrypted-sqlite"),
            *("failsafe-sqlite", "failsafe-postgresql"),
        )
    ],
)
async def test_a_batch_is_not_sent_one_by_one(
    name: str, storage_of: Callable[[str], Storage]
) -> None:
    storage = storage_of(name)
    storage.wipe()
    store = storage.store()
    await store.open()

    async def alone(request: Append) -> bool:
        raise AssertionError(request)

    backend = getattr(store, "_wrapped", store)
    backend._append = alone
    trackers = built(5)
    await store.save_many(trackers)
    for tracker in trackers:
        update(tracker, turn("more"))
    await store.save_many(trackers)
    for n in range(5):
        assert said(await has(store, f"user-{n}")) == [str(n), "more"]
    await storage.close()


# -- rows ------------------------------------------------------------------------------


def row(number: int, size: int = 0) -> NewRow:
    data = f'{{"event":"x","n":{number},"text":"{size * "é"}"}}'
    return NewRow(f"id-{number}", data, "x", 1.5, None, None)


def appends_to(prefix: str, began: float) -> list[Append]:
    """Return appends of every kind to the conversations of `begin`."""

    def append(name: str, version: int, *rows: NewRow, **more: Any) -> Append:
        return Append(f"{prefix}-{name}", version, rows, 0, f'"{name}"', NOW, **more)

    return [
        append("new", 0, row(0), row(1)),
        append("old", 1, row(1), user_id="u", created_at=began),
        append("there", 0, row(7)),
        append("ahead", 3, row(3)),
        append("absent", 3, row(3)),
        append("other log", 1, row(1), created_at=began - 1),
        append("expired", 0, row(5), row(6), expires_at=NOW + 9),
        append("gone", 1, row(1)),
        append("landed", 1, *(row(n) for n in range(1, 41))),
        append("large", 1, row(1, 60_000), row(2, 400_000)),
        append("full", 2, row(2)),
        append("new and large", 0, row(0, 300_000), expires_at=NOW + 9),
    ]


async def begin(store: TrackerStore, prefix: str) -> float:
    """Store what `appends_to` goes on with; return when the logs began."""
    for name in ("old", "there", "ahead", "other log", "landed", "large"):
        assert await store._append(
            Append(f"{prefix}-{name}", 0, [row(0)], 0, "{}", NOW, user_id="v")
        )
    for name in ("expired", "gone"):
        assert await store._append(
            Append(f"{prefix}-{name}", 0, [row(0)], 0, "{}", NOW - 9, NOW - 5)
        )
    full = [row(0, 40_000), row(1)]
    assert await store._append(Append(f"{prefix}-full", 0, full, 0, "{}", NOW))
    found = await store._read(Read(f"{prefix}-old", NOW))
    assert found is not None
    return found.created_at


async def rows_of(store: TrackerStore, prefix: str) -> list[Any]:
    """Return what is stored under the names of `appends_to`."""
    answers = []
    for each in appends_to(prefix, 0.0):
        found = await store._read(Read(each.sender_id, NOW, start=0))
        answers.append(
            found
            and (
                *(found.version, found.session_start, as_text(found.snapshot)),
                *(found.expires_at, found.user_id, found.first_position),
                [(event_id, as_text(data)) for event_id, data in found.rows],
            )
        )
    return answers


def as_text(data: str | bytes | None) -> str | None:
    return data.decode() if isinstance(data, bytes) else data


async def test_rows_are_stored_as_one_by_one(store: TrackerStore) -> None:
    await store.open()
    began = await begin(store, "batch")
    assert await store._append_many(appends_to("batch", began)) == [
        *(True, True, False, False, False, False),
        *(True, False, True, True, True, True),
    ]
    found = await rows_of(store, "batch")
    began = await begin(store, "single")
    for each in appends_to("single", began):
        await store._append(each)
    assert found == await rows_of(store, "single")
    # Repeated, as after an answer that was lost, it stores nothing twice.
    again = await store._append_many(appends_to("batch", began))
    assert again == [False] * len(again)
    assert await rows_of(store, "batch") == found


async def test_a_batch_whose_answer_was_lost(store: TrackerStore) -> None:
    await store.open()
    trackers = built(6)
    append_many = store._append_many

    async def losing(appends: Sequence[Append]) -> list[bool | BaseException]:
        await append_many(appends)
        return [errors.StoreUnavailableError("the answer was lost")] * len(appends)

    for text in ("one", "two"):
        for tracker in trackers:
            update(tracker, turn(text))
        store._append_many = losing  # type: ignore[method-assign]
        with pytest.raises(errors.SaveManyError) as raised:
            await store.save_many(trackers)
        assert len(raised.value.failures) == len(trackers)
        trackers[3].update(user("and more"))
        store._append_many = append_many  # type: ignore[method-assign]
        await store.save_many(trackers)
    assert store.conflict_count == 0
    for n, tracker in enumerate(trackers):
        more = ["and more"] if n == 3 else []
        expected = [str(n), "one", *more, "two", *more]
        assert said(await has(store, f"user-{n}")) == said(tracker) == expected
