"""Text for terminals: nothing stored may move the cursor, and nothing may crash."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: escape sequences begin here
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # turn the direction of text
    "\u2028\u2029\ufeff"  # line breaks that do not look like one; byte order mark
    "\ud800-\udfff]"  # lone surrogates: no encoding has them
)


def printable(text: str) -> str:
    """Return the text with everything that a terminal would obey written as an escape.

    Letters, emoji and their joiners stay; `\\x1b`, a line break or a lone surrogate
    become visible text.
    """
    return _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    short = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    return short or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return Rasa's JSON of a value, all ASCII and so safe for every terminal."""
    return json.dumps(value, indent=indent, ensure_ascii=True).replace(
        "\x7f", "\\u007f"
    )


def one_line(error: object) -> str:
    """Return what an error says, as one line."""
    return printable(" ".join(str(error).split()))


def print_line(text: str) -> None:
    """Write a line to standard output as it is, for programs to read."""
    sys.stdout.write(f"{text}\n")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let the command line decide how to end: rich would exit with 1."""
        raise BrokenPipeError


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that shows text as it is: no markup, no emoji codes.

    Colours follow the terminal, `NO_COLOR` and `FORCE_COLOR`.
    """
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def prepare_streams() -> None:
    """Make output of characters that the stream's encoding lacks escape, not fail."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return `warning: ...` without a line break or an escape sequence."""
        return f"{record.levelname.lower()}: {one_line(record.getMessage())}"


def log_warnings() -> None:
    """Send this library's warnings and errors to standard error, one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    logger = logging.getLogger("tracker_store_async")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)


def abandon_stdout() -> None:
    """Keep Python quiet at exit once the reader of our output is gone."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        # Not a real file: then nothing is flushed to it at exit either.
        return


def can_draw(console: Console) -> bool:
    """Whether the output can show lines and dots that are not ASCII."""
    return console.encoding.lower().startswith("utf")


def moment(seconds: Any) -> datetime | None:
    """Return the local time of seconds since the epoch, or None if it is no time."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone()
    except (OverflowError, ValueError, OSError):
        return None


def date_and_time(seconds: Any) -> str:
    """Return seconds since the epoch as local `2026-03-14 18:02:11`, or `?`."""
    when = moment(seconds)
    return "?" if when is None else when.strftime("%Y-%m-%d %H:%M:%S")


def zone_name(seconds: float | None = None) -> str:
    """Return the name of the zone that times are shown in, such as `UTC+01:00`.

    Args:
        seconds: A time that is shown, in seconds since the epoch. None is for times of
            any day: where summer has an offset of its own, both are named.
    """
    if seconds is not None:
        return _offset(moment(seconds) or datetime.now().astimezone())
    today = datetime.now(UTC)
    days = (today + timedelta(days=days) for days in (0, 91, 182, 273))
    return " or ".join(sorted({_offset(day.astimezone()) for day in days}))


def _offset(when: datetime) -> str:
    offset = when.strftime("%z")
    return "UTC" if offset in ("+0000", "") else f"UTC{offset[:3]}:{offset[3:5]}"


_UNITS = (
    (365 * 86400, "year", "years"),
    (86400, "day", "days"),
    (3600, "h", "h"),
    (60, "min", "min"),
    (1, "s", "s"),
)


def duration(seconds: float) -> str:
    """Return a length of time in its largest whole unit, such as `3 min`."""
    for size, one, many in _UNITS:
        count = int(seconds // size)
        if count:
            return f"{count} {one if count == 1 else many}"
    return f"{seconds * 1000:.1f} ms"
