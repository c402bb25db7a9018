"""The configuration and the SQL store together."""

import asyncio
import inspect
import re
import uuid
from pathlib import Path

import pytest

from tests.servers import PostgreSQLServer
from tests.servers.base import DATABASE_PREFIX
from tracker_store_async.backends.sql import SQLTrackerStore
from tracker_store_async.backends.sql.config import SQLConfig
from tracker_store_async.errors import ConfigurationError, MissingExtraError
from tracker_store_async.events import SlotSet
from tracker_store_async.factory import create_tracker_store, load_tracker_store

DATA = Path(__file__).parent.parent / "data" / "endpoints"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("POSTGRESQL_SCHEMA", "SQL_POOL_SIZE", "SQL_MAX_OVERFLOW"):
        monkeypatch.delenv(name, raising=False)


def test_every_key_is_an_option_of_the_store():
    keys = set(SQLConfig.model_fields) - {"schema_name"} | {"schema"}
    parameters = set(inspect.signature(SQLTrackerStore).parameters)
    assert parameters - keys == {"domain", "event_broker", "engine"}
    # the factory turns it into a `password`
    assert keys - {"aws_iam"} <= parameters


def test_rasas_variables_hold_for_the_class_as_for_the_factory(monkeypatch):
    monkeypatch.setenv("POSTGRESQL_SCHEMA", "chats")
    monkeypatch.setenv("SQL_POOL_SIZE", "7")
    monkeypatch.setenv("SQL_MAX_OVERFLOW", "0")
    for store in (
        SQLTrackerStore(dialect="postgresql"),
        SQLTrackerStore(host="postgresql://localhost/rasa"),
    ):
        options = store._connector.options
        assert (options.schema, options.pool_size, options.max_overflow) == (
            "chats",
            7,
            0,
        )
    options = SQLTrackerStore(
        dialect="postgresql", schema="mine", pool_size=3, max_overflow=1
    )._connector.options
    assert (options.schema, options.pool_size, options.max_overflow) == ("mine", 3, 1)
    for dialect in ("sqlite", "mysql"):
        assert SQLTrackerStore(dialect=dialect)._connector.options.given() == set()
    monkeypatch.setenv("SQL_POOL_SIZE", "many")
    with pytest.raises(ConfigurationError, match="SQL_POOL_SIZE must be a whole"):
        SQLTrackerStore(dialect="postgresql")


def test_postgresql_deployment_example_makes_a_store(monkeypatch):
    pytest.importorskip("asyncpg", reason="the extra postgresql is not installed")
    monkeypatch.setenv("DB_USER", "rasa")
    monkeypatch.setenv("DB_PASSWORD", "s3cr3t")
    store = load_tracker_store(DATA / "postgresql.yml")
    assert type(store) is SQLTrackerStore
    assert store.backend_name == "postgresql"
    assert "postgres.example.com:5432/rasa_conversations" in repr(store)
    assert "s3cr3t" not in repr(store)


@pytest.mark.parametrize("name", ["rasa_sql_keys.yml", "rasa_sqlite.yml"])
def test_rasas_examples_make_a_store(name):
    if name == "rasa_sql_keys.yml":
        pytest.importorskip("asyncpg", reason="the extra postgresql is not installed")
    assert type(load_tracker_store(DATA / name)) is SQLTrackerStore


@pytest.mark.parametrize(
    ("dialect", "module", "extra"),
    [
        ("postgresql", "asyncpg", "postgresql"),
        ("mysql", "asyncmy", "mysql"),
        ("mariadb", "asyncmy", "mysql"),
        ("oracle", "oracledb", "oracle"),
    ],
)
def test_missing_driver_says_what_to_install(monkeypatch, dialect, module, extra):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as raised:
        create_tracker_store({"type": "sql", "dialect": dialect})
    assert str(raised.value) == (
        f"tracker_store: type sql needs the package '{module}': "
        f"pip install 'tracker-store-async[{extra}]'"
    )


async def write_and_read(path):
    """Save through one store of the file, read through another."""
    async with load_tracker_store(path) as store:
        tracker = await store.get_or_create_tracker("alice")
        tracker.update(SlotSet("city", "Rome"))
        await store.save(tracker)
    async with load_tracker_store(path) as store:
        tracker = await store.retrieve("alice")
        assert tracker.get_slot("city") == "Rome"
        return await store.health()


async def test_sqlite(tmp_path, monkeypatch):
    path = tmp_path / "endpoints.yml"
    path.write_text('tracker_store: {type: SQL, dialect: sqlite, db: "${DIR}/a.db"}')
    monkeypatch.setenv("DIR", str(tmp_path))
    health = await write_and_read(path)
    assert health.backend == "sqlite"
    assert (tmp_path / "a.db").exists()


@pytest.fixture
def postgresql_file(tmp_path, monkeypatch, postgresql_server: PostgreSQLServer):
    """An endpoints file that names a database which does not exist yet."""
    name = f"{DATABASE_PREFIX}{uuid.uuid4().hex}"
    monkeypatch.setenv("DB_HOST", postgresql_server.host)
    monkeypatch.setenv("DB_PORT", str(postgresql_server.port))
    monkeypatch.setenv("DB_USER", postgresql_server.username)
    monkeypatch.setenv("DB_PASSWORD", postgresql_server.password)
    path = tmp_path / "endpoints.yml"
    path.write_text(
        "tracker_store:\n"
        "  type: SQL\n"
        "  dialect: postgresql+psycopg2\n"
        "  url: ${DB_HOST}:${DB_PORT}\n"
        f"  db: {name}\n"
        f"  login_db: {postgresql_server.database or 'postgres'}\n"
        "  username: ${DB_USER}\n"
        "  password: ${DB_PASSWORD}\n"
        "  pool_size: '2'\n"
    )
    yield path
    postgresql_server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def test_postgresql(postgresql_file):
    health = await write_and_read(postgresql_file)
    assert health.backend == "postgresql"


async def test_rasas_schema_variable(postgresql_file, postgresql_server, monkeypatch):
    await write_and_read(postgresql_file)
    monkeypatch.setenv("POSTGRESQL_SCHEMA", "chats")
    store = load_tracker_store(postgresql_file)
    (database,) = re.findall(r"db: (tracker\S+)", postgresql_file.read_text())
    await asyncio.to_thread(postgresql_server.execute, "CREATE SCHEMA chats", database)
    async with store:
        assert await store.retrieve("alice") is None
        await store.create_tracker("bob")
    count = "SELECT count(DISTINCT sender_id) FROM chats.events"
    assert await asyncio.to_thread(postgresql_server.fetch_value, count, database) == 1


async def test_wrong_option_of_the_driver_is_a_clear_error(postgresql_file):
    text = postgresql_file.read_text()
    postgresql_file.write_text(f"{text}  query: {{no_such_option: x}}\n")
    with pytest.raises(ConfigurationError, match="no_such_option"):
        load_tracker_store(postgresql_file)
