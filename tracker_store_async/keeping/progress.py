"""How far it is: a moving line on a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

SECONDS_PER_LINE = 5.0
"""Pause between two plain lines."""


class Report:
    """Counts conversations and says so now and then.

    Args:
        console: Where to say it.
        verb: What is done, such as `looked at`.
    """

    def __init__(self, console: Console, verb: str) -> None:
        self._console = console
        self._verb = verb
        self._bar: Progress | None = None
        self._said = time.monotonic()
        self.done = 0
        self.noted = ""

    def step(self, noted: str) -> None:
        """Count one more conversation.

        Args:
            noted: What there is to say of all of them so far.
        """
        self.done += 1
        self.noted = noted
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.done, noted=noted)
        elif time.monotonic() - self._said >= SECONDS_PER_LINE:
            self._said = time.monotonic()
            self._console.print(f"{self._verb} {self.done}, {noted}")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it while something is done."""
        if not self._console.is_terminal:
            yield
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.completed:,.0f}"),
            TextColumn("{task.fields[noted]}", markup=False),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as self._bar:
            self._bar.add_task(f"{self._verb} conversations", total=None, noted="")
            yield
