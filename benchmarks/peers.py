"""Load and append of a six-event turn, cold: ours, the raw driver, and the peers.

Each contestant is a process of its own, in an environment of its own, and uses its
public API on the same server and the same workload. Contestants and numbers of stored
events take turns, a few at a time and in an order that changes, each once the disk has
what the one before wrote. Times are taken inside those processes. Nothing is kept from
one turn to the next but connections: every load is of the whole conversation.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import arguments, charts, measure
from benchmarks.catalog import BACKENDS, BY_NAME, ENTRIES, Entry
from benchmarks.environments import default_folder
from benchmarks.worker_process import Team, Worker, WorkerError, team

if TYPE_CHECKING:
    from collections.abc import Callable

TITLE = "A turn of six events on a conversation, cold; each in its own process"
WARM_UP_TURNS = 2
# so many conversations of a size that none grows much while it is measured
EVENTS_PER_SIZE = 2000
STEPS = {"load": "load_seconds", "append": "save_seconds"}
FLOORS = [("load", "floor_bytes"), ("load", "floor"), ("append", "floor")]
Samples = dict[str, dict[int, dict[str, list[float]]]]


def add_contestants(
    parser: argparse.ArgumentParser, names: list[str], default: list[str] | None = None
) -> None:
    """Add the arguments that say who is measured."""
    parser.add_argument(
        "--only",
        nargs="+",
        choices=names,
        default=default or names,
        help="who is measured",
    )
    parser.add_argument(
        "--peers",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure other people's libraries as well",
    )
    parser.add_argument(
        "--envs",
        type=Path,
        default=default_folder(),
        help="where the environments of the peers are built and kept",
    )


def entries_of(options: argparse.Namespace, backend: str) -> list[Entry]:
    """Return who is to be measured, or to be named as missing, on a backend."""
    return [
        entry
        for entry in ENTRIES
        if entry.name in options.only
        and (options.peers or not entry.is_peer)
        and (backend in entry.variants or entry.missing)
    ]


async def measure_backend(backend: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure everybody on one backend, and print the tables."""
    url = arguments.url_of(backend, options)
    server = await measure.server_version(backend, url)
    entries = entries_of(options, backend)
    async with team(entries, backend, url, options.envs, options.folder) as ready:
        versions = ready.versions()
        samples = await take_turns(
            ready, sorted(options.events), options.repetitions, options.in_a_row
        )
    report(f"{backend}: {server}", samples, ready.absent)
    return {
        "server": server,
        "versions": versions,
        "seconds": samples,
        "absent": ready.absent,
    }


async def take_turns(
    ready: Team, sizes: list[int], repetitions: int, in_a_row: int
) -> Samples:
    """Return the seconds of each load and append.

    Args:
        ready: The workers.
        sizes: Numbers of stored events.
        repetitions: Turns of each worker at each size.
        in_a_row: How many of them a worker takes before it is another one's turn.

    A worker that fails is dropped, and its reason kept in `ready.absent`.
    """
    counts = {size: conversation_count(size, repetitions) for size in sizes}
    for size, count in counts.items():
        await each(
            ready,
            "fill",
            lambda one: {"sender_ids": one.ids(str(size), count), "events": size},  # noqa: B023
        )
    samples: Samples = {
        name: {size: {step: [] for step in STEPS} for size in sizes}
        for name in ready.workers
    }
    starts = range(0, repetitions, in_a_row)
    # Not the same order again and again: what a contestant leaves behind, in the caches
    # and on the disk, would always meet the same next one.
    shuffled = random.Random(1)
    for place, first in enumerate([-WARM_UP_TURNS, *starts]):
        numbers = range(first, min(repetitions, first + in_a_row) if place else 0)
        say(f"turn {numbers.stop} of {repetitions}")
        cells = [(size, one) for size in sizes for one in ready.workers.values()]
        for size, worker in shuffled.sample(cells, len(cells)):
            if worker.entry.name not in ready.workers:  # it failed in this round
                continue
            ids = worker.ids(str(size), counts[size])
            measure.write_out()
            try:
                found = [
                    await worker.ask(
                        "turn", sender_id=ids[number % len(ids)], number=number
                    )
                    for number in numbers
                ]
            except WorkerError as error:
                ready.drop(worker, error)
                continue
            for step, key in STEPS.items() if place else ():
                samples[worker.entry.name][size][step] += [e[key] for e in found]
    say("")
    return {name: found for name, found in samples.items() if name in ready.workers}


async def each(
    ready: Team, request: str, arguments_of: Callable[[Worker], dict[str, Any]]
) -> None:
    """Ask all workers for something, beside each other; drop those that fail."""

    async def one(worker: Worker) -> None:
        try:
            await worker.ask(request, **arguments_of(worker))
        except WorkerError as error:
            ready.drop(worker, error)

    await asyncio.gather(*map(one, ready.workers.values()))


def conversation_count(size: int, repetitions: int) -> int:
    """Return how many conversations of a size there are."""
    return max(1, min(repetitions, EVENTS_PER_SIZE // size))


def say(text: str) -> None:
    """Show how far it is, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r{text:<40}", end="\r", file=sys.stderr, flush=True)


def report(title: str, samples: Samples, absent: dict[str, str]) -> None:
    """Print the tables of one backend."""
    for step in STEPS:
        rows = []
        for name, sizes in samples.items():
            cells = [measure.spread_ms(found[step]) for found in sizes.values()]
            rows.append([BY_NAME[name].label, *cells, BY_NAME[name].lacks])
        if rows:
            numbers = [f"{size:,}" for size in next(iter(samples.values()))]
            header = [f"{step} ms, stored events", *numbers, "what it does not do"]
            print(f"\n{title}\n{measure.table(header, rows, notes=True)}")
    print_absent(absent)
    for line in verdicts(samples):
        print(line)


def print_absent(absent: dict[str, str]) -> None:
    """Name who has no numbers, and why."""
    for name, reason in absent.items():
        print(f"not measured: {BY_NAME[name].label}: {reason}")


def verdicts(samples: Samples) -> list[str]:
    """Return who is faster in which cell, and the ratios to the raw driver."""
    if "ours" not in samples:
        return []
    lines = []
    for step in STEPS:
        for size, found in samples["ours"].items():
            own = statistics.median(found[step])
            faster = [
                f"{BY_NAME[name].label} ({own / statistics.median(other):.2f}x)"
                for name, others in samples.items()
                if BY_NAME[name].is_peer
                and statistics.median(other := others[size][step]) < own
            ]
            if faster:
                lines.append(f"{step} at {size:,}: faster: {', '.join(faster)}")
    if not lines and any(BY_NAME[name].is_peer for name in samples):
        lines.append("ahead of every measured peer in every cell")
    for step, floor in (
        ("load", "floor_bytes"),
        ("load", "floor"),
        ("append", "floor"),
    ):
        if floor in samples:
            ratios = [
                f"{statistics.median(found[step]) / statistics.median(other[step]):.2f}"
                for found, other in zip(
                    samples["ours"].values(), samples[floor].values(), strict=True
                )
            ]
            lines.append(f"{step} / {BY_NAME[floor].label}: {', '.join(ratios)}")
    return lines


def panels_of(results: dict[str, Any]) -> list[charts.Panel]:
    """Return a diagram for each backend and step."""
    return [
        charts.Panel(
            f"{backend}: {step}",
            "ms",
            series={
                BY_NAME[name].label: [
                    (int(size), *measure.quartiles_ms(times[step]))
                    for size, times in sizes.items()
                ]
                for name, sizes in found["seconds"].items()
            },
            x_label="stored events",
        )
        for backend, found in results.items()
        for step in STEPS
    ]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = arguments.parser(__doc__ or "", BACKENDS, ["postgresql"])
    cold = [entry.name for entry in ENTRIES if entry.name != "ours_cached"]
    add_contestants(parser, cold)
    sizes = [10, 100, 1000, 5000]
    parser.add_argument(
        "--events", nargs="+", type=arguments.positive, default=sizes, help="stored"
    )
    parser.add_argument(
        "--repetitions", type=arguments.positive, default=40, help="turns a cell"
    )
    parser.add_argument(
        "--in-a-row",
        type=arguments.positive,
        default=4,
        help="turns that a contestant takes, on different conversations, before the "
        "next one does: with 1 each begins with the others' code and data in the "
        "processor's caches",
    )
    options = parser.parse_args()
    versions = measure.environment(["asyncpg", "aiosqlite", "redis", "orjson"])
    print("median [quartiles];", versions)
    results = {
        backend: measure.run(measure_backend(backend, options))
        for backend in options.backend
    }
    measure.write_json(options.json, {"environment": versions, "peers": results})
    charts.draw(
        options.chart,
        TITLE,
        panels_of(results),
    )


if __name__ == "__main__":
    main()
