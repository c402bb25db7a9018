"""The layout as revisions of Alembic, and what others do with Alembic beside it."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    create_engine,
)
from sqlalchemy.dialects import mysql, oracle, postgresql, sqlite
from sqlalchemy.engine.mock import MockConnection

from tests.sql_databases import append, database, golden_rows, make_rasa_database
from tracker_store_async import SQLTrackerStore, errors
from tracker_store_async.backends.sql import migrations, opening
from tracker_store_async.backends.sql.migrations import (
    include_object,
    statements,
    target_metadata,
)
from tracker_store_async.backends.sql.schema import LAYOUT_VERSION, build_tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers
    from tests.sql_databases import Database


@pytest.fixture
def rasa(servers: Servers, tmp_path: Path) -> Iterator[Database]:
    """Give a database of Rasa's in a file."""
    with database("sqlite", servers, tmp_path) as found:
        make_rasa_database(found, golden_rows())
        yield found


def test_the_latest_revision_is_the_layout_of_this_version() -> None:
    script = ScriptDirectory(
        migrations.DIRECTORY, version_locations=migrations.VERSIONS
    )
    assert script.get_heads() == [str(LAYOUT_VERSION)]
    assert script.get_bases() == ["0"]


SCRIPT = """
import asyncio, sys
from tracker_store_async import SQLTrackerStore

async def main():
    for create in (True, False):
        async with SQLTrackerStore(db=sys.argv[1], create_tables=create) as store:
            await store.keys()
    print(sorted({"alembic", "mako"} & sys.modules.keys()))

asyncio.run(main())
"""


def test_opening_does_without_alembic(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "a.db")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "[]\n"


async def test_opening_a_current_layout_changes_nothing_and_asks_alembic_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "a.db")
    async with SQLTrackerStore(db=path) as store:
        assert await store._append(append(0))

    async def unwanted(*arguments: Any) -> None:
        raise AssertionError("nothing was to be upgraded")

    monkeypatch.setattr(opening, "migrate", unwanted)
    async with SQLTrackerStore(db=path, auto_upgrade=True) as store:
        assert await store.schema_state() == "current (1)"
    await SQLTrackerStore(db=path).upgrade_schema()


async def test_the_table_of_somebody_elses_alembic_is_left_alone(
    rasa: Database,
) -> None:
    await rasa.arun("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    await rasa.arun("INSERT INTO alembic_version VALUES ('7d1a2b3c4d5e')")
    await rasa.store().upgrade_schema()
    found = await rasa.arun("SELECT version_num FROM alembic_version")
    assert [tuple(row) for row in found] == [("7d1a2b3c4d5e",)]
    found = await rasa.arun("SELECT version, typeof(version) FROM tracker_store_schema")
    assert [tuple(row) for row in found] == [(LAYOUT_VERSION, "integer")]


async def test_an_upgrade_that_fails_leaves_nothing_of_it(
    rasa: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "r2.py").write_text(
        'revision, down_revision = "2", "1"\n'
        "def upgrade():\n    raise ZeroDivisionError\n"
    )
    with monkeypatch.context() as patched:
        directories = [*migrations.VERSIONS, tmp_path]
        patched.setattr(migrations, "VERSIONS", directories)
        with pytest.raises(ZeroDivisionError):
            await rasa.store().upgrade_schema()
    assert await rasa.store().schema_state() == "Rasa's layout (upgrade needed)"
    with pytest.raises(errors.SchemaUpgradeRequiredError):
        await rasa.store().open()
    await rasa.store().upgrade_schema()


async def test_a_cancelled_upgrade_is_taken_back(
    rasa: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tracker_store_async.backends.sql.upgrade import sqlite as steps

    reached = asyncio.Event()

    async def hang(connection: Any, tables: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(steps, "STEPS", [*steps.STEPS, hang])
        upgrading = asyncio.create_task(rasa.store().upgrade_schema())
        await reached.wait()
        upgrading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upgrading
    assert await rasa.store().schema_state() == "Rasa's layout (upgrade needed)"
    await rasa.store().upgrade_schema()
    assert await rasa.store().schema_state() == "current (1)"


@pytest.mark.parametrize("own_tables", [False, True])
async def test_autogenerate_proposes_nothing_about_our_tables(
    tmp_path: Path, own_tables: bool
) -> None:
    async with SQLTrackerStore(db=str(tmp_path / "a.db")):
        pass
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    mine = MetaData()
    options: dict[str, Any] = {"include_object": include_object}
    if own_tables:
        mine, options = target_metadata(engine.dialect), {}
    Table("mine", mine, Column("id", Integer, primary_key=True))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        found: list[Any] = compare_metadata(context, mine)
    engine.dispose()
    assert [(what, getattr(item, "name", item)) for what, item in found] == [
        ("add_table", "mine")
    ]


@pytest.mark.parametrize("module", [postgresql, mysql, oracle, sqlite])
def test_what_is_printed_is_what_is_created(module: Any) -> None:
    """Alembic's offline mode writes what `create_all` runs."""
    dialect = module.dialect()
    tables = build_tables(dialect, "our schema" if module is postgresql else None)
    printed = statements(dialect, tables)
    created: list[str] = []

    def note(statement: Any, *_: Any, **__: Any) -> None:
        created.append(str(statement.compile(dialect=dialect)).strip())

    engine = MockConnection(dialect, note)
    tables.metadata.create_all(engine, checkfirst=False)

    def plain(lines: list[str]) -> set[str]:
        return {" ".join(line.split()) for line in lines}

    written = [line for line in printed if not line.startswith(("INSERT", "UPDATE"))]
    assert plain(written) == plain(created)
    assert printed[-1].startswith("UPDATE")
    assert "version='1'" in printed[-1]


def test_printed_statements_make_a_database_that_opens(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    connection = sqlite3.connect(path)
    dialect = sqlite.dialect()
    for statement in statements(dialect, build_tables(dialect)):
        connection.execute(statement)
    connection.commit()
    connection.close()

    async def work() -> None:
        async with SQLTrackerStore(db=path, create_tables=False) as store:
            assert await store._append(append(0))

    asyncio.run(work())


def test_alembic_stays_what_it_is_for_others() -> None:
    before = MigrationContext.configure(dialect_name="sqlite")
    statements(sqlite.dialect(), build_tables(sqlite.dialect()))
    after = MigrationContext.configure(dialect_name="sqlite")
    assert before._version.name == after._version.name == "alembic_version"
    assert type(before.impl) is type(after.impl)
