"""What blocks is called in a thread, and its own errors are not taken for others."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tracker_store_async.threads import in_thread


async def test_it_is_called_in_a_thread() -> None:
    number, thread = await in_thread(lambda n: (n, threading.current_thread()), 3)
    assert number == 3
    assert thread is not threading.current_thread()


async def test_an_error_of_its_own_is_no_second_call() -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("its own")

    with pytest.raises(RuntimeError, match="its own"):
        await in_thread(fail)
    assert calls == [1]


async def test_without_threads_it_is_called_here() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    asyncio.get_running_loop().set_default_executor(pool)
    assert await in_thread(threading.current_thread) is threading.current_thread()


async def test_what_is_queued_although_it_was_refused_is_not_called_twice() -> None:
    """As where the system gives no further thread, and a busy one comes back."""

    class Full(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **options: Any) -> Any:
            super().submit(*arguments, **options)
            raise RuntimeError("can't start new thread")

    calls: list[int] = []
    pool, is_free = Full(1), threading.Event()
    ThreadPoolExecutor.submit(pool, is_free.wait)
    asyncio.get_running_loop().set_default_executor(pool)
    await in_thread(calls.append, 1)
    is_free.set()
    pool.shutdown()
    assert calls == [1]
