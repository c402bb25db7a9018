"""`tracker-store export` to a real broker: confirmed, and resumed after a kill."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.brokers.kit import seen
from tests.moving.kit import fill
from tests.unit.command import environment, run
from tracker_store_async import SQLTrackerStore
from tracker_store_async.rows import Read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.brokers.channels import Channel

SIZES = {"alice": 3, "bob": 450, "carol": 24}
FROM, BEFORE = 1_700_000_005, 1_700_000_010  # five events of those who have so many

# Dies right after the broker has confirmed so many pages, before that is remembered.
PROGRAM = """
import os, signal, sys
from tracker_store_async.cli import main
from tracker_store_async.moving import exporting, state

state.SAVE_SECONDS = 0.0
left, publish = [int(sys.argv.pop(1))], exporting._Export._publish

async def dying(self, sender_id, messages):
    await publish(self, sender_id, messages)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

exporting._Export._publish = dying
main()
"""


@pytest.fixture
async def channel(channel_of: Callable[..., Channel]) -> AsyncIterator[Any]:
    """Give an empty queue of a real RabbitMQ, the broker that Rasa has."""
    channel = channel_of("rabbitmq")
    channel.renew()
    yield channel
    await channel.close()


@pytest.fixture
async def everything(tmp_path: Path, channel: Any) -> dict[str, list[Any]]:
    """Give what is stored, beside an endpoints.yml that names store and broker."""
    server = channel.server
    broker = {
        "type": "pika",
        "url": server.host,
        "port": server.port,
        "username": server.username,
        "password": server.password,
        "queues": [channel.name],
        "exchange_name": f"{channel.name}_exchange",
    }
    store = {"type": "sql", "dialect": "sqlite", "db": "chats.db"}
    sections = {"tracker_store": store, "event_broker": broker}
    (tmp_path / "endpoints.yml").write_text(json.dumps(sections))  # which is YAML
    async with SQLTrackerStore(db=str(tmp_path / "chats.db")) as filled:
        await fill(filled, SIZES)
        reads = [Read(each, filled._now(), start=0) for each in SIZES]
        found = [await filled._read(read) for read in reads]
    return {
        each: list(log.rows)
        for each, log in zip(SIZES, found, strict=True)
        if log is not None
    }


async def test_a_killed_export_goes_on_and_leaves_nothing_out(
    channel: Any, everything: dict[str, list[Any]], tmp_path: Path
) -> None:
    for pages in (1, 2, 2):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, str(pages), "export"),
            cwd=tmp_path,
            env=environment(),
        )
        assert await process.wait() == -signal.SIGKILL
    result = await asyncio.to_thread(run, "export", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "were confirmed by PikaEventBroker" in result.stdout
    found = await channel.read()
    assert sum(SIZES.values()) < len(found) < sum(SIZES.values()) + 3 * 200
    for sender_id, rows in everything.items():
        mine = [each for each in found if each.body["sender_id"] == sender_id]
        assert len(seen(found, sender_id)) == len(rows)
        placed = {each.position: each for each in mine}
        assert list(placed) == list(range(len(rows)))
        for position, (event_id, data) in enumerate(rows):
            if event_id is not None:
                assert placed[position].message_id == event_id
            body = placed[position].body
            assert body["event"] == json.loads(data)["event"]
            assert body.get("text") == json.loads(data).get("text")
    assert not list(tmp_path.glob("*.state"))


async def test_the_flags_are_rasas(
    channel: Any, everything: dict[str, list[Any]], tmp_path: Path
) -> None:
    words = ("--minimum-timestamp", FROM, "--maximum-timestamp", BEFORE)
    more = ("--conversation-ids", "carol,bob", "--offset-timestamps-by-seconds", "-60")
    arguments = map(str, ("export", *words, *more))
    result = await asyncio.to_thread(run, *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = await channel.read()
    assert [each.body["sender_id"] for each in found] == ["bob"] * 5 + ["carol"] * 5
    assert [each.position for each in found] == [5, 6, 7, 8, 9] * 2
    moved = [each.body["timestamp"] for each in found[:5]]
    assert moved == [FROM + n + 0.125 - 60 for n in range(5)]
