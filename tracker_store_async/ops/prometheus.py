"""Metrics in Prometheus' text format, by OpenTelemetry's standard exporter."""

from __future__ import annotations

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST


class PrometheusMetrics:
    """A meter provider whose metrics can be fetched as text.

    It has a registry of its own, so that several of them stay apart.

    Attributes:
        meter_provider: Hand it to `instrument`, or set it globally.
        content_type: The type of the text.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        reader = PrometheusMetricReader(registry=self._registry)
        self.meter_provider = MeterProvider([reader])

    def text(self) -> bytes:
        """Return the metrics as they are now."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Stop measuring."""
        self.meter_provider.shutdown()
