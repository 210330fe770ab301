"""The command ``serve``: the HTTP service of the package gliclass_rerank_service."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliclass_rerank.errors import MissingExtraError

if TYPE_CHECKING:
    from gliclass_rerank_service import Settings

PARTS = ("fastapi", "uvicorn", "pydantic_settings", "prometheus_client")
RAY_PARTS = ("ray", "grpc", "aiohttp")


def serve(
    model: Annotated[
        str | None,
        typer.Option(
            help='"mini" (bundled, the default), a checkpoint folder, a hub id, or a URL: http://... of a service, '
            "openai+http://host:8001/v1#model."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 by default.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 8000 by default.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file with settings; flags and environment take precedence.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Accepted API keys, one per line; # begins a comment.")
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
    timeout_seconds: Annotated[float | None, typer.Option(help="Limit for one request; 60 by default.")] = None,
    drain_seconds: Annotated[
        float | None, typer.Option(help="Time to finish accepted requests at shutdown; 30 by default.")
    ] = None,
    max_texts: Annotated[int | None, typer.Option(help="Maximum texts per request; 2048 by default.")] = None,
    broker_url: Annotated[str | None, typer.Option(help="Redis for jobs; without it they run in this process.")] = None,
    otlp_endpoint: Annotated[
        str | None, typer.Option(help="OpenTelemetry endpoint for traces; none by default.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Serve on Ray Serve with replicas of the model. Needs the extra 'ray'.")
    ] = False,
    min_replicas: Annotated[int | None, typer.Option(help="With --ray; 1 by default.")] = None,
    max_replicas: Annotated[int | None, typer.Option(help="With --ray; 2 by default.")] = None,
) -> None:
    """Serve the model over HTTP, to clients of Cohere, Jina, Voyage, TEI, infinity and vLLM. Needs the extra 'service'.

    All settings are also read from the environment (GLICLASS_RERANK_PORT=8080) and from the file of --config.
    """
    if any(importlib.util.find_spec(part) is None for part in PARTS):
        raise MissingExtraError("service", "serving")
    from gliclass_rerank_service.app import create_app
    from gliclass_rerank_service.observability.logs import configure_logging
    from gliclass_rerank_service.server import serve as run
    from gliclass_rerank_service.settings import load_model, read_settings

    flags = {
        "model": model,
        "host": host,
        "port": port,
        "api_key_file": api_key_file,
        "backend": backend,
        "device": device,
        "dtype": dtype,
        "threads": threads,
        "concurrency": concurrency,
        "timeout_seconds": timeout_seconds,
        "drain_seconds": drain_seconds,
        "max_texts": max_texts,
        "broker_url": broker_url,
        "otlp_endpoint": otlp_endpoint,
        "log_level": log_level,
        "ray_min_replicas": min_replicas,
        "ray_max_replicas": max_replicas,
    }
    settings = read_settings(config, flags)
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
