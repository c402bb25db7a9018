"""64 conversations at a time: turns a second, waiting, loop gaps, CPU and bytes.

Each contestant is a process of its own with one event loop. Every conversation runs its
turns one after the other: load, six new events, append. The turns are cut into rounds,
and the contestants take turns at them, so that a machine that is slower for a while is
so for all. The largest gap is by how much a sleep of 1 ms was overslept meanwhile: what
a web request in the same process would have had to wait.

Bytes on the wire are counted by a proxy in a short run of its own, with a few
conversations of the same length; the times come from the run without it.
"""

from __future__ import annotations

import random
import statistics
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from benchmarks import arguments, charts, measure
from benchmarks.catalog import BACKENDS, BY_NAME, Entry
from benchmarks.peers import add_contestants, each, entries_of, print_absent, say
from benchmarks.roundtrips import counting_proxy
from benchmarks.stored import stored_bytes
from benchmarks.worker_process import Team, Worker, WorkerError, team

if TYPE_CHECKING:
    import argparse

HEADER = [
    "contestant",
    "turns/s",
    "p50 ms",
    "p99 ms",
    "largest gap ms",
    "CPU ms a turn",
    "sent B a turn",
    "received B",
    "stored B an event",
    "what it does not do",
]
TITLE = "Conversations beside each other, each contestant in its own process"
COUNTED_CONVERSATIONS = 4
EVENTS_PER_TURN = 6


async def measure_backend(backend: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run the conversations of everybody on one backend, and print the table."""
    url = arguments.url_of(backend, options)
    server = await measure.server_version(backend, url)
    entries = entries_of(options, backend)
    async with team(entries, backend, url, options.envs, options.folder) as ready:
        versions = ready.versions()
        rounds = await take_rounds(ready, options)
        stored = {
            name: await stored_of(ready.workers[name], options) for name in rounds
        }
    figures = {
        name: figures_of(found, options) | {"stored_bytes_per_event": stored[name]}
        for name, found in rounds.items()
    }
    for name, found in figures.items():
        say(f"counting bytes of {name}")
        found |= await wire_bytes(BY_NAME[name], backend, url, options)
    say("")
    report(f"{backend}: {server}", figures, ready.absent)
    return {
        "server": server,
        "versions": versions,
        "figures": figures,
        "absent": ready.absent,
    }


async def take_rounds(
    ready: Team, options: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """Return what each worker found in each round; drop those that fail."""
    count = options.conversations

    def names(worker: Worker) -> dict[str, Any]:
        return {"sender_ids": worker.ids("talk", count)}

    await each(ready, "fill", lambda one: names(one) | {"events": options.events})
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ready.workers}
    length = max(1, options.turns // options.rounds)
    shuffled = random.Random(1)
    for number in range(-1, options.rounds):  # the first warms up, with a turn each
        order = list(ready.workers.values())
        for worker in shuffled.sample(order, len(order)):
            measure.write_out()
            say(f"round {number + 1} of {options.rounds}: {worker.entry.name}")
            turns = length if number >= 0 else 1
            asked = names(worker) | {"first": 1 + number * length, "turns": turns}
            try:
                reply = await worker.ask("converse", **asked)
            except WorkerError as error:
                ready.drop(worker, error)
            else:
                found[worker.entry.name] += [reply] if number >= 0 else []
    return {name: rounds for name, rounds in found.items() if name in ready.workers}


async def stored_of(worker: Worker, options: argparse.Namespace) -> float:
    """Return the stored bytes of an event."""
    if worker.place.backend == "sqlite":
        with suppress(WorkerError):  # brings what is in the log of SQLite into the file
            await worker.ask("close")
    length = max(1, options.turns // options.rounds)
    turns = 1 + length * options.rounds
    events = options.conversations * (options.events + EVENTS_PER_TURN * turns)
    per_event: float = await stored_bytes(worker.place) / events
    return per_event


def figures_of(
    rounds: list[dict[str, Any]], options: argparse.Namespace
) -> dict[str, Any]:
    """Return the figures of a contestant from those of its rounds."""
    turn_seconds = [one for found in rounds for one in found["turn_seconds"]]
    percentiles = statistics.quantiles(turn_seconds, n=100, method="inclusive")
    return {
        "turns_per_second": len(turn_seconds) / sum(one["seconds"] for one in rounds),
        "turns_per_second_of_rounds": [
            len(one["turn_seconds"]) / one["seconds"] for one in rounds
        ],
        "p50_ms": percentiles[49] * 1000,
        "p99_ms": percentiles[98] * 1000,
        "largest_gap_ms": max(one["gap_seconds"] for one in rounds) * 1000,
        "cpu_ms_per_turn": sum(one["cpu_seconds"] for one in rounds)
        * 1000
        / len(turn_seconds),
    }


async def wire_bytes(
    entry: Entry, backend: str, url: str, options: argparse.Namespace
) -> dict[str, float | None]:
    """Return the bytes that a turn sends and receives; None where nothing can count."""
    nothing: dict[str, float | None] = {
        "sent_bytes_per_turn": None,
        "received_bytes_per_turn": None,
    }
    if not url:
        return nothing
    async with (
        counting_proxy(url) as (proxy_url, proxy),
        team([entry], backend, proxy_url, options.envs, options.folder) as ready,
    ):
        if entry.name not in ready.workers:
            return nothing
        worker = ready.workers[entry.name]
        ids = worker.ids("count", COUNTED_CONVERSATIONS)
        try:
            await worker.ask("fill", sender_ids=ids, events=options.events)
            await worker.ask("converse", sender_ids=ids, first=0, turns=1)
            sent, received = proxy.sent_bytes, proxy.received_bytes
            await worker.ask("converse", sender_ids=ids, first=1, turns=options.turns)
        except WorkerError:
            return nothing
        turns = len(ids) * options.turns
        return {
            "sent_bytes_per_turn": (proxy.sent_bytes - sent) / turns,
            "received_bytes_per_turn": (proxy.received_bytes - received) / turns,
        }


def row(name: str, found: dict[str, Any]) -> list[str]:
    """Return the line of a contestant."""
    low = min(found["turns_per_second_of_rounds"])
    high = max(found["turns_per_second_of_rounds"])
    wire = [found["sent_bytes_per_turn"], found["received_bytes_per_turn"]]
    return [
        BY_NAME[name].label,
        f"{found['turns_per_second']:,.0f} [{low:,.0f}-{high:,.0f}]",
        f"{found['p50_ms']:,.1f}",
        f"{found['p99_ms']:,.1f}",
        f"{found['largest_gap_ms']:,.1f}",
        f"{found['cpu_ms_per_turn']:.2f}",
        *("-" if each is None else f"{each:,.0f}" for each in wire),
        f"{found['stored_bytes_per_event']:,.0f}",
        BY_NAME[name].lacks,
    ]


def report(
    title: str, figures: dict[str, dict[str, Any]], absent: dict[str, str]
) -> None:
    """Print the table of one backend."""
    rows = [row(name, found) for name, found in figures.items()]
    print(f"\n{title}\n{measure.table(HEADER, rows, notes=True)}")
    print_absent(absent)
    for line in verdicts(figures):
        print(line)


def verdicts(figures: dict[str, dict[str, Any]]) -> list[str]:
    """Return how many times the best peer ours is."""
    rates = {name: found["turns_per_second"] for name, found in figures.items()}
    others = [name for name in rates if BY_NAME[name].is_peer]
    if not others:
        return []
    best = max(others, key=rates.__getitem__)
    return [
        f"{BY_NAME[name].label}: {rates[name] / rates[best]:.1f}x the best peer, "
        f"{BY_NAME[best].label}"
        for name in ("ours", "ours_cached")
        if name in rates
    ]


def panels_of(results: dict[str, Any]) -> list[charts.Panel]:
    """Return two diagrams for each backend: turns a second, and the largest gap."""
    panels = []
    for backend, found in results.items():
        rates, gaps = {}, {}
        for name, one in found["figures"].items():
            rounds = one["turns_per_second_of_rounds"]
            label = BY_NAME[name].label
            rates[label] = (one["turns_per_second"], min(rounds), max(rounds))
            gaps[label] = (one["largest_gap_ms"],) * 3
        panels.append(
            charts.Panel(
                f"{backend}: turns a second", "turns/s", bars=rates, logarithmic=False
            )
        )
        panels.append(charts.Panel(f"{backend}: largest loop gap", "ms", bars=gaps))
    return panels


def main() -> None:
    """Run the benchmark from the command line."""
    parser = arguments.parser(__doc__ or "", BACKENDS, ["postgresql"])
    default = [name for name in BY_NAME if name != "ours_touched"]
    add_contestants(parser, list(BY_NAME), default)
    number = arguments.positive
    parser.add_argument("--conversations", type=number, default=64)
    parser.add_argument("--events", type=number, default=10, help="stored beforehand")
    parser.add_argument("--turns", type=number, default=40, help="of a conversation")
    parser.add_argument(
        *("--rounds", "--repetitions"), dest="rounds", type=number, default=4
    )
    options = parser.parse_args()
    versions = measure.environment(["asyncpg", "aiosqlite", "redis", "orjson"])
    print(
        f"{options.conversations} conversations, {options.turns} turns each in "
        f"{options.rounds} rounds, turns/s [lowest-highest round]; {versions}"
    )
    results = {
        backend: measure.run(measure_backend(backend, options))
        for backend in options.backend
    }
    found = {"environment": versions, "conversations": results}
    measure.write_json(options.json, found)
    charts.draw(
        options.chart,
        TITLE,
        panels_of(results),
    )


if __name__ == "__main__":
    main()
