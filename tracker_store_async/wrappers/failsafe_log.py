"""What the fail-safe tells of itself: to the log, one line when it begins and one when
it is over; and to who asks for its health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker_store_async.redaction import fields, get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracker_store_async.store import TrackerStore
    from tracker_store_async.wrappers.failsafe_backlog import Backlog
    from tracker_store_async.wrappers.failsafe_breaker import CircuitBreaker
    from tracker_store_async.wrappers.failsafe_journal import JournalFile
    from tracker_store_async.wrappers.failsafe_memory import LastSeen
    from tracker_store_async.wrappers.failsafe_replay import Replayed

logger = get_logger(__name__)


def tell_outage(backend: str, fallback: str, error: Exception) -> None:
    """Tell that the primary is away.

    Args:
        backend: Name of the primary's backend.
        fallback: Name of the fallback's.
        error: What the primary raised.
    """
    logger.error(
        "The tracker store is unavailable: saves go to the fallback (%s) until it is "
        "back. %s",
        fallback,
        error,
        extra=fields("breaker_opened", backend=backend, fallback=fallback),
    )


def tell_recovery(
    seconds: float, done: Replayed, refused: Mapping[str, Exception]
) -> None:
    """Tell that the primary is back, and what was replayed.

    Args:
        seconds: How long it was away.
        done: What was replayed.
        refused: The errors of what it refuses, by conversation.
    """
    what = f"The tracker store is back after {seconds:.1f} s"
    told = fields("breaker_closed", seconds=seconds, **_numbers(done))
    _tell_replay(what, told, done, refused)


def tell_left_over(done: Replayed, refused: Mapping[str, Exception]) -> None:
    """Tell that what an earlier process has left was replayed, with no outage since.

    Args:
        done: What was replayed.
        refused: The errors of what the primary refuses, by conversation.
    """
    told = fields("backlog_replayed", **_numbers(done))
    _tell_replay("What an earlier outage has left is done", told, done, refused)


def _numbers(done: Replayed) -> dict[str, int]:
    return {
        "replayed_events": done.events,
        "replayed_conversations": done.conversations,
        "landed_events": done.landed,
        "conflicts": done.conflicts,
    }


def _tell_replay(
    what: str,
    told: dict[str, Any],
    done: Replayed,
    refused: Mapping[str, Exception],
) -> None:
    logger.warning(
        "%s: replayed %d events of %d conversations (%d of them had landed, %d "
        "conversations had been written to by others).",
        what,
        done.events,
        done.conversations,
        done.landed,
        done.conflicts,
        extra=told,
    )
    for sender_id, error in refused.items():
        logger.error(
            "The tracker store refuses the events of the outage of conversation "
            "%r, which stay in the fallback: %s",
            sender_id,
            error,
            extra=fields("replay_refused", sender_id=sender_id),
        )


def tell_what_waits(backlog: Backlog, fallback: str) -> None:
    """Tell what an earlier outage has left.

    Args:
        backlog: What is left.
        fallback: Name of the fallback's backend.
    """
    if backlog.entries:
        logger.warning(
            "%d events of %d conversations of an earlier outage wait in the "
            "fallback (%s) and are being replayed.",
            backlog.event_count,
            len(backlog.entries),
            fallback,
            extra=fields("backlog_found", backlog_events=backlog.event_count),
        )


def tell_what_is_left(backlog: Backlog, fallback: str, journal: str | None) -> None:
    """Tell what was not replayed before the store is closed, loudly if it is lost.

    Args:
        backlog: What is left.
        fallback: Name of the fallback's backend.
        journal: Path of the journal, or None.
    """
    entries, events = backlog.entries, backlog.event_count
    if not entries:
        return
    if fallback == "in_memory":
        logger.critical(
            "%d events of %d conversations were not replayed before the store was "
            "closed and are LOST when this process ends: they are in memory only. "
            "Set `journal` so that they survive.",
            events,
            len(entries),
            extra=fields("backlog_lost", backlog_events=events),
        )
        return
    logger.warning(
        "%d events of %d conversations were not replayed before the store was "
        "closed. They are kept in %s, and replayed when a store is opened "
        "with it again.",
        events,
        len(entries),
        "the fallback" if journal is None else f"the journal {journal!r}",
        extra=fields("backlog_kept", backlog_events=events),
    )


def details_of(
    breaker: CircuitBreaker,
    backlog: Backlog,
    seen: LastSeen,
    fallback: TrackerStore,
    files: Sequence[JournalFile],
) -> dict[str, Any]:
    """Return what `health` says of a fail-safe."""
    return {
        "state": breaker.state,
        "outage_seconds": breaker.outage_seconds,
        "backlog_conversations": len(backlog.entries),
        "backlog_events": backlog.event_count,
        "backlog_bytes": backlog.size_bytes,
        "refused_saves": backlog.refused_saves,
        "provisional_conversations": backlog.provisional_count,
        "remembered_conversations": len(seen),
        "remembered_bytes": seen.size_bytes,
        "fallback": fallback.backend_name,
        "journal": str(files[0].path) if files else None,
    }
