"""The databases beside the conversations: of the audit trail, and of data keys."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

pytest.importorskip("cryptography")

from tracker_store_async import errors, side_database
from tracker_store_async.auditing import sql
from tracker_store_async.auditing.chain import Chain
from tracker_store_async.auditing.sql import SQLSink
from tracker_store_async.encryption import data_keys
from tracker_store_async.encryption.data_keys import SQLDataKeys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import MetaData

SECRET = "hunter2"

EACH = pytest.mark.parametrize(
    ("make", "metadata"),
    [
        (lambda url: SQLSink(url, Chain()), sql.TABLE.metadata),
        (SQLDataKeys, data_keys.TABLE.metadata),
    ],
    ids=["audit", "data keys"],
)

OURS = (errors.AuditError, errors.StoreUnavailableError)


async def said_on_opening(store: Any) -> str:
    """Return what the error says that opening raises."""
    with pytest.raises(OURS) as caught:
        await store.open()
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is not None
    return str(caught.value)


@EACH
async def test_a_table_that_another_process_creates_meanwhile_is_used(
    make: Callable[[str], Any], metadata: MetaData, tmp_path: Path
) -> None:
    def create_it_first(*args: Any, tables: Any = (), **kwargs: Any) -> None:
        for each in tables:
            other = sqlite3.connect(tmp_path / "side.db")
            other.execute(f"CREATE TABLE {each.name} (seq, record, key_id, wrapped)")
            other.close()

    event.listen(metadata, "before_create", create_it_first)
    store = make(f"sqlite+aiosqlite:///{tmp_path / 'side.db'}")
    try:
        await store.open()
    finally:
        event.remove(metadata, "before_create", create_it_first)
        await store.close()


@EACH
@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@h/x",
        f"postgresql+asyncpg://me@h:{SECRET}/x",
        SECRET,
    ],
)
def test_what_is_no_url_is_refused_and_not_shown(
    make: Callable[[str], Any], metadata: MetaData, url: str
) -> None:
    with pytest.raises(errors.ConfigurationError, match="asyncio driver") as caught:
        make(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@EACH
async def test_a_server_that_is_away_says_what_to_check(
    make: Callable[[str], Any], metadata: MetaData
) -> None:
    pytest.importorskip("asyncpg", reason="the extra postgresql is not installed")
    said = await said_on_opening(
        make(f"postgresql+asyncpg://me:{SECRET}@127.0.0.1:1/x")
    )
    option = sql.OPTION if make is not SQLDataKeys else data_keys.OPTION
    assert said.startswith(
        f"the database of {option} (postgresql at 127.0.0.1:1/x) cannot be reached: "
        "check host and port, and that the server runs ("
    )


def test_a_file_that_cannot_be_made_says_what_to_check() -> None:
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = 14
    url = side_database.parse_url("sqlite+aiosqlite:///no/a.db", sql.OPTION, "")
    said = side_database.explain(error, sql.OPTION, url)
    assert said == (
        "the database of audit.url (sqlite database no/a.db) cannot be reached: check "
        "the path, the rights on the file and its folder, and the disk (unable to open "
        "database file, code 14)"
    )
    unknown = side_database.explain(OverflowError(SECRET), sql.OPTION, url)
    assert SECRET not in unknown


@EACH
@pytest.mark.backend("mysql")
async def test_a_refused_login_says_what_to_check(
    make: Callable[[str], Any], metadata: MetaData, mysql_server: Any
) -> None:
    host = f"{mysql_server.host}:{mysql_server.port}"
    said = await said_on_opening(make(f"mysql+asyncmy://nosuch:{SECRET}@{host}/x"))
    assert ": check username, password and grants (" in said


async def test_what_cannot_be_verified_is_not_called_written(tmp_path: Path) -> None:
    from tests.unit.command import error_of

    pytest.importorskip("asyncpg", reason="the extra postgresql is not installed")
    url = f"postgresql+asyncpg://me:{SECRET}@127.0.0.1:1/x"
    audit = {"sink": "sql", "url": url}
    content = {"tracker_store": {"type": "sql", "db": "x.db", "audit": audit}}
    (tmp_path / "endpoints.yml").write_text(json.dumps(content))
    words = ("audit", "verify", "--endpoints", "endpoints.yml")
    said = await asyncio.to_thread(error_of, *words, cwd=tmp_path, code=1)
    assert "cannot be reached: check host and port" in said
    assert "written" not in said
    assert SECRET not in said


async def test_a_trail_that_goes_while_it_is_read(tmp_path: Path) -> None:
    sink = SQLSink(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}", Chain())
    await sink.open()
    with closing(sqlite3.connect(tmp_path / "a.db")) as other:
        other.execute("DROP TABLE audit_trail")
    with pytest.raises(errors.AuditError, match="lacks a table"):
        [line async for line in sink.read()]
    await sink.close()


@EACH
@pytest.mark.backend("postgresql")
async def test_a_database_that_does_not_answer_is_not_waited_for(
    make: Callable[[str], Any],
    metadata: MetaData,
    postgresql_server: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.faults.proxy import FaultProxy
    from tests.servers import fresh_database

    def use(store: Any) -> Any:
        return (
            store.write([{"id": "x"}]) if store.__class__ is SQLSink else store.get("")
        )

    there = postgresql_server
    with fresh_database(there) as name:
        async with FaultProxy(there.host, there.port) as proxy:
            url = there.url("postgresql+asyncpg", name)
            url = url.replace(
                f"{there.host}:{there.port}", f"{proxy.host}:{proxy.port}"
            )
            assert str(proxy.port) in url
            store = make(url)
            await store.open()
            await use(store)
            monkeypatch.setattr(side_database, "ANSWER_SECONDS", 0.2)
            proxy.freeze()
            async with asyncio.timeout(10):
                with pytest.raises(
                    OURS,
                    match="did not answer in time",
                ):
                    await use(store)
            proxy.unfreeze()
            monkeypatch.undo()
            await use(store)
            await store.close()
