"""Measure how labels in the same pass affect each other, and how stable decisions over 500 routes are.

    gliclass-rerank bench label-order --data DATA/eval/routing [--model mini] [--queries 100]

Labels in a pass attend to each other, so a probability changes slightly with their order and with the other labels.
The first part puts all labels of a set in random orders. It reports the mean and the largest change of a probability,
and how often the most probable label changes. The second part uses a `Router` with 500 routes (intents of the sets,
and functions), more than fit in a pass. It reports how many decisions change with the order of the routes, and
without 50 routes that no query takes.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.lib.eval_data import (
    OUT_OF_SCOPE,
    SEED,
    LabelSet,
    data_folder,
    layout,
    read_collection,
    read_labels,
    set_folders,
)
from benchmarks.lib.report import header, table
from benchmarks.lib.results import RESULTS, write
from benchmarks.quality.routing import as_label
from gliclass_rerank import Route, Router, Scorer, ScoreRequest, load_scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.scorers.load import usable_cores
from gliclass_rerank.scorers.progress import ProgressScorer
from gliclass_rerank.training.evaluate import probabilities
from gliclass_rerank.types import FloatArray

ORDERS = 3
LEFT_OUT = 0.1  # share of the routes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the sets, or of all data (GLICLASS_RERANK_DATA)")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--queries", type=int, default=100, help="maximum per set; 100 by default")
    parser.add_argument(
        "--routed", type=int, default=10, help="queries per set for the 500 routes (slow); 10 by default"
    )
    parser.add_argument("--routes", type=int, default=500, help="number of routes; 500 by default")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="all cores by default")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    scorer = load_scorer(options.model, threads=options.threads)
    shown = ProgressScorer(scorer, Console(stderr=True), "scoring")
    folders = set_folders(data_folder(options.data), "eval/routing")
    sets = [read_labels(folder, options.queries) for folder in folders if layout(folder) == "labels"]
    tools = [tool for folder in folders if layout(folder) == "collection" for tool in functions(folder)]
    shuffled = {labelled.name: by_order(shown, labelled) for labelled in sets}
    routed = with_many_routes(shown, sets, tools, options)
    print_table(table("Labels in another order", columns(shuffled), rows(shuffled), digits=4))
    title = f"{options.routes} routes"
    print_table(table(title, list(routed), {"decisions that change": list(routed.values())}, digits=4))
    report = header({scorer.info.name: scorer}) | {"seed": SEED, "queries of a set": options.queries}
    write(report | {"orders": shuffled, title: routed}, "label-order", options.out)


def functions(folder: Path) -> list[str]:
    """Names and descriptions of a set's functions, without duplicates."""
    return list(dict.fromkeys(as_label(passage) for passage in read_collection(folder, 1).passages))


def by_order(scorer: Scorer, labelled: LabelSet) -> dict[str, float]:
    """Changes by random orders of a set's labels, relative to the order of its file, with probabilities in [0, 1]."""
    rng = random.Random(f"{SEED} {labelled.name}")
    names = [name for name in labelled.labels if name != OUT_OF_SCOPE]
    straight = predicted(scorer, labelled.texts, names)
    changes, moved = [], []
    for _ in range(ORDERS):
        order = rng.sample(range(len(names)), len(names))
        other = np.empty_like(straight)
        other[:, order] = predicted(scorer, labelled.texts, [names[i] for i in order])
        changes.append(np.abs(other - straight))
        moved.append(other.argmax(1) != straight.argmax(1))
    return {
        "labels": float(len(names)),
        "mean change": float(np.mean(changes)),
        "largest change": float(np.max(changes)),
        "likeliest label changes": float(np.mean(moved)),
    }


def predicted(scorer: Scorer, texts: Sequence[str], names: Sequence[str]) -> FloatArray:
    """Probabilities, shape (texts, names)."""
    logits = np.stack(scorer.score([ScoreRequest(text, tuple(names)) for text in texts]))
    return probabilities(scorer, "labels", logits)


def with_many_routes(
    scorer: Scorer, sets: Sequence[LabelSet], tools: Sequence[str], options: argparse.Namespace
) -> dict[str, float]:
    """Shares of decisions that change with the order and the number of the routes."""
    rng = random.Random(f"{SEED} routes")
    intents = dict.fromkeys(name for labelled in sets for name in labelled.labels if name != OUT_OF_SCOPE)
    names = list(dict.fromkeys([*intents, *tools]))[: options.routes]
    if len(names) < options.routes:
        raise SystemExit(f"expected at least {options.routes} labels and functions in all, found {len(names)}")
    queries = [text for labelled in sets for text in labelled.texts[: options.routed]]

    def decide(chosen: Sequence[str]) -> list[str | None]:
        return [decision.name for decision in Router([Route(name) for name in chosen], scorer).route_many(queries)]

    straight = decide(names)
    moved = decide(rng.sample(names, len(names)))
    unused = sorted(set(names) - set(straight))
    left_out = set(rng.sample(unused, round(LEFT_OUT * len(names))))
    divided = decide([name for name in names if name not in left_out])
    return {
        "queries": float(len(queries)),
        "another order": share_changed(straight, moved),
        f"{len(left_out)} left out": share_changed(straight, divided),
    }


def share_changed(one: Sequence[str | None], other: Sequence[str | None]) -> float:
    return float(np.mean([a != b for a, b in zip(one, other, strict=True)]))


def columns(shuffled: dict[str, dict[str, float]]) -> list[str]:
    return list(next(iter(shuffled.values())))


def rows(shuffled: dict[str, dict[str, float]]) -> dict[str, list[float | None]]:
    return {name: list(values.values()) for name, values in shuffled.items()}


if __name__ == "__main__":
    main()
