"""Times that a person writes into an option."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from tracker_store_async.errors import ConfigurationError

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_BASIC_DATE = re.compile(r"[0-9]{8}")  # as ISO 8601 writes it without dashes

FIRST, LAST = 1e8, 1e11
"""Seconds since 1970 between which a number is a time: 1973 and 5138. What is less may
be a year or a date, and what is more counts milliseconds or has the time of day."""


def moment_of(text: str) -> float:
    """Return the time that an option names, in seconds since the epoch.

    Args:
        text: Such as `2026-03-14`, `20260314`, `2026-03-14T18:02:11+01:00`,
            `1773511331.25` or 0. Without a zone it is UTC.

    Raises:
        ConfigurationError: It is no time.
    """
    if _NUMBER.fullmatch(text) and not _BASIC_DATE.fullmatch(text):
        seconds = float(text)
        if seconds == 0 or FIRST <= seconds < LAST:
            return seconds
        raise _no_time(text)
    try:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        raise _no_time(text) from None


def _no_time(text: str) -> ConfigurationError:
    return ConfigurationError(
        f"{text!r} is no time: write 2026-03-14, 2026-03-14T18:02:11 or seconds since "
        "1970, such as 1773511331"
    )
