"""The arguments of `FailSafeTrackerStore`, in our order and in Rasa's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.options import check_count
from tracker_store_async.store import is_tracker_store
from tracker_store_async.wrappers.base import check_wrapped

if TYPE_CHECKING:
    from tracker_store_async.store import TrackerStore

DEFAULT_BACKLOG_BYTES = 256 * 2**20
"""In memory: a process that ran out of it would lose all that it holds."""


def one_of(ours: Any, theirs: Any, name: str) -> Any:
    """Return what was given by our name or by Rasa's.

    Raises:
        ConfigurationError: Both were given.
    """
    if ours is not None and theirs is not None:
        raise ConfigurationError(f"`{name}` is given twice, by our name and by Rasa's")
    return theirs if ours is None else ours


def in_order(fallback: Any, on_error: Any) -> tuple[Any, Any]:
    """Return the fallback and the function, in whichever order they were given.

    Raises:
        ConfigurationError: One of them is something else.
    """
    if is_tracker_store(on_error) or (
        callable(fallback) and not is_tracker_store(fallback)
    ):
        fallback, on_error = on_error, fallback
    if on_error is not None and not callable(on_error):
        raise ConfigurationError("`on_tracker_store_error` must be a function")
    return fallback, on_error


def backlog_bound(max_bytes: int | None, is_in_memory: bool) -> int | None:
    """Return how many bytes an outage may leave in the fallback, or None.

    Raises:
        ConfigurationError: It is no whole number from 1 on.
    """
    if max_bytes is not None:
        return check_count("max_backlog_bytes", max_bytes)
    return DEFAULT_BACKLOG_BYTES if is_in_memory else None


def check_sealed(fallback: TrackerStore | None, journal: str | None) -> None:
    """Check that what an encrypted primary is given gets on no disk plain.

    Raises:
        ConfigurationError: It would.
    """
    is_plain = fallback is not None and not fallback._seals
    is_kept = fallback is not None and fallback.backend_name != "in_memory"
    if journal is not None or (is_plain and is_kept):
        raise ConfigurationError(
            "the primary encrypts what it stores, and the fallback would keep it "
            "plain: give `wrap_fallback`, which wraps it in encryption, too"
        )


def check_fallback(
    fallback: TrackerStore, primary: TrackerStore, journal: str | None
) -> None:
    """Check that a store can be the fallback of another.

    Raises:
        ConfigurationError: It cannot.
    """
    check_wrapped(fallback, "FailSafeTrackerStore")
    if journal is not None:
        raise ConfigurationError("`journal` is a fallback of its own: give one of them")
    if fallback is primary:
        raise ConfigurationError("a store cannot be its own fallback")
    if not fallback._tells_logs_apart:
        raise ConfigurationError(
            f"{type(fallback).__name__} cannot be the fallback: it keeps no event ids"
        )
