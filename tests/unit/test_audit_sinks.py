"""Sinks of the audit trail: what they refuse, get over, and do not let pass."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.kit import SENDER, add, turn
from tests.unit.test_audited import ListSink
from tracker_store_async import InMemoryTrackerStore, errors
from tracker_store_async.auditing.chain import Chain, verify
from tracker_store_async.auditing.sinks import (
    TAIL_BYTES,
    FileSink,
    LoggerSink,
    audit_logger,
    read_file,
)
from tracker_store_async.auditing.sql import SQLSink
from tracker_store_async.wrappers.audited import AuditedTrackerStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "a key of the chain"
RECORD = {"id": "x", "actor": "a", "action": "read", "sender_id": SENDER}


# -- a file ----------------------------------------------------------------------------


async def test_a_record_of_any_length_is_followed_by_others(tmp_path: Path) -> None:
    """Else whoever lists with a long user id ends every access of everybody."""
    path = tmp_path / "audit.jsonl"
    store = AuditedTrackerStore(InMemoryTrackerStore(), FileSink(str(path), Chain()))
    async for _ in store.conversations(user_id="u" * 3 * TAIL_BYTES):
        pass
    await store.retrieve(SENDER)
    await store.close()
    with path.open("ab") as file:
        file.write(b'{"half":"' + b"x" * 2 * TAIL_BYTES)  # a crash
    sink = FileSink(str(path), Chain())
    await sink.write([RECORD])
    found = verify(read_file(path), Chain())
    assert (found.problems, found.records) == ([], 3)


# -- what is no record -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"actor":"a"', b'"actor":"mallory","actor":"a"'),
        (b'{"seq"', b'{ "seq"'),
        (b'"a"', b'"\\u0061"'),
    ],
)
def test_a_line_that_says_more_to_others_was_edited(old: bytes, new: bytes) -> None:
    record, _ = Chain(KEY).link(RECORD, verify([], Chain()).head)
    line = json.dumps(record, separators=(",", ":")).encode()
    assert verify([line + b"\n"], Chain(KEY)).is_intact
    assert line != line.replace(old, new)
    assert not verify([line.replace(old, new)], Chain(KEY)).is_intact


@pytest.mark.parametrize(
    "line",
    [
        b'{"seq":"x","previous":"","hash":""}',
        '{"seq":1,"previous":"","hash":"\u00e9"}'.encode(),
        b'{"seq":1,"previous":"","hash":1}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_whatever_stands_there_is_named_and_not_raised(line: bytes) -> None:
    assert verify([line, line], Chain(KEY)).problems


# -- a table ---------------------------------------------------------------------------


def table(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


async def test_a_row_before_the_first_one_is_found(tmp_path: Path) -> None:
    sink = SQLSink(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}", Chain(KEY))
    await sink.open()
    await sink.write([RECORD])
    assert verify([line async for line in sink.read()], Chain(KEY)).is_intact
    table(tmp_path / "a.db", "INSERT INTO audit_trail VALUES (-5, '{}')")
    assert not verify([line async for line in sink.read()], Chain(KEY)).is_intact
    await sink.close()


@pytest.mark.parametrize("text", ["garbage", "{}", "[]"])
async def test_a_table_that_somebody_spoilt_is_not_written_to(
    tmp_path: Path, text: str
) -> None:
    sink = SQLSink(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}", Chain())
    await sink.open()
    await sink.write([RECORD])
    table(tmp_path / "a.db", f"UPDATE audit_trail SET record = '{text}'")
    with pytest.raises(errors.AuditError, match="no record"):
        await sink.write([RECORD])
    await sink.close()
    with pytest.raises(errors.AuditError, match="no record"):
        await sink.open()


# -- a logger --------------------------------------------------------------------------


@pytest.fixture
def logger_as_it_is_at_first() -> Iterator[None]:
    level, disabled = audit_logger.level, audit_logger.disabled
    audit_logger.setLevel(logging.NOTSET)
    yield
    audit_logger.setLevel(level)
    audit_logger.disabled = disabled


@pytest.mark.usefixtures("logger_as_it_is_at_first")
async def test_a_logger_that_nobody_has_set_up_gets_records(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = AuditedTrackerStore(InMemoryTrackerStore(), LoggerSink(Chain()))
    await add(store, SENDER, *turn("x"))
    await store.close()
    lines = [r.getMessage() for r in caplog.records if r.name.endswith(".audit")]
    found = verify(lines, Chain())
    assert found.is_intact
    assert found.records > 1


@pytest.mark.usefixtures("logger_as_it_is_at_first")
async def test_what_logging_would_drop_is_not_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inner = InMemoryTrackerStore()
    store = AuditedTrackerStore(inner, LoggerSink(Chain()))
    await add(store, SENDER, *turn("x"))
    audit_logger.disabled = True  # as logging.config leaves it
    with pytest.raises(errors.AuditError, match="disable_existing_loggers"):
        await store.delete(SENDER)
    audit_logger.disabled = False
    audit_logger.setLevel(logging.WARNING)
    with pytest.raises(errors.AuditError, match="INFO"):
        await store.retrieve(SENDER)
    audit_logger.setLevel(logging.INFO)
    monkeypatch.setattr(audit_logger, "propagate", False)
    with pytest.raises(errors.AuditError, match="handler"):
        await store.retrieve(SENDER)
    assert await inner.exists(SENDER)
    await store.close()


# -- on a server -----------------------------------------------------------------------


@pytest.fixture
async def sinks(postgresql_server: Any) -> Any:
    from tests.servers import fresh_database

    with fresh_database(postgresql_server) as name:
        url = postgresql_server.url("postgresql+asyncpg", name)
        sinks = [SQLSink(url, Chain()) for _ in range(6)]
        yield sinks
        await asyncio.gather(*(sink.close() for sink in sinks))


@pytest.mark.backend("postgresql")
async def test_processes_that_begin_together_create_one_table(
    sinks: Any,
) -> None:
    await asyncio.gather(*(sink.open() for sink in sinks))
    await asyncio.gather(*(sink.write([RECORD]) for sink in sinks))
    assert verify([line async for line in sinks[0].read()], Chain()).records == len(
        sinks
    )


@pytest.mark.backend("postgresql")
async def test_a_connection_that_the_server_has_ended_is_replaced(
    sinks: Any,
) -> None:
    from sqlalchemy import text

    one, other, *_ = sinks
    await one.open()
    await other.open()
    async with other._engine.begin() as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
                "datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    await one.write([RECORD])
    assert verify([line async for line in other.read()], Chain()).records == 1


# -- in a store ------------------------------------------------------------------------


async def test_health_says_that_nothing_is_recorded() -> None:
    sink = ListSink()
    store = AuditedTrackerStore(InMemoryTrackerStore(), sink)
    assert (await store.health()).details["audit"]["error"] is None
    sink.is_full = True
    with pytest.raises(errors.AuditError):
        await store.retrieve(SENDER)
    assert "disk is full" in (await store.health()).details["audit"]["error"]
    sink.is_full = False
    await store.retrieve(SENDER)
    assert (await store.health()).details["audit"]["error"] is None
    await store.close()


async def test_a_batch_that_is_cancelled_before_it_is_sent_says_so() -> None:
    class Slow(ListSink):
        async def write(self, records: Any) -> None:
            await asyncio.sleep(0.05)
            await super().write(records)

    sink = Slow()
    store = AuditedTrackerStore(InMemoryTrackerStore(), sink)
    trackers = [store.init_tracker(f"c{number}") for number in range(2)]
    for tracker in trackers:
        cursor = tracker._log
        cursor.version, cursor.store, cursor.sender_id = 0, store, tracker.sender_id
        tracker.update(turn("x")[0])
    await store.open()
    saving = asyncio.ensure_future(store.save_many(trackers))
    await asyncio.sleep(0.02)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    await store.close()
    records = [json.loads(line) for line in sink.lines]
    asked = [record["id"] for record in records if "of" not in record]
    outcomes = {r["of"]: r["outcome"] for r in records if "of" in r}
    assert outcomes == dict.fromkeys(asked, "CancelledError")
    assert len(asked) == 2
