"""Timing, spread and tables, shared by the scripts."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def timed(call: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    """Await a call; return the seconds that it took and its result."""
    started = time.perf_counter()
    result = await call()
    return time.perf_counter() - started, result


def median_ms(samples: list[float]) -> float:
    """Return the median of times in seconds, as milliseconds."""
    return statistics.median(samples) * 1000


def spread_ms(samples: list[float]) -> str:
    """Return the median and the quartiles of times in seconds, as milliseconds."""
    if len(samples) < 4:
        return f"{median_ms(samples):.2f}"
    low, middle, high = statistics.quantiles(samples, n=4)
    return f"{middle * 1000:.2f} [{low * 1000:.2f}-{high * 1000:.2f}]"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a table of text columns, the first aligned left, the others right."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    lines = []
    for line in [header, *rows]:
        cells = [line[0].ljust(widths[0])]
        cells += [
            cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)
        ]
        lines.append("  ".join(cells))
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def environment(packages: list[str]) -> dict[str, str]:
    """Return what the numbers depend on: Python, system and package versions."""
    versions = {"python": sys.version.split()[0], "system": platform.platform()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def write_json(path: str | None, result: dict[str, Any]) -> None:
    """Write the result to a file, if one was asked for."""
    if path:
        Path(path).write_text(json.dumps(result, indent=1) + "\n")
        print(f"\nwritten: {path}")
