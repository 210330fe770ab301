"""What all commands share: where results and messages go, and the options that name a model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from gliclass_rerank.progress import ProgressScorer

Model = Annotated[
    str,
    typer.Option(
        help='"mini" (bundled), a checkpoint or adapter folder, a hub id, or a URL: http://... of a service, openai+http://...'
    ),
]
Backend = Annotated[str, typer.Option(help="auto, onnx or torch.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def stdout() -> Console:
    """Where results go."""
    return Console(highlight=False)


def say(text: str | Text) -> None:
    """Print a message to stderr, as it is."""
    Console(stderr=True, highlight=False).print(Text(text) if isinstance(text, str) else text, soft_wrap=True)


def print_json(value: object) -> None:
    """Print JSON to stdout; in ASCII, so that it is valid whatever the pipe's encoding."""
    typer.echo(json.dumps(value, indent=2))


def progressing_scorer(model: str, backend: str, device: str, description: str) -> ProgressScorer:
    """A scorer that shows its progress on stderr."""
    from gliclass_rerank.progress import ProgressScorer
    from gliclass_rerank.scoring.load import load_scorer

    scorer = load_scorer(model, backend=cast(Any, backend), device=device)
    return ProgressScorer(scorer, Console(stderr=True), description)
