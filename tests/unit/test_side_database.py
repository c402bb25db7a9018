"""The databases beside the conversations: of the audit trail, and of data keys."""

from __future__ import annotations

import asyncio
import sqlite3
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
                    (errors.AuditError, errors.StoreUnavailableError), match="Timeout"
                ):
                    await use(store)
            proxy.unfreeze()
            monkeypatch.undo()
            await use(store)
            await store.close()
