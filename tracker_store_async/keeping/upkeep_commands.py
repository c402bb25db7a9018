"""What the command line does to look after a storage: optimize and stats."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.text import Text

from tracker_store_async.inspection.opening import opened
from tracker_store_async.inspection.terminal import (
    date_and_time,
    duration,
    json_text,
    printable,
    zone_name,
)
from tracker_store_async.keeping.plotting import check_picture, plot
from tracker_store_async.keeping.statistics import gather_statistics

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from tracker_store_async.inspection.targets import Target
    from tracker_store_async.keeping.statistics import Statistics

LONGEST_SECONDS = 24 * 3600
"""Longest time that one statement of an optimisation may take."""


async def optimize_store(console: Console, target: Target, *, dry_run: bool) -> None:
    """Say what will be done, do it, and say what it gained.

    Args:
        console: Where to print.
        target: The store.
        dry_run: Whether nothing is done.

    Raises:
        TrackerStoreError: The store cannot be used.
    """
    async with opened(target, command_timeout_seconds=LONGEST_SECONDS) as store:
        before = await store._upkeep(apply=False)
        _say(console, "store", target.label)
        _say(console, "takes", size_text(before.size_bytes))
        for step in before.steps:
            _say(console, "would do" if dry_run else "does", step)
        if dry_run or not before.steps:
            for note in before.notes:
                _say(console, "note", note)
            return
        started = time.perf_counter()
        after = await store._upkeep(apply=True)
        _say(console, "done", f"in {duration(time.perf_counter() - started)}")
        for note in after.notes:
            _say(console, "note", note)
        if before.size_bytes is not None and after.size_bytes is not None:
            gained = before.size_bytes - after.size_bytes
            verb = "gained" if gained >= 0 else "grew by"
            now = f"takes {size_text(after.size_bytes)} now"
            _say(console, verb, f"{size_text(abs(gained))}, {now}")


async def show_statistics(
    console: Console, target: Target, *, as_json: bool, picture: Path | None
) -> None:
    """Print what a store holds, and draw it.

    Args:
        console: Where to print.
        target: The store.
        as_json: Whether to print one JSON object.
        picture: File to draw to, or None.

    Raises:
        MissingExtraError: There is nothing to draw with.
        InvalidInputError: It cannot be drawn to that file.
        TrackerStoreError: The store cannot be used.
    """
    if picture is not None:
        check_picture(picture)  # else all would be counted in vain
    async with opened(target) as store:
        found = await gather_statistics(store)
    if as_json:
        console.out(json_text(_as_json(found)), highlight=False)
    else:
        _write_table(console, target, found)
    if picture is not None:
        plot(found, picture, title=target.label)
        if not as_json:
            _say(console, "picture", str(picture))


def _write_table(console: Console, target: Target, found: Statistics) -> None:
    mean = found.events / max(1, found.conversations)
    rows = {
        "store": target.label,
        "conversations": f"{found.conversations:,} ({found.users:,} with a user)",
        "events": f"{found.events:,} ({mean:.1f} a conversation)",
        "size": size_text(found.size_bytes),
        "growth": ", ".join(
            f"{found.growth_per_day(days):.1f} a day in the last {days} days"
            for days in (7, 30)
        ),
        "oldest": "" if found.oldest is None else date_and_time(found.oldest),
        "latest save": "" if found.newest is None else date_and_time(found.newest),
    }
    if found.oldest is not None:
        rows["oldest"] += f" {zone_name(found.oldest)}"
    if found.newest is not None:
        rows["latest save"] += f" {zone_name(found.newest)}"
    for name, value in rows.items():
        if value:
            _say(console, name, value)
    for n, (events, sender_id) in enumerate(found.longest):
        _say(console, "" if n else "longest", f"{events:>9,}  {sender_id}")


def _as_json(found: Statistics) -> dict[str, object]:
    return {
        "conversations": found.conversations,
        "events": found.events,
        "conversations_with_user": found.users,
        "size_bytes": found.size_bytes,
        "oldest": found.oldest,
        "latest_save": found.newest,
        "begun_per_day": {str(d): n for d, n in sorted(found.begun.items())},
        "longest": [
            {"sender_id": sender_id, "events": events}
            for events, sender_id in found.longest
        ],
    }


def size_text(size_bytes: int | None) -> str:
    """Return a size as people read it, such as `12.3 MiB`."""
    if size_bytes is None:
        return "unknown"
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"


def _say(console: Console, name: str, value: str) -> None:
    line = Text.assemble((name.ljust(15), "dim"), printable(value))
    console.print(line, soft_wrap=True)
