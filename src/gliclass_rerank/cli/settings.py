"""Options of ``serve`` and ``worker``: settings of the service, each by its name. None leaves a setting as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gliclass_rerank_service import Settings

Config = Annotated[Path | None, typer.Option(help="TOML file with settings. Flags and environment take precedence.")]
Model = Annotated[
    str | None,
    typer.Option(
        help='"mini" (bundled, the default), a checkpoint folder, a hub id, or a URL: http://... of a service, '
        "openai+http://host:8001/v1#model of an OpenAI-compatible server, systemone+http://host/v1#model or "
        "decisions+http://host/v1#model of a decision server."
    ),
]
Backend = Annotated[str | None, typer.Option(help="auto, onnx or torch.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str | None, typer.Option(help="auto, int8, fp32, bf16 or fp16.")]
Threads = Annotated[
    int | None, typer.Option(help="CPU threads: batches computed in parallel; the usable cores by default.")
]
PassageCache = Annotated[
    str | None,
    typer.Option(help='Memory for passages that come back, such as "1GB"; for models with independent labels.'),
]
Concurrency = Annotated[
    int | None, typer.Option(help="Concurrent requests to an OpenAI-compatible or decision server; 16 by default.")
]
BrokerUrl = Annotated[
    str | None,
    typer.Option(help="Redis with the jobs, such as redis://localhost:6379/0. Without one, the service runs them."),
]
ResultUrl = Annotated[str | None, typer.Option(help="Redis for the results of jobs; the broker's by default.")]
JobVisibilitySeconds = Annotated[
    float | None, typer.Option(help="Time after which a dead worker's job is run again; 300 by default.")
]
LogLevel = Annotated[str | None, typer.Option(help="debug, info, warning or error.")]


def settings_of(context: typer.Context) -> Settings:
    """Read the settings of a command: its options of their names, and the sources of `read_settings`."""
    from gliclass_rerank_service.settings import Settings, read_settings

    given = {name: value for name, value in context.params.items() if name in Settings.model_fields}
    return read_settings(context.params["config"], given)
