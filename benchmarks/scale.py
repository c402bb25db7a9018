"""Is a turn as fast at 100,000 events, and among 1,000,000 conversations?

Two questions, on each backend:

- **events**: one conversation of 10 to 100,000 events. Timed are a retrieve bounded by
  `max_event_history`, a retrieve of the latest session, which has eight events, and a
  save of the eight events of a new session.
- **conversations**: a store of 10 to 1,000,000 conversations of a few events each.
  Timed are a bounded retrieve of one of them, picked at random, and a save of a turn;
  then the next turn of the same one. At the first turn nobody has touched its pages for
  long: the database reads them, and PostgreSQL logs each whole at the first change
  after a checkpoint. The next turn finds them at hand, as most turns of a dialogue do.

Sizes alternate turn by turn. The store is filled through its own saves, or by copying
the rows of a conversation that it has saved, in its own tables (`--events-each`).
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks import arguments, charts, measure, multiply, workload
from benchmarks.contestants import Ours, OursOnPostgres, run_on_postgres
from benchmarks.peers import say
from tracker_store_async import SQLTrackerStore

if TYPE_CHECKING:
    import argparse

    from tracker_store_async import TrackerStore

BACKENDS = ["sqlite", "postgresql"]
TITLE = "Save and retrieve as the store grows; dotted: 1.3x of the smallest"
WARM_UP_TURNS = 5
EVENTS_PER_SAVE = 10_000
SESSION = 8
# so many conversations of a size that none grows much while it is measured
EVENTS_PER_SIZE = 2_000
FLAT = 1.3
Samples = dict[int, dict[str, list[float]]]


@dataclass
class Place:
    """Where a store of one size is.

    Attributes:
        backend: `sqlite` or `postgresql`.
        url: URL of the server; empty for SQLite.
        name: Of the schema, or of the file.
        folder: Where the file is.
    """

    backend: str
    url: str
    name: str
    folder: Path

    @property
    def path(self) -> Path:
        """The file of SQLite."""
        return self.folder / f"{self.name}.db"

    def store(self, **options: Any) -> TrackerStore:
        """Return a store of the place."""
        if self.backend == "sqlite":
            return SQLTrackerStore(dialect="sqlite", db=str(self.path), **options)
        return SQLTrackerStore(host=self.url, schema=self.name, **options)

    async def opened(self, stack: AsyncExitStack, **options: Any) -> Ours:
        """Return an open store, which the stack closes."""
        ours = Ours(self.store(**options))
        await ours.open()
        stack.push_async_callback(ours.close)
        return ours

    async def settle(self) -> None:
        """Let the server do now what it would do in the middle of what is timed."""
        if self.backend == "postgresql":
            for table in multiply.TABLES:
                statement = f"VACUUM ANALYZE {self.name}.{table}"
                await run_on_postgres(self.url, statement)

    async def create(self, stack: AsyncExitStack) -> None:
        """Create the schema, which the stack removes."""
        if self.backend == "postgresql":
            schema = OursOnPostgres(self.url, self.name)
            await schema.open()
            stack.push_async_callback(schema.close)


async def measure_events(
    place_of: Any, options: argparse.Namespace, stack: AsyncExitStack
) -> Samples:
    """Return the seconds of each step at each number of events in a conversation."""
    place: Place = place_of("events")
    await place.create(stack)
    plain = await place.opened(stack)
    bounded = await place.opened(stack, max_event_history=options.window)
    counts = {
        size: max(1, min(options.repetitions, EVENTS_PER_SIZE // size))
        for size in options.events
    }
    for size, count in counts.items():
        for number in range(count):
            say(f"filling in {size:,} events")
            await fill_conversation(plain, f"{size}-{number}", size)
    await place.settle()
    steps = ["retrieve bounded", "retrieve session", "save"]
    samples: Samples = {size: {step: [] for step in steps} for size in counts}
    for number in range(-WARM_UP_TURNS, options.repetitions):
        say(f"events: turn {number + 1} of {options.repetitions}")
        for size, count in turned(list(counts.items()), number):
            sender_id = f"{size}-{number % count}"
            gc.collect()
            # by turns, since the first of the two finds colder caches
            pair = [("retrieve bounded", bounded), ("retrieve session", plain)]
            times = {}
            for step, ours in pair if number % 2 else pair[::-1]:
                times[step], loaded = await retrieve(ours, sender_id)
            prepared = plain.prepare(loaded, sender_id, workload.history(SESSION))
            times["save"] = await save(plain, prepared)
            if number >= 0:
                for step, seconds in times.items():
                    samples[size][step].append(seconds)
    return samples


async def fill_conversation(ours: Ours, sender_id: str, size: int) -> None:
    """Store a conversation whose latest session has eight events."""
    events = workload.history(max(0, size - SESSION)) + workload.history(SESSION)
    tracker: Any = None
    for at in range(0, len(events), EVENTS_PER_SAVE):
        piece = events[at : at + EVENTS_PER_SAVE]
        tracker = ours.prepare(tracker, sender_id, piece)
        await ours.save(tracker)


async def measure_conversations(
    place_of: Any, options: argparse.Namespace, stack: AsyncExitStack
) -> Samples:
    """Return the seconds of each step at each number of conversations in a store."""
    stores: dict[int, Ours] = {}
    for size in options.conversations:
        place: Place = place_of(f"conversations{size}")
        await place.create(stack)
        async with AsyncExitStack() as briefly:
            ours = await place.opened(briefly)
            await multiply.save_template(ours.store, options.events_each)
        if place.backend == "sqlite":
            await asyncio.to_thread(multiply.multiply_in_sqlite, place.path, size, say)
        else:
            await multiply.multiply_in_postgres(place.url, place.name, size, say)
        await place.settle()
        bound = options.events_each
        stores[size] = await place.opened(stack, max_event_history=bound)
        await check(stores[size], size, bound)
    steps = ["retrieve bounded", "save", "next retrieve", "next save"]
    samples: Samples = {size: {step: [] for step in steps} for size in stores}
    pick = random.Random(7)  # the same ones in each run
    for number in range(-WARM_UP_TURNS, options.repetitions):
        say(f"conversations: turn {number + 1} of {options.repetitions}")
        for size, ours in turned(list(stores.items()), number):
            sender_id = multiply.name_of(pick.randrange(size))
            gc.collect()
            times: list[float] = []
            for _ in range(2):
                load_seconds, loaded = await retrieve(ours, sender_id)
                prepared = ours.prepare(loaded, sender_id, workload.turn(number))
                times += [load_seconds, await save(ours, prepared)]
            if number >= 0:
                for step, seconds in zip(steps, times, strict=True):
                    samples[size][step].append(seconds)
    return samples


def turned(items: list[Any], number: int) -> list[Any]:
    """Return a list begun elsewhere each time, so that nobody is always the first."""
    at = number % len(items)
    return items[at:] + items[:at]


async def check(ours: Ours, count: int, events_each: int) -> None:
    """Make sure that the store understands what was filled in."""
    tracker = await ours.retrieve(multiply.name_of(count - 1))
    if tracker is None or len(tracker.events) != events_each:
        raise RuntimeError("the copies are not what the store wrote: read multiply.py")


async def retrieve(ours: Ours, sender_id: str) -> tuple[float, Any]:
    """Return the seconds of a retrieve, and what was found."""
    return await measure.timed(lambda: ours.retrieve(sender_id))


async def save(ours: Ours, prepared: Any) -> float:
    """Return the seconds of a save."""
    seconds, _ = await measure.timed(lambda: ours.save(prepared))
    return seconds


async def measure_backend(backend: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one backend, and print its tables."""
    url = arguments.url_of(backend, options)
    server = await measure.server_version(backend, url)
    result: dict[str, Any] = {"server": server}
    questions = {"events": measure_events, "conversations": measure_conversations}
    for question, answer in questions.items():
        if question not in options.axis:
            continue
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(dir=options.folder)
            )
            tag = f"benchmark_{uuid4().hex[:8]}"
            result[question] = await answer(
                lambda name: Place(backend, url, f"{tag}_{name}", Path(folder)),  # noqa: B023
                options,
                stack,
            )
        say("")
        report(f"{backend}, {server}: {question}", result[question])
    return result


def report(title: str, samples: Samples) -> None:
    """Print the table of one question, and whether it is flat."""
    steps = list(next(iter(samples.values())))
    rows = [
        [f"{size:,}", *(measure.spread_ms(found[step]) for step in steps)]
        for size, found in samples.items()
    ]
    print(f"\n{title}, ms\n{measure.table(['stored', *steps], rows)}")
    for line in verdicts(samples):
        print(line)


def verdicts(samples: Samples) -> list[str]:
    """Return for each step whether it is flat."""
    lines = []
    for step in next(iter(samples.values())):
        medians = [statistics.median(found[step]) for found in samples.values()]
        ratios = [median / medians[0] for median in medians]
        verdict = "flat" if max(ratios) <= FLAT else "not flat"
        listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        lines.append(f"{step}: {verdict} within {FLAT}x of the smallest: {listed}")
    return lines


def panels_of(results: dict[str, Any]) -> list[charts.Panel]:
    """Return a diagram for each backend and question."""
    return [
        charts.Panel(
            backend,
            "ms",
            series={
                step: [
                    (int(size), *measure.quartiles_ms(times[step]))
                    for size, times in found[question].items()
                ]
                for step in next(iter(found[question].values()))
            },
            x_label=f"stored {question}",
            logarithmic=False,
            from_zero=True,
            limit=FLAT,
        )
        for backend, found in results.items()
        for question in ("events", "conversations")
        if question in found
    ]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = arguments.parser(__doc__ or "", BACKENDS, BACKENDS)
    number = arguments.positive
    axes = ["events", "conversations"]
    parser.add_argument("--axis", nargs="+", choices=axes, default=axes)
    sizes = [10, 100, 1000, 10_000, 100_000]
    parser.add_argument("--events", nargs="+", type=number, default=sizes)
    sizes = [10, 1000, 100_000, 1_000_000]
    parser.add_argument("--conversations", nargs="+", type=number, default=sizes)
    parser.add_argument(
        "--events-each", type=number, default=4, help="stored of a conversation"
    )
    parser.add_argument(
        "--window", type=number, default=10, help="max_event_history of events"
    )
    parser.add_argument("--repetitions", type=number, default=60, help="turns a size")
    options = parser.parse_args()
    options.events.sort()
    options.conversations.sort()
    versions = measure.environment(["sqlalchemy", "asyncpg", "aiosqlite", "pydantic"])
    print("median [quartiles];", versions)
    results = {
        backend: measure.run(measure_backend(backend, options))
        for backend in options.backend
    }
    measure.write_json(options.json, {"environment": versions, "scale": results})
    charts.draw(options.chart, TITLE, panels_of(results))


if __name__ == "__main__":
    main()
