"""What `/metrics` reports to Prometheus: how many requests, how long each step takes, what waits.

Labels have few values: routes as they are registered, never the paths that were asked for. Nothing
tells who asked or what an image shows.
"""

import time
from collections.abc import Iterator, Mapping

from flask import Flask, Response, current_app, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.serving.metrics_folder import find_metrics_folder, lock_metrics

METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE")
UNMATCHED = "unmatched"
"""The route of a request for an address that does not exist."""
UNREADABLE = "unreadable"
"""The route of a request that never became one: no HTTP, too long, no room for its body."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BYTES = (10_000, 100_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000)


class Metrics:
    """Counts what one process does. Thread-safe.

    In a server of several processes, each writes to files of its own in a folder that all share
    (metrics_folder.py), and whichever is asked adds them up.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "alexnet_requests",
            "Requests, by route and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "alexnet_request_seconds",
            "Seconds from a whole request to its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "alexnet_stage_seconds",
            "Seconds that a step of a classification takes; wait: for the turn to compute.",
            ("stage",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.waiting = Gauge(
            "alexnet_waiting_requests",
            "Requests that wait for their turn to compute.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.computing = Gauge(
            "alexnet_computing_requests",
            "Requests that compute.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.refused = Counter(
            "alexnet_refused_requests",
            "Requests that were asked to come back later, because too many were waiting.",
            registry=self.registry,
        )
        self.closed_connections = Counter(
            "alexnet_closed_connections",
            "Connections closed because the client was too slow, to make room for another "
            "(evicted), or for want of room (refused).",
            ("reason",),
            registry=self.registry,
        )
        self.upload_bytes = Histogram(
            "alexnet_upload_bytes",
            "Size of each uploaded image, in bytes.",
            buckets=BYTES,
            registry=self.registry,
        )

    def observe_stages(self, milliseconds: Mapping[str, float]) -> None:
        """Record how long the steps of a classification took."""
        for stage, taken in milliseconds.items():
            self.stage_seconds.labels(stage).observe(taken / 1000)

    def count_closed_connection(self, reason: str) -> None:
        """Record a connection that was closed before its answer: "slow", "evicted", "refused"."""
        self.closed_connections.labels(reason).inc()

    def observe_request(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Record an answered request; seconds: None if it is not known when it began."""
        known = method if method in METHODS else "other"
        self.requests.labels(known, route, str(status)).inc()
        if seconds is not None:
            self.request_seconds.labels(route).observe(seconds)

    def render(self, accept: str, served: Mapping[str, str]) -> tuple[bytes, str]:
        """Return all metrics as text, and its media type.

        accept: the request's Accept header. served: what the answering process has in service.
        """
        registry = CollectorRegistry()
        registry.register(ServedCollector(served))
        encode, media_type = choose_encoder(accept)
        if folder := find_metrics_folder():
            MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
            with lock_metrics(folder):
                return encode(registry), media_type
        registry.register(self.registry)
        return encode(registry), media_type


class ServedCollector(Collector):
    """The versions in service, as labels of a metric that is always 1."""

    def __init__(self, served: Mapping[str, str]) -> None:
        self.served = dict(served)

    def collect(self) -> Iterator[InfoMetricFamily]:
        """Yield the metric."""
        yield InfoMetricFamily(
            "alexnet_served", "What the process that answers has in service.", value=self.served
        )


def measure_requests(app: Flask) -> None:
    """Count and time every request of an application."""
    app.before_request(note_start)
    app.after_request(count_answer)


def note_start() -> None:
    """Remember when a request began."""
    g.started = time.perf_counter()


def count_answer(response: Response) -> Response:
    """Count a request that has been answered."""
    metrics: Metrics = current_app.extensions["metrics"]
    started: float | None = g.get("started")
    seconds = None if started is None else time.perf_counter() - started
    method = "other" if g.get("unreadable") else request.method
    metrics.observe_request(method, name_route(), response.status_code, seconds)
    return response


def name_route() -> str:
    """Return the registered route of the current request, which has no parameter's value in it."""
    if g.get("unreadable"):
        return UNREADABLE
    return request.url_rule.rule if request.url_rule else UNMATCHED
