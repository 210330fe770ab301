"""The command line: ``demo | info | export | bench``. The other commands have their own modules in this folder.

Results go to stdout, everything else to stderr. Only typer and rich are imported at module level. Commands import
their own dependencies, so that ``--help`` is fast.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import gliclass_rerank
from gliclass_rerank.cli.output import (
    AsJson,
    Backend,
    Device,
    Model,
    names,
    print_json,
    print_table,
    progressing_scorer,
    say,
    stdout,
)
from gliclass_rerank.cli.playground import playground
from gliclass_rerank.cli.serve import serve
from gliclass_rerank.cli.tasks import check, classify, decide, rerank, route
from gliclass_rerank.cli.training import calibrate, evaluate, merge, mine, train
from gliclass_rerank.cli.worker import worker
from gliclass_rerank.errors import GLiClassRerankError, InputError, MissingExtraError

if TYPE_CHECKING:
    from gliclass_rerank.types import ScoreRequest

EXPORT_PARTS = ("torch", "transformers", "gliclass", "safetensors", "onnx", "onnxscript")

app = typer.Typer(
    help="Rerank, route, fact-check, classify and decide with a small GLiClass model, offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. Exits with 0, with 2 for a `GLiClassRerankError`, with 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters that the terminal lacks must not abort a ranking
            stream.reconfigure(errors="replace")
    try:
        app(args=arguments, prog_name="gliclass-rerank")
    except GLiClassRerankError as error:
        say(Text.assemble(("error: ", "bold red"), " ".join(str(error).split())))
        sys.exit(2)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gliclass-rerank {gliclass_rerank.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    as_json: AsJson = False,
    model: Model = "mini",
    backend: Backend = "auto",
    device: Device = "auto",
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Passages from BM25 to rerank for each question; 30 by default.")
    ] = None,
    collection_cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps the collection; the user's cache by default.")
    ] = None,
) -> None:
    """Search Python's own documentation, rerank it, and measure both. Nothing is downloaded."""
    from gliclass_rerank.cli.demo import show
    from gliclass_rerank.demo.evaluate import CANDIDATES, run_demo

    report = run_demo(
        progressing_scorer(model, backend, device, "reranking"),
        candidates=top_k or CANDIDATES,
        cache_dir=collection_cache,
    )
    if as_json:
        print_json(report.as_dict())
    else:
        show(report, stdout())


app.command()(rerank)
app.command()(route)
app.command()(check)
app.command()(classify)
app.command()(decide)
app.command()(playground)
app.command()(serve)
app.command()(worker)


@app.command()
def export(
    folder: Annotated[str, typer.Argument(help="A uni-encoder checkpoint: a folder or a hub id.")],
    out: Annotated[Path, typer.Argument(help="The new folder.")],
    dtype: Annotated[str, typer.Option(help="int8 or fp32.")] = "int8",
    calibration: Annotated[
        Path | None,
        typer.Option(help='Typical requests for int8, JSON lines {"text": ..., "labels": [...]}; the demo\'s if none.'),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the exported model.")] = None,
) -> None:
    """Write a folder for onnxruntime and torch. Needs the extra 'export'."""
    if any(importlib.util.find_spec(part) is None for part in EXPORT_PARTS):
        raise MissingExtraError("export", "exporting a model")
    from rich.progress import Progress

    from gliclass_rerank.export.onnx import export_checkpoint
    from gliclass_rerank.scorers.load import locate

    source, hub_name, _ = locate(folder)
    requests = _calibration(calibration) if dtype == "int8" else []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("exporting", total=None)
        export_checkpoint(
            source,
            out,
            dtype=cast(Any, dtype),
            calibration=requests,
            name=name or hub_name,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    say(Text(f"wrote {out}"))


app.command()(train)
app.command()(mine)
app.command()(evaluate)
app.command()(calibrate)
app.command()(merge)


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def bench(
    name: Annotated[str, typer.Argument(help="A script in the folder benchmarks, such as throughput.")] = "all",
    arguments: Annotated[list[str] | None, typer.Argument(help="Arguments of the script.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small, short run to check that all of it works.")] = False,
) -> None:
    """Run a benchmark of the repository, or all of them. `bench NAME --help` shows a script's options."""
    given = ["--quick", *(arguments or ())] if quick else arguments or ()
    checkout, module = _benchmark(name)
    paths = [str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    completed = subprocess.run([sys.executable, "-m", module, *given], check=False, env=environment)
    raise typer.Exit(completed.returncode)


@app.command()
def info(model: Model = "mini", backend: Backend = "auto", device: Device = "auto", as_json: AsJson = False) -> None:
    """Load a model and print its description."""
    told = progressing_scorer(model, backend, device, "reranking").info
    values = asdict(told) | {"calibrated": told.calibrated}
    if as_json:
        print_json(values | {"calibration": {task: made.as_dict() for task, made in told.calibration.items()}})
        return
    values["calibration"] = ", ".join(f"{task} ({made.kind})" for task, made in told.calibration.items())
    table = Table(names(""), names(""), box=None, show_header=False, pad_edge=False)
    for name, value in values.items():
        table.add_row(name, Text("" if value is None else str(value)))
    print_table(table)


def _calibration(file: Path | None) -> list[ScoreRequest]:
    """Read requests from a file of JSON lines, or return the demo's."""
    from gliclass_rerank.demo.questions import calibration_requests

    if file is None:
        return calibration_requests()
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    return [_request(line, f"{file}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _request(line: str, where: str) -> ScoreRequest:
    from gliclass_rerank.types import ScoreRequest

    try:
        fields = json.loads(line)
        return ScoreRequest(fields["text"], fields["labels"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{where}: expected {{"text": ..., "labels": [...]}}, got {line[:60]!r} ({error})') from error


def _benchmark(name: str) -> tuple[Path, str]:
    """Checkout and module of a benchmark: the current folder's checkout, or the one that this package runs from."""
    checkout = Path(gliclass_rerank.__file__).parents[2]
    folders = [folder for folder in (Path("benchmarks"), checkout / "benchmarks") if folder.is_dir()]
    for folder in folders:
        scripts = {script.stem.replace("_", "-"): script for script in _scripts(folder)}
        if script := scripts.get(name.replace("_", "-")):
            parts = script.relative_to(folder).with_suffix("").parts
            return folder.parent.absolute(), ".".join(("benchmarks", *parts))
    if not folders:
        raise InputError(
            "benchmarks are in the repository, not in the installed package: run this in a checkout of "
            "gliclass-rerank, or install it from one with pip install -e ."
        )
    names = sorted(script.stem.replace("_", "-") for script in _scripts(folders[0]))
    raise InputError(f"no benchmark {name!r}; there are {', '.join(names)}")


def _scripts(folder: Path) -> Iterator[Path]:
    """Yield the benchmark scripts, without the workers that other scripts start."""
    for script in folder.rglob("*.py"):
        if "__main__" in script.read_text("utf-8") and not script.stem.endswith("_worker"):
            yield script
