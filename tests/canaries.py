"""Planted texts that nothing may give away, and who watches for them.

Every conversation of the suite holds `TEXT`. While the suite runs, all that the library
logs, traces, measures and raises is kept; a run in which one of the canaries turns up
there fails, and says where. `TRACKER_STORE_TEST_REDACTION=off` turns redaction off, so
that one can see this go red.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from tracker_store_async import redaction
from tracker_store_async.errors import TrackerStoreError
from tracker_store_async.store import TrackerStore

TEXT = "canary-text-27c1f0"
"""What somebody said."""

SECRET = "canary-secret-5b9e44"
"""A password or a key."""

CANARIES = (TEXT, SECRET)
SWITCH = "TRACKER_STORE_TEST_REDACTION"
MAX_FINDINGS = 20


class Watcher(logging.Handler):
    """Looks at each log line and each error of ours as it is made.

    Attributes:
        findings: Where a canary was seen.
        seen: Number of things looked at, by kind.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.findings: list[str] = []
        self.metrics: Any = None
        self.seen = {"logged": 0, "raised": 0, "traced": 0, "measured": 0}
        self.setFormatter(logging.Formatter("%(message)s"))

    def install(self) -> None:
        """Watch from now on."""
        logger = logging.getLogger("tracker_store_async")
        logger.addHandler(self)
        logger.setLevel(logging.DEBUG)
        init = TrackerStoreError.__init__
        watcher = self

        def noted(error: TrackerStoreError, *args: Any) -> None:
            init(error, *args)
            watcher.look("raised", f"{type(error).__name__}: {error}")

        TrackerStoreError.__init__ = noted  # type: ignore[assignment,method-assign]
        self._watch_telemetry()
        if os.environ.get(SWITCH) == "off":
            redaction.configure(enabled=False)

    def _watch_telemetry(self) -> None:
        """Trace and measure every store of the suite, where OpenTelemetry is there."""
        try:
            from opentelemetry.sdk.trace import (
                ReadableSpan,
                SpanProcessor,
                TracerProvider,
            )

            from tracker_store_async.ops.prometheus import PrometheusMetrics
            from tracker_store_async.ops.telemetry import Telemetry
        except ImportError:  # an extra: others must run without it
            return
        watcher = self

        class Looker(SpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                shown = f"{span.name} {dict(span.attributes or {})} {span.events}"
                watcher.look("traced", f"{shown} {span.status.description}")

        provider = TracerProvider()
        provider.add_span_processor(Looker())
        self.metrics = PrometheusMetrics()
        TrackerStore._observer = Telemetry(provider, self.metrics.meter_provider)

    def finish(self) -> None:
        """Look at what was measured."""
        if self.metrics is not None:
            self.look("measured", self.metrics.text().decode())

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a log line, its fields and its traceback."""
        shown = f"{record.name}: {self.format(record)} {vars(record)}"
        self.look("logged", shown)

    def look(self, kind: str, shown: str) -> None:
        """Note a text if a canary is in it."""
        self.seen[kind] += 1
        if any(canary in shown for canary in CANARIES):
            test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
            self.findings.append(f"{kind} in {test}: {shown[:200]}")


WATCHER = Watcher()
