"""How far a move is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from tracker_store_async.inspection.terminal import can_draw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from tracker_store_async.moving.reports import Progress

LINE_SECONDS = 5.0
"""How often a line is written where there is no terminal."""


class Lines:
    """Writes a line now and then.

    Args:
        console: Where to.
        doing: What is done, such as `migrating`.
    """

    def __init__(self, console: Console, doing: str) -> None:
        self._console = console
        self._doing = doing
        self._started = self._told_at = time.monotonic()
        self._conversations = self._events = 0
        self._total = 0

    def expect(self, conversations: int, events: int) -> None:
        """Note how much there is to do in all."""
        self._total = conversations

    def advance(self, conversations: int, events: int) -> None:
        """Note that so much more is done."""
        self._conversations += conversations
        self._events += events
        now = time.monotonic()
        if now - self._told_at >= LINE_SECONDS:
            self._told_at = now
            self._tell(now)

    def _tell(self, now: float) -> None:
        seconds = max(now - self._started, 1e-9)
        of = f" of {self._total:,}" if self._total else ""
        line = (
            f"{self._doing}: {self._conversations:,}{of} conversations, "
            f"{self._events:,} events, {self._events / seconds:,.0f} events/s"
        )
        self._console.print(Text(line), soft_wrap=True)


class Bar:
    """Draws a bar on a terminal.

    Args:
        bar: The bar.
        doing: What is done, such as `migrating`.
    """

    def __init__(self, bar: RichProgress, doing: str) -> None:
        self._bar = bar
        self._task = bar.add_task(doing, total=None, events="0 events")
        self._events = 0
        self._started = time.monotonic()

    def expect(self, conversations: int, events: int) -> None:
        """Note how much there is to do in all."""
        self._bar.update(self._task, total=conversations)

    def advance(self, conversations: int, events: int) -> None:
        """Note that so much more is done."""
        self._events += events
        rate = self._events / max(time.monotonic() - self._started, 1e-9)
        told = f"{self._events:,} events {rate:,.0f}/s"
        self._bar.update(self._task, advance=conversations, events=told)


@contextmanager
def shown_progress(console: Console, doing: str) -> Iterator[Progress]:
    """Show how far a move is, for as long as the context lasts.

    Args:
        console: Where to show it.
        doing: What is done, such as `migrating`.
    """
    if not console.is_terminal:
        yield Lines(console, doing)
        return
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    if can_draw(console):
        columns.insert(0, SpinnerColumn())
    bar = RichProgress(
        *columns,
        TextColumn("{task.fields[events]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=4,
    )
    with bar:
        yield Bar(bar, doing)
