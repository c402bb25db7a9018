"""Save and retrieve a six-event turn, beside the raw driver doing the same work.

For each backend and each number of stored events: the time of `retrieve` (cold, all in
one session), of `save` of six new events, the round trips of each, and the ratio to the
raw driver in the same run, turn by turn. The last line of a backend says whether the
save is flat in the number of stored events.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks import arguments, capacity, charts, measure, workload
from benchmarks.contestants import (
    Ours,
    OursOnMongo,
    OursOnPostgres,
    contestants,
)

if TYPE_CHECKING:
    from benchmarks.contestant import Contestant
    from benchmarks.dynamo import OursOnDynamo
from benchmarks.roundtrips import counted_thread_hops, counting_proxy

HEADER = [
    "stored events",
    "retrieve ms",
    "raw ms",
    "ratio",
    "save ms",
    "raw ms",
    "ratio",
    "trips r/s",
]


Samples = dict[str, list[float]]
WARM_UP_TURNS = 3


async def measure_sizes(
    ours: Contestant, raw: Contestant, sizes: list[int], repetitions: int
) -> dict[int, Samples]:
    """Time turns at each number of stored events.

    Everything alternates, the contestants and the sizes, so that a machine that is
    slower for a while is so for all of them.
    """
    ids = {size: conversation_ids(size, repetitions) for size in sizes}
    other_id = f"another-{max(sizes)}"
    for size in sizes:
        for sender_id in ids[size] + [other_id] * (size == max(sizes)):
            for contestant in (ours, raw):
                await contestant.fill(sender_id, workload.history(size))
    names = ("retrieve", "raw retrieve", "save", "raw save")
    samples: dict[int, Samples] = {size: {name: [] for name in names} for size in sizes}
    for number in range(-WARM_UP_TURNS, repetitions):
        order = [("", ours), ("raw ", raw)]
        if number % 2:
            order.reverse()
        for size in sizes:
            sender_id = ids[size][number % len(ids[size])]
            for prefix, contestant in order:
                times = await measure_turn(contestant, sender_id, number, other_id)
                if number >= 0:
                    samples[size][prefix + "retrieve"].append(times[0])
                    samples[size][prefix + "save"].append(times[1])
    return samples


def conversation_ids(size: int, repetitions: int) -> list[str]:
    """Return so many conversations that none grows much while it is measured."""
    count = max(3, min(repetitions, 4000 // size))
    return [f"conversation-{size}-{number}" for number in range(count)]


async def measure_turn(
    contestant: Contestant, sender_id: str, number: int, other_id: str
) -> tuple[float, float]:
    """Return the seconds that a retrieve and a save took.

    In between, another conversation of the largest size is loaded, as others are served
    while an assistant works on one. So the caches of client and server are in the same
    state before each save: without it, a save after the load of 10,000 events would be
    compared with one that finds everything in them.
    """
    events = workload.turn(number)
    gc.collect()
    load_seconds, loaded = await measure.timed(lambda: contestant.retrieve(sender_id))
    prepared = contestant.prepare(loaded, sender_id, events)
    await contestant.retrieve(other_id)  # not part of what is timed, either
    save_seconds, _ = await measure.timed(lambda: contestant.save(prepared))
    return load_seconds, save_seconds


async def round_trips(backend: str, url: str, folder: Path) -> str:
    """Return the round trips of a warm retrieve and of a warm save."""
    if backend == "in_memory":
        return "0/0"
    if backend == "sqlite":
        ours, _ = contestants(backend, url, folder / "trips")
        async with counted_thread_hops() as count:
            return await _trips(ours, lambda: count["hops"])
    if backend == "mongo":
        mongo, _ = contestants(backend, url, folder)
        assert isinstance(mongo, OursOnMongo)
        return await _trips(mongo, lambda: mongo.commands)
    async with counting_proxy(url) as (proxy_url, proxy):
        counted, _ = contestants(backend, proxy_url, folder)
        if isinstance(counted, OursOnPostgres):
            counted.url = url
        return await _trips(counted, lambda: proxy.round_trips)


async def _trips(ours: Ours, read_counter: Any) -> str:
    await ours.open()
    try:
        await ours.fill("trips", workload.history(100))
        for number in range(3):  # warm up
            loaded = await ours.retrieve("trips")
            await ours.save(ours.prepare(loaded, "trips", workload.turn(number)))
        before = read_counter()
        loaded = await ours.retrieve("trips")
        between = read_counter()
        await ours.save(ours.prepare(loaded, "trips", workload.turn(9)))
        return f"{between - before}/{read_counter() - between}"
    finally:
        await ours.close()


async def measure_backend(
    backend: str, url: str, sizes: list[int], repetitions: int, folder: str | None
) -> dict[str, Any]:
    """Measure one backend at every size and print its table."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        (place / "trips").mkdir()
        trips = await round_trips(backend, url, place)
        ours, raw = contestants(backend, url, place)
        await ours.open()
        await raw.open()
        try:
            samples = await measure_sizes(ours, raw, sizes, repetitions)
            report(backend, samples, trips)
            if backend == "dynamo":
                on_dynamo = cast("OursOnDynamo", ours)
                await capacity.report(on_dynamo, [10, 100, 1000, 2000])
        finally:
            await raw.close()
            await ours.close()
    return {"round_trips": trips, "seconds": samples}


def report(
    backend: str, samples: dict[int, dict[str, list[float]]], trips: str
) -> None:
    """Print the table of one backend."""
    rows = []
    for size, times in samples.items():
        row = [f"{size:,}"]
        for name in ("retrieve", "save"):
            row += [
                measure.spread_ms(times[name]),
                measure.spread_ms(times["raw " + name]),
            ]
            row.append(f"{ratio(times[name], times['raw ' + name]):.2f}")
        rows.append([*row, trips])
    print(f"\n{backend}\n{measure.table(HEADER, rows)}")
    if len(samples) > 1:
        first, last = min(samples), max(samples)
        flat = ratio(samples[last]["save"], samples[first]["save"])
        print(f"save at {last:,} events against {first:,}: {flat:.2f}x")


def ratio(times: list[float], others: list[float]) -> float:
    """Return the ratio of the medians."""
    return statistics.median(times) / statistics.median(others)


def panels_of(results: dict[str, Any]) -> list[charts.Panel]:
    """Return a diagram for each backend and step."""
    labels = {"": "tracker_store_async", "raw ": "raw driver"}
    return [
        charts.Panel(
            f"{backend}: {step}",
            "ms",
            series={
                label: [
                    (size, *measure.quartiles_ms(times[prefix + step]))
                    for size, times in found["seconds"].items()
                ]
                for prefix, label in labels.items()
            },
            x_label="stored events",
            logarithmic=step == "retrieve",
            from_zero=True,
        )
        for backend, found in results.items()
        for step in ("retrieve", "save")
    ]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = arguments.parser(__doc__ or "")
    number = arguments.positive
    sizes = [10, 100, 1000, 10000]
    parser.add_argument("--events", nargs="+", type=number, default=sizes)
    parser.add_argument("--repetitions", type=number, default=40, help="turns a cell")
    options = parser.parse_args()
    versions = measure.environment(
        ["sqlalchemy", "asyncpg", "aiosqlite", "aiobotocore", "pydantic"]
    )
    print("median [quartiles]; ratio = ours / raw driver;", versions)
    print("trips r/s = round trips of a retrieve / of a save")
    results = {
        backend: measure.run(
            measure_backend(
                backend,
                arguments.url_of(backend, options),
                sorted(options.events),
                options.repetitions,
                options.folder,
            )
        )
        for backend in options.backend
    }
    measure.write_json(options.json, {"environment": versions, "turn": results})
    title = "A turn of six events, beside the raw driver in the same process"
    charts.draw(options.chart, title, panels_of(results))


if __name__ == "__main__":
    main()
