"""What Prometheus sees: counts, durations per stage, queue and key store; no client identity."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from he_infer.server.workers.workers import Load

_DURATIONS_S: Final = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_GAUGES: Final = {
    "queries_waiting": "Queries that wait for a worker.",
    "worker_restarts": "Workers replaced so far.",
    "receiving_bytes": "Bytes reserved for bodies.",
    "key_store_entries": "Evaluation keys held.",
    "key_store_bytes": "Bytes of evaluation keys held.",
}


class Metrics:
    """The collectors of one application, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "he_infer_requests_total",
            "Requests answered, by operation and HTTP status.",
            ["operation", "status"],
            registry=registry,
        )
        self.refusals = Counter(
            "he_infer_refusals_total",
            "Requests refused, by machine-readable code.",
            ["code"],
            registry=registry,
        )
        self.stages = Histogram(
            "he_infer_stage_seconds",
            "Duration of one stage of a request.",
            ["operation", "stage"],
            buckets=_DURATIONS_S,
            registry=registry,
        )
        self.received_bytes = Counter(
            "he_infer_received_bytes_total",
            "Body bytes received, by operation.",
            ["operation"],
            registry=registry,
        )
        self._workers = Gauge(
            "he_infer_workers", "Workers, by what they do.", ["state"], registry=registry
        )
        self._gauges = {
            name: Gauge(f"he_infer_{name}", text, registry=registry)
            for name, text in _GAUGES.items()
        }

    def show(self, load: Load, *, receiving_bytes: int, stored: tuple[int, int]) -> None:
        """Set the gauges that are read rather than counted; ``stored``: keys, and their bytes."""
        self._workers.labels("busy").set(load.busy)
        self._workers.labels("idle").set(load.workers - load.busy)
        values = (load.waiting, load.restarts, receiving_bytes, *stored)
        for gauge, value in zip(self._gauges.values(), values, strict=True):
            gauge.set(value)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
