"""Figures for Prometheus, in a registry of their own for each app."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from suffuse.studio.service import Service

TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The figures of one app and of the service behind it."""

    def __init__(self, service: Service) -> None:
        # Not the library's global registry: two apps in one process would collide in it.
        self._registry = CollectorRegistry(auto_describe=False)
        labels = ("method", "route", "status")
        self._requests = Counter(
            "suffuse_http_requests", "HTTP requests answered.", labels, registry=self._registry
        )
        self._seconds = Histogram(
            "suffuse_http_seconds",
            "From the first byte asked to the last byte answered.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_OfService(service))

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request; `route` is its pattern, never what a client wrote."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All figures, in Prometheus' text format."""
        return generate_latest(self._registry)


class _OfService(Collector):
    """Asks the service each time that Prometheus asks."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> list[Metric]:
        return []  # registering must not ask a service that has not started

    def collect(self) -> Iterator[Metric]:
        status = self._service.status()
        jobs = CounterMetricFamily("suffuse_jobs", "Jobs ended.", labels=("state",))
        for state in ("done", "failed", "cancelled"):
            jobs.add_metric((state,), getattr(status, state))
        yield jobs
        yield CounterMetricFamily("suffuse_images", "Pictures made.", value=status.images)
        restarts = CounterMetricFamily("suffuse_worker_restarts", "Workers started again.")
        restarts.add_metric((), status.restarts)
        yield restarts
        waiting = GaugeMetricFamily("suffuse_queue", "Jobs not ended yet.", labels=("state",))
        waiting.add_metric(("queued",), status.queued)
        waiting.add_metric(("running",), status.running)
        yield waiting
        alive = sum(worker.alive for worker in status.workers)
        yield GaugeMetricFamily("suffuse_workers_alive", "Worker processes alive.", value=alive)
        yield GaugeMetricFamily("suffuse_ready", "1 if jobs can be made.", value=status.ready)
        yield GaugeMetricFamily("suffuse_uptime_seconds", "Since the start.", value=status.uptime)
        if status.seconds_per_step is not None:
            step = "Of the last batch."
            yield GaugeMetricFamily("suffuse_seconds_per_step", step, value=status.seconds_per_step)
