"""What OpenTelemetry measures of stores: made once for each provider of meters.

A provider takes an instrument of one name once. So whoever watches stores for the same
provider shares these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from opentelemetry import metrics

from tracker_store_async import __version__
from tracker_store_async.wrappers.base import WrapperTrackerStore
from tracker_store_async.wrappers.failsafe import FailSafeTrackerStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from opentelemetry.metrics import (
        CallbackOptions,
        Meter,
        MeterProvider,
        Observation,
    )

    from tracker_store_async.store import TrackerStore

SCOPE = "tracker_store_async"
BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}
DURATION_BUCKETS_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


class Instruments:
    """The instruments of one meter, and the stores that it watches.

    Args:
        meter: Where measurements go.

    Attributes:
        stores: The outermost wrappers of the stores that are asked now and then.
    """

    def __init__(self, meter: Meter) -> None:
        self.stores: WeakSet[TrackerStore] = WeakSet()
        self.duration = meter.create_histogram(
            "tracker_store.operation.duration",
            unit="s",
            description="How long an operation took.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_SECONDS,
        )
        self.events = meter.create_counter(
            "tracker_store.events",
            unit="{event}",
            description="Events that were appended or read.",
        )
        self.bytes = meter.create_counter(
            "tracker_store.io",
            unit="By",
            description="Text of events and state that was appended or read.",
        )
        self.conflicts = meter.create_counter(
            "tracker_store.conflicts",
            unit="{conflict}",
            description="Saves that met another writer's events.",
        )
        self.retries = meter.create_counter(
            "tracker_store.retries",
            unit="{retry}",
            description="Requests that were repeated after a fault.",
        )
        self.transitions = meter.create_counter(
            "tracker_store.breaker.transitions",
            unit="{transition}",
            description="Outages that began (open) and were over (closed).",
        )
        self.replayed = meter.create_counter(
            "tracker_store.replayed.events",
            unit="{event}",
            description="Events of outages that were handed to the storage.",
        )
        self._add_gauges(meter)

    def _add_gauges(self, meter: Meter) -> None:
        meter.create_observable_gauge(
            "tracker_store.breaker.state",
            [merged(self._observe_breakers, max)],
            description="Circuit breaker: 0 closed, 1 half open, 2 open.",
        )
        meter.create_observable_gauge(
            "tracker_store.backlog.events",
            [merged(self._observe_backlogs, sum)],
            unit="{event}",
            description="Events that wait: for the storage, or for the event broker.",
        )
        meter.create_observable_counter(
            "tracker_store.backlog.dropped",
            [merged(self._observe_dropped, sum)],
            unit="{event}",
            description="Stored events that were given up: nobody publishes them.",
        )
        meter.create_observable_gauge(
            "tracker_store.backlog.held",
            [merged(self._observe_held, sum)],
            unit="{conversation}",
            description="Conversations that wait for an event that the broker refuses.",
        )
        meter.create_observable_gauge(
            "tracker_store.outbox.waiting",
            [merged(self._observe_outboxes, sum)],
            unit="{message}",
            description="What waits in the outbox; with MongoDB conversations.",
        )
        meter.create_observable_gauge(
            "tracker_store.pool.connections",
            [merged(self._observe_pools, sum)],
            unit="{connection}",
            description="Connections of the pool, by kind.",
        )

    @classmethod
    def of(cls, provider: MeterProvider | None) -> Instruments:
        """Return the instruments of a provider; None is the global one."""
        key = _GLOBAL if provider is None else provider
        found = _MADE.get(key)
        if found is None:
            meter = metrics.get_meter(SCOPE, __version__, provider)
            found = _MADE[key] = cls(meter)
        return found

    # -- what is asked for now and then ------------------------------------------------

    def _observe_breakers(self, options: CallbackOptions) -> Iterable[Observation]:
        for store in list(self.stores):
            for layer in layers(store):
                if isinstance(layer, FailSafeTrackerStore) and layer._loop is not None:
                    state = BREAKER_STATES[layer._breaker.state]
                    yield metrics.Observation(state, {"backend": layer.backend_name})

    def _observe_backlogs(self, options: CallbackOptions) -> Iterable[Observation]:
        for store in list(self.stores):
            backend = {"backend": store.backend_name}
            if store._publisher is not None:
                waiting = len(store._publisher.backlog)
                yield metrics.Observation(waiting, {**backend, "for": "broker"})
            for layer in layers(store):
                if isinstance(layer, FailSafeTrackerStore):
                    waiting = layer._backlog.event_count
                    yield metrics.Observation(waiting, {**backend, "for": "storage"})

    def _observe_dropped(self, options: CallbackOptions) -> Iterable[Observation]:
        for store in list(self.stores):
            if (publisher := store._publisher) is not None:
                backend = {"backend": store.backend_name}
                yield metrics.Observation(publisher.dropped, backend)

    def _observe_held(self, options: CallbackOptions) -> Iterable[Observation]:
        for store in list(self.stores):
            backend = {"backend": store.backend_name}
            if (publisher := store._publisher) is not None:
                held = publisher.held_count
                yield metrics.Observation(held, {**backend, "in": "backlog"})
            if store._relay is not None:
                held = store._relay.held_count
                yield metrics.Observation(held, {**backend, "in": "outbox"})

    def _observe_outboxes(self, options: CallbackOptions) -> Iterable[Observation]:
        for store in list(self.stores):
            relay = store._relay  # the outermost wrapper's: it is the one that is added
            waiting = None if relay is None else relay.waiting_count()
            if waiting is not None:
                yield metrics.Observation(waiting, {"backend": store.backend_name})

    def _observe_pools(self, options: CallbackOptions) -> Iterable[Observation]:
        for store in list(self.stores):
            for kind, number in store._pool_use().items():
                labels = {"backend": store.backend_name, "kind": kind}
                yield metrics.Observation(number, labels)


def merged(
    observe: Callable[[CallbackOptions], Iterable[Observation]],
    how: Callable[[list[float]], float],
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    """Return a callback with one observation for each set of labels.

    Of those that are alike, as of two stores of one backend, the last would count.

    Args:
        observe: The callback.
        how: Makes one value of several.
    """

    def observe_merged(options: CallbackOptions) -> Iterable[Observation]:
        found: dict[tuple[tuple[str, Any], ...], list[float]] = {}
        for each in observe(options):
            labels = tuple(sorted((each.attributes or {}).items()))
            found.setdefault(labels, []).append(each.value)
        for labels, values in found.items():
            yield metrics.Observation(how(values), dict(labels))

    return observe_merged


class _Global:
    """Stands for the provider that is set globally."""


_GLOBAL = _Global()
_MADE: WeakKeyDictionary[object, Instruments] = WeakKeyDictionary()


def layers(store: TrackerStore) -> Iterator[TrackerStore]:
    """Return a store and what it wraps, from the outside in."""
    yield store
    while isinstance(store, WrapperTrackerStore):
        store = store._wrapped
        yield store
