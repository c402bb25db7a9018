"""Traces and metrics by means of OpenTelemetry: its API alone, whatever the SDK is.

::

    instrument(store)                   # the providers that are set globally

Spans and metrics name the operation, the backend and the outcome. They never name a
conversation unless asked, and never hold what somebody said.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from tracker_store_async import __version__
from tracker_store_async.errors import (
    ConcurrentSaveError,
    StoreUnavailableError,
    TrackerStoreError,
)
from tracker_store_async.rows import StoredConversation
from tracker_store_async.wrappers.base import WrapperTrackerStore
from tracker_store_async.wrappers.failsafe import FailSafeTrackerStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Iterator, Sequence

    from opentelemetry.metrics import (
        CallbackOptions,
        Meter,
        MeterProvider,
        Observation,
    )
    from opentelemetry.trace import Span, TracerProvider

    from tracker_store_async.rows import Append
    from tracker_store_async.store import TrackerStore

T = TypeVar("T")

SCOPE = "tracker_store_async"
BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}
_TRANSITIONS = {"opened": "open", "closed": "closed"}
_KINDS = {
    **dict.fromkeys(("append", "read", "delete"), SpanKind.CLIENT),
    "publish": SpanKind.PRODUCER,
}
DURATION_BUCKETS_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


class Telemetry:
    """Watches stores: spans for their operations, and metrics.

    Args:
        tracer_provider: Where spans go; None is the global provider.
        meter_provider: Where metrics go; None is the global provider.
        include_ids: Whether spans hold the sender id. Metrics never do.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        include_ids: bool = False,
    ) -> None:
        self._include_ids = include_ids
        self._stores: WeakSet[TrackerStore] = WeakSet()
        self._tracer = trace.get_tracer(SCOPE, __version__, tracer_provider)
        meter = metrics.get_meter(SCOPE, __version__, meter_provider)
        self._duration = meter.create_histogram(
            "tracker_store.operation.duration",
            unit="s",
            description="How long an operation took.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_SECONDS,
        )
        self._events = meter.create_counter(
            "tracker_store.events",
            unit="{event}",
            description="Events that were appended or read.",
        )
        self._bytes = meter.create_counter(
            "tracker_store.io",
            unit="By",
            description="Text of events and state that was appended or read.",
        )
        self._conflicts = meter.create_counter(
            "tracker_store.conflicts",
            unit="{conflict}",
            description="Saves that met another writer's events.",
        )
        self._retries = meter.create_counter(
            "tracker_store.retries",
            unit="{retry}",
            description="Requests that were repeated after a fault.",
        )
        self._transitions = meter.create_counter(
            "tracker_store.breaker.transitions",
            unit="{transition}",
            description="Outages that began (open) and were over (closed).",
        )
        self._replayed = meter.create_counter(
            "tracker_store.replayed.events",
            unit="{event}",
            description="Events of outages that were handed to the storage.",
        )
        self._add_gauges(meter)

    def _add_gauges(self, meter: Meter) -> None:
        meter.create_observable_gauge(
            "tracker_store.breaker.state",
            [self._observe_breakers],
            description="Circuit breaker: 0 closed, 1 half open, 2 open.",
        )
        meter.create_observable_gauge(
            "tracker_store.backlog.events",
            [self._observe_backlogs],
            unit="{event}",
            description="Events that wait: for the storage, or for the event broker.",
        )
        meter.create_observable_counter(
            "tracker_store.backlog.dropped",
            [self._observe_dropped],
            unit="{event}",
            description="Stored events that were given up: nobody publishes them.",
        )
        meter.create_observable_gauge(
            "tracker_store.backlog.held",
            [self._observe_held],
            unit="{conversation}",
            description="Conversations that wait for an event that the broker refuses.",
        )
        meter.create_observable_gauge(
            "tracker_store.outbox.waiting",
            [self._observe_outboxes],
            unit="{message}",
            description="What waits in the outbox; with MongoDB conversations.",
        )
        meter.create_observable_gauge(
            "tracker_store.pool.connections",
            [self._observe_pools],
            unit="{connection}",
            description="Connections of the pool, by kind.",
        )

    def add(self, store: TrackerStore) -> None:
        """Watch a store.

        Args:
            store: The outermost wrapper.
        """
        store._observer = self
        self._stores.add(store)

    def remove(self, store: TrackerStore) -> None:
        """Watch a store no longer."""
        store._observer = None
        self._stores.discard(store)

    # -- what a store calls ------------------------------------------------------------

    async def watch(
        self,
        operation: str,
        store: TrackerStore,
        work: Awaitable[T],
        sender_id: str | None,
        requests: Sequence[Append],
    ) -> T:
        """Return what an operation returns, within a span, and measure it."""
        attributes = {"operation": operation, "backend": store.backend_name}
        with self._tracer.start_as_current_span(
            f"tracker_store.{operation}",
            kind=_KINDS.get(operation, SpanKind.INTERNAL),
            attributes={f"tracker_store.{k}": v for k, v in attributes.items()},
            # The text of a driver's error may hold anything.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            if self._include_ids and sender_id is not None:
                span.set_attribute("tracker_store.sender_id", sender_id)
            started, outcome = time.perf_counter(), "cancelled"
            try:
                result = await work
                outcome = _outcome_of_answers(requests, result)
                self._measure(span, attributes, requests, result)
                return result
            except BaseException as error:
                outcome = outcome_of(error)
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise
            finally:
                span.set_attribute("tracker_store.outcome", outcome)
                elapsed = time.perf_counter() - started
                self._duration.record(elapsed, {**attributes, "outcome": outcome})

    def count(self, what: str, store: TrackerStore, number: int = 1) -> None:
        """Count what happened."""
        labels = {"backend": store.backend_name}
        if what in _TRANSITIONS:
            self._transitions.add(number, {**labels, "to": _TRANSITIONS[what]})
            return
        counters = {
            "conflict": self._conflicts,
            "retry": self._retries,
            "replayed": self._replayed,
        }
        counters[what].add(number, labels)

    def _measure(
        self,
        span: Span,
        attributes: dict[str, str],
        requests: Sequence[Append],
        result: object,
    ) -> None:
        texts: list[str | bytes]
        states: list[str | bytes | None]
        if requests:
            answers = zip(requests, _answers(result), strict=True)
            landed = [request for request, answer in answers if answer is True]
            texts = [row.data for request in landed for row in request.rows]
            states = [request.snapshot for request in landed]
        elif isinstance(result, StoredConversation):
            texts = [row[1] for row in result.rows]
            states = [result.snapshot]
        else:
            return
        size_bytes = sum(_size_of(text) for text in (*texts, *states) if text)
        span.set_attribute("tracker_store.events", len(texts))
        span.set_attribute("tracker_store.bytes", size_bytes)
        self._events.add(len(texts), attributes)
        self._bytes.add(size_bytes, attributes)

    # -- what is asked for now and then ------------------------------------------------

    def _observe_breakers(self, options: CallbackOptions) -> Iterable[Observation]:
        for store in list(self._stores):
            for layer in layers(store):
                if isinstance(layer, FailSafeTrackerStore) and layer._loop is not None:
                    state = BREAKER_STATES[layer._breaker.state]
                    yield metrics.Observation(state, {"backend": layer.backend_name})

    def _observe_backlogs(self, options: CallbackOptions) -> Iterable[Observation]:
        for store in list(self._stores):
            backend = {"backend": store.backend_name}
            if store._publisher is not None:
                waiting = len(store._publisher.backlog)
                yield metrics.Observation(waiting, {**backend, "for": "broker"})
            for layer in layers(store):
                if isinstance(layer, FailSafeTrackerStore):
                    waiting = layer._backlog.event_count
                    yield metrics.Observation(waiting, {**backend, "for": "storage"})

    def _observe_dropped(self, options: CallbackOptions) -> Iterable[Observation]:
        for store in list(self._stores):
            if (publisher := store._publisher) is not None:
                backend = {"backend": store.backend_name}
                yield metrics.Observation(publisher.dropped, backend)

    def _observe_held(self, options: CallbackOptions) -> Iterable[Observation]:
        for store in list(self._stores):
            backend = {"backend": store.backend_name}
            if (publisher := store._publisher) is not None:
                held = publisher.held_count
                yield metrics.Observation(held, {**backend, "in": "backlog"})
            if store._relay is not None:
                held = store._relay.held_count
                yield metrics.Observation(held, {**backend, "in": "outbox"})

    def _observe_outboxes(self, options: CallbackOptions) -> Iterable[Observation]:
        for store in list(self._stores):
            relay = store._relay  # the outermost wrapper's: it is the one that is added
            waiting = None if relay is None else relay.waiting_count()
            if waiting is not None:
                yield metrics.Observation(waiting, {"backend": store.backend_name})

    def _observe_pools(self, options: CallbackOptions) -> Iterable[Observation]:
        for store in list(self._stores):
            for kind, number in store._pool_use().items():
                labels = {"backend": store.backend_name, "kind": kind}
                yield metrics.Observation(number, labels)


def instrument(
    store: TrackerStore,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    *,
    include_ids: bool = False,
) -> Telemetry:
    """Trace and measure a store.

    Args:
        store: The store, in all its wrappers.
        tracer_provider: Where spans go; None is the global provider.
        meter_provider: Where metrics go; None is the global provider.
        include_ids: Whether spans hold the sender id. Metrics never do.

    Returns:
        What watches it; `add` lets it watch further stores, `remove` ends it.
    """
    telemetry = Telemetry(tracer_provider, meter_provider, include_ids=include_ids)
    telemetry.add(store)
    return telemetry


def outcome_of(error: BaseException) -> str:
    """Return how an operation that raised went, in one word."""
    if isinstance(error, ConcurrentSaveError):
        return "conflict"
    if isinstance(error, StoreUnavailableError):
        return "unavailable"
    if isinstance(error, TrackerStoreError):
        return "refused"
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "error"


def _answers(result: object) -> list[object]:
    """Return what became of each append of a batch, or of one."""
    return result if isinstance(result, list) else [result]


def _outcome_of_answers(requests: Sequence[Append], result: object) -> str:
    answers = _answers(result) if requests else []
    for answer in answers:
        if isinstance(answer, BaseException):
            return outcome_of(answer)
    return "conflict" if False in answers else "ok"


def layers(store: TrackerStore) -> Iterator[TrackerStore]:
    """Return a store and what it wraps, from the outside in."""
    yield store
    while isinstance(store, WrapperTrackerStore):
        store = store._wrapped
        yield store


def _size_of(text: str | bytes) -> int:
    if isinstance(text, str) and not text.isascii():
        return len(text.encode())
    return len(text)
