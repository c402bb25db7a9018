"""Publish turns of six events, beside a raw client doing confirmed publishes.

For each broker: events a second with many conversations that publish at once, and what
the broker adds to a save (of an in-memory store, so that nothing else is in it), beside
the time that the raw client takes to publish the same bodies, in the same run.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import arguments, charts, measure, workload
from benchmarks.broker_contestants import BROKERS, Places
from tracker_store_async import EventMessage, InMemoryTrackerStore
from tracker_store_async.events import event_from_dict

if TYPE_CHECKING:
    import argparse

    from benchmarks.broker_contestants import Publish
    from tracker_store_async import EventBroker

HEADER = [
    "broker",
    "events/s",
    "raw",
    "ratio",
    "save adds ms",
    "raw publish ms",
    "saves/s of one",
]
ROUNDS = 3


def messages(sender_id: str, number: int) -> list[EventMessage]:
    """Return the messages of one turn."""
    events = workload.turn(number)
    return [
        EventMessage(
            f"{sender_id}-{number}-{n}", sender_id, n, {"sender_id": sender_id, **event}
        )
        for n, event in enumerate(events)
    ]


async def rate(publish: Any, batches: list[list[Any]], turns: int) -> float:
    """Return the events a second of conversations that publish at once."""

    async def talk(batch: list[Any]) -> None:
        for _ in range(turns):
            await publish(batch)

    started = time.perf_counter()
    await asyncio.gather(*map(talk, batches))
    return sum(map(len, batches)) * turns / (time.perf_counter() - started)


async def measure_broker(
    broker: EventBroker, raw: Publish, conversations: int, turns: int
) -> dict[str, list[float]]:
    """Measure one broker and its raw client, in turns."""
    ours = [messages(f"user-{n}", n) for n in range(conversations)]
    theirs = [[json.dumps(message.body) for message in batch] for batch in ours]
    names = ("events/s", "raw events/s", "save", "bare save", "raw publish")
    samples: dict[str, list[float]] = {name: [] for name in names}
    await broker.open()
    for _ in range(ROUNDS):
        samples["events/s"].append(await rate(broker.publish_many, ours, turns))
        samples["raw events/s"].append(await rate(raw, theirs, turns))
    with_broker = InMemoryTrackerStore(event_broker=broker)
    bare = InMemoryTrackerStore()
    for number in range(10 * turns):
        samples["save"].append(await timed_save(with_broker, number))
        samples["bare save"].append(await timed_save(bare, number))
        bodies = theirs[number % conversations]
        seconds, _ = await measure.timed(lambda bodies=bodies: raw(bodies))  # type: ignore[misc]
        samples["raw publish"].append(seconds)
    await with_broker.close()
    await broker.close()
    return samples


async def timed_save(store: InMemoryTrackerStore, number: int) -> float:
    """Return the seconds that the save of one turn took."""
    tracker = await store.get_or_create_tracker(
        f"one-{number % 20}", append_action_listen=False
    )
    for event in workload.turn(number):
        tracker.update(event_from_dict(event))
    seconds, _ = await measure.timed(lambda: store.save(tracker))
    return seconds


def row(name: str, samples: dict[str, list[float]]) -> list[str]:
    """Return the line of one broker."""
    middle = {key: statistics.median(values) for key, values in samples.items()}
    added = middle["save"] - middle["bare save"]
    return [
        name,
        f"{middle['events/s']:,.0f}",
        f"{middle['raw events/s']:,.0f}",
        f"{middle['events/s'] / middle['raw events/s']:.2f}",
        f"{added * 1000:.2f}",
        f"{middle['raw publish'] * 1000:.2f}",
        f"{1 / middle['save']:,.0f}",
    ]


async def run(options: argparse.Namespace, urls: dict[str, str]) -> dict[str, Any]:
    """Measure the brokers that were asked for."""
    results = {}
    for name in options.backend:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            places = Places(
                Path(folder), urls.get("redis", ""), urls.get("postgresql", "")
            )
            async with BROKERS[name](places) as (broker, raw):
                results[name] = await measure_broker(
                    broker, raw, options.conversations, options.turns
                )
    return results


def panels_of(results: dict[str, Any]) -> list[charts.Panel]:
    """Return what is drawn: events a second of each broker, and of its raw client."""
    return [
        charts.Panel(
            name,
            "events/s",
            bars={
                "tracker_store_async": statistics.median(samples["events/s"]),
                "raw client": statistics.median(samples["raw events/s"]),
            },
            logarithmic=False,
        )
        for name, samples in results.items()
    ]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = arguments.parser(__doc__ or "", BROKERS, BROKERS)
    parser.add_argument("--conversations", type=arguments.positive, default=64)
    parser.add_argument(
        "--turns", type=arguments.positive, default=20, help="of each conversation"
    )
    options = parser.parse_args()
    wanted = [name for name in ("redis", "postgresql") if name in options.backend]
    urls = {name: arguments.url_of(name, options) for name in wanted}
    versions = measure.environment(
        [
            *("sqlalchemy", "asyncpg", "aiosqlite", "redis"),
            *("aio-pika", "nats-py", "aiokafka"),
        ]
    )
    print(f"{options.conversations} conversations, 6 events a save;", versions)
    results = asyncio.run(run(options, urls))
    print(measure.table(HEADER, [row(name, each) for name, each in results.items()]))
    measure.write_json(options.json, {"environment": versions, "broker": results})
    charts.draw(options.chart, "Events published and confirmed", panels_of(results))


if __name__ == "__main__":
    main()
