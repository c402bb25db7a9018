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

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from tracker_store_async import __version__
from tracker_store_async.errors import (
    ConcurrentSaveError,
    StoreUnavailableError,
    TrackerStoreError,
)
from tracker_store_async.ops.instruments import SCOPE, Instruments
from tracker_store_async.rows import StoredConversation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from opentelemetry.metrics import (
        MeterProvider,
    )
    from opentelemetry.trace import Span, TracerProvider

    from tracker_store_async.rows import Append
    from tracker_store_async.store import TrackerStore

T = TypeVar("T")

_TRANSITIONS = {"opened": "open", "closed": "closed"}
_KINDS = {
    **dict.fromkeys(("append", "read", "delete"), SpanKind.CLIENT),
    "publish": SpanKind.PRODUCER,
}


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
        self._tracer = trace.get_tracer(SCOPE, __version__, tracer_provider)
        self._instruments = Instruments.of(meter_provider)

    def add(self, store: TrackerStore) -> None:
        """Watch a store.

        Args:
            store: The outermost wrapper.
        """
        store._observer = self
        self._instruments.stores.add(store)

    def remove(self, store: TrackerStore) -> None:
        """Watch a store no longer."""
        store._observer = None
        self._instruments.stores.discard(store)

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
                self._instruments.duration.record(
                    elapsed, {**attributes, "outcome": outcome}
                )

    def count(self, what: str, store: TrackerStore, number: int = 1) -> None:
        """Count what happened."""
        labels = {"backend": store.backend_name}
        if what in _TRANSITIONS:
            self._instruments.transitions.add(
                number, {**labels, "to": _TRANSITIONS[what]}
            )
            return
        counters = {
            "conflict": self._instruments.conflicts,
            "retry": self._instruments.retries,
            "replayed": self._instruments.replayed,
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
        self._instruments.events.add(len(texts), attributes)
        self._instruments.bytes.add(size_bytes, attributes)


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


def _size_of(text: str | bytes) -> int:
    if isinstance(text, str) and not text.isascii():
        return len(text.encode())
    return len(text)
