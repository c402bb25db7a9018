"""SQLite: what waits for the thread of a connection is done in one hop."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import asynccontextmanager, closing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.sql_databases import NOW, append, ids, read
from tracker_store_async import SQLTrackerStore, errors
from tracker_store_async.backends.sql import sqlite, sqlite_lane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def nothing_depends_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "SAVES_BEFORE_LOG", 0)
    monkeypatch.setattr(sqlite_lane, "PASS_SECONDS", 60.0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLTrackerStore]:
    async with SQLTrackerStore(dialect="sqlite", db=str(tmp_path / "a.db")) as store:
        yield store


@asynccontextmanager
async def held(lane: Any) -> AsyncIterator[list[str]]:
    """Keep the thread of a lane busy, and yield what it then is told to do."""
    begun, go_on, told = threading.Event(), threading.Event(), []
    driver = lane.driver
    driver._conn.set_trace_callback(lambda said: told.append(said.strip()))

    def work(_: Any) -> None:
        begun.set()
        go_on.wait(10)

    holding = asyncio.ensure_future(lane.run(work))
    await asyncio.to_thread(begun.wait, 10)
    call_thread, hops = lane._call_thread, []

    def count() -> None:
        hops.append("hop")
        call_thread()

    lane._call_thread = count
    releasing = asyncio.ensure_future(_release(lane, go_on))
    try:
        yield told
    finally:
        releasing.cancel()
        go_on.set()
        await holding
        del lane._call_thread
        with suppress(ValueError, sqlite3.ProgrammingError):  # it is closed by now
            driver._conn.set_trace_callback(None)
    told += hops


async def _release(lane: Any, go_on: threading.Event) -> None:
    """Let the thread go on once all that is going to wait for it waits."""
    seen = unchanged = 0
    while not seen or unchanged < 5:
        await asyncio.sleep(0.01)
        waiting = len(lane._waiting)
        seen, unchanged = waiting, unchanged + 1 if waiting == seen else 0
    go_on.set()


def count_of(told: list[str], beginning: str) -> int:
    return sum(said.startswith(beginning) for said in told)


async def test_appends_that_wait_are_one_transaction(store: SQLTrackerStore) -> None:
    operations: Any = store._opened
    assert await store._append(append(0, sender_id="old"))
    async with held(operations._writer) as told:
        found = await asyncio.gather(
            *(store._append(append(0, sender_id=f"s{n}")) for n in range(9)),
            store._append(append(3, sender_id="old")),
            store._append(append(7, sender_id="old")),  # another writer's version
            store._append(append(6, sender_id="old")),  # after the one before it
        )
    assert found == [*[True] * 10, False, True]
    assert count_of(told, "BEGIN") == count_of(told, "COMMIT") == 1
    assert told.count("hop") == 1
    assert not operations._writes
    assert len(ids(await store._read(read(sender_id="old")))) == 9
    for number in range(9):
        assert len(ids(await store._read(read(sender_id=f"s{number}")))) == 3


async def test_so_many_at_most_are_one_transaction(
    store: SQLTrackerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_lane, "MOST_TOGETHER", 4)
    async with held(store._opened._writer) as told:  # type: ignore[union-attr]
        appends = (store._append(append(0, sender_id=f"s{n}")) for n in range(9))
        assert all(await asyncio.gather(*appends))
    assert count_of(told, "BEGIN") == count_of(told, "COMMIT") == 3
    assert told.count("hop") == 1


async def test_one_that_is_refused_does_not_harm_the_others(
    store: SQLTrackerStore,
) -> None:
    operations: Any = store._opened
    async with held(operations._writer) as told:
        found = await asyncio.gather(
            store._append(append(0, sender_id="a")),
            store._append(append(0, sender_id="b", snapshot=object())),  # no text
            store._append(append(0, sender_id="c")),
            return_exceptions=True,
        )
    assert [found[0], found[2]] == [True, True]
    assert isinstance(found[1], Exception)
    assert count_of(told, "ROLLBACK") == 2  # of all of them, and of the one
    assert not operations._writes
    assert await store._read(read(sender_id="b")) is None
    for sender_id in "ac":
        assert len(ids(await store._read(read(sender_id=sender_id)))) == 3


async def test_who_holds_the_file_is_waited_for_once(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    async with SQLTrackerStore(db=str(file), connect_timeout_seconds=0.3) as store:
        operations: Any = store._opened
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            loop = asyncio.get_running_loop()
            async with held(operations._writer) as told:
                started = loop.time()
                found = await asyncio.gather(
                    *(store._append(append(0, sender_id=f"s{n}")) for n in range(8)),
                    return_exceptions=True,
                )
                elapsed = loop.time() - started
        assert {type(each) for each in found} == {errors.StoreTimeoutError}
        assert elapsed < 4 * 0.3
        assert count_of(told, "BEGIN") == 1
        assert len({id(each) for each in found}) == 8
        assert not operations._writes
        assert await store._append(append(0))


async def test_reads_that_wait_are_one_hop_in_their_order(
    store: SQLTrackerStore,
) -> None:
    operations: Any = store._opened
    for number in range(5):
        await store._append(append(0, number + 1, sender_id=f"s{number}"))
    async with held(operations._reader) as told:
        reads = (
            operations._reader.run(
                operations._reading.one, read(sender_id=f"s{number}")
            )
            for number in range(5)
        )
        found = await asyncio.gather(*reads)
    assert [len(ids(each)) for each in found] == [1, 2, 3, 4, 5]
    assert told.count("hop") == 1


async def test_a_hop_ends_after_some_time(
    store: SQLTrackerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_lane, "PASS_SECONDS", 0.0)
    operations: Any = store._opened
    order: list[int] = []
    async with held(operations._reader) as told:
        calls = (
            operations._reader.run(lambda _, number=number: order.append(number))
            for number in range(5)
        )
        await asyncio.gather(*calls)
    assert order == [0, 1, 2, 3, 4]
    assert told.count("hop") == 5


async def test_what_a_cancelled_caller_asked_for_is_done(
    store: SQLTrackerStore,
) -> None:
    async with held(store._opened._writer):  # type: ignore[union-attr]
        saving = [
            asyncio.ensure_future(store._append(append(0, sender_id=f"s{n}")))
            for n in range(3)
        ]
        await asyncio.sleep(0)
        saving[0].cancel()
        saving[2].cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving[0]
        assert await saving[1]
    for number in range(3):
        assert len(ids(await store._read(read(sender_id=f"s{number}")))) == 3


async def test_whoever_comes_while_a_hop_is_under_way_is_not_forgotten(
    store: SQLTrackerStore,
) -> None:
    async def talk(name: str) -> None:
        for version in range(0, 60, 3):
            assert await store._append(append(version, sender_id=name))
            assert len(ids(await store._read(read(sender_id=name)))) == version + 3

    async with asyncio.timeout(60):
        await asyncio.gather(*(talk(f"s{number}") for number in range(16)))
    lane: Any = store._opened._writer  # type: ignore[union-attr]
    assert (list(lane._waiting), lane._is_called) == ([], False)


async def test_a_connection_that_is_gone_is_said_to_all_who_wait(
    tmp_path: Path,
) -> None:
    store = SQLTrackerStore(dialect="sqlite", db=str(tmp_path / "a.db"))
    await store.open()
    lane: Any = store._opened._writer  # type: ignore[union-attr]
    driver = lane.driver
    for hides in ("_connection", "_running"):
        kept = getattr(driver, hides)
        setattr(driver, hides, None)
        with pytest.raises(errors.StoreUnavailableError):
            await store._append(append(0))
        setattr(driver, hides, kept)
        assert not lane._is_called
    async with held(lane):
        waiting = [
            asyncio.ensure_future(lane.run(lambda conn: conn.total_changes))
            for _ in range(3)
        ]
        await asyncio.sleep(0)
        connection, driver._connection = driver._connection, None
        found = await asyncio.gather(*waiting, return_exceptions=True)
        driver._connection = connection
    assert [str(each) for each in found] == ["no active connection"] * 3
    assert not lane._is_called
    assert await lane.run(lambda _: 7) == 7
    await store.close()


async def test_closing_waits_for_what_waits(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    store = SQLTrackerStore(dialect="sqlite", db=str(file))
    await store.open()
    async with held(store._opened._writer):  # type: ignore[union-attr]
        saving = [
            asyncio.ensure_future(store._append(append(0, sender_id=f"s{n}")))
            for n in range(3)
        ]
        await asyncio.sleep(0)
        closing_store = asyncio.ensure_future(store.close())
        assert await asyncio.gather(*saving) == [True] * 3
    await closing_store
    with closing(sqlite3.connect(file)) as other:
        assert other.execute("SELECT count(*) FROM events").fetchone() == (9,)


async def test_what_fails_together_is_said_to_all_who_wait(
    store: SQLTrackerStore,
) -> None:
    lane: Any = store._opened._writer  # type: ignore[union-attr]

    def fail(*_: Any) -> Any:
        raise MemoryError

    async with asyncio.timeout(20), held(lane):
        lane._together = fail
        found = await asyncio.gather(
            *(store._append(append(0, sender_id=f"s{n}")) for n in range(3)),
            return_exceptions=True,
        )
    assert {type(each) for each in found} == {MemoryError}


async def test_a_pass_that_fails_is_said_to_all_who_wait(
    store: SQLTrackerStore,
) -> None:
    lane: Any = store._opened._writer  # type: ignore[union-attr]

    def fail(_: Any) -> None:
        raise MemoryError

    async with asyncio.timeout(20), held(lane):
        waiting = [asyncio.ensure_future(lane.run(str)) for _ in range(3)]
        await asyncio.sleep(0)
        lane._do = fail
        found = await asyncio.gather(*waiting, return_exceptions=True)
        del lane._do
    assert {type(each) for each in found} == {MemoryError}
    assert await lane.run(lambda _: 7) == 7


async def test_appends_together_insert_their_rows_together(
    store: SQLTrackerStore,
) -> None:
    operations: Any = store._opened
    names = [f"s{number}" for number in range(6)]
    for name in names:
        assert await store._append(append(0, sender_id=name))
    told: list[str] = []
    operations._writer.driver._conn.set_trace_callback(
        lambda said: told.append(said.strip())
    )
    appends = [append(3, sender_id=name) for name in names]
    appends.insert(3, append(2, sender_id="s3"))  # it is refused, and changes nothing
    landed = await operations.append_many(appends)
    assert landed == [True, True, True, False, True, True, True]
    assert count_of(told, "INSERT INTO events") == 2  # of 16 rows, and of two
    for name in names:
        found = await store._read(read(sender_id=name))
        assert ids(found) == [f"id-{number}" for number in range(6)]


async def test_a_log_that_expires_within_a_batch_leaves_no_rows(
    store: SQLTrackerStore,
) -> None:
    operations: Any = store._opened
    first, second = append(0, 5, expires_at=NOW), append(0, 2)
    assert await operations.append_many([first, second]) == [True, True]
    assert ids(await store._read(read())) == ["id-0", "id-1"]
