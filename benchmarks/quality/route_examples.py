"""Measure the effect of example queries on routing, for each way of using them.

    gliclass-rerank bench route-examples --data DATA/eval/routing [--each 3] [--queries 60] [--model mini]

Runs a `Router` over all labels of a set, with a number of examples per label from its training split, in each of its
modes: "off", "nearest" (a route scores as the best of its name and its examples), and "prompt" (shown to the model as
solved examples, if they fit in one pass beside the labels). Reports the accuracy on texts of the test split, next to
the nearest of the same names and examples by cosine of all-MiniLM-L6-v2.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
from rich.console import Console

from benchmarks.lib.baselines import DENSE, SentenceEncoder
from benchmarks.lib.eval_data import (
    OUT_OF_SCOPE,
    SEED,
    LabelSet,
    data_folder,
    layout,
    read_examples,
    read_labels,
    set_folders,
)
from benchmarks.lib.pictures import draw_bars
from benchmarks.lib.report import evaluation_parser, header, load_models, table
from benchmarks.lib.results import write
from gliclass_rerank import InputError, Route, Router, Scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.scorers.progress import ProgressScorer
from gliclass_rerank.tasks.routing.router import ExampleUse

Accuracies = dict[str, float | None]
"""Accuracies in [0, 1], by the use of examples, None if the examples do not fit."""


def main() -> None:
    parser = evaluation_parser(__doc__)
    parser.add_argument("--queries", type=int, default=60, help="maximum per set; 60 by default")
    parser.add_argument("--each", type=int, default=3, help="examples per label; 3 by default")
    options = parser.parse_args()
    if len(options.model or ()) > 1:
        parser.error("expected one model at most")
    ((name, scorer),) = load_models(options.model or ["mini"], options.threads).items()
    shown = ProgressScorer(scorer, Console(stderr=True), "routing")
    encoder = None if options.no_dense else SentenceEncoder(options.cache)
    values: dict[str, Accuracies] = {}
    for folder in set_folders(data_folder(options.data), "eval/routing", options.sets):
        if layout(folder) == "labels":
            labelled, examples = in_scope(read_labels(folder, options.queries)), read_examples(folder, options.each)
            values[labelled.name] = by_router(shown, labelled, examples)
            if encoder:
                values[labelled.name] |= by_cosine(encoder, labelled, examples)
    columns = list(next(iter(values.values())))
    rows = {of: [row[column] for column in columns] for of, row in values.items()}
    print_table(table(f"Accuracy with {options.each} examples of each route, {name}", columns, rows))
    if not options.no_write:
        setting = {"seed": SEED, "queries of a set": options.queries, "examples of a route": options.each}
        file = write(header({name: scorer}) | setting | {"accuracy": values}, "route-examples", options.out)
        bars = {column: {of: row[column] for of, row in values.items()} for column in columns}
        draw_bars(bars, "accuracy", f"{options.each} examples of each route, {name}", file.with_suffix(".png"))


def in_scope(labelled: LabelSet) -> LabelSet:
    """Remove the texts without a label."""
    kept = [pair for pair in zip(labelled.texts, labelled.gold, strict=True) if pair[1] != OUT_OF_SCOPE]
    texts, gold = zip(*kept, strict=True)
    names = tuple(name for name in labelled.labels if name != OUT_OF_SCOPE)
    return LabelSet(labelled.name, names, texts, gold, labelled.total)


def by_router(scorer: Scorer, labelled: LabelSet, examples: dict[str, tuple[str, ...]]) -> Accuracies:
    """Accuracy for each use of the examples."""
    routes = [Route(name, examples=examples[name]) for name in labelled.labels]
    return {f"router, {use}": accuracy(Router(routes, scorer, examples=use), labelled) for use in get_args(ExampleUse)}


def accuracy(router: Router, labelled: LabelSet) -> float | None:
    try:
        decisions = router.route_many(labelled.texts)
    except InputError:  # more examples than fit in a pass
        return None
    return float(np.mean([one.name == right for one, right in zip(decisions, labelled.gold, strict=True)]))


def by_cosine(encoder: SentenceEncoder, labelled: LabelSet, examples: dict[str, tuple[str, ...]]) -> Accuracies:
    """Accuracy of the nearest route by cosine, to names only and to names or examples."""
    told = [(name, name) for name in labelled.labels]
    told += [(name, text) for name in labelled.labels for text in examples[name]]
    queries, known = (
        encoder.encode(texts, f"{labelled.name}-examples") for texts in (labelled.texts, [text for _, text in told])
    )
    cosines = queries @ known.T
    found = {"nearest name": cosines[:, : len(labelled.labels)], "nearest name or example": cosines}
    return {
        f"{DENSE}, {way}": float(
            np.mean([told[i][0] == right for i, right in zip(rows.argmax(1), labelled.gold, strict=True)])
        )
        for way, rows in found.items()
    }


if __name__ == "__main__":
    main()
