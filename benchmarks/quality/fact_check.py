"""Evaluate fact-checking on fact sets that are not in the model's training data.

    gliclass-rerank bench fact-check --data DATA/eval/fact [--model mini --model FOLDER] [--records 1000]

A model reads the evidence once, with the claim and "It is false that ..." as labels. A claim counts as supported if
the probability of the first is at least 0.5. The metrics are the balanced accuracy of supported or not, the area under
the ROC curve, which needs no threshold, and, for sets with refuted claims, the balanced accuracy of supported, refuted
and neither. Other labels count as neither. The baselines, cosine of all-MiniLM-L6-v2 and word overlap, each use the
threshold with the best balanced accuracy on a sample of training sets (DATA/train/fact).
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.lib.baselines import DENSE, STEMMER, SentenceEncoder, word_overlap
from benchmarks.lib.eval_data import SEED, Fact, FactSet, data_folder, read_facts, set_folders
from benchmarks.lib.machine import cpu
from benchmarks.lib.measures import auroc_if_both, best_threshold
from benchmarks.lib.pictures import draw_bars
from benchmarks.lib.report import evaluation_parser, header, load_models, table
from benchmarks.lib.results import write
from gliclass_rerank import Scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.metrics.decisions import balanced_accuracy
from gliclass_rerank.scorers.progress import ProgressScorer
from gliclass_rerank.training.data.records import VERDICTS, FactRecord
from gliclass_rerank.training.evaluate import evaluate

TRAINING_RECORDS = 200  # of each training set, for the baselines' thresholds
MEAN = "mean"

Baseline = Callable[[Sequence[Fact], str], NDArray[np.floating]]
"""Function from facts and the name of their set to one score each, higher for supported. Shape (facts,)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results of one contestant on one set. Rates in [0, 1], None if the set or contestant has none.

    Attributes:
        balanced_accuracy: of supported or not.
        auroc: of supported or not.
        three_way: balanced accuracy of supported, refuted and neither.
        seconds: time of a model.
    """

    balanced_accuracy: float
    auroc: float | None
    three_way: float | None = None
    seconds: float | None = None


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
    results: dict[str, dict[str, Outcome]] = {name: {} for name in (*baselines, *models)}
    for facts in sets:
        for name, baseline in baselines.items():
            results[name][facts.name] = judge_baseline(baseline, thresholds[name], facts)
        for name, scorer in models.items():
            shown = ProgressScorer(scorer, Console(stderr=True), f"{facts.name}, {name}")
            results[name][facts.name] = judge_model(shown, facts)
    summary = {name: with_mean(outcomes) for name, outcomes in results.items()}
    show(summary)
    if options.no_write:
        return
    report = header(models) | {"threads": options.threads, "seed": SEED, "stemmer": STEMMER, "thresholds": thresholds}
    report |= {"sets": {facts.name: described(facts) for facts in sets}, "results": summary}
    file = write(report, "fact-check", options.out)
    values = {name: {of: row["balanced_accuracy"] for of, row in rows.items()} for name, rows in summary.items()}
    title = f"supported or not, up to {options.records} claims a set, {cpu()}"
    draw_bars(values, "balanced accuracy", title, file.with_suffix(".png"))


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


def judge_baseline(baseline: Baseline, threshold: float, facts: FactSet) -> Outcome:
    scores, gold = baseline(facts.facts, facts.name), supported(facts)
    return Outcome(balanced_accuracy(gold.tolist(), (scores >= threshold).tolist()), auroc_if_both(scores, gold))


def judge_model(scorer: Scorer, facts: FactSet) -> Outcome:
    """Evaluate a model on the claims as `gliclass-rerank evaluate` does. Other labels count as neither."""
    start = time.perf_counter()
    labels = [VERDICTS.get(fact.label, "not_enough_info") for fact in facts.facts]
    records = [FactRecord(fact.premise, fact.claim, label) for fact, label in zip(facts.facts, labels, strict=True)]
    report = evaluate(scorer, records).fact
    assert report is not None
    three_way = report.three_way if "refuted" in labels else None
    return Outcome(report.balanced_accuracy, report.auroc, three_way, time.perf_counter() - start)


def supported(facts: FactSet) -> NDArray[np.bool_]:
    return np.array([fact.label == "supported" for fact in facts.facts])


def with_mean(outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, float | None]]:
    """Rows of a contestant by set, and "mean" over the sets that have a value."""
    rows = {name: asdict(outcome) for name, outcome in outcomes.items()}
    columns = {key: [row[key] for row in rows.values() if row[key] is not None] for key in next(iter(rows.values()))}
    means = {key: fmean(values) if values else None for key, values in columns.items()}
    return rows | {MEAN: means | {"seconds": sum(columns["seconds"]) or None}}


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
