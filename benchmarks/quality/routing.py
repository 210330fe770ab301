"""Evaluate zero-shot routing to one of many labels, one of several functions, or none, on sets unseen in training.

    gliclass-rerank bench routing --data DATA/eval/routing [--labels DATA/eval/labels] [--model mini --model FOLDER]

A model reads the query as in `Router`: with all label names as its labels if they fit in one pass, else one by one.
The highest score wins. Functions are labels as well: name, colon, description. Abstention is measured by the highest
score: the area under the ROC curve, queries with a label against queries without one. If a set has no such queries,
half of its labels are removed, and the queries of these have none. The baseline is the label nearest to the query by
cosine of all-MiniLM-L6-v2. With --labels, sets of texts and labels are classified in the same way.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.lib.baselines import DENSE, SentenceEncoder
from benchmarks.lib.eval_data import (
    OUT_OF_SCOPE,
    SEED,
    Collection,
    LabelSet,
    Passage,
    data_folder,
    layout,
    read_collection,
    read_labels,
    set_folders,
)
from benchmarks.lib.machine import cpu
from benchmarks.lib.measures import auroc_if_both, report_on
from benchmarks.lib.pictures import draw_bars
from benchmarks.lib.report import evaluation_parser, header, load_models, table
from benchmarks.lib.results import write
from gliclass_rerank import Scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.scorers.progress import ProgressScorer
from gliclass_rerank.scoring import run
from gliclass_rerank.tasks.routing.scores import label_logits
from gliclass_rerank.types import FloatArray

HALF = ", half of its labels"


@dataclass(frozen=True, slots=True)
class Task:
    """Texts, the labels of each, and the index of the gold label, None for texts without one.

    Attributes:
        total: texts that the sample was drawn from.
    """

    name: str
    texts: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    gold: tuple[int | None, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results of one contestant on one task. Rates in [0, 1], None if the task has none.

    Attributes:
        accuracy: over the texts with a gold label.
        macro_f1: over the same, if all texts have the same labels.
        abstention_auroc: AUROC of the highest score, texts with a gold label against texts without one.
        texts_per_second: end to end, in one batch, or one by one if each has its own labels. None for the baseline,
            whose vectors may be cached from an earlier run.
    """

    accuracy: float
    macro_f1: float | None
    abstention_auroc: float | None
    texts_per_second: float | None


Scores = FloatArray | NDArray[np.float64]
Contestant = Callable[[Task], Sequence[Scores]]
"""Function from a task to the scores of each text's labels."""


def main() -> None:
    options = parse_options()
    folders = set_folders(data_folder(options.data), "eval/routing", options.sets)
    tasks = [task for folder in folders for task in routing_tasks(folder, options.queries)]
    if options.labels:
        tasks += [
            intents(read_labels(folder, options.queries)) for folder in set_folders(options.labels, "eval/labels")
        ]
    torch.set_num_threads(options.threads)
    models = load_models(options.model or ["mini"], options.threads)
    contestants = {} if options.no_dense else {DENSE: by_cosine(SentenceEncoder(options.cache))}
    contestants |= {name: by_model(name, scorer) for name, scorer in models.items()}
    results = {
        name: {task.name: judge(contestant, task, timed=name in models) for task in tasks}
        for name, contestant in contestants.items()
    }
    show(results)
    if options.no_write:
        return
    report = header(models) | {"threads": options.threads, "seed": SEED}
    report["tasks"] = {task.name: described(task) for task in tasks}
    report["results"] = {name: {of: asdict(row) for of, row in rows.items()} for name, rows in results.items()}
    file = write(report, "routing", options.out)
    values = {name: {of: row.accuracy for of, row in rows.items()} for name, rows in results.items()}
    draw_bars(values, "accuracy", f"up to {options.queries} texts a set, {cpu()}", file.with_suffix(".png"))


def parse_options() -> argparse.Namespace:
    parser = evaluation_parser(__doc__)
    parser.add_argument("--labels", type=Path, help="folder of additional sets of texts and labels; none by default")
    parser.add_argument("--queries", type=int, default=500, help="maximum per set; 500 by default")
    return parser.parse_args()


def routing_tasks(folder: Path, at_most: int) -> list[Task]:
    """Tasks of a set: choose a function, or an intent, the latter twice if no query is out of scope."""
    if layout(folder) == "collection":
        return [functions(read_collection(folder, at_most))]
    task = intents(read_labels(folder, at_most))
    return [task] if None in task.gold else [task, without_half(task)]


def intents(labelled: LabelSet) -> Task:
    """Texts with all labels. The label "out of scope" means that a text has no label."""
    names = tuple(name for name in labelled.labels if name != OUT_OF_SCOPE)
    position = {name: i for i, name in enumerate(names)}
    gold = tuple(position.get(name) for name in labelled.gold)
    return Task(labelled.name, labelled.texts, (names,) * len(gold), gold, labelled.total)


def without_half(task: Task) -> Task:
    """The same texts with half of the labels, drawn with SEED. Texts of the other labels have no gold label."""
    names = task.labels[0]
    kept = sorted(random.Random(f"{SEED} {task.name}").sample(range(len(names)), len(names) // 2))
    position: dict[int | None, int] = {old: new for new, old in enumerate(kept)}
    labels = (tuple(names[i] for i in kept),) * len(task.texts)
    return Task(task.name + HALF, task.texts, labels, tuple(position.get(i) for i in task.gold), task.total)


def functions(collection: Collection) -> Task:
    """Queries with the candidate functions of each."""
    labels = tuple(tuple(map(as_label, (collection.passages[i] for i in query.grades))) for query in collection.queries)
    gold = tuple(list(query.grades.values()).index(max(query.grades.values())) for query in collection.queries)
    return Task(collection.name, tuple(query.text for query in collection.queries), labels, gold, collection.total)


def as_label(function: Passage) -> str:
    """Name and description, without the list of parameters that follows it."""
    return f"{function.title}: {function.text.partition(' Parameters:')[0]}"


def by_model(name: str, scorer: Scorer) -> Contestant:
    def scores(task: Task) -> Sequence[Scores]:
        shown = ProgressScorer(scorer, Console(stderr=True), f"{task.name}, {name}")
        if len(set(task.labels)) == 1:
            return list(run(label_logits(shown, task.texts, task.labels[0]), shown)[0])
        pairs = zip(task.texts, task.labels, strict=True)
        return [run(label_logits(shown, [text], labels), shown)[0][0] for text, labels in pairs]

    return scores


def by_cosine(encoder: SentenceEncoder) -> Contestant:
    def scores(task: Task) -> Sequence[Scores]:
        texts = list(dict.fromkeys((*task.texts, *(label for labels in task.labels for label in labels))))
        vectors = dict(zip(texts, encoder.encode(texts, task.name.removesuffix(HALF)), strict=True))
        pairs = zip(task.texts, task.labels, strict=True)
        return [np.stack([vectors[label] for label in labels]) @ vectors[text] for text, labels in pairs]

    return scores


def judge(contestant: Contestant, task: Task, *, timed: bool = True) -> Outcome:
    start = time.perf_counter()
    scores = contestant(task)
    seconds = time.perf_counter() - start
    routed = [(int(row.argmax()), right) for row, right in zip(scores, task.gold, strict=True) if right is not None]
    predicted, gold = zip(*routed, strict=True)
    return Outcome(
        accuracy=float(np.mean(np.equal(predicted, gold))),
        macro_f1=report_on(gold, predicted).macro_f1 if len(set(task.labels)) == 1 else None,
        abstention_auroc=auroc_if_both([row.max() for row in scores], [right is not None for right in task.gold]),
        texts_per_second=len(task.texts) / seconds if timed else None,
    )


def described(task: Task) -> dict[str, object]:
    return {
        "texts": len(task.texts),
        "of": task.total,
        "without a label": task.gold.count(None),
        "labels of a text": sum(map(len, task.labels)) / len(task.labels),
    }


def show(results: Mapping[str, Mapping[str, Outcome]]) -> None:
    titles = {
        "accuracy": "Accuracy",
        "macro_f1": "Macro F1",
        "abstention_auroc": "Abstention: area under the ROC curve",
        "texts_per_second": "Texts a second",
    }
    for key, title in titles.items():
        tasks = next(iter(results.values()))
        rows = {of: [asdict(outcomes[of])[key] for outcomes in results.values()] for of in tasks}
        told = {of: row for of, row in rows.items() if any(value is not None for value in row)}
        print_table(table(title, list(results), told))


if __name__ == "__main__":
    main()
