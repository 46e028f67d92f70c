"""Prometheus metrics of one server."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper ends of the histograms' buckets: seconds of a request, and texts of a batch."""


class ServerMetrics:
    """The counters and histograms of a server, in a registry of their own.

    Attributes:
        accepted: Number of requests to /predict that have begun.
        answered: Number of those that were answered, with any status.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.answered = 0
        self.registry = CollectorRegistry()
        gauge = partial(Gauge, registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.requests = counter(
            "kdedge_requests_total", "Requests to /predict by HTTP status", ["status"]
        )
        self.texts = counter("kdedge_texts_total", "Texts that were answered")
        self.truncated = counter(
            "kdedge_texts_truncated_total", "Texts that were longer than the model reads"
        )
        self.seconds = histogram(
            "kdedge_request_seconds",
            "Time from the last byte of a request to its answer",
            buckets=SECONDS,
        )
        self.batches = histogram("kdedge_batch_texts", "Texts of a batch", buckets=BATCHES)
        self.waiting = gauge("kdedge_waiting_texts", "Texts that wait for the model")
        self.answers = counter(
            "kdedge_cascade_answers_total",
            "Answers of a cascade by source and reason",
            ["source", "reason"],
        )
        self.audited = gauge("kdedge_cascade_audited", "Audited answers")
        self.agreed = gauge(
            "kdedge_cascade_agreed", "Audited answers on which student and teacher agreed"
        )
        self.skipped = gauge(
            "kdedge_cascade_skipped",
            "Answers without an audit: the teacher gave no label in time",
        )
        self.drifted = gauge(
            "kdedge_cascade_drifted", "1 if the student disagrees more often than promised"
        )

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
