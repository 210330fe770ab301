"""The command ``serve``: the HTTP service of the package gliclass_rerank_service."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from gliclass_rerank.errors import MissingExtraError

if TYPE_CHECKING:
    from gliclass_rerank_service import Settings

PARTS = ("fastapi", "uvicorn", "pydantic_settings", "prometheus_client")
RAY_PARTS = ("ray", "grpc", "aiohttp")


def serve(
    context: typer.Context,
    model: Model = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 by default.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 8000 by default.")] = None,
    config: Config = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Accepted API keys, one per line; # begins a comment.")
    ] = None,
    backend: Backend = None,
    device: Device = None,
    dtype: Dtype = None,
    threads: Threads = None,
    passage_cache: PassageCache = None,
    concurrency: Concurrency = None,
    timeout_seconds: Annotated[float | None, typer.Option(help="Limit for one request; 60 by default.")] = None,
    drain_seconds: Annotated[
        float | None, typer.Option(help="Time to finish accepted requests at shutdown; 30 by default.")
    ] = None,
    max_texts: Annotated[int | None, typer.Option(help="Maximum texts per request; 2048 by default.")] = None,
    broker_url: BrokerUrl = None,
    result_url: ResultUrl = None,
    job_visibility_seconds: JobVisibilitySeconds = None,
    otlp_endpoint: Annotated[
        str | None, typer.Option(help="OpenTelemetry endpoint for traces; none by default.")
    ] = None,
    log_level: LogLevel = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Serve on Ray Serve with replicas of the model. Needs the extra 'ray'.")
    ] = False,
    ray_min_replicas: Annotated[int | None, typer.Option("--min-replicas", help="With --ray; 1 by default.")] = None,
    ray_max_replicas: Annotated[int | None, typer.Option("--max-replicas", help="With --ray; 2 by default.")] = None,
) -> None:
    """Serve the model over HTTP, to clients of Cohere, Jina, Voyage, TEI, infinity, vLLM and OpenAI's embeddings.

    Needs the extra 'service'. All settings are also read from the environment (GLICLASS_RERANK_PORT=8080) and from the
    file of --config.
    """
    if any(importlib.util.find_spec(part) is None for part in PARTS):
        raise MissingExtraError("service", "serving")
    from gliclass_rerank_service.app import create_app
    from gliclass_rerank_service.observability.logs import configure_logging
    from gliclass_rerank_service.server import serve as run
    from gliclass_rerank_service.settings import load_model

    settings = settings_of(context)
    configure_logging(settings.log_level)
    if ray:
        _serve_on_ray(settings)
    else:
        run(create_app(load_model(settings), settings), settings)


def _serve_on_ray(settings: Settings) -> None:
    if any(importlib.util.find_spec(part) is None for part in RAY_PARTS):
        raise MissingExtraError("ray", "serving on Ray")
    from gliclass_rerank_service.ray_app import serve_on_ray

    serve_on_ray(settings)
