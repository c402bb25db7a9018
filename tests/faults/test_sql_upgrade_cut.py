"""An upgrade that is cut short after each of its steps, and then run again."""

from __future__ import annotations

import asyncio
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from tests.sql_databases import (
    EACH_DIALECT,
    append,
    database,
    golden_rows,
    make_rasa_database,
)
from tracker_store_async.errors import SchemaUpgradeRequiredError
from tracker_store_async.rows import Listing, Read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers
    from tests.sql_databases import Database

ROWS = golden_rows()
AS_RASA_READS = "SELECT id, sender_id, type_name, data FROM events ORDER BY id"
RASA_INSERT = (
    "INSERT INTO events (sender_id, type_name, timestamp, intent_name, action_name,"
    " data) VALUES ('from rasa', 'slot', 1.5, NULL, 'n', '{\"event\": \"slot\"}')"
)

STEPS = {"sqlite": 4, "postgresql": 6, "mysql": 5}


class CutError(Exception):
    """The upgrade ends here."""


@pytest.fixture(params=EACH_DIALECT)
def target(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[Database]:
    with database(request.param, servers, tmp_path) as found:
        make_rasa_database(found, ROWS)
        yield found


def steps_of(dialect: str) -> Any:
    return import_module(f"tracker_store_async.backends.sql.upgrade.{dialect}")


async def check_whole(target: Database, extra: int = 0) -> None:
    """Check that the upgrade is complete and nothing is lost."""
    assert await target.store().schema_state() == "current (1)"
    async with target.store() as store:
        listed = await store._list(Listing(0.0, 1000))
        assert sum(summary.version for summary in listed) == len(ROWS) + extra
        for summary in listed:
            found = await store._read(Read(summary.sender_id, 0.0, start=0))
            assert found is not None
            texts = [
                row["data"] for row in ROWS if row["sender_id"] == summary.sender_id
            ]
            if texts:
                assert [text for _, text in found.rows] == texts
        assert await store._append(append(0, sender_id="new after the upgrade"))


async def read_as_rasa(target: Database) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await target.arun(AS_RASA_READS)]


EXPECTED = [
    tuple(row[name] for name in ("id", "sender_id", "type_name", "data"))
    for row in ROWS
]


@pytest.mark.parametrize("after", range(8))
async def test_failure_after_a_step(
    target: Database, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    module = steps_of(target.dialect)
    assert len(module.STEPS) == STEPS[target.dialect]
    if after > len(module.STEPS):
        pytest.skip("this dialect has fewer steps")

    async def fail(connection: Any, tables: Any) -> None:
        raise CutError

    steps = [*module.STEPS[:after], fail]
    with monkeypatch.context() as patched:
        patched.setattr(module, "STEPS", steps)
        with pytest.raises(CutError):
            await target.store(auto_upgrade=True).open()
    assert await read_as_rasa(target) == EXPECTED
    state = await target.store().schema_state()
    if target.dialect != "mysql":
        assert state == "Rasa's layout (upgrade needed)"
        await target.arun(RASA_INSERT)
        await target.arun("DELETE FROM events WHERE sender_id = 'from rasa'")
    if not state.startswith("current"):
        with pytest.raises(SchemaUpgradeRequiredError, match="auto_upgrade"):
            await target.store().open()
    await target.store().upgrade_schema()
    await check_whole(target)


SCRIPT = """
import asyncio, os, signal, sys
from importlib import import_module
from tracker_store_async.backends.sql import SQLTrackerStore

options, after = eval(sys.argv[1]), int(sys.argv[2])
module = import_module("tracker_store_async.backends.sql.upgrade." + sys.argv[3])

async def die(connection, tables):
    os.kill(os.getpid(), signal.SIGKILL)

module.STEPS = [*module.STEPS[:after], die]
asyncio.run(SQLTrackerStore(**options, auto_upgrade=True).open())
"""


@pytest.mark.parametrize("after", range(7))
async def test_killed_after_a_step(target: Database, after: int) -> None:
    if after >= STEPS[target.dialect]:
        pytest.skip("this dialect has fewer steps")
    arguments = (repr(target.options), str(after), target.dialect)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCRIPT, *arguments
    )
    assert await process.wait() == -signal.SIGKILL
    assert await read_as_rasa(target) == EXPECTED
    await target.store().upgrade_schema()
    await check_whole(target)


@pytest.mark.backend("mysql")
async def test_mysql_cut_in_the_middle_of_numbering(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = steps_of("mysql")
    with database("mysql", servers, tmp_path) as target:
        make_rasa_database(target, ROWS)
        seen = []
        next_batch = module._next_batch

        async def fail_at_the_third(*arguments: Any) -> Any:
            seen.append(arguments)
            if len(seen) == 3:
                raise CutError
            return await next_batch(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(module, "BATCH_SENDERS", 2)
            patched.setattr(module, "_next_batch", fail_at_the_third)
            with pytest.raises(CutError):
                await target.store(auto_upgrade=True).open()
        counted = await target.arun("SELECT count(*), count(position) FROM events")
        assert 0 < counted[0][1] < counted[0][0]
        assert await read_as_rasa(target) == EXPECTED
        assert "half upgraded" in await target.store().schema_state()
        await target.arun(RASA_INSERT)  # Rasa can go on until positions are required
        with monkeypatch.context() as patched:
            patched.setattr(module, "BATCH_SENDERS", 2)
            await target.store().upgrade_schema()
        await check_whole(target, extra=1)


@pytest.mark.backend("mysql")
async def test_mysql_numbers_what_rasa_adds_meanwhile(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = steps_of("mysql")
    with database("mysql", servers, tmp_path) as target:
        make_rasa_database(target, ROWS)
        number_all = module._number_all
        added = []

        async def number_and_add(*arguments: Any) -> None:
            await number_all(*arguments)
            if len(added) < 2:
                added.append(1)
                await target.arun(RASA_INSERT)

        monkeypatch.setattr(module, "_number_all", number_and_add)
        await target.store().upgrade_schema()
        assert len(added) == 2
        await check_whole(target, extra=2)


async def test_cancelled_upgrade_leaves_nothing_half_done(target: Database) -> None:
    for delay_seconds in (0.0, 0.01, 0.03, 0.06, 0.1, 0.2):
        store = target.store(auto_upgrade=True)
        opening = asyncio.ensure_future(store.open())
        await asyncio.sleep(delay_seconds)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        await store.close()
        assert await read_as_rasa(target) == EXPECTED
    await target.store().upgrade_schema()
    await check_whole(target)


UPGRADE = """
import asyncio, sys
from tracker_store_async.backends.sql import SQLTrackerStore
async def main():
    async with SQLTrackerStore(**eval(sys.argv[1]), auto_upgrade=True) as store:
        print(await store.schema_state())
asyncio.run(main())
"""


async def test_processes_that_upgrade_together(target: Database) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", UPGRADE, repr(target.options)),
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(3)
    ]
    outputs = await asyncio.gather(*(process.communicate() for process in processes))
    assert [out.strip() for out, _ in outputs] == [b"current (1)"] * 3
    await check_whole(target)
