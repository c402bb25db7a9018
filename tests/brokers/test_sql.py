"""What only the SQL broker has: a table that Rasa created, and one that is not its."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from functools import partialmethod
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from sqlalchemy import MetaData, inspect

from tests import sql_databases
from tests.brokers.kit import batch, message
from tracker_store_async import (
    EndpointConfig,
    SQLTrackerStore,
    create_event_broker,
    errors,
)
from tracker_store_async.brokers import sql
from tracker_store_async.brokers.sql import SQLEventBroker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Servers

RASAS = (
    "CREATE TABLE events (id INTEGER PRIMARY KEY, sender_id VARCHAR(255), data TEXT)"
)


async def test_a_table_of_rasa_is_used_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    connection = sqlite3.connect(path)
    connection.execute(RASAS)
    connection.execute("INSERT INTO events (sender_id, data) VALUES ('x', '{}')")
    connection.commit()
    broker = SQLEventBroker(db=str(path))
    events = batch("alice", 0)
    await broker.publish_many(events)
    await broker.close()
    rows = connection.execute("SELECT * FROM events ORDER BY id").fetchall()
    connection.close()
    assert rows[0] == (1, "x", "{}")
    assert rows[1:] == [
        (n, "alice", json.dumps(each.body)) for n, each in enumerate(events, 2)
    ]


async def test_the_table_of_a_tracker_store_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "rasa.db")
    async with SQLTrackerStore(db=path):
        pass
    broker = SQLEventBroker(db=path)
    with pytest.raises(errors.BrokerAccessError, match="name another 'db'"):
        await broker.publish_many(batch("alice", 0))
    await broker.close()


@pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"])
async def test_who_finds_no_table_and_is_overtaken_uses_the_others(
    database: str, channel_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = channel_of(database)
    channel.renew()
    await channel.broker().open()
    found = [Mock(has_table=Mock(return_value=False))]
    monkeypatch.setattr(
        sql, "inspect", lambda connection: found.pop() if found else inspect(connection)
    )
    create = partialmethod(MetaData.create_all, checkfirst=False)
    monkeypatch.setattr(MetaData, "create_all", create)
    late = channel.broker(connection_attempts=1)
    await late.publish_many(batch("alice", 0))
    assert not found
    assert len(await channel.read()) == 4
    await channel.close()


@pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"])
async def test_six_may_open_at_once(database: str, channel_of: Any) -> None:
    channel = channel_of(database)
    channel.renew()
    brokers = [channel.broker(connection_attempts=1) for _ in range(6)]
    await asyncio.gather(*(broker.open() for broker in brokers))
    await channel.close()


async def test_it_gives_up_after_as_many_attempts_as_are_configured() -> None:
    options = {"connection_attempts": 2, "retry_delay_in_seconds": 0.01}
    section = {"type": "sql", "dialect": "postgresql", "url": "127.0.0.1", "port": 1}
    broker = create_event_broker(EndpointConfig(**section, **options))
    assert isinstance(broker, SQLEventBroker)
    attempts, connect = 0, broker._connect

    async def counted() -> Any:
        nonlocal attempts
        attempts += 1
        return await connect()

    broker._connect = counted  # type: ignore[method-assign]
    with pytest.raises(errors.BrokerUnavailableError):
        await broker.open()
    assert attempts == 2
    await broker.close()


@pytest.mark.backend("mysql")
async def test_an_event_longer_than_mysql_takes_refuses_that_event_alone(
    servers: Servers, tmp_path: Path
) -> None:
    with sql_databases.database("mysql", servers, tmp_path) as target:
        [[limit]] = await target.arun("SELECT @@max_allowed_packet")
        given = {k: v for k, v in target.options.items() if k != "pgbouncer"}
        broker = SQLEventBroker(**given, timeout_seconds=10)
        large = message("alice", 1, text="x" * int(limit))
        results = await asyncio.gather(
            broker.publish_many([message("alice", 0), large]),
            broker.publish_many(batch("bob", 0)),
            return_exceptions=True,
        )
        assert isinstance(results[0], errors.BrokerRefusedError)
        assert "max_allowed_packet" in str(results[0])
        assert results[1] is None
        assert broker.connections == 1
        await broker.close()
