"""What our code adds over the driver, in microseconds a retrieve and a save.

The time that passes within the driver's own calls is taken off each retrieve and each
save: what is left is ours. Nothing else runs beside it. The retrieve is cold, of one
session, and looks at no event; `+ all events` is the same with every event decoded.
With `--svg FOLDER` both run once more under Python's profiler, and a flame graph of
each is drawn (`pip install flameprof`).
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import pstats
import statistics
import tempfile
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks import arguments, charts, measure, workload
from benchmarks.contestants import contestants

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from benchmarks.contestants import Ours

WARM_UP_TURNS = 5


class DriverTime:
    """Adds up the seconds within the driver's own calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def of(self, backend: str) -> Iterator[None]:
        """Watch the driver of a backend for as long as the context lasts."""
        with ExitStack() as stack:
            for owner, name in driver_calls(backend):
                stack.enter_context(self._of(owner, name))
            yield

    @contextmanager
    def _of(self, owner: Any, name: str) -> Iterator[None]:
        original = getattr(owner, name)

        async def watched(driver: Any, *args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return await original(driver, *args, **options)
            finally:
                self.seconds += time.perf_counter() - started

        setattr(owner, name, watched)
        try:
            yield
        finally:
            setattr(owner, name, original)


def driver_calls(backend: str) -> list[tuple[Any, str]]:
    """Return the classes of a driver and the names of the calls that we make of them.

    None of them makes another.
    """
    if backend == "postgresql":
        import asyncpg

        return [(asyncpg.Connection, "fetch")]
    if backend == "redis":
        from redis._parsers import _AsyncHiredisParser
        from redis.asyncio.connection import AbstractConnection

        return [
            (AbstractConnection, "send_packed_command"),
            (_AsyncHiredisParser, "read_response"),
        ]
    raise SystemExit(
        f"the driver's part is measured on postgresql and redis: {backend}"
    )


async def measure_backend(
    backend: str, url: str, size: int, repetitions: int, svg: Path | None
) -> dict[str, list[tuple[float, float]]]:
    """Return pairs of seconds for each call: all of it, and within the driver."""
    with tempfile.TemporaryDirectory() as folder:
        ours, _ = contestants(backend, url, Path(folder))
    await ours.open()
    try:
        ids = [f"{uuid4().hex}" for _ in range(max(3, min(repetitions, 4000 // size)))]
        for sender_id in ids:
            await ours.fill(sender_id, workload.history(size))
        driver = DriverTime()
        with driver.of(backend):
            samples = await turns(ours, ids, repetitions, driver)
        if svg is not None:
            await draw(ours, ids, repetitions, svg / f"profile-{backend}")
        return samples
    finally:
        await ours.close()


async def turns(
    ours: Ours, ids: list[str], repetitions: int, driver: DriverTime
) -> dict[str, list[tuple[float, float]]]:
    """Retrieve and save turn by turn."""
    samples: dict[str, list[tuple[float, float]]] = {}

    async def sample(name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        driver.seconds = 0.0
        seconds, result = await measure.timed(call)
        if number >= 0:
            samples.setdefault(name, []).append((seconds, driver.seconds))
        return result

    async def retrieve_all(sender_id: str) -> None:
        for _ in (await ours.retrieve(sender_id)).events:
            pass

    for number in range(-WARM_UP_TURNS, repetitions):
        sender_id = ids[number % len(ids)]
        gc.collect()
        await sample("+ all events", partial(retrieve_all, sender_id))
        gc.collect()
        loaded = await sample("retrieve", partial(ours.retrieve, sender_id))
        prepared = ours.prepare(loaded, sender_id, workload.turn(number))
        gc.collect()
        await sample("save", partial(ours.save, prepared))
    return samples


async def draw(ours: Ours, ids: list[str], repetitions: int, path: Path) -> None:
    """Draw a flame graph of retrieves, and one of saves."""
    import flameprof

    profiles = {"retrieve": cProfile.Profile(), "save": cProfile.Profile()}
    for number in range(repetitions):
        sender_id = ids[number % len(ids)]
        with profiles["retrieve"]:
            loaded = await ours.retrieve(sender_id)
        prepared = ours.prepare(loaded, sender_id, workload.turn(number))
        with profiles["save"]:
            await ours.save(prepared)
    for name, profile in profiles.items():
        with Path(f"{path}-{name}.svg").open("w", encoding="utf-8") as file:
            stats: Any = pstats.Stats(profile).strip_dirs()
            flameprof.render(stats.stats, file, threshold=0.003)


def line(name: str, samples: list[tuple[float, float]]) -> list[str]:
    """Return the medians of a call in microseconds, as text."""
    whole = statistics.median(seconds for seconds, _ in samples) * 1e6
    within = statistics.median(seconds for _, seconds in samples) * 1e6
    ours = statistics.median(seconds - driver for seconds, driver in samples) * 1e6
    ratio = statistics.median(seconds / driver for seconds, driver in samples)
    return [name, f"{whole:.0f}", f"{within:.0f}", f"{ours:.0f}", f"{ratio:.2f}"]


def panels_of(results: dict[str, Any]) -> list[charts.Panel]:
    """Return what is drawn: the medians of each cell, the driver's part and ours."""
    panels = []
    for cell, calls in results.items():
        bars: dict[str, Any] = {}
        for name, samples in calls.items():
            within = statistics.median(seconds for _, seconds in samples)
            rest = statistics.median(whole - driver for whole, driver in samples)
            bars |= {f"{name}: driver": within * 1e6, f"{name}: ours": rest * 1e6}
        panels.append(charts.Panel(f"{cell} events", "us", bars=bars))
    return panels


def main() -> None:
    """Run the benchmark from the command line."""
    known = ["postgresql", "redis"]
    parser = arguments.parser(__doc__ or "", known, known)
    parser.add_argument("--events", nargs="+", type=int, default=[1000])
    parser.add_argument("--repetitions", type=int, default=100, help="turns a cell")
    parser.add_argument("--svg", type=Path, metavar="FOLDER", help="draw flame graphs")
    options = parser.parse_args()
    print("median microseconds;", measure.environment(["asyncpg", "redis", "pydantic"]))
    results: dict[str, Any] = {}
    lines = []
    for backend in options.backend:
        url = arguments.url_of(backend, options)
        for size in options.events:
            svg = options.svg if size == options.events[0] else None
            found = asyncio.run(
                measure_backend(backend, url, size, options.repetitions, svg)
            )
            results[f"{backend} {size}"] = found
            lines += [
                line(f"{backend}, {size} events: {name}", found[name])
                for name in ("retrieve", "+ all events", "save")
            ]
    header = ["", "all", "within the driver", "ours", "all / driver"]
    print(measure.table(header, lines))
    measure.write_json(options.json, {"overhead": results})
    charts.draw(options.chart, "Within the driver, and ours", panels_of(results))


if __name__ == "__main__":
    main()
