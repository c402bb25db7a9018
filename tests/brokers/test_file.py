"""What only the file broker has: Rasa's layout, rotation, and lines that are whole."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.brokers.kit import batch, message
from tracker_store_async import errors
from tracker_store_async.brokers import file as file_broker
from tracker_store_async.brokers.file import FileEventBroker

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_line_is_rasas_message(tmp_path: Path) -> None:
    path = tmp_path / "events.log"
    events = [message("alice", 0, text="ż\n"), message("alice", 1)]
    await FileEventBroker(path).publish_many(events)
    # Rasa: `json.dumps(event)`, one a line
    expected = "".join(json.dumps(each.body) + "\n" for each in events)
    assert path.read_text() == expected


async def test_a_file_that_is_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.log"
    broker = FileEventBroker(path)
    await broker.publish_many(batch("alice", 0, 2))
    path.rename(tmp_path / "events.log.1")
    await broker.publish_many(batch("alice", 2, 3))
    assert len((tmp_path / "events.log.1").read_text().splitlines()) == 2
    assert len(path.read_text().splitlines()) == 3


async def test_half_a_line_of_a_crash_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "events.log"
    path.write_text('{"sender_id": "al')
    await FileEventBroker(path).publish(message("alice", 0))
    half, whole = path.read_text().splitlines()
    assert half == '{"sender_id": "al'
    assert json.loads(whole)["position"] == 0


async def test_a_full_disk_leaves_no_part_of_a_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.log"
    broker = FileEventBroker(path)
    await broker.publish_many(batch("alice", 0, 2))
    before = path.read_bytes()

    def full(file: int, data: bytes) -> None:
        os.write(file, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(file_broker, "_write", full)
        with pytest.raises(errors.BrokerUnavailableError, match="No space left"):
            await broker.publish_many(batch("alice", 2, 2))
    assert path.read_bytes() == before
    await broker.publish_many(batch("alice", 2, 2))
    assert len(path.read_text().splitlines()) == 4


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
async def test_a_directory_that_cannot_be_synced_doubles_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Without the right to read it, the whole system is synced in its place."""
    path, open_file, synced = tmp_path / "events.log", os.open, []

    def refused(what: Any, *arguments: Any) -> int:
        if what == tmp_path:
            raise OSError(code, os.strerror(code))
        return open_file(what, *arguments)

    monkeypatch.setattr(os, "open", refused)
    monkeypatch.setattr(os, "sync", lambda: synced.append(path.read_text()))
    broker = FileEventBroker(path)
    if code == errno.EACCES:
        await broker.publish(message("alice", 0))
        assert synced == [""]  # before anything is written
    else:
        with pytest.raises(errors.BrokerUnavailableError, match="Input/output"):
            await broker.publish(message("alice", 0))
        assert path.read_text() == ""
        monkeypatch.setattr(os, "open", open_file)
        await broker.publish(message("alice", 0))
    assert len(path.read_text().splitlines()) == 1


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    broker = FileEventBroker(tmp_path / "missing" / "events.log")
    with pytest.raises(errors.BrokerUnavailableError, match="check the directory"):
        await broker.open()


async def test_a_slow_disk_is_given_up_in_time_and_keeps_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    path, go_on = tmp_path / "events.log", threading.Event()
    append_whole = file_broker.append_whole

    def slow(path: Path, data: bytes, fsync: bool) -> None:
        assert go_on.wait(10)
        append_whole(path, data, fsync)

    monkeypatch.setattr(file_broker, "append_whole", slow)
    broker = FileEventBroker(path, timeout_seconds=0.05)
    with pytest.raises(errors.BrokerUnavailableError, match="took nothing within"):
        await broker.publish_many(batch("alice", 0, 2))
    go_on.set()
    broker.timeout_seconds = 5
    await broker.publish_many(batch("alice", 0, 2))
    await asyncio.wait_for(broker.close(), 5)
    positions = [json.loads(line)["position"] for line in path.read_text().splitlines()]
    assert positions == [0, 1, 0, 1]
