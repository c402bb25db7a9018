"""Several processes at once, and processes that are killed."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from asyncmy.errors import OperationalError
from sqlalchemy.exc import DBAPIError

from tests.sql_databases import EACH_DIALECT, database, ids, read
from tracker_store_async.backends.sql import layout
from tracker_store_async.backends.sql.layout import Layout, inspect_layout
from tracker_store_async.rows import Listing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from tests.servers import Servers
    from tests.sql_databases import Database
    from tracker_store_async.backends.sql.schema import Tables


@pytest.fixture(params=EACH_DIALECT)
def target(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[Database]:
    with database(request.param, servers, tmp_path) as found:
        yield found


PRELUDE = """
import asyncio, sys, time
from tracker_store_async.backends.sql import SQLTrackerStore
from tracker_store_async.rows import Append, NewRow, Read

options = eval(sys.argv[1])
number = sys.argv[2]

def request(sender_id, version, names):
    rows = [NewRow(name, '{"a": 1}', "slot", 1.0, None, None) for name in names]
    return Append(sender_id, version, rows, 0, "{}", 1700000000.5)
"""

START = """
async def main():
    sys.stdin.readline()  # all start at once
    async with SQLTrackerStore(**options) as store:
        assert await store._append(request("s" + number, 0, ["a", "b"]))
        print(await store.schema_state())
asyncio.run(main())
"""

WRITE = """
async def main():
    async with SQLTrackerStore(**options) as store:
        for turn in range(20):
            names = [f"{number}-{turn}-{part}" for part in range(3)]
            while True:
                found = await store._read(Read("shared", 1.0, last=0))
                version = 0 if found is None else found.version
                if await store._append(request("shared", version, names)):
                    break
asyncio.run(main())
"""

UNTIL_KILLED = """
async def main():
    async with SQLTrackerStore(**options) as store:
        version = 0
        while True:
            names = [f"id-{version + part}" for part in range(5)]
            assert await store._append(request("killed", version, names))
            version += 5
            print(version, flush=True)  # acknowledged
asyncio.run(main())
"""


async def run(target: Database, script: str, number: int) -> asyncio.subprocess.Process:
    """Start a process that works on the database."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PRELUDE + script, repr(target.options), str(number)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize("round_number", range(3))
async def test_processes_that_start_together_on_an_empty_database(
    target: Database, round_number: int
) -> None:
    processes = [await run(target, START, number) for number in range(4)]
    outputs = await asyncio.gather(
        *(process.communicate(b"go\n") for process in processes)
    )
    assert [out.strip() for out, _ in outputs] == [b"current (1)"] * 4
    async with target.store() as store:
        listed = await store._list(Listing(0.0, 10))
        assert [summary.sender_id for summary in listed] == ["s0", "s1", "s2", "s3"]


@pytest.mark.backend("mysql")
@pytest.mark.parametrize("code", [1412, 1684])
async def test_a_table_that_changes_while_it_is_looked_at(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    raised = []

    def inspect(connection: Connection, tables: Tables) -> Layout:
        if not raised:
            raised.append(OperationalError(code, "being changed"))
            raise DBAPIError("DESCRIBE events", None, raised[0])
        return inspect_layout(connection, tables)

    monkeypatch.setattr(layout, "inspect_layout", inspect)
    with database("mysql", servers, tmp_path) as target:
        assert await target.store().schema_state() == "not created"
        raised.clear()
        async with target.store() as store:
            assert raised
            assert await store.schema_state() == "current (1)"


async def test_processes_that_write_to_one_conversation(target: Database) -> None:
    await target.store().upgrade_schema()
    processes = [await run(target, WRITE, number) for number in range(3)]
    await asyncio.gather(*(process.communicate() for process in processes))
    assert [process.returncode for process in processes] == [0, 0, 0]
    async with target.store() as store:
        found = ids(await store._read(read(sender_id="shared")))
    assert len(found) == len(set(found)) == 3 * 20 * 3
    for at in range(0, len(found), 3):  # turns are whole
        turn = str(found[at]).rpartition("-")[0]
        assert found[at : at + 3] == [f"{turn}-{part}" for part in range(3)]


@pytest.mark.parametrize("turns", [1, 7, 30])
async def test_what_was_acknowledged_survives_a_kill(
    target: Database, turns: int
) -> None:
    process = await run(target, UNTIL_KILLED, 0)
    assert process.stdout is not None
    acknowledged = 0
    for _ in range(turns):
        acknowledged = int(await process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    rest, _ = await process.communicate()
    if rest.splitlines():
        acknowledged = int(rest.splitlines()[-1])
    async with target.store() as store:
        found = ids(await store._read(read(sender_id="killed")))
    assert found == [f"id-{number}" for number in range(len(found))]
    assert len(found) % 5 == 0
    assert acknowledged <= len(found) <= acknowledged + 5
