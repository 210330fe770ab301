"""Service: state shared by all requests of one app. One `BatchingScorer` scores everything."""

from __future__ import annotations

import hmac
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock, Timer
from typing import TYPE_CHECKING

from starlette.requests import Request

from gliclass_rerank import Scorer
from gliclass_rerank.forks import PerProcess
from gliclass_rerank_service.errors import NotFoundError, TooLargeError
from gliclass_rerank_service.jobs.broker_calls import JobCalls
from gliclass_rerank_service.observability.health import Health
from gliclass_rerank_service.observability.metrics import Metrics
from gliclass_rerank_service.observability.tracing import Tracing, open_tracing
from gliclass_rerank_service.queue.batching_scorer import BatchingScorer
from gliclass_rerank_service.settings import Settings, read_keys

if TYPE_CHECKING:
    from gliclass_rerank_service.jobs.base import Jobs

PREPARING_THREADS = 4  # they only build requests and read logits

logger = logging.getLogger("gliclass_rerank.service")


class Service:
    """A scorer, its settings, and its metrics.

    Args:
        scorer: a `BatchingScorer`, or a scorer that is wrapped in one.
        settings: settings of the service.

    Attributes:
        health: whether the model answers.
        draining: no new requests are accepted.
        in_flight: number of accepted requests without an answer yet.

    Raises:
        OptionError: a file of keys that cannot be read.
        MissingExtraError: traces are enabled and OpenTelemetry is not installed.
    """

    def __init__(self, scorer: Scorer, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.tracing: Tracing | None = open_tracing(settings.otlp_endpoint)
        self._threads = PerProcess(
            partial(ThreadPoolExecutor, PREPARING_THREADS, thread_name_prefix="gliclass-preparing")
        )
        self.job_calls = JobCalls()
        self.draining = False
        self._ends_by: float | None = None
        self.in_flight = 0
        self._opening = PerProcess(Lock)
        self._jobs: Jobs | None = None
        self._keys = read_keys(settings)
        self.scorer = scorer if isinstance(scorer, BatchingScorer) else self._batching(scorer)
        self.health = Health(self.scorer)
        self.metrics.watch(self.scorer.stats, in_flight=lambda: self.in_flight, ready=lambda: self.ready)
        if (cache := self.scorer.passage_cache) is not None:
            self.metrics.watch_passage_cache(cache.stats)

    def _batching(self, scorer: Scorer) -> BatchingScorer:
        return BatchingScorer(
            scorer,
            queue_batch_tokens=self.settings.queue_batch_tokens,
            max_queue_tokens=self.settings.max_queue_tokens,
            on_batch=self.metrics.count_batch,
        )

    @property
    def threads(self) -> ThreadPoolExecutor:
        """Threads that build requests and read logits."""
        return self._threads.get()

    @property
    def ready(self) -> bool:
        """Whether the model answers, and requests are accepted."""
        return not self.draining and self.health.problem() is None

    @property
    def jobs(self) -> Jobs:
        """Executor of jobs, opened on first use.

        Raises:
            MissingExtraError: a broker is set, and its client is not installed.
        """
        from gliclass_rerank_service.jobs.open import open_jobs

        with self._opening.get():
            if self._jobs is None:
                self._jobs = open_jobs(self.settings, self.scorer)
        return self._jobs

    def admits(self, authorization: str | None) -> bool:
        """Whether a header ``Authorization`` contains a valid key: "Bearer KEY", or "KEY" as some clients send it."""
        if not self._keys:
            return True
        scheme, _, rest = (authorization or "").partition(" ")
        shown = (rest if scheme.lower() == "bearer" else authorization or "").strip().encode("utf-8", "replace")
        admitted = False
        for key in self._keys:  # compare with all of them, so that the time reveals nothing
            admitted |= hmac.compare_digest(shown, key)
        return admitted

    def check_texts(self, count: int) -> None:
        """Raise `TooLargeError` if a request has too many texts."""
        if count > self.settings.max_texts:
            raise TooLargeError(f"expected at most {self.settings.max_texts} texts per request, got {count}; divide it")

    def check_tokens(self, tokens: int) -> None:
        """Raise `TooLargeError` if a request has too many estimated tokens."""
        limit = self.settings.max_request_tokens
        if tokens > limit:
            raise TooLargeError(f"expected at most {limit} tokens per request, got about {tokens}; divide it")

    def check_job_tokens(self, tokens: int) -> None:
        """Raise `TooLargeError` if a job has too many estimated tokens."""
        limit = self.settings.max_job_tokens
        if tokens > limit:
            raise TooLargeError(f"expected at most {limit} tokens per job, got about {tokens}; divide it")

    def check_model(self, name: str | None) -> None:
        """Raise `NotFoundError` if another model is requested and ``strict_model`` is set."""
        if not (self.settings.strict_model and name):
            return
        served = self.scorer.info.name
        if name not in (served, *self.settings.model_aliases):
            raise NotFoundError(f"expected the model {served!r}, got {name!r:.80}")

    def drain(self) -> float:
        """Accept no more requests.

        Returns:
            Seconds left of ``drain_seconds``, which begin at the first call. Below 0 when they are over.
        """
        self.draining = True
        now = time.monotonic()
        if self._ends_by is None:
            self._ends_by = now + self.settings.drain_seconds
        return self._ends_by - now

    def close(self) -> None:
        """Compute the accepted requests within what is left of ``drain_seconds``, and stop.

        Those that are left then get `ClosedError`.
        """
        left = max(0.0, self.drain())
        ending = Timer(left, self.scorer.abandon)
        ending.daemon = True
        ending.start()
        if self._jobs is not None:
            self._jobs.close()
        if self.scorer.close(drain=True, timeout=left):
            ending.cancel()
        self.threads.shutdown(wait=False)
        self.job_calls.close()
        if self.tracing:
            self.tracing.close()


def service_of(request: Request) -> Service:
    """The service of a request's app."""
    service: Service = request.app.state.service
    return service
