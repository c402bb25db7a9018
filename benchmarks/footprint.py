"""What it costs to have it: import time, memory of a held tracker, size of the wheel.

- **import**: a fresh process each time; what it is compared with takes turns with it.
- **memory**: what Python has allocated for trackers that are held after a retrieve, as
  `tracemalloc` counts it, beside the bytes of their events as JSON; once as retrieved,
  and once after each event has been looked at.
- **wheel**: built from this source, or given with `--wheel`.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import arguments, charts, measure, workload
from benchmarks.contestants import Ours, contestants
from benchmarks.peers import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

TITLE = "What it costs to have it"
ROOT = Path(__file__).parents[1]
STATEMENTS = {
    "nothing": "pass",
    "pydantic": "import pydantic; pydantic.BaseModel",
    "sqlalchemy.ext.asyncio": "import sqlalchemy.ext.asyncio",
    "tracker_store_async": "import tracker_store_async",
    "tracker_store_async, its trackers": (
        "from tracker_store_async import DialogueStateTracker, Domain"
    ),
    "tracker_store_async, its SQL store": (
        "from tracker_store_async import SQLTrackerStore"
    ),
}
TIMED = (
    "import time; started = time.perf_counter(); {}; "
    "print(time.perf_counter() - started)"
)


def import_seconds(repetitions: int) -> dict[str, list[float]]:
    """Return the seconds of each import, each time in a fresh process."""
    samples: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for number in range(-1, repetitions):  # the first one warms the file cache up
        say(f"import {number + 1} of {repetitions}")
        for name, statement in STATEMENTS.items():
            done = subprocess.run(
                [sys.executable, "-c", TIMED.format(statement)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
            if number >= 0:
                samples[name].append(float(done.stdout))
    return samples


async def held_bytes(
    backend: str, url: str, folder: str | None, events: int, trackers: int
) -> dict[str, float]:
    """Return the bytes of a tracker that is held, and those of its events as JSON."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        ours, _ = contestants(backend, url, Path(name))
        await ours.open()
        try:
            history = workload.history(events)
            for number in range(trackers):
                await ours.fill(f"held-{number}", history)
            await ours.retrieve("held-0")
            as_retrieved = await allocated(ours, trackers, lambda tracker: None)
            touched = await allocated(
                ours, trackers, lambda tracker: list(tracker.events)
            )
        finally:
            await ours.close()
    return {
        "as retrieved": as_retrieved,
        "every event touched": touched,
        "its events as JSON": sum(len(json.dumps(event)) for event in history),
    }


async def allocated(ours: Ours, count: int, touch: Callable[[Any], Any]) -> float:
    """Return the bytes that a tracker keeps allocated."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        held = []
        for number in range(count):
            held.append(await ours.retrieve(f"held-{number}"))
            touch(held[-1])
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / len(held)


def wheel_sizes(given: str | None) -> dict[str, int] | str:
    """Return the sizes of the wheel and of what is in it, or why there is none."""
    if given:
        return sizes_of(Path(given))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet"]
        done = subprocess.run(
            [*command, "--wheel-dir", folder, str(ROOT)], capture_output=True, text=True
        )
        wheels = list(Path(folder).glob("*.whl"))
        if not wheels:
            lines = done.stderr.strip().splitlines() or ["pip built none"]
            return f"not built: {lines[-1]}; name one with --wheel"
        return sizes_of(wheels[0])


def sizes_of(wheel: Path) -> dict[str, int]:
    """Return the sizes of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        files = archive.infolist()
    return {
        "wheel bytes": wheel.stat().st_size,
        "unpacked bytes": sum(file.file_size for file in files),
        "files": len(files),
    }


def report(result: dict[str, Any]) -> None:
    """Print the tables."""
    imports = result["import_seconds"]
    base = measure.median_ms(imports["pydantic"])
    rows = [
        [name, measure.spread_ms(times), f"{measure.median_ms(times) / base:.2f}"]
        for name, times in imports.items()
    ]
    print("\n" + measure.table(["import", "ms", "of pydantic's"], rows))
    for backend, sizes in result["held_bytes"].items():
        columns = list(next(iter(sizes.values())))
        rows = [
            [f"{size:,}", *(f"{found[column]:,.0f}" for column in columns)]
            for size, found in sizes.items()
        ]
        header = [f"{backend}: bytes of a tracker, events", *columns]
        print("\n" + measure.table(header, rows))
    wheel = result["wheel"]
    if isinstance(wheel, dict):
        print("\n" + ", ".join(f"{name}: {size:,}" for name, size in wheel.items()))
    else:
        print(f"\nwheel: {wheel}")


def panels_of(result: dict[str, Any]) -> list[charts.Panel]:
    """Return a diagram of the imports, and one of the memory for each backend."""
    bars = {
        name: measure.quartiles_ms(times)
        for name, times in result["import_seconds"].items()
    }
    panels = [charts.Panel("import", "ms", bars=bars, logarithmic=False)]
    for backend, sizes in result["held_bytes"].items():
        series: dict[str, list[tuple[float, float, float, float]]] = {}
        for size, found in sizes.items():
            for name, count in found.items():
                kib = count / 1024
                series.setdefault(name, []).append((int(size), kib, kib, kib))
        panels.append(
            charts.Panel(
                f"{backend}: a held tracker", "KiB", series=series, x_label="events"
            )
        )
    return panels


async def memory(backend: str, options: argparse.Namespace) -> dict[int, Any]:
    """Return the bytes of a held tracker at each number of events."""
    url = arguments.url_of(backend, options)
    result = {}
    for size in sorted(options.events):
        say(f"{backend}: trackers of {size:,} events")
        count = max(1, min(options.trackers, 20_000 // size))
        result[size] = await held_bytes(backend, url, options.folder, size, count)
    say("")
    return result


def main() -> None:
    """Run the benchmark from the command line."""
    parser = arguments.parser(__doc__ or "", default=["sqlite"])
    number = arguments.positive
    sizes = [10, 100, 1000]
    parser.add_argument("--events", nargs="+", type=number, default=sizes)
    parser.add_argument("--trackers", type=number, default=100, help="that are held")
    parser.add_argument("--repetitions", type=number, default=15, help="imports")
    parser.add_argument(
        "--wheel", metavar="FILE", help="take the size of this one (builds one)"
    )
    options = parser.parse_args()
    versions = measure.environment(["pydantic", "sqlalchemy", "aiosqlite"])
    print("median [quartiles];", versions)
    result: dict[str, Any] = {
        "import_seconds": import_seconds(options.repetitions),
        "held_bytes": {
            backend: measure.run(memory(backend, options))
            for backend in options.backend
        },
        "wheel": wheel_sizes(options.wheel),
    }
    report(result)
    measure.write_json(options.json, {"environment": versions, "footprint": result})
    charts.draw(options.chart, TITLE, panels_of(result))


if __name__ == "__main__":
    main()
