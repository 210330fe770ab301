"""OpenTelemetry traces, off unless an endpoint is set: one span per request, with child spans for queue and inference.

Spans are created from existing measurements after a request has ended, so that they do not delay it. They contain
counts and times, never texts.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gliclass_rerank.errors import MissingExtraError
from gliclass_rerank_service.observability.request_stats import RequestStats

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

PARTS = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
NANOSECONDS = 1_000_000_000


class Tracing:
    """Sends one span per request.

    Args:
        provider: receives the spans.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("gliclass_rerank.service")
        self._propagator = TraceContextTextMapPropagator()

    def tell(self, stats: RequestStats, method: str, route: str, status: int, headers: Mapping[str, str]) -> None:
        """Send the spans of a request that has just ended, in the caller's trace if there is a ``traceparent`` header.

        The queue span precedes the inference span. In fact they alternate if a request was divided over batches.
        """
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        end = time.time_ns()
        start = end - int(stats.seconds * NANOSECONDS)
        span = self._tracer.start_span(
            f"{method} {route}",
            context=self._propagator.extract(headers),
            kind=SpanKind.SERVER,
            start_time=start,
            attributes={
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
                "gliclass_rerank.request_id": stats.id,
                "gliclass_rerank.texts": stats.texts,
                "gliclass_rerank.tokens": stats.tokens,
            },
        )
        inside, position = set_span_in_context(span), start
        for name, seconds in (("queue", stats.queue_seconds), ("inference", stats.inference_seconds)):
            if stats.texts:
                child = self._tracer.start_span(name, context=inside, start_time=position)
                position += int(seconds * NANOSECONDS)
                child.end(min(position, end))
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def close(self) -> None:
        """Send the remaining spans."""
        self._provider.shutdown()


def open_tracing(endpoint: str | None) -> Tracing | None:
    """Traces to an OTLP endpoint over HTTP, or None without one.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
    """
    if endpoint is None:
        return None
    if not all(_is_there(part) for part in PARTS):
        raise MissingExtraError("otel", "sending traces")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "gliclass-rerank"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Tracing(provider)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
