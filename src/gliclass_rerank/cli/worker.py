"""The command ``worker``: runs jobs of the service from a shared Redis."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer

from gliclass_rerank.cli.settings import (
    Backend,
    BrokerUrl,
    Concurrency,
    Config,
    Device,
    Dtype,
    JobVisibilitySeconds,
    LogLevel,
    Model,
    PassageCache,
    ResultUrl,
    Threads,
    settings_of,
)
from gliclass_rerank.errors import MissingExtraError, OptionError

PARTS = ("celery", "redis", "pydantic_settings")


def worker(
    context: typer.Context,
    model: Model = None,
    broker_url: BrokerUrl = None,
    result_url: ResultUrl = None,
    config: Config = None,
    backend: Backend = None,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
    passage_cache: PassageCache = None,
    concurrency: Concurrency = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Jobs run in parallel, each in a process with its own model.")
    ] = 1,
    job_visibility_seconds: JobVisibilitySeconds = None,
    log_level: LogLevel = None,
) -> None:
    """Run jobs of the service. Needs the extra 'jobs'.

    Settings are read as by ``serve``. Use the same broker and results for both. At SIGTERM the worker finishes the
    current job and exits.
    """
    if any(importlib.util.find_spec(part) is None for part in PARTS):
        raise MissingExtraError("jobs", "a worker")
    from gliclass_rerank_service.jobs.celery import make_app

    settings = settings_of(context)
    if settings.broker_url is None:
        raise OptionError("--broker-url: expected the URL of a Redis, such as redis://localhost:6379/0, got none")
    options = ["--concurrency", str(processes), "--loglevel", settings.log_level, "--without-mingle"]
    make_app(settings).worker_main(["worker", *options])
