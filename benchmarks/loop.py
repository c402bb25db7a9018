"""How long many concurrent conversations ever stop the event loop.

A ticker sleeps for 1 ms at a time and notes by how much it overslept. Meanwhile the
conversations run turns: retrieve, six new events, save. The largest gap is what another
coroutine of the same process, such as a web request, would have had to wait.

Python's own garbage collector stops everything, too, and walks all that is alive, the
imported modules included. As long-running servers do, the process calls `gc.freeze()`
once it is set up, so that those are not walked again (`--no-freeze` leaves it out); the
longest collection is printed beside the gaps that it is part of.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import arguments, charts, measure, workload
from benchmarks.contestants import Ours, contestants

TICK_SECONDS = 0.001


async def tick(gaps: list[float], stop: asyncio.Event) -> None:
    """Note how much longer than 1 ms each sleep of 1 ms took."""
    last = time.perf_counter()
    while not stop.is_set():
        await asyncio.sleep(TICK_SECONDS)
        now = time.perf_counter()
        gaps.append(now - last - TICK_SECONDS)
        last = now


class Collections:
    """Times the garbage collector's pauses while it is entered."""

    def __init__(self) -> None:
        self.pauses = [0.0]
        self._started = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """Note the start or the end of a collection."""
        if phase == "start":
            self._started = time.perf_counter()
        else:
            self.pauses.append(time.perf_counter() - self._started)

    def __enter__(self) -> Collections:
        gc.callbacks.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        gc.callbacks.remove(self)


async def converse(ours: Ours, sender_id: str, turns: int) -> None:
    """Run the turns of one conversation."""
    for number in range(turns):
        loaded = await ours.retrieve(sender_id)
        await ours.save(ours.prepare(loaded, sender_id, workload.turn(number)))


async def run(backend: str, url: str, options: Any) -> dict[str, Any]:
    """Run the conversations on one backend and return the figures."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        ours, _ = contestants(backend, url, Path(name))
        await ours.open()
        ids = [f"conversation-{number}" for number in range(options.conversations)]
        try:
            for sender_id in ids:
                await ours.fill(sender_id, workload.history(options.events))
            await asyncio.gather(*(converse(ours, i, 1) for i in ids))
            if options.freeze:
                gc.collect()
                gc.freeze()
            gaps: list[float] = []
            stop = asyncio.Event()
            with Collections() as collections:
                ticker = asyncio.create_task(tick(gaps, stop))
                started = time.perf_counter()
                await asyncio.gather(*(converse(ours, i, options.turns) for i in ids))
                elapsed = time.perf_counter() - started
                stop.set()
                await ticker
        finally:
            await ours.close()
            gc.unfreeze()
    turns = options.conversations * options.turns
    return {
        "turns_per_second": turns / elapsed,
        "largest_gap_ms": max(gaps) * 1000,
        "p99_gap_ms": statistics.quantiles(gaps, n=100)[98] * 1000,
        "longest_collection_ms": max(collections.pauses) * 1000,
        "ticks": len(gaps),
    }


def panels_of(results: dict[str, dict[str, float]]) -> list[charts.Panel]:
    """Return a diagram of the turns a second, and one of the largest gaps."""
    names = {"turns_per_second": "turns/s", "largest_gap_ms": "largest gap, ms"}
    return [
        charts.Panel(
            label,
            label,
            bars={backend: (one[key],) * 3 for backend, one in results.items()},
            logarithmic=False,
        )
        for key, label in names.items()
    ]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = arguments.parser(__doc__ or "")
    number = arguments.positive
    parser.add_argument("--conversations", type=number, default=64)
    parser.add_argument("--events", type=number, default=10, help="stored beforehand")
    parser.add_argument(
        *("--turns", "--repetitions"),
        dest="turns",
        type=number,
        default=20,
        help="turns a conversation",
    )
    parser.add_argument(
        "--freeze",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="call gc.freeze() after the set-up",
    )
    options = parser.parse_args()
    results, rows = {}, []
    for backend in options.backend:
        figures = measure.run(run(backend, arguments.url_of(backend, options), options))
        results[backend] = figures
        rows.append(
            [
                backend,
                f"{figures['turns_per_second']:.0f}",
                f"{figures['p99_gap_ms']:.1f}",
                f"{figures['largest_gap_ms']:.1f}",
                f"{figures['longest_collection_ms']:.1f}",
            ]
        )
    header = ["backend", "turns/s", "p99 gap ms", "largest gap ms", "longest gc ms"]
    print(
        f"{options.conversations} conversations, {options.events} events each to begin "
        f"with, {options.turns} turns of 6 events each\n"
    )
    print(measure.table(header, rows))
    versions = measure.environment(["sqlalchemy", "asyncpg", "aiosqlite", "pydantic"])
    measure.write_json(options.json, {"environment": versions, "loop": results})
    charts.draw(
        options.chart,
        f"{options.conversations} conversations in one event loop",
        panels_of(results),
    )


if __name__ == "__main__":
    main()
