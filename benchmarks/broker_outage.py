"""Kill RabbitMQ with SIGKILL while conversations save, and count what is lost.

::

    python -m benchmarks.broker_outage --conversations 64 --seconds 12

Every conversation saves turns into one in-memory store whose broker is RabbitMQ. After
a while the server is killed and started again; saves that failed are repeated, as an
agent would. Then the queue is read to its end and compared with the store. The command
fails unless every saved event is in the queue and every conversation is in order.

It wants RabbitMQ installed, and works on a private one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.servers.rabbitmq import private_rabbitmq
from tracker_store_async import InMemoryTrackerStore, errors
from tracker_store_async.brokers.pika import PikaEventBroker
from tracker_store_async.events import ActionExecuted, BotUttered, UserUttered

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

    from tests.servers.rabbitmq import PrivateRabbitMQ

QUEUE = "rasa_core_events"
TIMEOUT_SECONDS = 30.0


@dataclass(slots=True)
class Report:
    """What came of it.

    Attributes:
        saved: Events that the store holds.
        published: Messages that the queue holds, repeats included.
        repeats: Messages whose id the queue holds already.
        lost: Saved events that the queue does not hold.
        disordered: Conversations whose messages, without repeats, are not in order.
        phantoms: Events in the queue that are not in the store.
        failed_saves: Saves that raised and were repeated.
        outage_seconds: Time between the kill and the server's first answer.
    """

    saved: int = 0
    published: int = 0
    repeats: int = 0
    lost: int = 0
    disordered: int = 0
    phantoms: int = 0
    failed_saves: int = 0
    outage_seconds: float = 0.0
    longest_save_seconds: float = 0.0
    sent_again: int = 0
    connections: int = 0
    saved_after_outage: int = 0

    def __str__(self) -> str:
        """Read as the lines of the report."""
        return (
            f"saved {self.saved}, published {self.published}, "
            f"repeats {self.repeats}, lost = {self.lost}\n"
            f"conversations out of order {self.disordered}, events in the queue that "
            f"are not stored {self.phantoms}\n"
            f"outage {self.outage_seconds:.1f} s, longest save "
            f"{self.longest_save_seconds:.1f} s, saves that failed and were repeated "
            f"{self.failed_saves}, sent again by the broker {self.sent_again}, "
            f"connections {self.connections}"
        )

    @property
    def is_good(self) -> bool:
        """Whether nothing is lost, or out of order, and the server was really away."""
        return not (self.lost or self.disordered) and self.connections > 1


@dataclass(slots=True)
class _Run:
    store: InMemoryTrackerStore
    report: Report
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    saves: int = 0


async def outage(
    private: PrivateRabbitMQ, *, conversations: int, seconds: float
) -> Report:
    """Save under load, kill the server half-way, and compare queue and store.

    Args:
        private: The server.
        conversations: Number of conversations that save beside each other.
        seconds: How long they save, before the kill and after the restart together.
    """
    server = private.server
    broker = PikaEventBroker(
        server.host,
        server.username,
        server.password,
        server.port,
        retry_delay_in_seconds=0.5,
        timeout_seconds=TIMEOUT_SECONDS,
    )
    async with InMemoryTrackerStore(event_broker=broker) as store:
        run = _Run(store, Report())
        talks = [
            asyncio.create_task(_converse(run, f"conversation-{number}"))
            for number in range(conversations)
        ]
        await asyncio.sleep(seconds / 2)
        started = time.perf_counter()
        await asyncio.to_thread(private.process.kill)
        await asyncio.to_thread(private.process.start)
        run.report.outage_seconds = time.perf_counter() - started
        before = run.saves
        await asyncio.sleep(seconds / 2)
        run.stop.set()
        await asyncio.gather(*talks)
        run.report.saved_after_outage = run.saves - before
        run.report.sent_again, run.report.connections = (
            broker.repeats,
            broker.connections,
        )
        await broker.close()
        await _compare(run, private)
    return run.report


async def _converse(run: _Run, sender_id: str) -> None:
    tracker = await run.store.get_or_create_tracker(sender_id)
    await _save(run, tracker)
    while not run.stop.is_set():
        turn = [UserUttered("hi"), ActionExecuted("utter_hi"), BotUttered("hello")]
        for event in [*turn, ActionExecuted("action_listen")]:
            tracker.update(event)
        await _save(run, tracker)
        await asyncio.sleep(0.01)


async def _save(run: _Run, tracker: object) -> None:
    started = time.perf_counter()
    while True:
        try:
            await run.store.save(tracker)  # type: ignore[arg-type]
        except errors.PublishError:
            run.report.failed_saves += 1
        else:
            break
    run.saves += 1
    took = time.perf_counter() - started
    run.report.longest_save_seconds = max(run.report.longest_save_seconds, took)


async def _compare(run: _Run, private: PrivateRabbitMQ) -> None:
    """Read the queue to its end, and fill the report in."""
    report = run.report
    queued: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    connection = await private.server.connect()
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(QUEUE, passive=True)
        for _ in range(queue.declaration_result.message_count):
            message = await queue.get(no_ack=True)
            _take(queued, message)
    for sender_id in await run.store.keys():
        stored = await run.store.retrieve_full_tracker(sender_id)
        assert stored is not None
        report.saved += len(stored.events)
        messages = queued.pop(sender_id, [])
        report.published += len(messages)
        first = list(dict.fromkeys(messages))
        report.repeats += len(messages) - len(first)
        positions = [position for position, _ in first]
        report.lost += len(set(range(len(stored.events))) - set(positions))
        report.phantoms += max(0, len(first) - len(stored.events))
        report.disordered += positions != sorted(positions)
    report.phantoms += sum(map(len, queued.values()))


def _take(
    queued: defaultdict[str, list[tuple[int, str]]],
    message: AbstractIncomingMessage,
) -> None:
    sender_id = json.loads(message.body)["sender_id"]
    position = message.headers["position"]
    assert isinstance(position, int)
    queued[sender_id].append((position, str(message.message_id)))


def main() -> int:
    """Run it and print the report; return 1 if anything is lost or out of order."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--conversations", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=12.0)
    arguments = parser.parse_args()
    logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)
    with private_rabbitmq() as private:
        print(private.server)
        report = asyncio.run(
            outage(
                private,
                conversations=arguments.conversations,
                seconds=arguments.seconds,
            )
        )
    print(report)
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
