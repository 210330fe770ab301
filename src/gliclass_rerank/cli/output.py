"""Output of all commands (results, messages, tables), and the options that name a model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from gliclass_rerank.scorers.progress import ProgressScorer

Model = Annotated[
    str,
    typer.Option(
        help='"mini" (bundled), a checkpoint or adapter folder, a hub id, or a URL: http://... of a service, '
        "openai+http://... of an OpenAI-compatible server, systemone+http://... or decisions+http://... of a decision "
        "server."
    ),
]
Backend = Annotated[str, typer.Option(help="auto, onnx or torch.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
PADDING = 3  # characters between columns
NARROWEST = 4  # minimum width in characters of a column of names or texts, even in a narrow terminal


def stdout() -> Console:
    """Return the console for results."""
    return Console(highlight=False)


def say(text: str | Text) -> None:
    """Print a message to stderr, without markup."""
    Console(stderr=True, highlight=False).print(Text(text) if isinstance(text, str) else text, soft_wrap=True)


def print_json(value: object) -> None:
    """Print JSON to stdout, in ASCII, so that it is valid in any encoding."""
    typer.echo(json.dumps(value, indent=2))


def figures(heading: str) -> Column:
    """Column of numbers, which are never cut."""
    return Column(heading, justify="right", no_wrap=" " not in heading)


def names(heading: str) -> Column:
    """Column of names or texts: the widest shrink first, and overlong cells are folded."""
    return Column(heading, overflow="fold")


def texts(heading: str) -> Column:
    """Column of texts, which takes the width that other columns leave and limits the width of names."""
    return Column(heading, ratio=1)


def new_table(*columns: Column, title: str | None = None, caption: str | None = None) -> Table:
    """Create a table for `print_table`."""
    told = Table(*columns, title=title, caption=caption, box=box.SIMPLE_HEAD, pad_edge=False)
    told.title_justify, told.title_style = "left", "bold"
    return told


def one_line(text: str) -> Text:
    """Text on one line, cut to the width of its column."""
    return Text(printable(text), no_wrap=True, overflow="ellipsis")


def printable(text: str) -> str:
    """Replace white space and control characters, such as those of terminal escape sequences, by single spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table to stdout in the terminal's width, wider only if its numbers alone do not fit."""
    console = console or stdout()
    widest = [_widest(column) for column in table.columns]
    beside = [width for width, column in zip(widest, table.columns, strict=True) if column.ratio or _is_numbers(column)]
    room = console.width - sum(beside) - PADDING * len(widest)  # for columns of names
    for column, width in zip(table.columns, widest, strict=True):
        if _is_numbers(column):
            column.min_width = width
            continue
        column.min_width = min(width, NARROWEST)
        if not column.ratio and any(other.ratio for other in table.columns):
            column.max_width = max(console.width // 4, room // (len(widest) - len(beside)))
    console.print(table, crop=False)


def _is_numbers(column: Column) -> bool:
    return column.justify == "right"


def _widest(column: Column) -> int:
    """Width of the column's widest line of a cell or word of its heading."""
    lines = [line for cell in column.cells for line in str(cell).splitlines()]
    return max(map(cell_len, [*lines, *str(column.header).split(), " "]))


def progressing_scorer(model: str, backend: str, device: str, description: str) -> ProgressScorer:
    """Load a scorer that shows its progress on stderr."""
    from gliclass_rerank.scorers.load import load_scorer
    from gliclass_rerank.scorers.progress import ProgressScorer

    scorer = load_scorer(model, backend=cast(Any, backend), device=device)
    return ProgressScorer(scorer, Console(stderr=True), description)
