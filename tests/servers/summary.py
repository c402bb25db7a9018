"""Count test outcomes by backend for the end of the run."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ORDER = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")


class Summary:
    """What ran where.

    A test's report carries `backend: [key, title]` for a server that it ran on and
    `missing: [key, name, reason]` for one that it lacked; that of a storm has
    `storm: [seed, number of faults]`.
    """

    def __init__(self) -> None:
        self._counts: defaultdict[str | None, Counter[str]] = defaultdict(Counter)
        self._titles: dict[str, str] = {}
        self._missing: dict[str, tuple[str, str]] = {}
        self._faults = 0
        self._seed: int | None = None

    def add(self, outcome: str, properties: Iterable[tuple[str, Any]]) -> None:
        """Count one report under each backend of its test."""
        if outcome not in ORDER:
            return  # a phase of a test that is counted elsewhere
        keys: set[str | None] = set()
        for name, value in properties:
            if name == "backend":
                keys.add(value[0])
                self._titles[value[0]] = value[1]
            elif name == "missing":
                keys.add(value[0])
                self._missing[value[0]] = (value[1], value[2])
            elif name == "storm":
                self._seed = value[0]
                self._faults += value[1]
        for key in keys or {None}:
            self._counts[key][outcome] += 1

    def lines(self, order: Sequence[str]) -> list[str]:
        """Return the lines: what ran, in the given order, then what did not."""
        ran = [
            f"{self._titles[key]}: {self._text(key)}"
            for key in order
            if key in self._titles
        ]
        if None in self._counts:
            ran.append(f"no backend: {self._text(None)}")
        return ran + [
            f"not run: {name} ({reason}): {self._text(key)}"
            for key, (name, reason) in self._missing.items()
        ]

    def storm_lines(self) -> list[str]:
        """Return a line with the number of injected faults and their seed."""
        if self._seed is None:
            return []
        again = f"TRACKER_STORE_STORM_SEED={self._seed}"
        return [f"storms: {self._faults:,} faults injected ({again} repeats them)"]

    def _text(self, key: str | None) -> str:
        counts = self._counts[key]
        return ", ".join(f"{counts[name]} {name}" for name in ORDER if counts[name])
