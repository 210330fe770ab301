"""open_jobs: open jobs on workers with a broker, else in this process."""

from __future__ import annotations

import importlib.util

from gliclass_rerank import MissingExtraError, Scorer
from gliclass_rerank_service.jobs.base import Jobs
from gliclass_rerank_service.jobs.local import LocalJobs
from gliclass_rerank_service.settings import Settings


def open_jobs(settings: Settings, scorer: Scorer) -> Jobs:
    """Open jobs on the workers of ``settings.broker_url``, or in this process without one.

    Args:
        settings: ``broker_url``, ``result_url``, ``job_ttl_seconds``, ``job_visibility_seconds``, ``max_jobs``,
            ``max_job_bytes``.
        scorer: scores the jobs in this process. With a broker only its model info is used, for the cache.

    Raises:
        MissingExtraError: a broker is set, and Celery or redis is not installed.
        OptionError: an unusable URL.
    """
    if settings.broker_url is None:
        return LocalJobs(
            scorer,
            max_jobs=settings.max_jobs,
            max_bytes=settings.max_job_bytes,
            ttl_seconds=settings.job_ttl_seconds,
        )
    if any(importlib.util.find_spec(part) is None for part in ("celery", "redis")):
        raise MissingExtraError("jobs", "a broker for jobs")
    from gliclass_rerank_service.jobs.celery import CeleryJobs

    return CeleryJobs(settings, scorer.info)
