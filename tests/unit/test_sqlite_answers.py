"""SQLite: how what the thread has done gets back to who waits on the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.sql_databases import append, ids, read
from tracker_store_async import SQLTrackerStore
from tracker_store_async.backends.sql.sqlite_answers import Answer, Answers, Bell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

needs_eventfd = pytest.mark.skipif(
    not hasattr(os, "eventfd"), reason="this system has no eventfd"
)


def answer() -> Answer:
    return Answer(asyncio.get_running_loop())


async def waiting(for_what: Answer) -> asyncio.Task[Any]:
    """Return a task that waits by now."""

    async def wait() -> Any:
        return await for_what

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    return task


async def give(to: Answer, value: Any, problem: BaseException | None = None) -> None:
    """Give an answer as the loop does."""
    asyncio.get_running_loop().call_soon(to.give, value, problem)
    await asyncio.sleep(0)


def on_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


# -- an answer -------------------------------------------------------------------------


async def test_who_waits_goes_on_within_the_call() -> None:
    given, told = answer(), []
    task = await waiting(given)

    def call() -> None:
        given.give(7)
        told.append(task.result())

    asyncio.get_running_loop().call_soon(call)
    await asyncio.sleep(0)
    assert told == [7]


async def test_an_error_is_raised_to_who_waits() -> None:
    given = answer()
    task = await waiting(given)
    await give(given, None, KeyError("x"))
    with pytest.raises(KeyError):
        await task


async def test_an_answer_that_is_there_before() -> None:
    given, refused = answer(), answer()
    given.give(7)
    refused.give(None, KeyError("x"))
    assert await given == 7
    with pytest.raises(KeyError):
        await refused


async def test_who_is_cancelled_is_told_and_the_answer_is_dropped() -> None:
    given = answer()
    task = await waiting(given)
    assert task.cancel("enough")
    assert not task.done()  # somebody else is at work: in the next pass
    given.give(7)  # and nobody goes on
    assert not task.done()
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert not given.cancel()


async def test_a_task_cancels_itself_by_way_of_another_answer() -> None:
    """A task that goes on within a call may cancel one that still waits."""
    first, second = answer(), answer()

    async def cancel(other: asyncio.Task[Any]) -> None:
        await first
        other.cancel()

    other = await waiting(second)
    task = asyncio.ensure_future(cancel(other))
    await asyncio.sleep(0)
    await give(first, None)
    assert task.done()
    with pytest.raises(asyncio.CancelledError):
        await other


async def test_a_time_limit_and_what_is_cancelled_at_once() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await answer()

    async def wait() -> None:
        await answer()

    task = asyncio.ensure_future(wait())
    task.cancel()  # before it has begun
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_waits_keeps_its_own_context() -> None:
    name = contextvars.ContextVar("name", default="nobody")
    given, found = answer(), []

    async def wait() -> None:
        name.set("ours")
        await given
        found.append(name.get())

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    await give(given, None)
    await task
    assert found == ["ours"]
    assert name.get() == "nobody"


async def test_an_empty_context_is_one_too() -> None:
    name = contextvars.ContextVar("name", default="nobody")
    given, empty = answer(), contextvars.Context()

    async def wait() -> None:
        await given
        name.set("ours")

    task = asyncio.get_running_loop().create_task(wait(), context=empty)
    await asyncio.sleep(0)
    await give(given, None)
    await task
    assert empty.get(name) == "ours"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
async def test_an_eager_task_waits_too() -> None:
    given = answer()

    async def wait() -> Any:
        return await given

    factory = asyncio.eager_task_factory
    task: Any = factory(asyncio.get_running_loop(), wait())
    await give(given, 7)
    assert await task == 7


async def test_asyncio_takes_it_for_a_future() -> None:
    given = answer()
    assert asyncio.isfuture(given)
    assert given.get_loop() is asyncio.get_running_loop()
    gathered = asyncio.gather(await waiting(given), await waiting(answer()))
    await give(given, 1)
    gathered.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gathered


# -- from a thread ---------------------------------------------------------------------


def without_eventfd(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(os, "eventfd", raising=False)


def at_the_limit_of_files(patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(24, "Too many open files")

    patch.setattr(os, "eventfd", refuse, raising=False)


def on_a_loop_that_watches_no_files(patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError

    patch.setattr(asyncio.get_running_loop(), "add_reader", refuse)


def as_it_is(patch: pytest.MonkeyPatch) -> None:
    """Change nothing."""


WAYS = [
    as_it_is,
    without_eventfd,
    at_the_limit_of_files,
    on_a_loop_that_watches_no_files,
]


@pytest.mark.parametrize("way", WAYS)
async def test_a_bell_is_heard(way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    way(monkeypatch)
    heard = asyncio.Event()
    bell = Bell(heard.set)
    assert (bell._counter is None) == (
        way is not as_it_is or not hasattr(os, "eventfd")
    )
    for _ in range(2):
        on_a_thread(bell.ring)
        assert not heard.is_set()
        await asyncio.wait_for(heard.wait(), 10)
        heard.clear()
    bell.close()
    on_a_thread(bell.ring)  # late, and heard all the same
    await asyncio.wait_for(heard.wait(), 10)


@needs_eventfd
async def test_the_file_is_closed_once_nobody_can_ring() -> None:
    bell: Bell | None = Bell(lambda: None)
    assert bell is not None
    assert bell._counter is not None
    fd, counter = bell._counter.fd, bell._counter
    bell.close()
    os.eventfd_write(counter.fd, 1)  # a thread that was about to
    del bell, counter
    gc.collect()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


async def test_answers_from_a_thread() -> None:
    told: list[str] = []
    answers = Answers(lambda: told.append("then"))
    given = [answer() for _ in range(3)]
    tasks = [await waiting(each) for each in given]
    tasks[1].cancel()
    on_a_thread(
        lambda: answers.send(
            [(given[0], 7, None), (given[1], 8, None), (given[2], None, KeyError("x"))]
        )
    )
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[0] == 7
    assert [type(each) for each in found[1:]] == [asyncio.CancelledError, KeyError]
    assert told == ["then"]
    answers.close()


async def test_closing_gives_what_has_come() -> None:
    answers = Answers(lambda: None)
    given = answer()
    task = await waiting(given)
    on_a_thread(lambda: answers.send([(given, 7, None)]))
    answers.close()
    assert await task == 7


def test_ctrl_c_in_one_who_goes_on_leaves_the_others_their_answers() -> None:
    found: list[Any] = []

    async def wait(for_what: Answer, *, interrupts: bool) -> None:
        found.append(await for_what)
        if interrupts:
            raise KeyboardInterrupt

    async def main() -> None:
        answers = Answers(lambda: None)
        given = [answer() for _ in range(3)]
        tasks = [
            asyncio.ensure_future(wait(each, interrupts=number == 0))
            for number, each in enumerate(given)
        ]
        await asyncio.sleep(0)
        answers.send([(each, number, None) for number, each in enumerate(given)])
        await asyncio.gather(*tasks[1:])

    loop = asyncio.new_event_loop()
    running = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(running)
    loop.run_until_complete(running)
    assert found == [0, 1, 2]
    loop.close()


@pytest.mark.parametrize("way", WAYS[1:])
async def test_a_store_works_in_the_slow_way_too(
    way: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    way(monkeypatch)
    async with SQLTrackerStore(db=str(tmp_path / "x.db")) as store:
        operations: Any = store._opened
        assert operations._writer._answers._bell._counter is None
        found = await asyncio.gather(
            *(store._append(append(0, sender_id=f"s{n}")) for n in range(9))
        )
        assert found == [True] * 9
        assert len(ids(await store._read(read(sender_id="s8")))) == 3


@needs_eventfd
async def test_a_store_gives_its_files_back(tmp_path: Path) -> None:
    def count() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    async def use() -> None:
        async with SQLTrackerStore(db=str(tmp_path / "x.db")) as store:
            assert await store._read(read()) is None
        del store
        await asyncio.sleep(0)

    await use()
    before = count()
    for _ in range(3):
        await use()
    assert count() <= before
