"""The grants of `docs/access.md` are enough, and no more: they are read from there."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from tests.conformance.kit import SENDER, add, has_full, said, turn
from tests.conformance.test_rewrite import fill, rewritten
from tests.dynamo_tables import fresh_tables
from tests.servers import fresh_database
from tests.unit.command import run
from tracker_store_async import create_tracker_store, errors
from tracker_store_async.brokers.recording import RecordingBroker
from tracker_store_async.secrets_manager import VaultConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracker_store_async import TrackerStore

PAGE = (Path(__file__).parents[2] / "docs" / "access.md").read_text(encoding="utf-8")


def block(heading: str, label: str) -> str:
    """Return the code block below a heading that begins with a comment."""
    section = PAGE.split(f"\n### {heading}\n")[1].split("\n## ")[0].split("\n### ")[0]
    blocks = re.findall(r"^```\w+\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    [found] = [b for b in blocks if b.splitlines()[0].lstrip("-/# ") == label]
    return found.partition("\n")[2]


def test_the_keys_of_the_secrets_manager_are_documented() -> None:
    table = PAGE.split("| key of `secrets_manager` |")[1].split("\n\n")[0]
    cells = " ".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE))
    named = set(re.findall(r"`([a-z_]+)`", cells))
    assert named - {"url"} == set(VaultConfig.model_fields)


def statements(heading: str, label: str) -> list[str]:
    """Return the SQL statements of a block."""
    return [s.strip() for s in block(heading, label).split(";") if s.strip()]


@dataclass
class Place:
    """An empty database, and what stands for the names in the documentation.

    Attributes:
        server: Its server.
        section: The section of a store that its owner opens.
        names: Name in the documentation to the name here.
    """

    server: Any
    section: dict[str, Any]
    names: dict[str, str]

    def grant(self, heading: str, label: str) -> None:
        """Run a block of SQL as the owner."""
        for statement in statements(heading, label):
            self.server.execute(self.renamed(statement), self.names["rasa"])

    def renamed(self, text: str) -> str:
        """Return a text with the names of here."""
        for name, other in self.names.items():
            text = re.sub(rf"\b{name}\b", other, text)
        return text

    def as_user(self, name: str, password: str, **keys: Any) -> dict[str, Any]:
        """Return the section of a user."""
        login = {"username": self.names[name], "password": password}
        return {**self.section, **login, **keys}

    @property
    def assistant(self) -> dict[str, Any]:
        return self.as_user("assistant", "change-me")

    @property
    def reader(self) -> dict[str, Any]:
        return self.as_user("assistant_reader", "change-me-too")


def new_names(database: str) -> dict[str, str]:
    end = secrets.token_hex(6)
    return {
        "rasa": database,
        "assistant": f"tst_{end}",
        "assistant_reader": f"tst_{end}_r",
    }


@contextmanager
def sql_place(server: Any, dialect: str) -> Iterator[Place]:
    """Give a database whose users are dropped at the end."""
    with fresh_database(server) as database:
        names = new_names(database)
        section = {
            "type": "sql",
            "dialect": dialect,
            "host": server.host,
            "port": server.port,
            "db": database,
            "username": server.username,
            "password": server.password or None,
            "pool_size": 2,
        }
        try:
            yield Place(server, section, names)
        finally:
            for user in (names["assistant"], names["assistant_reader"]):
                if dialect == "mysql":
                    server.execute(f"DROP USER IF EXISTS '{user}'@'%'")
                    continue
                asked = f"SELECT 1 FROM pg_roles WHERE rolname = '{user}'"
                if server.fetch_value(asked, database):
                    server.execute(f"DROP OWNED BY {user}", database)
                    server.execute(f"DROP ROLE {user}", database)


SQL = [
    pytest.param(
        ("postgresql", "PostgreSQL"),
        id="postgresql",
        marks=pytest.mark.backend("postgresql"),
    ),
    pytest.param(
        ("mysql", "MySQL and MariaDB"), id="mysql", marks=pytest.mark.backend("mysql")
    ),
]


async def use(store: TrackerStore) -> None:
    """Do all that a store can do, and leave a conversation behind."""
    await fill(store)
    assert await store._rewrite(await rewritten(store))
    assert "one other" in said(await has_full(store))
    assert await store._delete(SENDER, 2, store._now())
    trackers = [await store.get_or_create_tracker(name) for name in "ab"]
    await store.save_many(trackers)
    assert {each.sender_id async for each in store.conversations()} >= {"a", "b"}
    assert await store.exists("a")
    await store.delete("a")
    await store.delete("b")
    health = await store.health()
    assert health.reachable
    assert health.schema_version


def write_endpoints(folder: Path, section: dict[str, Any]) -> None:
    """Write a file for the command, with a broker that writes a file."""
    given = {key: value for key, value in section.items() if value is not None}
    path = str(folder / "events.log")
    content = {"tracker_store": given, "event_broker": {"type": "file", "path": path}}
    (folder / "endpoints.yml").write_text(json.dumps(content))


async def command(folder: Path, *words: str) -> Any:
    """Run `tracker-store` in a thread: it has a loop of its own."""
    return await asyncio.to_thread(run, *words, cwd=folder)


async def look(folder: Path, section: dict[str, Any]) -> None:
    """See that this is enough for who only looks, and that nothing else is allowed."""
    write_endpoints(folder, section)
    for words in (["show", SENDER], ["list"], ["check"], ["export"]):
        result = await command(folder, *words)
        assert result.returncode == 0, (words, result.stderr)
    assert "0 other" in (folder / "events.log").read_text()
    assert (await command(folder, "delete", SENDER)).returncode != 0
    async with create_tracker_store(section) as store:
        assert (await store.health()).reachable
        with pytest.raises(errors.StoreAccessError) as caught:
            await add(store, SENDER, *turn("a secret"))
        assert "a secret" not in str(caught.value)
        assert await store.exists(SENDER)


async def upgrade(folder: Path, section: dict[str, Any]) -> None:
    """Create the layout as the owner does by the documentation."""
    write_endpoints(folder, section)
    result = await command(folder, "schema", "upgrade")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("kind", SQL)
async def test_sql_without_ddl_and_for_looking(
    kind: tuple[str, str], servers: Any, tmp_path: Path
) -> None:
    dialect, heading = kind
    with sql_place(servers.get(dialect), dialect) as place:
        await upgrade(tmp_path, place.section)
        place.grant(heading, "the assistant")
        async with create_tracker_store(place.assistant) as store:
            await use(store)
        # it may not create anything
        with pytest.raises(errors.TrackerStoreError) as caught:
            await create_tracker_store({**place.assistant, "outbox": True}).open()
        assert isinstance(caught.value, errors.StoreAccessError | errors.SchemaError)
        place.grant(heading, "who only looks")
        await look(tmp_path, place.reader)


@pytest.mark.parametrize("kind", SQL)
async def test_sql_with_an_outbox(
    kind: tuple[str, str], servers: Any, tmp_path: Path
) -> None:
    dialect, heading = kind
    with sql_place(servers.get(dialect), dialect) as place:
        await upgrade(tmp_path, {**place.section, "outbox": True})
        place.grant(heading, "the assistant")
        if dialect == "postgresql":
            place.grant(heading, "the assistant, with an outbox")
        broker = RecordingBroker()
        section = {**place.assistant, "outbox": True}
        async with create_tracker_store(section, event_broker=broker) as store:
            await use(store)
            await add(store, "c", *turn("published"))
            async with asyncio.timeout(20):
                while "c" not in {m.sender_id for m in broker.messages}:
                    await asyncio.sleep(0.01)


@pytest.mark.backend("postgresql")
async def test_an_audit_trail_and_data_keys(
    postgresql_server: Any, tmp_path: Path
) -> None:
    pytest.importorskip("cryptography")
    from tracker_store_async.encryption.keyring import generate_key

    heading = "PostgreSQL"
    with sql_place(postgresql_server, "postgresql") as place:
        database = place.names["rasa"]
        url = postgresql_server.url("postgresql+asyncpg", database)
        keys = {"a": generate_key()}

        def aside(url: str) -> dict[str, Any]:
            encryption = {"keys": keys, "data_keys": url}
            return {"encryption": encryption, "audit": {"sink": "sql", "url": url}}

        await upgrade(tmp_path, {**place.section, **aside(url)})
        for label in ("", ", with an audit trail", ", with data keys"):
            place.grant(heading, f"the assistant{label}")
        host = f"{postgresql_server.host}:{postgresql_server.port}"
        login = f"{place.names['assistant']}:change-me"
        url = f"postgresql+asyncpg://{login}@{host}/{database}"
        async with create_tracker_store({**place.assistant, **aside(url)}) as store:
            await use(store)
            sink = store._trail.sink  # type: ignore[attr-defined]
            for change in ("DELETE FROM audit_trail", "UPDATE audit_trail SET seq = 0"):
                async with sink._engine.connect() as connection:
                    with pytest.raises(ProgrammingError, match="permission denied"):
                        await connection.execute(text(change))


async def test_redis(redis_server: Any, tmp_path: Path) -> None:
    prefix = secrets.token_hex(6)
    names = {**new_names("chats"), "chats": prefix}
    section = {
        "type": "redis",
        "host": redis_server.host,
        "port": redis_server.port,
        "key_prefix": prefix,
    }
    place = Place(redis_server, section, names)
    with redis_server.client() as admin:
        try:
            for label in ("the assistant", "who only looks"):
                admin.execute_command(*place.renamed(block("Redis", label)).split())
            async with create_tracker_store(place.assistant) as store:
                await use(store)
                for sender_id in ("a{b}c", "{}", "x}y"):
                    await add(store, sender_id, *turn())
                    assert await store.exists(sender_id)
                    await store.delete(sender_id)
            await look(tmp_path, place.reader)
            other = create_tracker_store({**place.assistant, "key_prefix": "other"})
            with pytest.raises(errors.StoreAccessError):
                await other.open()
        finally:
            admin.delete(*admin.scan_iter(match=f"*{prefix}:*"))
            users = [names["assistant"], names["assistant_reader"]]
            admin.execute_command("ACL", "DELUSER", *users)


def mongo_command(label: str) -> dict[str, Any]:
    """Return a command of the documentation, which is JavaScript there."""
    text = re.sub(r"([{,]\s*)(\w+):", r'\1"\2":', block("MongoDB", label))
    return dict(json.loads(text))


async def try_mongodb(server: Any, folder: Path) -> None:
    """Give users the roles and see what they can do, on a server that wants a login."""
    with server.client() as client:
        for name, password, label in (
            ("assistant", "change-me", "the assistant"),
            ("assistant_reader", "change-me-too", "who only looks"),
        ):
            client.admin.command(mongo_command(label))
            user = f"{name}_user"
            client.admin.command("createUser", user, pwd=password, roles=[name])
    section = {
        "type": "mongod",
        "host": f"mongodb://{server.host}:{server.port}",
        "username": server.username,
        "password": server.password,
    }
    async with create_tracker_store(section):
        pass
    names = {"assistant": "assistant_user", "assistant_reader": "assistant_reader_user"}
    place = Place(server, section, names)
    async with create_tracker_store(place.assistant) as store:
        await use(store)
    await look(folder, place.reader)


@pytest.mark.backend("dynamo")
async def test_dynamodb_is_asked_for_nothing_that_the_policy_lacks(
    dynamo_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tracker_store_async.backends.dynamo.client import Client

    asked: set[tuple[str, str]] = set()
    send = Client._send

    async def noted(client: Client, operation: str, parameters: Any) -> Any:
        asked.update(actions_of(operation, parameters))
        return await send(client, operation, parameters)

    async with fresh_tables(dynamo_server) as tables:
        await tables.create_rasas()
        await tables.put_rasas({"sender_id": {"S": "old"}, "events": {"L": []}})
        async with tables.store():
            pass  # its owner has made the table
        monkeypatch.setattr(Client, "_send", noted)
        async with tables.store(record_exp=3600, delete_rasa_data=True) as store:
            await add(store, "old", *turn())
            await use(store)
        allowed = {
            (table.rpartition("/")[2], action.partition(":")[2])
            for statement in json.loads(block_of_json())["Statement"]
            for table in as_list(statement["Resource"])
            for action in statement["Action"]
            if "/index/" not in table
        }
        names = {tables.rasas: "states", tables.ours: "states_events"}
        found = {(names[table], action) for table, action in asked}
        assert found - allowed == set()
        assert {action for _, action in found} >= {"PutItem", "Query", "DescribeTable"}


def block_of_json() -> str:
    """Return the policy."""
    section = PAGE.split("\n### DynamoDB\n")[1]
    return section.partition("```json\n")[2].partition("```")[0]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def actions_of(operation: str, parameters: dict[str, Any]) -> set[tuple[str, str]]:
    """Return table and action of each thing that a request does."""
    if "TransactItems" in parameters:
        names = {
            "Get": "GetItem",
            "Put": "PutItem",
            "Update": "UpdateItem",
            "Delete": "DeleteItem",
            "ConditionCheck": "ConditionCheckItem",
        }
        return {
            (request["TableName"], names[kind])
            for item in parameters["TransactItems"]
            for kind, request in item.items()
        }
    action = "".join(word.title() for word in operation.split("_"))
    tables = parameters.get("RequestItems") or [parameters["TableName"]]
    return {(table, action) for table in tables}
