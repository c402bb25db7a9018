"""An outage of the primary under full load: what is answered, and what is lost.

64 conversations take one turn after the other; the server is killed with SIGKILL, and
started again after a while. Three times: with the fail-safe; with its journal and the
process killed as well, in the middle of the outage; and, as the contrast, with a plain
fail-safe, which has a memory to fall back on and replays nothing.

Afterwards the primary is read directly: every event that was acknowledged must be
there, once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import arguments, charts, measure
from benchmarks.outage_servers import SERVERS
from benchmarks.outage_story import Story
from tracker_store_async import create_tracker_store
from tracker_store_async.rows import Read

if TYPE_CHECKING:
    from benchmarks.outage_servers import OutageServer

SCENARIOS = {
    "fail-safe": ("fail_safe", False, False),
    "fail-safe, journal, process killed": ("fail_safe", True, True),
    "plain (memory, no replay)": ("plain", False, False),
}
"""Name to the kind of store, whether it has a journal, and whether it is killed."""

LONGEST_RECOVERY_SECONDS = 180.0

HEADER = [
    "",
    "turns in outage",
    "answered",
    "p99 ms before",
    "during",
    "after",
    "events saved",
    "lost",
    "doubled",
    "recovery s",
]


@dataclass(slots=True)
class Seen:
    """What the processes have said.

    Attributes:
        turns: When each turn ended, in s since the epoch, and how long it took, in s.
        failures: When a turn failed, in s since the epoch.
        states: When the breaker changed, and whether all was well then.
        acknowledged: The ids that were saved, by conversation.
        stories: What each process that has a fail-safe told of the outage.
    """

    turns: list[tuple[float, float]] = field(default_factory=list)
    failures: list[float] = field(default_factory=list)
    states: list[tuple[float, bool]] = field(default_factory=list)
    acknowledged: dict[str, list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )
    stories: list[Story] = field(default_factory=list)

    def begin(self) -> None:
        """Take note that a process has started."""
        self.stories.append(Story())

    def note(self, line: str) -> None:
        """Take note of a line."""
        kind, *words = line.split()
        if kind == "turn":
            self.turns.append((float(words[1]), float(words[2])))
            self.stories[-1].turns += 1
            self.acknowledged[words[0]] += words[3:]
        elif kind == "failed":
            self.failures.append(float(words[1]))
        elif kind == "state":
            self.states.append((float(words[0]), words[1:] == ["closed", "empty"]))
        elif kind in ("told", "counted"):
            self.stories[-1].note([kind, *words])


class Process:
    """A process under load."""

    def __init__(self, seen: Seen, arguments: dict[str, Any]) -> None:
        self._seen = seen
        self._arguments = arguments

    async def start(self) -> None:
        """Start it, and return when its first turns begin."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.outage_load"),
            json.dumps(self._arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        self._seen.begin()
        # What its log says of an outage that is under way may come first.
        while (line := await self._process.stdout.readline()) and (
            not line.startswith(b"ready")
        ):
            self._seen.note(line.decode())
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if line.endswith(b"\n"):
                self._seen.note(line.decode())

    async def kill(self) -> None:
        """End it with SIGKILL."""
        self._process.kill()
        await self._listening
        await self._process.wait()

    async def stop(self) -> None:
        """Let it end its turns, catch up and close."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._listening
        await self._process.wait()


async def run(
    server: OutageServer, name: str, journal: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Run one scenario; return its figures."""
    kind, has_journal, is_killed = SCENARIOS[name]
    seen = Seen()
    workload = {
        "kind": kind,
        "section": server.section,
        "journal": journal if has_journal else None,
        "conversations": options.conversations,
    }
    process = Process(seen, workload)
    await process.start()
    await asyncio.sleep(options.around)
    killed_at = time.time()
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(options.outage / 2)
    if is_killed:
        await process.kill()
        await process.start()
    await asyncio.sleep(options.outage / 2)
    await asyncio.to_thread(server.start)
    back_at = time.time()
    await asyncio.sleep(options.around)
    if kind == "fail_safe":
        await all_well(seen, back_at)
    await process.stop()
    lost, doubled = await compare(server.section, seen.acknowledged)
    return {
        **figures(seen, killed_at, back_at),
        "events_lost": lost,
        "events_doubled": doubled,
        "told": [asdict(story) for story in seen.stories],
        "differences": [text for story in seen.stories for text in story.problems()],
    }


async def all_well(seen: Seen, back_at: float) -> None:
    """Wait, under the same load, until the backlog is replayed, or for long enough."""
    while time.time() < back_at + LONGEST_RECOVERY_SECONDS:
        if any(is_well and at > back_at for at, is_well in seen.states):
            return
        await asyncio.sleep(0.1)


def figures(seen: Seen, killed_at: float, back_at: float) -> dict[str, Any]:
    """Return what was answered, how fast, and when all was well again."""
    before = [seconds for at, seconds in seen.turns if at < killed_at]
    during = [seconds for at, seconds in seen.turns if killed_at <= at < back_at]
    after = [seconds for at, seconds in seen.turns if at >= back_at]
    failed = [at for at in seen.failures if killed_at <= at < back_at]
    well = [at for at, is_well in seen.states if is_well and at > back_at]
    return {
        "turns_in_outage": len(during) + len(failed),
        "answered_percent": 100 * len(during) / max(1, len(during) + len(failed)),
        "failed_outside": len(seen.failures) - len(failed),
        "p99_seconds": [p99(before), p99(during), p99(after)],
        "turns": [len(before), len(during), len(after)],
        "events_saved": sum(map(len, seen.acknowledged.values())),
        "recovery_seconds": min(well) - back_at if well else None,
    }


def p99(seconds: list[float]) -> float | None:
    """Return the 99th percentile, or None of nothing."""
    if len(seconds) < 2:
        return None
    return statistics.quantiles(seconds, n=100, method="inclusive")[98]


async def compare(
    section: dict[str, Any], acknowledged: dict[str, list[str]]
) -> tuple[int, int]:
    """Return how many acknowledged events the primary lacks, and has more than once."""
    lost = doubled = 0
    async with create_tracker_store(section) as primary:
        for name, saved in acknowledged.items():
            found = await primary._read(Read(name, time.time(), start=0))
            ids = [] if found is None else [event_id for event_id, _ in found.rows]
            lost += len(set(saved) - set(ids))
            doubled += len(ids) - len(set(ids))
            await primary.delete(name)
    return lost, doubled


def row(name: str, found: dict[str, Any]) -> list[str]:
    """Return a line of the table."""
    recovery = found["recovery_seconds"]
    return [
        name,
        f"{found['turns_in_outage']:,}",
        f"{found['answered_percent']:.2f} %",
        *(
            "none" if each is None else f"{each * 1000:.1f}"
            for each in found["p99_seconds"]
        ),
        f"{found['events_saved']:,}",
        f"{found['events_lost']:,}",
        f"{found['events_doubled']:,}",
        "never" if recovery is None else f"{recovery:.1f}",
    ]


async def measure_backend(backend: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run every scenario on a server of our own, and print the table."""
    results: dict[str, Any] = {}
    with SERVERS[backend]() as server, tempfile.TemporaryDirectory() as folder:
        for name in SCENARIOS:
            journal = str(Path(folder) / "journal.db")
            results[name] = await run(server, name, journal, options)
    rows = [row(name, found) for name, found in results.items()]
    print(f"\n{backend}\n{measure.table(HEADER, rows)}")
    for name, found in results.items():
        print(told(name, found))
    return results


def told(name: str, found: dict[str, Any]) -> str:
    """Return what the logs have told, and whether the metrics say the same."""
    if not any(story["opened"] or story["metrics"] for story in found["told"]):
        return f"{name}: tells nothing"
    lines = ", then ".join(
        f"{story['opened']} opened, {story['closed']} closed, "
        f"{story['replayed']:,} events replayed"
        for story in found["told"]
    )
    differences = "; ".join(found["differences"])
    return f"{name}: by the log {lines}; the metrics " + (
        f"DIFFER: {differences}" if differences else "say the same"
    )


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    result.add_argument(
        "--backend", nargs="+", choices=SERVERS, default=["postgresql"], help="primary"
    )
    result.add_argument("--conversations", type=int, default=64, help="at a time")
    result.add_argument("--outage", type=float, default=20.0, help="seconds")
    result.add_argument(
        "--around", type=float, default=8.0, help="seconds before and after it"
    )
    arguments.add_outputs(result)
    return result


def panels_of(results: dict[str, Any]) -> list[charts.Panel]:
    """Return two diagrams for each backend: what was lost, and p99 in the outage."""
    panels = []
    for backend, found in results.items():
        lost = {name: (one["events_lost"],) * 3 for name, one in found.items()}
        during = {
            name: (one["p99_seconds"][1] * 1000,) * 3
            for name, one in found.items()
            if one["p99_seconds"][1] is not None
        }
        panels.append(
            charts.Panel(
                f"{backend}: lost", "acknowledged events", bars=lost, logarithmic=False
            )
        )
        panels.append(
            charts.Panel(f"{backend}: p99 during", "ms", bars=during, logarithmic=False)
        )
    return panels


def main() -> None:
    """Run the benchmark from the command line."""
    options = parser().parse_args()
    versions = measure.environment(["sqlalchemy", "asyncpg", "aiosqlite", "pydantic"])
    print(
        f"{options.conversations} conversations at full load, primary killed for "
        f"{options.outage:g} s; {versions}"
    )
    results = {
        backend: measure.run(measure_backend(backend, options))
        for backend in options.backend
    }
    measure.write_json(options.json, {"environment": versions, "outage": results})
    title = f"The primary is killed for {options.outage:g} s"
    charts.draw(options.chart, title, panels_of(results))


if __name__ == "__main__":
    main()
