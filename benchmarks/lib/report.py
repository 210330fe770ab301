"""Shared code of the evaluations: options, models by name, heads of reports and tables in the terminal."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from benchmarks.lib.machine import describe
from benchmarks.lib.results import RESULTS
from gliclass_rerank import Scorer, load_scorer
from gliclass_rerank.cli.output import figures, names, new_table
from gliclass_rerank.scorers.load import usable_cores


def evaluation_parser(description: str | None) -> argparse.ArgumentParser:
    """Create a parser with the options of all evaluations: data, sets, models, threads and results."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the sets, or of all data (GLICLASS_RERANK_DATA)")
    parser.add_argument("--sets", type=lambda names: names.split(","), help="comma-separated names; all by default")
    parser.add_argument("--model", action="append", help="may be repeated; mini by default")
    parser.add_argument("--no-dense", action="store_true", help="skip all-MiniLM-L6-v2")
    parser.add_argument("--cache", type=Path, help="folder that caches all-MiniLM-L6-v2's vectors")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="all cores by default")
    parser.add_argument("--no-write", action="store_true", help="write no files except the cache")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    return parser


def load_models(models: Sequence[str], threads: int, *, passage_cache: int | str = 0) -> dict[str, Scorer]:
    """Load scorers by their model's name, with the revision if two share a name.

    Args:
        models: arguments of `load_scorer`.
        threads: CPU threads of each.
        passage_cache: memory of those with independent labels for passages that come back.
    """
    scorers: dict[str, Scorer] = {}
    for model in models:
        scorer = load_scorer(model, threads=threads)
        if passage_cache and scorer.info.independent_labels:
            scorer = load_scorer(model, threads=threads, passage_cache=passage_cache)
        info = scorer.info
        scorers[f"{info.name} {info.revision[:7]}" if info.name in scorers else info.name] = scorer
    return scorers


def header(models: Mapping[str, Scorer]) -> dict[str, object]:
    """Machine, versions and models of a benchmark run."""
    return describe() | {"model": {name: describe(scorer.info)["model"] for name, scorer in models.items()}}


def table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[float | None]], digits: int = 3) -> Table:
    """Table of numbers with named rows. None is left blank."""
    shown = new_table(names(""), *map(figures, columns), title=title)
    for name, values in rows.items():
        shown.add_row(name, *("" if value is None else f"{value:,.{digits}f}" for value in values))
    return shown
