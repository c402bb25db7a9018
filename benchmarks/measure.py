"""Timing, spread and tables, shared by the scripts."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import sqlite3
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end, which also is to clean up when SIGTERM comes."""
    before = signal.signal(
        signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT)
    )
    try:
        return asyncio.run(work)
    finally:
        signal.signal(signal.SIGTERM, before)


def write_out() -> None:
    """Wait until the disk has what was written so far, by whomever.

    Else whoever syncs a file next may have to wait for others' data, too: a file system
    with a journal writes them together.
    """
    if hasattr(os, "sync"):  # not on Windows
        os.sync()


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


def quartiles_ms(samples: list[float]) -> tuple[float, float, float]:
    """Return median, lower and upper quartile of times in seconds, as milliseconds."""
    if len(samples) < 4:
        return median_ms(samples), min(samples) * 1000, max(samples) * 1000
    low, middle, high = statistics.quantiles(samples, n=4)
    return middle * 1000, low * 1000, high * 1000


def table(header: list[str], rows: list[list[str]], notes: bool = False) -> str:
    """Return a table of text columns, the first aligned left, the others right.

    Args:
        header: Names of the columns.
        rows: The lines below them.
        notes: Whether the last column is text, and aligned left, too.
    """
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    left = {0, len(header) - 1} if notes else {0}
    lines = [
        "  ".join(
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, *rows]
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def environment(packages: list[str]) -> dict[str, str]:
    """Return what the numbers depend on: Python, system and package versions."""
    versions = {
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "processors": str(os.cpu_count()),
    }
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


async def server_version(backend: str, url: str) -> str:
    """Return name and version of the server of a backend.

    It ends the program with a sentence if the server does not let us in.
    """
    try:
        return await _server_version(backend, url)
    except Exception as error:  # noqa: BLE001  (drivers have no common base)
        kind = type(error).__name__
        sys.exit(f"{backend}: the server at --url does not let us in ({kind})")


async def _server_version(backend: str, url: str) -> str:
    if backend == "postgresql":
        import asyncpg

        connection = await asyncpg.connect(url)
        try:
            return f"PostgreSQL {await connection.fetchval('SHOW server_version')}"
        finally:
            await connection.close()
    if backend == "redis":
        from redis.asyncio import Redis

        async with Redis.from_url(url) as client:
            found = await client.info("server")
            return f"Redis {found['redis_version']}"
    return f"SQLite {sqlite3.sqlite_version}" if backend == "sqlite" else backend


def write_json(path: str | None, result: dict[str, Any]) -> None:
    """Write the result to a file, if one was asked for."""
    if path:
        Path(path).write_text(json.dumps(result, indent=1) + "\n")
        print(f"\nwritten: {path}")
