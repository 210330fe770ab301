"""Evaluate fact-checking on fact sets that are not in the model's training data.

    gliclass-rerank bench fact-check --data DATA/eval/fact [--model mini --model FOLDER] [--records 1000]

A model reads the evidence once, with the claim and "It is false that ..." as labels. A claim counts as supported if
the probability of the first is at least 0.5. The metrics are the balanced accuracy of supported or not, the area under
the ROC curve, which needs no threshold, and, for sets with refuted claims, the balanced accuracy of supported, refuted
and neither. Other labels count as neither. The baselines, cosine of all-MiniLM-L6-v2 and word overlap, each use the
threshold with the best balanced accuracy on a sample of training sets (DATA/train/fact). Intervals are of 95%, by
bootstrap over the claims.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.lib.baselines import DENSE, STEMMER, SentenceEncoder, word_overlap
from benchmarks.lib.eval_data import SEED, Fact, FactSet, data_folder, read_facts, set_folders
from benchmarks.lib.machine import cpu
from benchmarks.lib.measures import auroc_if_both, best_threshold, interval
from benchmarks.lib.pictures import draw_bars
from benchmarks.lib.report import evaluation_parser, header, load_models, table
from benchmarks.lib.results import write
from gliclass_rerank import Scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.metrics.decisions import balanced_accuracy
from gliclass_rerank.scorers.progress import ProgressScorer
from gliclass_rerank.tasks.fact_check.claims import Verdict, verdict_of
from gliclass_rerank.training.data.records import VERDICTS, FactRecord
from gliclass_rerank.training.evaluate import fact_logits, probabilities

TRAINING_RECORDS = 200  # of each training set, for the baselines' thresholds
MEAN = "mean"
METRICS = ("balanced_accuracy", "auroc", "three_way")  # in [0, 1]

Baseline = Callable[[Sequence[Fact], str], NDArray[np.floating]]
"""Function from facts and the name of their set to one score each, higher for supported. Shape (facts,)."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Decisions of a contestant on the claims of a set.

    Attributes:
        labels: gold label of each claim.
        scores: higher for supported, shape (claims,).
        threshold: score from which a claim counts as supported.
        verdicts: of each claim, None for a contestant without them or a set without refuted claims.
        seconds: time of a model, None for a baseline.
    """

    labels: Sequence[str]
    scores: NDArray[np.floating]
    threshold: float
    verdicts: Sequence[str] | None = None
    seconds: float | None = None

    def measure(self, metric: str, chosen: Sequence[int] | NDArray[np.intp] | None = None) -> float | None:
        """One of METRICS over the chosen claims, all by default. None if the set or the contestant has none."""
        places = range(len(self.labels)) if chosen is None else chosen
        labels, scores = [self.labels[i] for i in places], self.scores[list(places)]
        gold = [label == "supported" for label in labels]
        if metric == "auroc":
            return auroc_if_both(scores, gold)
        if metric == "balanced_accuracy":
            return balanced_accuracy(gold, (scores >= self.threshold).tolist())
        return None if self.verdicts is None else balanced_accuracy(labels, [self.verdicts[i] for i in places])


def main() -> None:
    options = parse_options()
    data = data_folder(options.data)
    sets = [read_facts(folder, options.records) for folder in set_folders(data, "eval/fact", options.sets)]
    torch.set_num_threads(options.threads)
    models = load_models(options.model or ["mini"], options.threads)
    baselines: dict[str, Baseline] = {"word overlap": overlap}
    if not options.no_dense:
        baselines[DENSE] = cosine(SentenceEncoder(options.cache))
    thresholds = fit_thresholds(baselines, training_sets(data, options.train))
    results: dict[str, dict[str, Scored]] = {name: {} for name in (*baselines, *models)}
    for facts in sets:
        for name, baseline in baselines.items():
            scores = baseline(facts.facts, facts.name)
            results[name][facts.name] = Scored(gold_labels(facts), scores, thresholds[name])
        for name, scorer in models.items():
            shown = ProgressScorer(scorer, Console(stderr=True), f"{facts.name}, {name}")
            results[name][facts.name] = judge_model(shown, facts)
    summary = {name: with_mean(by_set) for name, by_set in results.items()}
    show(summary)
    if options.no_write:
        return
    report: dict[str, Any] = header(models) | {
        "threads": options.threads,
        "seed": SEED,
        "stemmer": STEMMER,
        "thresholds": thresholds,
    }
    report |= {"sets": {facts.name: described(facts) for facts in sets}, "results": summary}
    report["intervals"] = {name: intervals(by_set) for name, by_set in results.items()}
    report["score of each claim"] = {
        name: {of: [round(float(score), 4) for score in one.scores] for of, one in by_set.items()}
        for name, by_set in results.items()
    }
    file = write(report, "fact-check", options.out)
    values = {name: {of: row["balanced_accuracy"] for of, row in rows.items()} for name, rows in summary.items()}
    title = f"supported or not, up to {options.records} claims a set, {cpu()}"
    ends = {
        name: {of: row["balanced_accuracy"] for of, row in rows.items()} for name, rows in report["intervals"].items()
    }
    draw_bars(values, "balanced accuracy", title, file.with_suffix(".png"), ends)


def parse_options() -> argparse.Namespace:
    parser = evaluation_parser(__doc__)
    parser.add_argument(
        "--train", type=Path, help="folder of the training sets; by default train/fact of the same data"
    )
    parser.add_argument("--records", type=int, default=1000, help="maximum per set; 1000 by default")
    return parser.parse_args()


def training_sets(data: Path, option: Path | None) -> list[FactSet]:
    """Samples of the training sets: those of the option, else in train/fact beside eval/fact."""
    inside = data if (data / "eval").is_dir() else data.resolve().parents[1]
    return [
        read_facts(folder, TRAINING_RECORDS) for folder in set_folders(option or inside / "train/fact", "train/fact")
    ]


def described(facts: FactSet) -> dict[str, object]:
    return {"records": len(facts.facts), "of": facts.total, "labels": Counter(fact.label for fact in facts.facts)}


def overlap(facts: Sequence[Fact], name: str) -> NDArray[np.float64]:
    """Share of each claim's words that its evidence has."""
    return word_overlap([fact.claim for fact in facts], [fact.premise for fact in facts])


def cosine(encoder: SentenceEncoder) -> Baseline:
    """Create the baseline that scores by the cosine of claim and evidence."""

    def score(facts: Sequence[Fact], name: str) -> NDArray[np.float32]:
        vectors = encoder.encode([fact.claim for fact in facts] + [fact.premise for fact in facts], name)
        claims, premises = np.split(vectors, 2)
        products: NDArray[np.float32] = (claims * premises).sum(axis=1)
        return products

    return score


def fit_thresholds(baselines: Mapping[str, Baseline], sets: Sequence[FactSet]) -> dict[str, float]:
    """Threshold of each baseline with the best balanced accuracy over the pooled facts of these sets."""
    gold = np.concatenate([supported(facts) for facts in sets])
    return {
        name: best_threshold(np.concatenate([baseline(facts.facts, facts.name) for facts in sets]), gold)
        for name, baseline in baselines.items()
    }


def judge_model(scorer: Scorer, facts: FactSet) -> Scored:
    """Score the claims as `gliclass-rerank evaluate` does."""
    start = time.perf_counter()
    labels = gold_labels(facts)
    records = [FactRecord(fact.premise, fact.claim, label) for fact, label in zip(facts.facts, labels, strict=True)]
    pairs = fact_logits(scorer, records)
    support, refutation = (
        probabilities(scorer, task, pairs[:, column]) for column, task in enumerate(("support", "refutation"))
    )
    verdicts = [verdict_of(*pair) for pair in zip(support.tolist(), refutation.tolist(), strict=True)]
    shown = verdicts if "refuted" in labels else None
    return Scored(labels, support, 0.5, shown, time.perf_counter() - start)


def gold_labels(facts: FactSet) -> list[Verdict]:
    """Gold verdict of each claim. Labels of a set's own count as neither."""
    return [VERDICTS.get(fact.label, "not_enough_info") for fact in facts.facts]


def supported(facts: FactSet) -> NDArray[np.bool_]:
    return np.array([fact.label == "supported" for fact in facts.facts])


def with_mean(by_set: Mapping[str, Scored]) -> dict[str, dict[str, float | None]]:
    """Metrics of a contestant by set, and "mean" over the sets that have a value."""
    rows: dict[str, dict[str, float | None]] = {
        name: {metric: scored.measure(metric) for metric in METRICS} | {"seconds": scored.seconds}
        for name, scored in by_set.items()
    }
    columns: dict[str, list[float]] = {key: [] for key in (*METRICS, "seconds")}
    for row in rows.values():
        for key, value in row.items():
            columns[key] += [] if value is None else [value]
    means = {key: fmean(values) if values else None for key, values in columns.items()}
    return rows | {MEAN: means | {"seconds": sum(columns["seconds"]) or None}}


def intervals(by_set: Mapping[str, Scored]) -> dict[str, dict[str, tuple[float, float] | None]]:
    """Interval of each metric by set, and of its mean over the sets ("mean"). None where there is no metric."""
    groups = {name: [scored] for name, scored in by_set.items()} | {MEAN: list(by_set.values())}
    return {name: {metric: mean_of_metric(group, metric) for metric in METRICS} for name, group in groups.items()}


def mean_of_metric(group: Sequence[Scored], metric: str) -> tuple[float, float] | None:
    """Interval of the mean of a metric over the sets that have it."""
    having = [scored for scored in group if scored.measure(metric) is not None]

    def mean(drawn: Sequence[NDArray[np.intp]]) -> float:
        values = [scored.measure(metric, chosen) for scored, chosen in zip(having, drawn, strict=True)]
        found = [value for value in values if value is not None]  # a draw may lack a class
        return fmean(found) if found else math.nan

    return interval(mean, [len(scored.labels) for scored in having]) if having else None


def show(summary: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> None:
    titles = {
        "balanced_accuracy": "Supported or not: balanced accuracy",
        "auroc": "Supported or not: area under the ROC curve",
        "three_way": "Supported, refuted or neither: balanced accuracy",
        "seconds": "Seconds",
    }
    sets = list(next(iter(summary.values())))
    for key, title in titles.items():
        rows = {name: [rows[of][key] for of in sets] for name, rows in summary.items()}
        told = {name: row for name, row in rows.items() if any(value is not None for value in row)}
        print_table(table(title, sets, told, digits=1 if key == "seconds" else 3))


if __name__ == "__main__":
    main()
