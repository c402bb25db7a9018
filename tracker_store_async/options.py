"""Options that every store has, and the checks of their values."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

from tracker_store_async import errors

OnConflict: TypeAlias = Literal["rebase", "raise"]
OnPublishError: TypeAlias = Literal["raise", "best_effort"]

HOST_WITH_LOGIN = (
    "must be a host name without a login: give username and password by themselves"
)

ON_CONFLICT_POLICIES: tuple[str, ...] = get_args(OnConflict)
ON_PUBLISH_ERROR_POLICIES: tuple[str, ...] = get_args(OnPublishError)


def check_max_event_history(max_event_history: int | None) -> int | None:
    """Return the bound if it is one.

    Raises:
        ConfigurationError: It is not a positive integer or None.
    """
    if max_event_history is None:
        return None
    is_number = isinstance(max_event_history, int) and max_event_history is not True
    if not is_number or max_event_history < 1:
        raise errors.ConfigurationError(
            "max_event_history must be 1 or more events, or None for no bound, "
            f"not {max_event_history!r}"
        )
    return max_event_history


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Check that an option has one of the values that it can have.

    Raises:
        ConfigurationError: It has not.
    """
    if value not in choices:
        raise errors.ConfigurationError(
            f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}"
        )


def check_record_exp(record_exp: float | None) -> float | None:
    """Return the time to live, in seconds, if it is one.

    Raises:
        ConfigurationError: It is not a positive number or None.
    """
    if record_exp is not None and not 0 < record_exp < math.inf:
        raise errors.ConfigurationError(
            f"record_exp must be a positive number of seconds, not {record_exp!r}"
        )
    return record_exp


def check_seconds(name: str, seconds: float) -> float:
    """Return a duration in seconds if it is one.

    Args:
        name: What the option is called, for the error.
        seconds: The duration.

    Raises:
        ConfigurationError: It is not a positive number.
    """
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds < math.inf:
        raise errors.ConfigurationError(
            f"{name} must be a positive number of seconds, not {seconds!r}"
        )
    return seconds


def check_count(name: str, count: int) -> int:
    """Return a number of things if it is one.

    Args:
        name: What the option is called, for the error.
        count: The number.

    Raises:
        ConfigurationError: It is not an int, 1 or more.
    """
    if type(count) is not int or count < 1:
        raise errors.ConfigurationError(f"{name} must be an int, 1 or more")
    return count


def check_host(host: str) -> str:
    """Return a host name, which errors and logs may show.

    Raises:
        ConfigurationError: It holds a login.
    """
    if isinstance(host, str) and "@" in host:
        raise errors.ConfigurationError(f"`host` {HOST_WITH_LOGIN}")
    return host


def check_page(page_size: int, cursor: str | None, user_id: str | None) -> None:
    """Check what `conversations` is asked for.

    Raises:
        InvalidInputError: The page has no positive size, or a text is not one that can
            be stored.
    """
    if not isinstance(page_size, int) or page_size < 1:
        raise errors.InvalidInputError("page_size must be an int, 1 or more")
    if cursor is not None and not _is_storable(cursor):
        raise errors.InvalidInputError("cursor must be that of a summary, or None")
    if user_id is not None and not _is_storable(user_id):
        raise errors.InvalidInputError("user_id must be text that can be stored")


def _is_storable(text: object) -> bool:
    if not isinstance(text, str) or "\0" in text:
        return False
    return text.encode(errors="ignore").decode() == text


def check_time(name: str, seconds: float | None) -> float | None:
    """Return a bound in time as one that every database knows.

    Args:
        name: What it is called, for the error.
        seconds: Seconds since the epoch; the infinities are allowed.

    Raises:
        InvalidInputError: It is not a number.
    """
    if seconds is None:
        return None
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or math.isnan(seconds):
        raise errors.InvalidInputError(
            f"{name} must be a time in seconds since the epoch, not {seconds!r}"
        )
    return max(-_END_OF_TIME, min(float(seconds), _END_OF_TIME))


_END_OF_TIME = 1e15
"""Seconds; beyond any stored time, and within the range of every database."""
