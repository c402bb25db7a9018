"""Processes that are killed in the middle of an outage, and those that come after."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.proxy import FaultProxy
from tests.outages import caught_up, check_gapless
from tests.sql_databases import database, params
from tracker_store_async import FailSafeTrackerStore, SQLTrackerStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers
    from tests.sql_databases import Database


@pytest.fixture(params=params("postgresql", "mysql"))
def target(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[Database]:
    with database(request.param, servers, tmp_path) as found:
        yield found


WRITER = """
import asyncio, json, sys
from tests.conformance.kit import turn, update
from tracker_store_async import EventBroker, FailSafeTrackerStore, SQLTrackerStore

options, journal, number = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])

class Printing(EventBroker):
    async def publish(self, message):
        print("published", message.sender_id, message.message_id, flush=True)

async def write(store, name):
    while True:
        tracker = await store.get_or_create_tracker(name, append_action_listen=False)
        # Events of two writers that are equal would count as one in a new conversation.
        update(tracker, turn(str(number)))
        ids = [entry.identify() for entry in tracker._log.pending]
        await store.save(tracker)
        # one line, so that it is told whole or not at all
        print("saved", name, *ids, "safe" if store._breaker.is_open else "", flush=True)

async def main():
    primary = SQLTrackerStore(event_broker=Printing(), **options)
    store = FailSafeTrackerStore(primary, journal=journal, probe_max_seconds=0.2)
    async with store:
        names = ["shared", *(f"own-{number}-{n}" for n in range(4))]
        await asyncio.gather(*(write(store, name) for name in names))

asyncio.run(main())
"""


class Writer:
    """A process that writes until it is killed, and what it said."""

    def __init__(self) -> None:
        self.saved: dict[str, list[str]] = defaultdict(list)
        self.published: dict[str, list[str]] = defaultdict(list)
        self.turns = 0
        self.safe_turns = 0

    async def start(self, options: Any, journal: Path, number: int) -> None:
        """Start it and listen."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WRITER),
            *(json.dumps(options), str(journal), str(number)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if not line.endswith(b"\n"):
                return
            kind, name, *words = line.decode().split()
            if kind == "published":
                self.published[name] += words
                continue
            self.turns += 1
            if words[-1] == "safe":
                self.safe_turns += 1
                words.pop()
            self.saved[name] += words

    async def until(self, name: str, count: int) -> None:
        """Wait until it has ended so many turns."""
        async with asyncio.timeout(30):
            while getattr(self, name) < count:
                assert self._process.returncode is None
                await asyncio.sleep(0.01)

    async def kill(self) -> None:
        """End it with SIGKILL, and hear what it had said."""
        self._process.send_signal(signal.SIGKILL)
        await self._listening
        await self._process.wait()


@pytest.mark.parametrize("count", [1, 2])
async def test_killed_in_the_outage_and_resumed(
    target: Database, tmp_path: Path, count: int
) -> None:
    await target.store().upgrade_schema()
    journal = tmp_path / "journal.db"
    writers = [Writer() for _ in range(count)]
    server = target.options
    async with FaultProxy(server["host"], server["port"]) as proxy:
        options = {**server, "host": proxy.host, "port": proxy.port}
        for number, writer in enumerate(writers):
            await writer.start(options, journal, number)
        for writer in writers:
            await writer.until("turns", 20)
        await proxy.refuse()
        proxy.cut()
        for writer in writers:
            await writer.until("safe_turns", 40)
        for writer in writers:
            await writer.kill()
        primary = SQLTrackerStore(**options)
        async with FailSafeTrackerStore(
            primary, journal=str(journal), probe_max_seconds=0.2
        ) as store:
            tracker = await store.retrieve("own-0-1")  # it goes on where it was
            assert tracker is not None
            assert len(tracker.events) >= len(writers[0].saved["own-0-1"])
            await proxy.accept()
            await caught_up(store)
    async with target.store() as direct:
        await check(direct, writers)


async def check(direct: SQLTrackerStore, writers: list[Writer]) -> None:
    """Check that what was acknowledged is there, once, in order, and was published."""
    assert [len(writer.saved) for writer in writers] == [5] * len(writers)
    for name in {name for writer in writers for name in writer.saved}:
        found = await check_gapless(direct, name)
        ids = [str(event_id) for event_id, _ in found.rows]
        assert len(ids) == len(set(ids))
        told = [writer.published.get(name, []) for writer in writers]
        assert set(ids) <= {event_id for each in told for event_id in each}
        for writer in writers:
            published = writer.published.get(name, [])
            mine = [i for i in ids if i in set(published)]
            saved = writer.saved.get(name, [])
            # The last save may be stored although it was not told of any more.
            assert mine[: len(saved)] == saved
            assert len(mine) - len(saved) in (0, 4)
            assert published[: len(mine)] == mine


async def test_one_that_starts_while_the_primary_is_away_finds_the_journal_in_use(
    target: Database, tmp_path: Path
) -> None:
    """Processes of one path never share a file, and none is left behind."""
    journal = str(tmp_path / "journal.db")
    stores = [FailSafeTrackerStore(target.store(), journal=journal) for _ in range(3)]
    for store in stores:
        await store.open()
    files = [file.path.name for store in stores for file in store._files]
    assert files == ["journal.db", "journal-2.db", "journal-3.db"]
    for store in stores:
        await store.close()
