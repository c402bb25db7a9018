"""The keys of a `tracker_store` section that wrap the store, whatever its type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tracker_store_async.errors import ConfigurationError
from tracker_store_async.settings import (
    Count,
    Name,
    Seconds,
    Section,
    parse_settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tracker_store_async.store import TrackerStore

SectionT = TypeVar("SectionT", bound=Section)


class RetryConfig(Section):
    """The keys of `retry`.

    Attributes:
        attempts: Most attempts, the first included.
        budget_seconds: No attempt begins later than this after the first one.
    """

    attempts: Count | None = None
    budget_seconds: Seconds | None = None


class FailSafeConfig(Section):
    """The keys of `fail_safe`.

    Attributes:
        journal: Path of the SQLite file that keeps what an outage adds.
        fallback: A section like `tracker_store` for the store that does so instead.
        timeout_seconds: Longest time that a request to the primary may take.
        probe_min_seconds: First pause before the primary is tried again.
        probe_max_seconds: Longest of these pauses.
        remembered_conversations: Most conversations to remember.
        remembered_bytes: About how much memory that may take.
        max_backlog_bytes: About how much an outage may leave in the fallback.
    """

    journal: Name | None = None
    fallback: dict[str, Any] | None = None
    timeout_seconds: Seconds | None = None
    probe_min_seconds: Seconds | None = None
    probe_max_seconds: Seconds | None = None
    remembered_conversations: Count | None = None
    remembered_bytes: Count | None = None
    max_backlog_bytes: Count | None = None


class CacheConfig(Section):
    """The keys of `cache`.

    Attributes:
        max_trackers: Most conversations to keep.
        max_bytes: Most bytes to keep, counted as the stored text of the events.
    """

    max_trackers: Count | None = None
    max_bytes: Count | None = None


@dataclass(frozen=True, slots=True)
class Wrapping:
    """What a store is to be wrapped in.

    Attributes:
        retry: How faults are retried, or None.
        fail_safe: How outages are survived, or None.
        cache: How much is kept decoded, or None.
    """

    retry: RetryConfig | None
    fail_safe: FailSafeConfig | None
    cache: CacheConfig | None

    def apply(
        self, store: TrackerStore, create: Callable[[dict[str, Any]], TrackerStore]
    ) -> TrackerStore:
        """Return the store in its wrappers.

        Retries are within, the fail-safe is around them, and the cache outside.

        Args:
            store: The store.
            create: Makes the fallback from its section.

        Raises:
            ConfigurationError: The keys contradict each other.
        """
        if self.retry is not None:
            from tracker_store_async.wrappers.retrying import RetryingTrackerStore

            store = RetryingTrackerStore(store, **_given(self.retry))
        if self.fail_safe is not None:
            from tracker_store_async.wrappers.failsafe import FailSafeTrackerStore

            options = _given(self.fail_safe)
            if "fallback" in options:
                options["fallback"] = create(options["fallback"])
            store = FailSafeTrackerStore(store, **options)
        if self.cache is not None:
            from tracker_store_async.wrappers.cached import CachedTrackerStore

            store = CachedTrackerStore(store, **_given(self.cache))
        return store


def take_wrapping(
    settings: dict[str, Any], own: Collection[str], *, where: str, strict: bool
) -> Wrapping:
    """Take the keys `retry`, `fail_safe` and `cache` out of a section.

    Args:
        settings: The section; the keys are removed.
        own: Keys that the store's class wants for itself.
        where: What errors begin with, such as `tracker_store`.
        strict: Whether an unknown key is an error.

    Raises:
        ConfigurationError: A key is unknown or has a wrong value.
    """

    def take(name: str, model: type[SectionT]) -> SectionT | None:
        given = None if name in own else settings.pop(name, None)
        if given is None or given is False:
            return None
        if given is not True and not isinstance(given, dict):
            raise ConfigurationError(
                f"{where}.{name}: must be true, false, or hold keys and values"
            )
        keys = {} if given is True else given
        place = f"{where}.{name}"
        return parse_settings(model, keys, where=place, type_name=name, strict=strict)

    return Wrapping(
        take("retry", RetryConfig),
        take("fail_safe", FailSafeConfig),
        take("cache", CacheConfig),
    )


def _given(section: Section) -> dict[str, Any]:
    values = {name: getattr(section, name) for name in type(section).model_fields}
    return {name: value for name, value in values.items() if value is not None}
