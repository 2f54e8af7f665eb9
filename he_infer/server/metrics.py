"""What Prometheus sees: counts, durations per stage, queue and key store; no client identity."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from he_infer.server.workers.workers import Load

_DURATIONS_S: Final = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """The collectors of one application, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "he_infer_requests_total",
            "Requests answered, by operation and HTTP status.",
            ["operation", "status"],
            registry=self._registry,
        )
        self.refusals = Counter(
            "he_infer_refusals_total",
            "Requests refused, by machine-readable code.",
            ["code"],
            registry=self._registry,
        )
        self.stages = Histogram(
            "he_infer_stage_seconds",
            "Duration of one stage of a request.",
            ["operation", "stage"],
            buckets=_DURATIONS_S,
            registry=self._registry,
        )
        self.received_bytes = Counter(
            "he_infer_received_bytes_total",
            "Body bytes received, by operation.",
            ["operation"],
            registry=self._registry,
        )
        self.workers = Gauge(
            "he_infer_workers",
            "Workers, by what they do.",
            ["state"],
            registry=self._registry,
        )
        self.waiting = Gauge(
            "he_infer_queries_waiting", "Queries that wait for a worker.", registry=self._registry
        )
        self.restarts = Gauge(
            "he_infer_worker_restarts", "Workers replaced so far.", registry=self._registry
        )
        self.receiving_bytes = Gauge(
            "he_infer_receiving_bytes", "Bytes reserved for bodies.", registry=self._registry
        )
        self.key_bytes = Gauge(
            "he_infer_key_store_bytes", "Bytes of evaluation keys held.", registry=self._registry
        )
        self.keys = Gauge(
            "he_infer_key_store_entries", "Evaluation keys held.", registry=self._registry
        )

    def show(self, load: Load, *, receiving_bytes: int, stored: tuple[int, int]) -> None:
        """Set the gauges that are read rather than counted; ``stored``: keys, and their bytes."""
        self.keys.set(stored[0])
        self.key_bytes.set(stored[1])
        self.workers.labels("busy").set(load.busy)
        self.workers.labels("idle").set(load.workers - load.busy)
        self.waiting.set(load.waiting)
        self.restarts.set(load.restarts)
        self.receiving_bytes.set(receiving_bytes)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
