"""Logs as lines of JSON, and what they never show.

The library logs to stdlib loggers below `tracker_store_async` and sets up no handler.
Whoever has no logging of their own calls `configure_logging`.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from tracker_store_async import redaction

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

ROOT = "tracker_store_async"
_STANDARD = {
    *vars(logging.makeLogRecord({})),
    "message",
    "asctime",
    "taskName",
    "_redacted",
}


class JSONFormatter(logging.Formatter):
    """Formats a record as one line of JSON with the fields of its `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line: time, level, logger, message, fields and traceback."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        names = vars(record).keys() - _STANDARD
        line |= {name: getattr(record, name) for name in sorted(names)}
        if record.exc_text or record.exc_info:
            line["traceback"] = record.exc_text or self.formatException(
                record.exc_info  # type: ignore[arg-type]
            )
        return json.dumps(line, default=lambda value: f"<{type(value).__name__}>")


def configure_logging(
    level: int | str = logging.INFO,
    *,
    as_json: bool = True,
    stream: TextIO | None = None,
    slots: Collection[str] | None = None,
    secrets: Iterable[str] | None = None,
) -> logging.Handler:
    """Write what the library logs to a stream, redacted.

    Calling it again replaces what an earlier call set up.

    Args:
        level: The lowest level to write.
        as_json: Lines of JSON, or plain text.
        stream: Where to; None is the standard error.
        slots: Names of slots whose values are never shown.
        secrets: Texts that are never shown. Without either, what
            `redaction.configure` was told stays.

    Returns:
        The handler.
    """
    if slots is not None or secrets is not None:
        redaction.configure(slots=slots or (), secrets=secrets or ())
    logger = logging.getLogger(ROOT)
    for old in [h for h in logger.handlers if getattr(h, "_is_ours", False)]:
        logger.removeHandler(old)
    handler = logging.StreamHandler(stream)
    handler._is_ours = True  # type: ignore[attr-defined]
    if as_json:
        handler.setFormatter(JSONFormatter())
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        )
    # Whatever else is sent to this handler is masked as well.
    handler.addFilter(redaction.RedactionFilter())
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    return handler
