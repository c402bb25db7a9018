"""What an earlier version stored is read, and an older layout is upgraded in steps."""

from __future__ import annotations

import gzip
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.backends import BACKENDS
from tests.layout_samples import DIRECTORY, SENDERS, dump, fill, requests, restore
from tests.unit.command import run
from tracker_store_async import InMemoryTrackerStore, errors
from tracker_store_async.backends.sql import layout as sql_layout
from tracker_store_async.backends.sql import migrations
from tracker_store_async.inspection.layout_commands import layout_state
from tracker_store_async.rows import Read
from tracker_store_async.stored_layout import check_version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conformance.backends import Storage
    from tests.servers import Servers

RELEASED = {
    "sqlite": [1],
    "postgresql": [1],
    "mariadb": [1],
    "redis": [1, 2],
    "mongo": [1],
    "dynamo": [1],
}
"""Every version of every layout that was ever released; none is taken out."""

SAMPLES = [
    pytest.param(
        name, number, marks=pytest.mark.backend(BACKENDS[name].server), id=f"{name}-{n}"
    )
    for name, numbers in RELEASED.items()
    for n, number in enumerate(numbers, 1)
]


@pytest.fixture
def storage_named(servers: Servers, tmp_path: Path) -> Iterator[Any]:
    """Make the storage of a backend, for this test alone."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda name: stack.enter_context(
            BACKENDS[name].storage(servers, tmp_path)
        )


async def compare(storage: Storage) -> None:
    """Check that everything of the sample is there, and that saving goes on."""
    store = storage.store()
    for sender_id in SENDERS:
        appends = requests(sender_id)
        rows = [row for append in appends for row in append.rows]
        first = 1 if sender_id == "Zoë {x}" else 0
        found = (
            await store._read(Read(sender_id, appends[-1].now, 0))
            if (await store.exists(sender_id))
            else None
        )
        assert found is not None
        assert (found.first_position, found.version) == (first, len(rows))
        texts = [(i, d if isinstance(d, str) else d.decode()) for i, d in found.rows]
        assert texts == [(row.event_id, row.data) for row in rows[first:]]
        assert found.session_start == appends[-1].session_start
        snapshot = found.snapshot
        snapshot = snapshot.decode() if isinstance(snapshot, bytes) else snapshot
        assert snapshot == appends[-1].snapshot
        assert (found.created_at, found.updated_at) == (
            appends[0].now,
            appends[-1].now,
        )
    listed = [s async for s in store.conversations(user_id="user-1")]
    assert [s.sender_id for s in listed] == ["alice"]
    assert sorted(await store.keys()) == sorted(SENDERS)
    tracker = await store.retrieve_full_tracker("alice")
    assert tracker is not None
    await storage.close()


@pytest.mark.parametrize(("name", "number"), SAMPLES)
async def test_a_sample_of_each_layout_is_read(
    storage_named: Any, name: str, number: int
) -> None:
    storage = storage_named(name)
    file = DIRECTORY / f"{name}-{number}.json.gz"
    if not file.exists() and os.environ.get("TRACKER_STORE_WRITE_LAYOUTS"):
        await fill(storage.store())
        await compare(storage)
        file.parent.mkdir(exist_ok=True)
        content = json.dumps(dump(storage), indent=0).encode()
        file.write_bytes(gzip.compress(content, mtime=0))
        storage.wipe()
    async with storage.store():  # the layout of now is there, as before a restore
        pass
    await storage.close()
    storage.wipe()
    restore(storage, json.loads(gzip.decompress(file.read_bytes())))
    if number < max(RELEASED[name]):
        with pytest.raises(errors.SchemaUpgradeRequiredError, match="schema upgrade"):
            await storage.store().open()
        await upgrade(storage)
        await storage.close()
    await compare(storage)


# -- an older one ----------------------------------------------------------------------


class HalfWayError(Exception):
    """The process ends in the middle of a step."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.backend(BACKENDS[n].server), id=n)
        for n in ("sqlite", "postgresql", "mariadb", "redis", "mongo", "dynamo")
    ],
)
async def test_an_older_layout_is_upgraded_step_by_step(
    storage_named: Any, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    storage = storage_named(name)
    async with storage.store():
        pass
    taken.clear()
    now = max(RELEASED[name])

    def step(number: int) -> Any:
        async def do(_: Any) -> None:
            take(number)

        return do

    for target, attribute in places(name):
        monkeypatch.setattr(target, attribute, now + 2)
    if name in BY_ALEMBIC:
        directories = [*migrations.VERSIONS, write_revisions(tmp_path, now)]
        monkeypatch.setattr(migrations, "VERSIONS", directories)
    else:
        steps = {now: step(1), now + 1: step(2)}
        monkeypatch.setattr(steps_of(name), "LAYOUT_STEPS", steps)
    monkeypatch.setattr("tests.formats.test_layouts.fails", True)
    with pytest.raises(errors.SchemaUpgradeRequiredError, match="schema upgrade"):
        await storage.store().open()
    assert taken == []
    with pytest.raises(HalfWayError):
        await upgrade(storage)
    monkeypatch.setattr("tests.formats.test_layouts.fails", False)
    await upgrade(storage)
    # On SQLite and PostgreSQL the whole upgrade is one transaction.
    again = [1, 2, 1, 2] if name in ("sqlite", "postgresql") else [1, 2, 2]
    assert taken == again
    store = storage.store()
    await fill(store)
    assert (await store.health()).schema_version == now + 2
    await storage.close()
    monkeypatch.undo()
    with pytest.raises(errors.SchemaTooNewError, match=str(now + 2)):
        await storage.store().open()
    await storage.close()


BY_ALEMBIC = ("sqlite", "postgresql", "mariadb")
REVISION = """
from tests.formats import test_layouts

revision, down_revision = "{revision}", "{before}"
branch_labels = depends_on = None


def upgrade():
    test_layouts.take({number})
"""


def write_revisions(directory: Path, now: int) -> Path:
    """Return a directory with two revisions behind the latest one."""
    for number in (1, 2):
        text = REVISION.format(
            revision=now + number, before=now + number - 1, number=number
        )
        (directory / f"r{number}.py").write_text(text)
    return directory


taken: list[int] = []
fails = False


def take(number: int) -> None:
    """Take one of the steps; the second one may fail."""
    taken.append(number)
    if fails and number == 2:
        raise HalfWayError


async def upgrade(storage: Storage) -> None:
    store = storage.store()
    if hasattr(store, "upgrade_schema"):
        await store.upgrade_schema()
        return
    store._upgrades_layout = True
    await store.open()


def steps_of(name: str) -> Any:
    """Return the module that knows the steps of a backend."""
    if name == "redis":
        from tracker_store_async.backends.redis import store as module
    elif name == "mongo":
        from tracker_store_async.backends.mongo import database as module
    elif name == "dynamo":
        from tracker_store_async.backends.dynamo import opening as module
    else:
        module = sql_layout  # type: ignore[assignment]
    return module


def places(name: str) -> list[tuple[Any, str]]:
    """Return where a backend keeps the version that it knows."""
    module = steps_of(name)
    if name == "redis":
        return [(module, "SCHEMA_VERSION")]
    if name == "mongo":
        return [(module, "LAYOUT_VERSION")]
    if name == "dynamo":
        from tracker_store_async.backends.dynamo import store

        return [(module, "SCHEMA_VERSION"), (store, "SCHEMA_VERSION")]
    return [(sql_layout, "LAYOUT_VERSION")]


def test_the_command_names_an_older_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("schema", "upgrade", "--db", "x.db")
    (tmp_path / "x.db").touch()
    assert run(*words, cwd=tmp_path).returncode == 0
    monkeypatch.setattr(sql_layout, "LAYOUT_VERSION", 2)
    shown = run("schema", "status", "--db", "x.db", cwd=tmp_path)
    assert shown.returncode == 1
    assert "older than this library (1, upgrade needed)" in shown.stdout
    assert "tracker-store schema upgrade --db x.db" in shown.stdout


async def test_an_older_layout_is_told_without_a_second_command() -> None:
    class Older(InMemoryTrackerStore):
        async def _open(self) -> None:
            check_version(1, 2, "redis at h")

    state = await layout_state(Older())
    assert state.startswith("redis at h holds version 1 of the layout")
    assert state.endswith("needs 2 (upgrade needed)")  # the command adds what to run


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.backend(BACKENDS[n].server), id=n)
        for n in ("sqlite", "postgresql", "mariadb")
    ],
)
async def test_printed_statements_create_the_layout(
    storage_named: Any, name: str
) -> None:
    storage = storage_named(name)
    store = storage.store()
    if name == "sqlite":
        statements = await store.schema_sql()
        restore(storage, [f"{statement};" for statement in statements])
    else:
        restore(storage, {"ddl": [], "rows": {}})  # drops the tables
        statements = await store.schema_sql()
        restore(storage, {"ddl": statements, "rows": {}})
    assert await store.schema_state() == "current (1)"
    assert await store.schema_sql() == []
    store._create_tables = False
    await fill(store)
    await storage.close()
    await compare(storage)


def test_statements_are_printed_for_whoever_may_run_them(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    words = ("schema", "upgrade", "--sql", "--db", "x.db")
    lines = run(*words, cwd=tmp_path).stdout
    assert lines.startswith("CREATE TABLE tracker_store_schema")
    assert lines.endswith(
        "UPDATE tracker_store_schema SET version='1' "
        "WHERE tracker_store_schema.version = '0';\n"
    )
    assert (tmp_path / "x.db").stat().st_size == 0
    run("schema", "upgrade", "--db", "x.db", cwd=tmp_path)
    assert "nothing to do" in run(*words, cwd=tmp_path).stdout
