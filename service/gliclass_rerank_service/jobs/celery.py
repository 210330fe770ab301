"""Jobs on Celery workers, with Redis: submission, and the workers' app. Needs the extra "jobs".

    gliclass-rerank worker --model mini --broker-url redis://localhost:6379/0     # one on each machine
    celery -A gliclass_rerank_service.jobs.celery worker -E                       # the same, set by the environment
    celery -A gliclass_rerank_service.jobs.celery flower --port=5555              # Flower, to monitor them

Settings come from the environment or the file of GLICLASS_RERANK_CONFIG, as for the service. A worker reads ``model``
and its loading options, ``broker_url``, ``result_url``, ``job_ttl_seconds``, ``job_visibility_seconds``.

No job is lost. It is recorded in Redis (`JobStore`) before it is sent. A message contains only the job's id, so that
logs and Flower show no text. A worker acknowledges a message when the result is stored. Jobs of a killed worker are
delivered again: at once if a child of the worker's process was killed, after ``job_visibility_seconds`` if that process
itself was. A message lost with a dead worker or Redis is sent again by the first status request after that time. A job
that is delivered twice is skipped if it has ended, else it runs twice with the same result, so that time should be
longer than the longest job. A job begun ten times without an end has failed: it probably kills its workers.

Workers use the pool "prefork" with one child. The child loads the model, because onnxruntime's threads do not survive a
fork, and computes batches on all cores. Its parent stays free to answer Flower and to replace the child.

Results are cached: a submitted job is done at once if the result of an equal payload on the same model revision is
still stored.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery import Celery  # type: ignore[import-untyped]
from celery.exceptions import Reject  # type: ignore[import-untyped]
from kombu.exceptions import OperationalError
from pydantic import JsonValue

from gliclass_rerank import GLiClassRerankError, ModelInfo, OptionError, Scorer, ServiceError
from gliclass_rerank_service.jobs.base import Executor, UnknownJobError
from gliclass_rerank_service.jobs.redis_store import SERVICES_RETRIES, WORKERS_RETRIES, JobStore, StartedJob
from gliclass_rerank_service.jobs.run import JobKind, JobStatus, attempt_job, cache_key, checked_payload
from gliclass_rerank_service.queue.errors import ClosedError, OverloadedError
from gliclass_rerank_service.settings import Settings, load_model, read_settings

if TYPE_CHECKING:
    app: Celery  # for `celery -A`; created on first access, see __getattr__

NAME = "gliclass-rerank"
TASK = f"{NAME}.run"
MAX_STARTS = 10
# Retries for a few seconds, like those of `JobStore` for the service.
PUBLISHING = {"max_retries": SERVICES_RETRIES, "interval_start": 0.05, "interval_step": 0.1, "interval_max": 1.0}

logger = logging.getLogger("gliclass_rerank.jobs")


class CeleryJobs:
    """Jobs on Celery workers. See `gliclass_rerank_service.jobs.base.Jobs`.

    Args:
        settings: with a ``broker_url``; see the module docstring.
        model: the model whose results are used from the cache.

    Raises:
        OptionError: no URL of a Redis for the results.
    """

    executor: Executor = "celery"

    def __init__(self, settings: Settings, model: ModelInfo) -> None:
        self._model = model
        self._visibility = settings.job_visibility_seconds
        self._store = open_store(settings, retries=SERVICES_RETRIES)
        self._celery = make_app(settings)
        self._closed = False

    def submit(self, kind: JobKind, payload: Mapping[str, JsonValue]) -> str:
        """See `Jobs.submit`."""
        checked = checked_payload(kind, payload)
        if self._closed:
            raise ClosedError("the service is shutting down and accepts no jobs; send them elsewhere")
        job_id = uuid.uuid4().hex
        if self._store.create_done(job_id, kind, cache_key(self._model, kind, checked)):
            return job_id
        self._store.create(job_id, kind, checked)
        try:
            self._send(job_id)
        except ServiceError:
            self._store.discard(job_id)
            raise
        return job_id

    def status(self, task_id: str) -> JobStatus:
        """See `Jobs.status`. Sends the job again if it has not ended within ``job_visibility_seconds``."""
        found = self._store.status(task_id)
        if found is None:
            raise UnknownJobError(task_id)
        status, sent = found
        if status.state == "processing" and time.time() - sent > self._visibility:
            self._store.mark_sent(task_id)
            self._send(task_id)
        return status

    def close(self) -> None:
        """Refuse new jobs and close the connections. Accepted jobs continue without this process."""
        self._closed = True
        self._celery.close()
        self._store.close()

    def _send(self, job_id: str) -> None:
        try:
            self._celery.send_task(TASK, args=[job_id], task_id=job_id, retry=True, retry_policy=PUBLISHING)
        except OperationalError as error:
            raise ServiceError(
                f"the broker of the jobs does not answer ({error}); check that it runs, then try again"
            ) from error


def open_store(settings: Settings, *, retries: int = WORKERS_RETRIES) -> JobStore:
    """Open the store of jobs: the Redis of ``result_url``, else the broker's."""
    url = settings.result_url or settings.broker_url
    if url is None:
        raise OptionError("broker_url: expected the URL of a Redis, such as redis://localhost:6379/0, got none")
    return JobStore(url, ttl_seconds=settings.job_ttl_seconds, retries=retries)


def make_app(settings: Settings) -> Celery:
    """Create the Celery app of submitters and workers. Connections and the model are opened on first use."""
    celery = Celery(NAME, broker=settings.broker_url, set_as_current=False)
    visibility = settings.job_visibility_seconds
    celery.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_default_queue=NAME,
        task_ignore_result=True,  # `JobStore` keeps them
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_pool="prefork",
        worker_concurrency=1,
        worker_send_task_events=True,
        task_send_sent_event=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": visibility,
            # Seconds between searches for messages to deliver again; a hundred by default.
            "unacked_restore_interval": min(10.0, max(0.5, visibility / 4)),
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": 30,  # how long a worker killed during the search blocks the others
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
        },
    )
    celery.task(_Worker(settings).run, name=TASK, bind=False)
    return celery


class _Worker:
    """Work of a worker's process. The model is loaded with the first job, in the process that runs it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._opened_store: JobStore | None = None
        self._loaded_scorer: Scorer | None = None

    def run(self, job_id: str) -> None:
        """Run a job, unless it has ended. The message is acknowledged on return, after the result is stored.

        Raises:
            Reject: the result cannot be stored now. The message must be delivered again.
        """
        store = self._store()
        try:
            if job := store.start(job_id):
                store.finish(job_id, *self._attempt(job))
        except (ServiceError, OverloadedError) as error:  # Redis is away, or full
            logger.error("job %s is delivered again: %s", job_id, error)
            raise Reject(str(error), requeue=True) from error

    def _attempt(self, job: StartedJob) -> tuple[JobStatus, str]:
        """Final status of the job, and the cache key of its result."""
        if job.starts > MAX_STARTS:
            return JobStatus("failed", error=f"its worker died in each of {MAX_STARTS} attempts; divide it"), ""
        try:
            scorer = self._scorer()
        except GLiClassRerankError as error:
            return JobStatus("failed", error=f"its worker cannot load the model: {error}"), ""
        return attempt_job(scorer, job.kind, job.payload), cache_key(scorer.info, job.kind, job.payload)

    def _store(self) -> JobStore:
        with self._lock:
            self._opened_store = self._opened_store or open_store(self._settings)
            return self._opened_store

    def _scorer(self) -> Scorer:
        with self._lock:
            self._loaded_scorer = self._loaded_scorer or load_model(self._settings)
            return self._loaded_scorer


def __getattr__(name: str) -> Any:
    """Create ``app`` from the environment, once, so that importing the classes of this module needs no settings."""
    if name != "app":
        raise AttributeError(name)
    return globals().setdefault("app", make_app(read_settings()))
