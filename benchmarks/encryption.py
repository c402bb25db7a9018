"""What encryption at rest costs: the same turns with and without it, on one backend.

A turn is a retrieve, six new events and a save. For each number of stored events: the
time of a retrieve and of a save, and the stored bytes. The two alternate turn by turn
on conversations of their own in the same storage.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import arguments, charts, measure, workload
from benchmarks.contestants import Ours, contestants
from tracker_store_async.encryption.keyring import generate_key
from tracker_store_async.rows import Read
from tracker_store_async.wrappers.encrypted import EncryptedTrackerStore

HEADER = ["stored events", "what", "plain ms", "sealed ms", "ratio"]
WARM_UP_TURNS = 2


async def measure_backend(
    backend: str, url: str, sizes: list[int], repetitions: int, folder: str | None
) -> dict[str, Any]:
    """Measure one backend at every size and print its table."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        plain, _ = contestants(backend, url, Path(name))
        await plain.open()
        sealed = Ours(EncryptedTrackerStore(plain.store, {"k1": generate_key()}))
        await sealed.store.open()
        both = {"plain": plain, "sealed": sealed}
        try:
            for size in sizes:
                results[str(size)] = await measure_size(both, size, repetitions)
        finally:
            await plain.close()
    report(backend, results)
    return results


async def measure_size(
    both: dict[str, Ours], size: int, repetitions: int
) -> dict[str, Any]:
    """Return the seconds of each retrieve and save, and the bytes an event takes."""
    found: dict[str, dict[str, Any]] = {}
    for name, ours in both.items():
        await ours.fill(f"{name}-{size}", workload.history(size))
        found[name] = {"retrieve": [], "save": []}
    for number in range(-WARM_UP_TURNS, repetitions):
        for name, ours in both.items():
            gc.collect()
            sender_id = f"{name}-{size}"
            read, loaded = await measure.timed(lambda: ours.retrieve(sender_id))  # noqa: B023
            prepared = ours.prepare(loaded, sender_id, workload.turn(number))
            written, _ = await measure.timed(lambda: ours.save(prepared))  # noqa: B023
            if number >= 0:
                found[name]["retrieve"].append(read)
                found[name]["save"].append(written)
    for name in both:
        request = Read(f"{name}-{size}", 0.0, start=0)
        stored = await both["plain"].store._read(request)
        assert stored is not None
        total = sum(len(data) for _, data in stored.rows)
        found[name]["bytes_per_event"] = total / len(stored.rows)
    return found


def report(backend: str, results: dict[str, Any]) -> None:
    """Print the table of one backend."""
    rows = []
    for size, found in results.items():
        for what in ("retrieve", "save"):
            plain, sealed = found["plain"][what], found["sealed"][what]
            ratio = statistics.median(sealed) / statistics.median(plain)
            rows.append(
                [
                    f"{int(size):,}",
                    what,
                    measure.spread_ms(plain),
                    measure.spread_ms(sealed),
                    f"{ratio:.2f}",
                ]
            )
    print(f"\n{backend}\n{measure.table(HEADER, rows)}")
    for name in ("plain", "sealed"):
        sizes = [found[name]["bytes_per_event"] for found in results.values()]
        print(f"{name}: {statistics.mean(sizes):.0f} bytes an event")


def panels_of(results: dict[str, Any]) -> list[charts.Panel]:
    """Return what `--chart` draws: the time of a retrieve, for each backend."""
    return [
        charts.Panel(
            f"{backend}: retrieve",
            "ms",
            {
                label: [
                    (int(size), *measure.quartiles_ms(found[label]["retrieve"]))
                    for size, found in sizes.items()
                ]
                for label in ("plain", "sealed")
            },
            x_label="stored events",
        )
        for backend, sizes in results.items()
    ]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = arguments.parser(__doc__ or "")
    number = arguments.positive
    parser.add_argument("--events", nargs="+", type=number, default=[10, 100, 1000])
    parser.add_argument("--repetitions", type=number, default=30, help="turns a cell")
    options = parser.parse_args()
    versions = measure.environment(["cryptography", "sqlalchemy", "asyncpg"])
    print("median [quartiles]; ratio = sealed / plain;", versions)
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
    measure.write_json(options.json, {"environment": versions, "encryption": results})
    title = "A retrieve with and without encryption at rest"
    charts.draw(options.chart, title, panels_of(results))


if __name__ == "__main__":
    main()
