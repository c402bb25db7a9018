"""What each process of the outage benchmark has told: by its log, and by its metrics.

An outage is one line when it begins and one when it is over, and the metrics say the
same: how often the breaker opened and closed, how many events were replayed, how many
turns were saved. A process that is killed tells no metrics, and no end.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

METRICS = {
    "opened": r'tracker_store_breaker_transitions_total\{.*to="open".*\}',
    "closed": r'tracker_store_breaker_transitions_total\{.*to="closed".*\}',
    "replayed": r"tracker_store_replayed_events_total\{.*\}",
    "turns": r"tracker_store_operation_duration_seconds_count"
    r'\{.*operation="save".*outcome="ok".*\}',
}
"""What is compared, to the metric that counts it."""

LINES = ("breaker_opened", "breaker_closed", "backlog_replayed")


@dataclass(slots=True)
class Story:
    """What one process has told.

    Attributes:
        opened: Lines in its log that an outage has begun.
        closed: Lines in its log that an outage is over.
        replayed: Events that were replayed, by its log.
        turns: Turns that were answered.
        metrics: The same by its metrics; empty for one that was killed.
    """

    opened: int = 0
    closed: int = 0
    replayed: int = 0
    turns: int = 0
    metrics: dict[str, int] = field(default_factory=dict)

    def note(self, words: list[str]) -> None:
        """Take note of a line `told` or `counted`, without the conversation's own."""
        kind, *rest = words
        if kind == "counted":
            self.metrics[rest[0]] = int(rest[1])
            return
        self.opened += rest[0] == "breaker_opened"
        self.closed += rest[0] == "breaker_closed"
        self.replayed += int(rest[1])

    def problems(self) -> list[str]:
        """Return where the log and the metrics differ, or there are too many lines."""
        found = []
        if self.opened > 1 or self.closed > self.opened:
            found.append(f"{self.opened} lines opened, {self.closed} closed")
        if self.metrics and self.opened != self.closed:
            found.append(f"{self.opened} lines opened, {self.closed} closed")
        for name, counted in self.metrics.items():
            told = getattr(self, name)
            if told != counted:
                found.append(f"{name}: {told} by the log, {counted} by the metrics")
        return found


class Told(logging.Handler):
    """Passes on what the log says of outages.

    Args:
        say: Gets the words of a line.
    """

    def __init__(self, say: Callable[..., None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line on, if it is one of those."""
        event = getattr(record, "event", None)
        if event in LINES:
            self._say("told", event, getattr(record, "replayed_events", 0))


def watch(store: Any, say: Callable[..., None]) -> Callable[[], None]:
    """Have the log passed on, and a store measured.

    Args:
        store: The store.
        say: Gets the words of a line.

    Returns:
        What passes on the metrics, at the end.
    """
    from tracker_store_async.ops.prometheus import PrometheusMetrics
    from tracker_store_async.ops.telemetry import instrument

    logger, handler = logging.getLogger("tracker_store_async"), Told(say)
    logger.addHandler(handler)
    metrics = PrometheusMetrics()
    instrument(store, meter_provider=metrics.meter_provider)

    def tell() -> None:
        logger.removeHandler(handler)
        text = metrics.text().decode()
        for name, pattern in METRICS.items():
            found = re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE)
            say("counted", name, int(sum(map(float, found))))

    return tell
