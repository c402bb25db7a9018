"""What `CachedTrackerStore` saves: turns with and without it, on one backend.

A turn is a retrieve, six new events and a save. For each number of stored events: the
time of a retrieve, and the bytes that the storage hands over for it, which are the text
of the events and the state. Both contestants are this library; they alternate turn by
turn on conversations of their own, and each sees every event that it saves.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import arguments, charts, measure, workload
from benchmarks.contestants import Ours, contestants
from tracker_store_async import CachedTrackerStore

if TYPE_CHECKING:
    from tracker_store_async.rows import Read, StoredConversation
    from tracker_store_async.store import TrackerStore

HEADER = ["stored events", "plain ms", "cached ms", "ratio", "plain B", "cached B"]
WARM_UP_TURNS = 2


class Counter:
    """Counts the bytes that a store's reads bring."""

    def __init__(self, store: TrackerStore) -> None:
        self.size_bytes = 0
        self._read = store._read
        store._read = self._counting  # type: ignore[method-assign]

    async def _counting(self, read: Read) -> StoredConversation | None:
        found = await self._read(read)
        if found is not None:
            texts = [data for _, data in found.rows]
            self.size_bytes += sum(map(len, texts)) + len(found.snapshot or "")
        return found


async def measure_backend(
    backend: str, url: str, sizes: list[int], repetitions: int, folder: str | None
) -> dict[str, Any]:
    """Measure one backend at every size and print its table."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        plain, _ = contestants(backend, url, Path(name))
        await plain.open()
        counter = Counter(plain.store)
        cached = Ours(CachedTrackerStore(plain.store))
        await cached.store.open()
        try:
            for size in sizes:
                results[str(size)] = await measure_size(
                    {"plain": plain, "cached": cached}, counter, size, repetitions
                )
        finally:
            await plain.close()
    report(backend, results)
    return results


async def measure_size(
    stores: dict[str, Ours], counter: Counter, size: int, repetitions: int
) -> dict[str, Any]:
    """Return the seconds and bytes of each retrieve."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, ours in stores.items():
        await ours.fill(f"{name}-{size}", workload.history(size))
        found[name] = {"seconds": [], "bytes": []}
    for number in range(-WARM_UP_TURNS, repetitions):
        for name, ours in stores.items():
            gc.collect()
            sender_id, before = f"{name}-{size}", counter.size_bytes
            seconds, loaded = await measure.timed(lambda: ours.retrieve(sender_id))  # noqa: B023
            read_bytes = counter.size_bytes - before
            await ours.save(ours.prepare(loaded, sender_id, workload.turn(number)))
            del loaded
            if number >= 0:
                found[name]["seconds"].append(seconds)
                found[name]["bytes"].append(read_bytes)
    return found


def report(backend: str, results: dict[str, Any]) -> None:
    """Print the table of one backend."""
    rows = []
    for size, found in results.items():
        plain, cached = found["plain"], found["cached"]
        ratio = statistics.median(plain["seconds"]) / statistics.median(
            cached["seconds"]
        )
        rows.append(
            [
                f"{int(size):,}",
                measure.spread_ms(plain["seconds"]),
                measure.spread_ms(cached["seconds"]),
                f"{ratio:.1f}",
                f"{statistics.median(plain['bytes']):,.0f}",
                f"{statistics.median(cached['bytes']):,.0f}",
            ]
        )
    print(f"\n{backend}\n{measure.table(HEADER, rows)}")


def panels_of(results: dict[str, Any]) -> list[charts.Panel]:
    """Return a diagram for each backend."""
    labels = {"plain": "tracker_store_async", "cached": "tracker_store_async, cached"}
    return [
        charts.Panel(
            f"{backend}: retrieve",
            "ms",
            series={
                label: [
                    (int(size), *measure.quartiles_ms(found[name]["seconds"]))
                    for size, found in sizes.items()
                ]
                for name, label in labels.items()
            },
            x_label="stored events",
        )
        for backend, sizes in results.items()
    ]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = arguments.parser(__doc__ or "")
    number = arguments.positive
    sizes = [100, 1000, 10000]
    parser.add_argument("--events", nargs="+", type=number, default=sizes)
    parser.add_argument("--repetitions", type=number, default=20, help="turns a cell")
    options = parser.parse_args()
    versions = measure.environment(["sqlalchemy", "asyncpg", "aiosqlite", "pydantic"])
    print("median [quartiles] of a retrieve; ratio = plain / cached;", versions)
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
    measure.write_json(options.json, {"environment": versions, "cache": results})
    title = "A retrieve with and without CachedTrackerStore"
    charts.draw(options.chart, title, panels_of(results))


if __name__ == "__main__":
    main()
