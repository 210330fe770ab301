"""Prometheus metrics: the names of text-embeddings-inference for equal meanings, and names of our own.

``te_request_count``, ``_success`` and ``_failure`` only grow. They are gauges, since the client library would append
``_total`` to the name of a counter. One registry per app, so that two apps in one process do not conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gliclass_rerank.scorers.independent.cache import CacheStats
from gliclass_rerank_service.observability.request_stats import RequestStats
from gliclass_rerank_service.queue.stats import BatchingStats

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)
SIZES = tuple(2**power for power in range(12))
TOKENS = tuple(2**power for power in range(4, 18))


class Metrics:
    """Metrics of one app."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._count = Gauge("te_request_count", "Requests with texts to score.", ["method"], registry=registry)
        self._success = Gauge(
            "te_request_success", "Scored requests that were answered.", ["method"], registry=registry
        )
        self._failure = Gauge("te_request_failure", "Requests that were refused or failed.", ["err"], registry=registry)
        self._duration = Histogram(
            "te_request_duration", "Duration of an answered request in seconds.", buckets=SECONDS, registry=registry
        )
        self._queue = Histogram(
            "te_request_queue_duration",
            "Seconds that an answered request waited in the queue.",
            buckets=SECONDS,
            registry=registry,
        )
        self._inference = Histogram(
            "te_request_inference_duration",
            "Seconds of the batches with texts of an answered request.",
            buckets=SECONDS,
            registry=registry,
        )
        self._batch_size = Histogram("te_batch_next_size", "Texts of a batch.", buckets=SIZES, registry=registry)
        self._batch_tokens = Histogram(
            "te_batch_next_tokens", "Estimated tokens of a batch.", buckets=TOKENS, registry=registry
        )
        self._responses = Counter("gliclass_rerank_responses", "Responses.", ["route", "status"], registry=registry)
        self._texts = Counter("gliclass_rerank_texts", "Texts scored.", registry=registry)
        self._tokens = Counter("gliclass_rerank_tokens", "Estimated tokens scored.", registry=registry)
        self._batch_seconds = Histogram(
            "gliclass_rerank_batch_duration", "Duration of a batch in seconds.", buckets=SECONDS, registry=registry
        )

    def watch(
        self, stats: Callable[[], BatchingStats], *, in_flight: Callable[[], int], ready: Callable[[], bool]
    ) -> None:
        """Report the queue and its batch, the requests in flight and the readiness. They are read at each scrape."""
        self.registry.register(QueueCollector(stats, in_flight, ready))

    def watch_passage_cache(self, stats: Callable[[], CacheStats]) -> None:
        """Report the use of a passage cache, read at each scrape."""
        self.registry.register(PassageCacheCollector(stats))

    def count_batch(self, requests: int, tokens: int, seconds: float) -> None:
        """Count one call of the model."""
        self._batch_size.observe(requests)
        self._batch_tokens.observe(tokens)
        self._batch_seconds.observe(seconds)
        self._texts.inc(requests)
        self._tokens.inc(tokens)

    def count_request(self, stats: RequestStats, route: str, status: int) -> None:
        """Count one response."""
        self._responses.labels(route, str(status)).inc()
        method = "single" if stats.texts == 1 else "batch"
        if stats.texts:
            self._count.labels(method).inc()
        if stats.failure:
            self._failure.labels(stats.failure.lower()).inc()
        elif stats.texts:
            self._success.labels(method).inc()
            self._duration.observe(stats.seconds)
            self._queue.observe(stats.queue_seconds)
            self._inference.observe(stats.inference_seconds)

    def text(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry)


class QueueCollector(Collector):
    """Metrics of the queue and of what runs, from one snapshot per scrape."""

    def __init__(self, stats: Callable[[], BatchingStats], in_flight: Callable[[], int], ready: Callable[[], bool]):
        self._stats = stats
        self._in_flight = in_flight
        self._ready = ready

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        ours, now = "gliclass_rerank", self._stats()
        tokens = now.queue_tokens + now.running_tokens
        in_flight = self._in_flight() + now.running_abandoned
        yield GaugeMetricFamily("te_queue_size", "Requests with texts that wait or are computed.", now.submissions)
        yield GaugeMetricFamily(f"{ours}_queue_tokens", "Estimated tokens that wait or are computed.", tokens)
        yield GaugeMetricFamily(
            f"{ours}_in_flight", "Requests that are not answered yet, or whose client left a running batch.", in_flight
        )
        yield GaugeMetricFamily(
            f"{ours}_tokens_per_second",
            "Recent throughput of the model while it computes.",
            now.tokens_per_second or 0.0,
        )
        yield GaugeMetricFamily(
            f"{ours}_batch_running_seconds", "Age of the batch that is computed; 0 if none is.", now.running_seconds
        )
        yield CounterMetricFamily(
            f"{ours}_busy_seconds", "Time of all batches, the running one included.", now.busy_seconds
        )
        yield CounterMetricFamily(f"{ours}_batch_failures", "Batches in which the model failed.", now.failures)
        yield GaugeMetricFamily(f"{ours}_ready", "1 if the service is ready, otherwise 0.", float(self._ready()))


class PassageCacheCollector(Collector):
    """Metrics of a passage cache, from one snapshot per scrape."""

    def __init__(self, stats: Callable[[], CacheStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        name, stats = "gliclass_rerank_passage_cache", self._stats()
        yield CounterMetricFamily(f"{name}_hits", "Texts found in the passage cache.", value=stats.hits)
        yield CounterMetricFamily(f"{name}_misses", "Texts read because they were not in it.", value=stats.misses)
        yield GaugeMetricFamily(f"{name}_texts", "Texts in the passage cache.", value=stats.texts)
        yield GaugeMetricFamily(f"{name}_bytes", "Memory that they take.", value=stats.bytes)
        yield GaugeMetricFamily(f"{name}_max_bytes", "Memory that they may take.", value=stats.max_bytes)
