"""The command on a server, and on a store that somebody else wrote."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from uuid import uuid4

import pytest

from tests.servers import fresh_database
from tests.unit.command import (
    TIMEOUT_SECONDS,
    command_line,
    environment,
    error_of,
    output_of,
    run,
    started,
)
from tracker_store_async import DialogueStateTracker, SQLTrackerStore
from tracker_store_async.events import UserUttered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.servers import PostgreSQLServer

PASSWORD = "s3cret-%40"  # as it stands in a URL
COUNT_TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"


@pytest.fixture
def url(postgresql_server: PostgreSQLServer) -> Iterator[str]:
    """The URL of an empty database, with a password in it."""
    with fresh_database(postgresql_server) as name:
        url = postgresql_server.url("postgresql", name)
        if not postgresql_server.password:
            url = url.replace("@", f":{PASSWORD}@", 1)
        yield url


@pytest.fixture
def count_tables(postgresql_server: PostgreSQLServer, url: str) -> Callable[[], int]:
    """Ask the server how many tables there are."""
    name = url.rpartition("/")[2]
    return lambda: int(postgresql_server.fetch_value(COUNT_TABLES, name))


def fill(url: str) -> None:
    async def work() -> None:
        async with SQLTrackerStore(host=url) as store:
            tracker = DialogueStateTracker.from_events("alice", [UserUttered("hello")])
            await store.save(tracker)

    asyncio.run(work())


def test_looking_at_an_empty_database_creates_nothing(
    url: str, tmp_path: Path, count_tables: Callable[[], int]
) -> None:
    env = {"TRACKER_STORE_URL": url}
    for command in ("show alice", "list", "keys"):
        text = error_of(*command.split(), cwd=tmp_path, code=1, env=env)
        assert "there are no tables yet" in text
    for command in ("check", "schema status"):
        result = run(*command.split(), cwd=tmp_path, env=env)
        assert (result.returncode, result.stderr) == (0, "")
        assert "not created: the first use of the store creates it" in result.stdout
    assert count_tables() == 0


def test_looking_does_not_create_a_database(url: str, tmp_path: Path) -> None:
    """`login_db` lets a store create its database; looking must not."""
    missing = f"{url}_missing"
    config = {"type": "sql", "url": missing, "login_db": "postgres"}
    (tmp_path / "endpoints.yml").write_text(json.dumps({"tracker_store": config}))
    for _ in range(2):
        text = error_of("check", cwd=tmp_path, code=1)
        assert "has no such database" in text


@pytest.mark.parametrize("command", ["schema upgrade", "schema upgrade --sql"])
def test_a_schema_that_is_not_there_is_told(
    url: str, tmp_path: Path, command: str
) -> None:
    config = {"type": "sql", "url": url, "schema": "nosuch"}
    (tmp_path / "endpoints.yml").write_text(json.dumps({"tracker_store": config}))
    assert error_of(*command.split(), cwd=tmp_path, code=1) == (
        "the schema 'nosuch' does not exist: create it with CREATE SCHEMA, or check "
        "`schema` and the environment variable POSTGRESQL_SCHEMA"
    )


def test_a_database_is_created_and_shown(
    url: str, tmp_path: Path, count_tables: Callable[[], int]
) -> None:
    env = {"TRACKER_STORE_URL": url}
    result = run("schema", "upgrade", cwd=tmp_path, env=env)
    assert result.returncode == 0
    assert count_tables() == 3
    fill(url)
    for command, expected in {
        "keys": "^alice$",
        "list": "^alice +1  ",
        "show alice": "user +hello$",
        "check": r"^server +postgresql .*\d",
        "schema status": r"^layout +current \(1\)$",
    }.items():
        result = run(*command.split(), cwd=tmp_path, env=env)
        assert (result.returncode, result.stderr) == (0, "")
        assert re.search(expected, result.stdout, re.MULTILINE)


def test_no_command_prints_the_password(url: str, tmp_path: Path) -> None:
    fill(url)
    password = re.findall(r":([^:/@]+)@", url)[0]
    broken = re.sub(r":\d+/", ":1/", url)
    for command in ("keys", "list", "show alice", "show nobody", "check"):
        for given in (url, broken, f"{url}?sslmode={password}"):
            for options, env in (
                (["--url", given], {}),
                ([], {"TRACKER_STORE_URL": given}),
            ):
                result = run(*command.split(), *options, cwd=tmp_path, env=env)
                for secret in (password, unquote(password)):
                    assert secret not in result.stdout + result.stderr


# -- a store of somebody else ----------------------------------------------------------

ENDLESS = """
from tracker_store_async import ConversationSummary, InMemoryTrackerStore

class EndlessStore(InMemoryTrackerStore):
    backend_name = "endless"

    async def _list(self, listing):
        start = int(listing.after or -1) + 1
        return [
            ConversationSummary(f"c{n}", 1, 0.0, 0.0, None, str(n))
            for n in range(start, start + listing.limit)
        ]
"""


@pytest.mark.parametrize("command", ["keys", "list --limit 0", "list --limit 0 --json"])
def test_lists_are_streamed(tmp_path: Path, command: str) -> None:
    """Of a list without an end, the beginning comes all the same."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    (tmp_path / "endpoints.yml").write_text(
        "tracker_store: {type: endless.EndlessStore}"
    )
    env = environment(PYTHONPATH=str(tmp_path))
    with started([*command_line(), *command.split()], tmp_path, env=env) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.stdout.close()
        assert process.wait(TIMEOUT_SECONDS) == 141
    assert "c1" in lines[-2] + lines[-1]


BROKEN = """
from tracker_store_async import InMemoryTrackerStore

class BrokenStore(InMemoryTrackerStore):
    def __init__(self, *arguments, password, **options):
        raise RuntimeError(f"cannot log in with {password}")
"""


@pytest.mark.parametrize(
    ("code", "raised"),
    [(BROKEN, "RuntimeError"), ("1 / 0", "ZeroDivisionError"), ("(", "SyntaxError")],
)
def test_a_broken_store_of_ones_own_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, raised: str
) -> None:
    (tmp_path / "broken_store.py").write_text(code)
    (tmp_path / "endpoints.yml").write_text(
        "tracker_store: {type: broken_store.BrokenStore, password: s3cret}"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    text = error_of("check", cwd=tmp_path, code=2)
    sys.modules.pop("broken_store", None)
    assert "broken_store.BrokenStore" in text
    assert text.endswith(raised)
    assert "s3cret" not in text


def test_a_store_of_ones_own_can_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    (tmp_path / "endpoints.yml").write_text(
        "tracker_store: {type: endless.EndlessStore}"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = output_of("check", cwd=tmp_path)
    assert lines[0].split() == ["store", "endpoints.yml", "(endless.EndlessStore)"]
    assert not any(line.startswith("layout") for line in lines)  # nobody knows
    [first] = output_of("list", "--limit", "1", "--json", cwd=tmp_path)
    assert json.loads(first)["sender_id"] == "c0"
    sys.modules.pop("endless")


# -- looking changes nothing, on any server --------------------------------------------


def layout_in(lines: list[str]) -> str:
    return dict(line.split(maxsplit=1) for line in lines)["layout"]


def test_looking_at_redis_writes_no_key(tmp_path: Path, redis_server: Any) -> None:
    prefix = f"look{uuid4().hex[:8]}"
    (tmp_path / "endpoints.yml").write_text(
        f"tracker_store: {{type: redis, host: {redis_server.host},"
        f" port: {redis_server.port}, key_prefix: {prefix}}}"
    )
    assert output_of("keys", cwd=tmp_path) == []
    lines = output_of("check", cwd=tmp_path)
    assert "redis" in "".join(lines)
    assert layout_in(lines) == "not created: the first use of the store creates it"
    with redis_server.client() as client:
        assert list(client.scan_iter(match=f"*{prefix}*")) == []
    output_of("schema", "upgrade", cwd=tmp_path)
    assert layout_in(output_of("check", cwd=tmp_path)) == "current (2)"
    with redis_server.client() as client:
        client.delete(*client.scan_iter(match=f"*{prefix}*"))


def test_looking_at_mongodb_creates_no_collection(
    tmp_path: Path, mongo_server: Any
) -> None:
    with fresh_database(mongo_server) as name:
        (tmp_path / "endpoints.yml").write_text(
            f"tracker_store: {{type: mongod, url: '{mongo_server.url()}', db: {name}}}"
        )
        assert output_of("keys", cwd=tmp_path) == []
        lines = output_of("check", cwd=tmp_path)
        assert "mongo" in "".join(lines)
        assert layout_in(lines) == "not created: the first use of the store creates it"
        pymongo = pytest.importorskip("pymongo")
        with pymongo.MongoClient(mongo_server.url()) as client:
            assert client[name].list_collection_names() == []
