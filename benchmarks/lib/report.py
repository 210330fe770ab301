"""Shared code of the evaluations: options, models by name, tables, dated JSON and grouped bar charts."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from benchmarks.lib.machine import RESULTS, describe
from gliclass_rerank import Scorer, load_scorer
from gliclass_rerank.cli.output import figures, names, new_table
from gliclass_rerank.scorers.load import usable_cores

NUMBERS = re.compile(r"\[\s+([-+.\deE]+(?:,\s+[-+.\deE]+)*)\s+\]")


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


def load_models(models: Sequence[str], threads: int) -> dict[str, Scorer]:
    """Load scorers by their model's name, with the revision if two share a name."""
    scorers: dict[str, Scorer] = {}
    for model in models:
        scorer = load_scorer(model, threads=threads)
        info = scorer.info
        scorers[f"{info.name} {info.revision[:7]}" if info.name in scorers else info.name] = scorer
    return scorers


def header(models: Mapping[str, Scorer]) -> dict[str, object]:
    """Machine, versions and models of a benchmark run."""
    return describe() | {"model": {name: describe(scorer.info)["model"] for name, scorer in models.items()}}


def write(report: Mapping[str, object], name: str, folder: Path) -> Path:
    """Write NAME-DATE.json, with lists of numbers on one line, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{report['date']}.json"
    text = json.dumps(report, indent=2, ensure_ascii=False)
    file.write_text(NUMBERS.sub(lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text) + "\n", "utf-8")
    return file


def table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[float | None]], digits: int = 3) -> Table:
    """Table of numbers with named rows. None is left blank."""
    shown = new_table(names(""), *map(figures, columns), title=title)
    for name, values in rows.items():
        shown.add_row(name, *("" if value is None else f"{value:,.{digits}f}" for value in values))
    return shown


def draw(values: Mapping[str, Mapping[str, float | None]], label: str, title: str, file: Path) -> None:
    """Draw grouped bars: a group for each set, a bar for each contestant.

    Args:
        values: by contestant, then by set. None draws no bar.
        label: of the vertical axis.
        title: of the figure.
        file: path of the image.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    sets = list(dict.fromkeys(name for row in values.values() for name in row))
    width = 0.8 / len(values)
    figure, axes = plt.subplots(figsize=(max(6, 0.22 * len(sets) * len(values) + 1.5), 4.5), layout="constrained")
    for i, (contestant, row) in enumerate(values.items()):
        places = [place + (i + 0.5) * width - 0.4 for place in range(len(sets))]
        axes.bar(places, [row.get(name) or 0.0 for name in sets], width, label=contestant)
    axes.set_xticks(range(len(sets)), sets, rotation=30, ha="right")
    axes.set_ylabel(label)
    axes.set_title(title, fontsize="medium", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    figure.savefig(file, dpi=150)
    plt.close(figure)
