"""`schema upgrade` creates all that a configuration uses: outbox, trail, data keys."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("cryptography")
pytest.importorskip("asyncmy", reason="the extra mysql is not installed")
pytest.importorskip("asyncpg", reason="the extra postgresql is not installed")

from tests.conformance.kit import SENDER, add, turn
from tests.sql_databases import EACH_DIALECT, Database, database
from tests.unit.command import error_of, run
from tracker_store_async import create_tracker_store, errors
from tracker_store_async.brokers.recording import RecordingBroker
from tracker_store_async.encryption.keyring import generate_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import Servers

LAYOUT = {"tracker_store_schema", "events", "conversations"}
OUTBOX = {"outbox", "outbox_lease"}
BESIDE = {
    "outbox": ("outbox", "audit trail"),
    "sealed": ("audit trail", "data keys"),  # sealed events get into no outbox
}
"""What there is beside the layout, as the command names it."""

TABLES = {
    "outbox": LAYOUT | OUTBOX | {"audit_trail"},
    "sealed": LAYOUT | {"audit_trail", "conversation_data_keys"},
}
EACH_USE = pytest.mark.parametrize("use", BESIDE)
PASSWORD = "sesame-4711"


@pytest.fixture(params=EACH_DIALECT)
def place(
    request: pytest.FixtureRequest, servers: Servers, tmp_path: Path
) -> Iterator[Database]:
    with database(request.param, servers, tmp_path) as found:
        yield found


def section(place: Database, use: str, **more: Any) -> dict[str, Any]:
    """Return the section of a store that keeps things beside its conversations."""
    url = place.url
    if place.dialect == "postgresql" and place.server and not place.server.password:
        url = url.replace("@", f":{PASSWORD}@", 1)  # it lets us in with any
    options = {key: value for key, value in place.options.items() if value is not None}
    beside: dict[str, Any] = {"outbox": True}
    if use == "sealed":
        beside = {"encryption": {"keys": {"a": generate_key()}, "data_keys": url}}
    audit = {"sink": "sql", "url": url}
    return {"type": "sql", **options, **beside, "audit": audit, "retry": True, **more}


def write(folder: Path, tracker_store: dict[str, Any]) -> None:
    content = {"tracker_store": tracker_store}
    (folder / "endpoints.yml").write_text(json.dumps(content))


def rows_of(folder: Path, *words: str, code: int = 0) -> dict[str, str]:
    """Run `schema`, and return what it prints by name."""
    result = run("schema", *words, cwd=folder)
    assert (result.returncode, result.stderr) == (code, "")
    assert PASSWORD not in result.stdout
    lines = [line.split("  ", 1) for line in result.stdout.splitlines()]
    return {name: value.strip() for name, value in lines}


def tables(place: Database) -> set[str]:
    asked = "SELECT table_name FROM information_schema.tables WHERE table_schema = "
    asked += "'public'" if place.dialect == "postgresql" else "database()"
    if place.dialect == "sqlite":
        asked = "SELECT name FROM sqlite_master WHERE type = 'table'"
    return {row[0] for row in place.run(asked)} - {"sqlite_sequence"}


@EACH_USE
def test_an_upgrade_creates_all_and_is_safe_to_repeat(
    place: Database, use: str, tmp_path: Path
) -> None:
    write(tmp_path, section(place, use))
    shown = rows_of(tmp_path, "status")
    assert all(shown[name].startswith("not created") for name in BESIDE[use])
    assert tables(place) == set()
    shown = rows_of(tmp_path, "upgrade")
    assert (shown["before"], shown["now"]) == ("not created", "current (1)")
    assert all(shown[name].startswith("created") for name in BESIDE[use])
    assert tables(place) == TABLES[use]
    assert " in " in shown["audit trail"]
    shown = rows_of(tmp_path, "upgrade")
    assert shown["before"] == "current (1)"
    assert all(shown[name].startswith("was there") for name in BESIDE[use])
    shown = rows_of(tmp_path, "status")
    assert all(shown[name].startswith("created") for name in BESIDE[use])


def test_only_what_is_configured_is_created(place: Database, tmp_path: Path) -> None:
    settings = section(place, "outbox", outbox=False)
    del settings["audit"]
    write(tmp_path, settings)
    assert set(rows_of(tmp_path, "upgrade")) == {"store", "before", "now"}
    assert tables(place) == LAYOUT


@EACH_USE
async def test_a_store_in_its_wrappers_creates_all(place: Database, use: str) -> None:
    store = create_tracker_store(section(place, use))
    for _ in range(2):
        await store.upgrade_schema()  # type: ignore[attr-defined]
    assert await asyncio.to_thread(tables, place) == TABLES[use]


@EACH_USE
def test_what_is_printed_creates_all(place: Database, use: str, tmp_path: Path) -> None:
    write(tmp_path, section(place, use, create_tables=False))
    result = run("schema", "upgrade", "--sql", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert PASSWORD not in result.stdout
    assert tables(place) == set()
    lines = result.stdout.splitlines()
    named = [line.partition(", in ")[0] for line in lines if line.startswith("--")]
    assert named == [f"-- {name}" for name in BESIDE[use] if name != "outbox"]
    text = "\n".join(line for line in lines if not line.startswith("--"))
    place.run(*text.removesuffix(";").split(";\n"))
    assert tables(place) == TABLES[use]
    again = run("schema", "upgrade", "--sql", cwd=tmp_path)
    assert again.stdout == "-- the layout is current: there is nothing to do\n"
    asyncio.run(save_and_publish(section(place, use, create_tables=False)))


async def save_and_publish(settings: dict[str, Any]) -> None:
    broker = RecordingBroker()
    async with create_tracker_store(settings, event_broker=broker) as store:
        await add(store, SENDER, *turn("published"))
        async with asyncio.timeout(20):
            while not broker.messages:
                await asyncio.sleep(0.01)


def test_an_outbox_that_is_switched_on_later(place: Database, tmp_path: Path) -> None:
    asyncio.run(place.store().upgrade_schema())
    settings = section(place, "outbox", create_tables=False)
    del settings["audit"]
    write(tmp_path, settings)
    shown = rows_of(tmp_path, "status", code=1)
    assert shown["outbox"] == "not created, and create_tables is false"
    printed = run("schema", "upgrade", "--sql", cwd=tmp_path).stdout
    assert printed.startswith("CREATE TABLE outbox (")
    assert "tracker_store_schema" not in printed
    with pytest.raises(errors.SchemaError, match="run `tracker-store schema upgrade`"):
        asyncio.run(create_tracker_store(settings).open())
    assert rows_of(tmp_path, "upgrade")["outbox"] == "created"
    assert rows_of(tmp_path, "status")["outbox"] == "created"
    place.run("DROP TABLE outbox_lease")
    printed = run("schema", "upgrade", "--sql", cwd=tmp_path).stdout
    assert printed.startswith("CREATE TABLE outbox_lease (")
    assert rows_of(tmp_path, "upgrade")["outbox"] == "created"
    assert tables(place) == LAYOUT | OUTBOX


# -- other stores ----------------------------------------------------------------------


@pytest.mark.backend("redis")
def test_a_trail_beside_another_kind_of_store(
    redis_server: Any, tmp_path: Path
) -> None:
    trail = tmp_path / "trail.db"
    settings = {
        "type": "redis",
        "host": redis_server.host,
        "port": redis_server.port,
        "key_prefix": "schemabeside",
        "audit": {"sink": "sql", "url": f"sqlite+aiosqlite:///{trail}"},
    }
    write(tmp_path, settings)
    assert rows_of(tmp_path, "status")["audit trail"].startswith("not created")
    printed = run("schema", "upgrade", "--sql", cwd=tmp_path).stdout
    assert printed.startswith(f"-- audit trail, in sqlite database {trail}:\nCREATE")
    assert not trail.exists()
    try:
        assert rows_of(tmp_path, "upgrade")["audit trail"].startswith("created")
        assert rows_of(tmp_path, "upgrade")["audit trail"].startswith("was there")
    finally:
        with redis_server.client() as admin:
            admin.delete(*admin.scan_iter(match="*schemabeside:*"))


def test_a_database_that_is_away_leaves_all_as_it_is(tmp_path: Path) -> None:
    url = f"postgresql+asyncpg://me:{PASSWORD}@127.0.0.1:1/x"
    settings = {"type": "sql", "db": "x.db", "audit": {"sink": "sql", "url": url}}
    write(tmp_path, settings)
    for words in (["upgrade"], ["status"]):
        said = error_of("schema", *words, cwd=tmp_path, code=1)
        assert said.startswith(
            "the database of audit.url (postgresql at 127.0.0.1:1/x)"
        )
        assert PASSWORD not in said
    assert not (tmp_path / "x.db").exists() or not (tmp_path / "x.db").stat().st_size


def test_a_wrapper_has_the_method_only_where_its_store_does() -> None:
    store = create_tracker_store({"type": "in_memory", "retry": True})
    assert not hasattr(store, "upgrade_schema")
