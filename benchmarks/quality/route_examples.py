"""Measure routing with few examples a route, and the time of a decision.

    gliclass-rerank bench route-examples --data DATA/eval/routing [--each 0,3,10] [--queries 300] [--model mini]

Routes are all labels of a set, with some examples each from its training split. A `Router` has the examples with its
routes, or is fitted on them ("fitted"). Two methods on vectors of all-MiniLM-L6-v2 are beside it: "nearest utterances"
is that of semantic-router, the mean cosine of a route's examples among the five nearest; "logistic regression" is a
head on fixed vectors. Without examples both are the nearest name. Accuracy is over the texts of the test split that
have a label. Abstention is the area under the ROC curve of the best score, texts with a label against others. If a set
has no others, half of its labels are removed. Intervals are of 95%, by bootstrap over the texts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from sklearn.linear_model import LogisticRegression

from benchmarks.lib.baselines import DENSE, SentenceEncoder
from benchmarks.lib.eval_data import (
    SEED,
    data_folder,
    layout,
    read_collection,
    read_examples,
    read_labels,
    set_folders,
)
from benchmarks.lib.measures import auroc_if_both, mean_interval
from benchmarks.lib.pictures import draw_bars
from benchmarks.lib.report import evaluation_parser, header, load_models, table
from benchmarks.lib.results import write
from benchmarks.quality.routing import Task, as_label, intents, without_half
from gliclass_rerank import Route, Router, Scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.scorers.progress import ProgressScorer

NEAREST = 5  # utterances that semantic-router looks at
TOOLS = 1000
TIMED = 30  # decisions
Examples = Mapping[str, Sequence[str]]
"""Examples by the name of the route, none at all or some for each."""
Scores = NDArray[np.floating]
Contestant = Callable[[Task, Examples], Scores]
"""Function from a task and examples to scores, shape (texts, routes)."""


def main() -> None:
    parser = evaluation_parser(__doc__)
    parser.add_argument("--queries", type=int, default=300, help="maximum per set; 300 by default")
    parser.add_argument("--each", type=counts, default=[0, 3, 10], help="examples per label; 0,3,10 by default")
    options = parser.parse_args()
    if len(options.model or ()) > 1:
        parser.error("expected one model at most")
    ((name, scorer),) = load_models(options.model or ["mini"], options.threads).items()
    contestants = {} if options.no_dense else baselines(SentenceEncoder(options.cache))
    shown = ProgressScorer(scorer, Console(stderr=True), "routing")
    contestants |= {name: by_router(shown, fitted=False), f"{name}, fitted": by_router(shown, fitted=True)}
    folders = set_folders(data_folder(options.data), "eval/routing", options.sets)
    report: dict[str, Any] = header({name: scorer}) | {"seed": SEED, "queries of a set": options.queries}
    report |= compared(contestants, [one for one in folders if layout(one) == "labels"], options.queries, options.each)
    report["milliseconds of a decision"] = times(scorer, folders, max(options.each))
    for title in ("accuracy", "abstention"):
        print_table(table(title.capitalize(), list(contestants), rows_of(report[title], list(contestants))))
    medians = rows_of(report["milliseconds of a decision"], ["median"])
    print_table(table("Milliseconds of a decision", ["median"], medians))
    if not options.no_write:
        file = write(report, "route-examples", options.out)
        bars = {of: {task: row[of] for task, row in report["accuracy"].items()} for of in contestants}
        ends = {of: {task: row[of] for task, row in report["intervals"].items()} for of in contestants}
        draw_bars(bars, "accuracy", f"examples of each route, {name}", file.with_suffix(".png"), ends)


def counts(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def rows_of(rows: Mapping[str, Mapping[str, float | None]], columns: Sequence[str]) -> dict[str, list[float | None]]:
    return {name: [row[column] for column in columns] for name, row in rows.items()}


def compared(
    contestants: Mapping[str, Contestant], folders: Sequence[Path], queries: int, each: Sequence[int]
) -> dict[str, Any]:
    """Accuracy, its intervals, and abstention, by set with a number of examples, then by contestant."""
    found: dict[str, Any] = {"accuracy": {}, "intervals": {}, "abstention": {}}
    for folder in folders:
        whole = intents(read_labels(folder, queries))
        for count in each:
            examples = read_examples(folder, count) if count else {}
            row = f"{folder.name}, {count}"
            for part in found.values():
                part[row] = {}
            for name, contestant in contestants.items():
                scores = contestant(whole, examples)
                pairs = zip(scores, whole.gold, strict=True)
                hits = [float(one.argmax() == gold) for one, gold in pairs if gold is not None]
                found["accuracy"][row][name] = float(np.mean(hits))
                found["intervals"][row][name] = mean_interval([hits])
                open_task = whole if None in whole.gold else without_half(whole)
                if open_task is not whole:
                    scores = contestant(open_task, examples)
                belongs = [gold is not None for gold in open_task.gold]
                found["abstention"][row][name] = auroc_if_both(scores.max(axis=1), belongs)
    return found


def by_router(scorer: Scorer, *, fitted: bool) -> Contestant:
    """Create a contestant for a `Router` that has the examples, or is fitted on them."""

    def scores(task: Task, examples: Examples) -> Scores:
        names = task.labels[0]
        own = {name: tuple(examples.get(name, ())) for name in names}
        if not fitted or not examples:
            router = Router([Route(name, examples=own[name]) for name in names], scorer, threshold=0)
        else:
            router = Router([Route(name) for name in names], scorer, threshold=0)
            known = [(text, name) for name in names for text in own[name]]
            router.fit([text for text, _ in known], [name for _, name in known])
        decisions = router.route_many(task.texts)
        return np.array([[decision.scores[name] for name in names] for decision in decisions])

    return scores


def baselines(encoder: SentenceEncoder) -> dict[str, Contestant]:
    """Create contestants on vectors of all-MiniLM-L6-v2."""

    def encoded(texts: Sequence[str]) -> NDArray[np.float32]:
        distinct = list(dict.fromkeys(texts))
        place = {text: i for i, text in enumerate(distinct)}
        vectors: NDArray[np.float32] = encoder.encode(distinct, "route-examples")[[place[text] for text in texts]]
        return vectors

    def nearest(task: Task, examples: Examples) -> Scores:
        names = task.labels[0]
        told = known(names, examples)
        cosines = encoded(task.texts) @ encoded([text for text, _ in told]).T
        owners = np.array([owner for _, owner in told])
        scores = np.full((len(task.texts), len(names)), -1.0)
        for row, own in zip(scores, cosines, strict=True):
            first = np.argsort(-own)[: NEAREST if examples else 1]
            for route in np.unique(owners[first]):
                row[route] = own[first[owners[first] == route]].mean()
        return scores

    def regression(task: Task, examples: Examples) -> Scores:
        if not examples:
            return nearest(task, examples)
        told = known(task.labels[0], examples)
        model = LogisticRegression(C=10, max_iter=300)
        model.fit(encoded([text for text, _ in told]), [owner for _, owner in told])
        shares: Scores = model.predict_proba(encoded(task.texts))
        return shares

    return {f"{DENSE}, nearest utterances": nearest, f"{DENSE}, logistic regression": regression}


def known(names: Sequence[str], examples: Examples) -> list[tuple[str, int]]:
    """Texts with the index of their route: the examples, or without any the names."""
    return [(text, i) for i, name in enumerate(names) for text in (examples.get(name, ()) if examples else (name,))]


def times(scorer: Scorer, folders: Sequence[Path], each: int) -> dict[str, dict[str, float]]:
    """Median, smallest and largest milliseconds of a decision over routes with examples, and over described tools."""
    found = {}
    for folder in folders:
        if layout(folder) == "labels":
            labelled, examples = read_labels(folder, TIMED), read_examples(folder, each)
            routes = [Route(name, examples=examples.get(name, ())) for name in labelled.labels]
            title = f"{folder.name}, {len(routes)} routes with {each} examples"
            found[title] = timed(Router(routes, scorer), labelled.texts)
        else:
            collection = read_collection(folder, TIMED)
            labels = dict.fromkeys(map(as_label, collection.passages))
            routes = [Route(label) for label in list(labels)[:TOOLS]]
            texts = [query.text for query in collection.queries]
            found[f"{folder.name}, {len(routes)} described tools"] = timed(Router(routes, scorer), texts)
    return found


def timed(router: Router, texts: Sequence[str]) -> dict[str, float]:
    router.route(texts[0])  # reads the examples
    seconds = []
    for text in texts:
        start = time.perf_counter()
        router.route(text)
        seconds.append(1000 * (time.perf_counter() - start))
    return {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}


if __name__ == "__main__":
    main()
