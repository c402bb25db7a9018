"""A process killed between publish and persist, and the retry of another one."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING

from tests.conformance.kit import stored
from tracker_store_async import RepeatFilter, SQLTrackerStore

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import asyncio, os, signal, sys
from tracker_store_async import SQLTrackerStore
from tracker_store_async.brokers.file import FileEventBroker
from tracker_store_async.events import UserUttered

async def main(db, log, dies_at):
    store = SQLTrackerStore(db=db, event_broker=FileEventBroker(log, with_headers=True))
    append = store._append
    async def dying(request):
        if request.expected_version == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return await append(request)
    store._append = dying
    async with store:
        tracker = await store.get_or_create_tracker("alice", append_action_listen=False)
        for n in range(tracker._log.version or 0, 10):
            event = UserUttered(f"message {n}", timestamp=float(n))
            event.event_id = f"turn-{n}"  # a client that tries again says so
            tracker.update(event)
            await store.save(tracker)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def run(directory: Path, dies_at: int) -> int:
    """Have the conversation in a process of its own; return how that ended."""
    arguments = [str(directory / "store.db"), str(directory / "log"), str(dies_at)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, *arguments
    )
    return await process.wait()


async def test_the_consumers_log_is_the_stores_log(tmp_path: Path) -> None:
    for dies_at in (0, 4, 7):
        assert await run(tmp_path, dies_at) == -signal.SIGKILL
    assert await run(tmp_path, -1) == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    repeats = RepeatFilter()
    consumed = [line for line in lines if repeats.is_new(line["message_id"])]
    async with SQLTrackerStore(db=str(tmp_path / "store.db")) as store:
        rows = await stored(store, "alice")
    assert [line["message_id"] for line in consumed] == [each for each, _ in rows]
    assert [line["body"]["text"] for line in consumed] == [
        json.loads(data)["text"] for _, data in rows
    ]
    assert [int(line["position"]) for line in consumed] == list(range(10))
    assert repeats.repeats == 3
