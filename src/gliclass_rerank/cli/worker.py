"""The command ``worker``: runs jobs of the service from a shared Redis."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from gliclass_rerank.errors import MissingExtraError, OptionError

PARTS = ("celery", "redis", "pydantic_settings")


def worker(
    model: Annotated[
        str | None, typer.Option(help='"mini" (bundled, the default), a checkpoint folder, a hub id, a service\'s URL.')
    ] = None,
    broker: Annotated[str | None, typer.Option(help="Redis with the jobs, such as redis://localhost:6379/0.")] = None,
    result: Annotated[str | None, typer.Option(help="Redis for their results; the broker's by default.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file with settings; flags and environment take precedence.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="auto, onnx or torch.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, int8, fp32, bf16 or fp16.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads: batches computed in parallel; the usable cores by default.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Concurrent requests to an OpenAI-compatible server; 16 by default.")
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Jobs run in parallel, each in a process with its own model.")
    ] = 1,
    visibility_seconds: Annotated[
        float | None, typer.Option(help="Time after which a dead worker's job is run again; 300 by default.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run jobs of the service. Needs the extra 'jobs'.

    Settings are read as by ``serve``. Use the same broker and results for both. At SIGTERM the worker finishes the
    current job and exits.
    """
    if any(importlib.util.find_spec(part) is None for part in PARTS):
        raise MissingExtraError("jobs", "a worker")
    from gliclass_rerank_service.jobs.celery import make_app
    from gliclass_rerank_service.settings import read_settings

    flags = {
        "model": model,
        "broker_url": broker,
        "result_url": result,
        "backend": backend,
        "device": device,
        "dtype": dtype,
        "threads": threads,
        "concurrency": concurrency,
        "job_visibility_seconds": visibility_seconds,
        "log_level": log_level,
    }
    settings = read_settings(config, flags)
    if settings.broker_url is None:
        raise OptionError("--broker: expected the URL of a Redis, such as redis://localhost:6379/0, got none")
    options = ["--concurrency", str(processes), "--loglevel", settings.log_level, "--without-mingle"]
    make_app(settings).worker_main(["worker", *options])
