"""Is a claim supported by its evidence? On fact sets that the model never saw.

    gliclass-rerank bench fact-check --data DATA/eval/fact [--model mini --model FOLDER] [--records 1000]

A model reads the evidence once, with the claim and "It is false that ..." as its labels; a claim counts as supported
where the probability of the first is at least 0.5. What is compared are the balanced accuracy of supported or not, the
area under the ROC curve, which needs no threshold, and, where a set has refuted claims, the balanced accuracy of
supported, refuted and neither. Labels beyond these three count as neither. The baselines, cosine of all-MiniLM-L6-v2
and word overlap, have one threshold each, the best on a sample of training sets (DATA/train/fact), never on these.
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
from baselines import DENSE, STEMMER, SentenceEncoder, word_overlap
from eval_data import SEED, Fact, FactSet, data_folder, read_facts, set_folders
from machine import RESULTS, cpu
from measures import auroc_if_both, best_threshold
from numpy.typing import NDArray
from report import draw, header, load_models, table, write
from rich.console import Console

from gliclass_rerank import Scorer, ScoreRequest
from gliclass_rerank.claims import claim_labels
from gliclass_rerank.progress import ProgressScorer
from gliclass_rerank.scoring.load import usable_cores
from gliclass_rerank.training.evaluate import probabilities
from gliclass_rerank.training.metrics import balanced_accuracy

TRAINING_RECORDS = 200  # of each training set, for the baselines' thresholds
THRESHOLD = 0.5  # of a model's probabilities
SUPPORTED, REFUTED, NEITHER = "supported", "refuted", "nei"
TASKS = ("support", "refutation")  # of a claim and its negation, in this order
MEAN = "mean"

Baseline = Callable[[Sequence[Fact], str], NDArray[np.floating]]
"""From facts and the name of their set to one score each, higher for supported; shape (facts,)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one contestant reached on one set; rates in [0, 1], None where the set or contestant has none.

    Attributes:
        balanced_accuracy: of supported or not.
        auroc: of supported or not.
        three_way: balanced accuracy of supported, refuted and neither.
        seconds: that a model took.
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
    draw(values, "balanced accuracy", title, file.with_suffix(".png"))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the sets, or of all data (GLICLASS_RERANK_DATA)")
    parser.add_argument(
        "--train", type=Path, help="folder of the training sets; by default train/fact of the same data"
    )
    parser.add_argument("--sets", type=lambda names: names.split(","), help="names with commas; all by default")
    parser.add_argument("--records", type=int, default=1000, help="of each set, at most; 1000 by default")
    parser.add_argument("--model", action="append", help="may be repeated; mini by default")
    parser.add_argument("--no-dense", action="store_true", help="without all-MiniLM-L6-v2")
    parser.add_argument("--cache", type=Path, help="folder that keeps all-MiniLM-L6-v2's vectors")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="all cores by default")
    parser.add_argument("--no-write", action="store_true", help="no files but the cache's")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args()


def training_sets(data: Path, option: Path | None) -> list[FactSet]:
    """Samples of the training sets: the option's, else those in train/fact beside eval/fact."""
    inside = data if (data / "eval").is_dir() else data.resolve().parents[1]
    return [
        read_facts(folder, TRAINING_RECORDS) for folder in set_folders(option or inside / "train/fact", "train/fact")
    ]


def described(facts: FactSet) -> dict[str, object]:
    return {"records": len(facts.facts), "of": facts.total, "labels": Counter(fact.label for fact in facts.facts)}


def overlap(facts: Sequence[Fact], name: str) -> NDArray[np.float64]:
    """The share of each claim's words that its evidence has."""
    return word_overlap([fact.claim for fact in facts], [fact.premise for fact in facts])


def cosine(encoder: SentenceEncoder) -> Baseline:
    """The cosine of claim and evidence."""

    def score(facts: Sequence[Fact], name: str) -> NDArray[np.float32]:
        vectors = encoder.encode([fact.claim for fact in facts] + [fact.premise for fact in facts], name)
        claims, premises = np.split(vectors, 2)
        products: NDArray[np.float32] = (claims * premises).sum(axis=1)
        return products

    return score


def fit_thresholds(baselines: Mapping[str, Baseline], sets: Sequence[FactSet]) -> dict[str, float]:
    """For each baseline the threshold with the best balanced accuracy over all these sets' facts together."""
    gold = np.concatenate([supported(facts) for facts in sets])
    return {
        name: best_threshold(np.concatenate([baseline(facts.facts, facts.name) for facts in sets]), gold)
        for name, baseline in baselines.items()
    }


def judge_baseline(baseline: Baseline, threshold: float, facts: FactSet) -> Outcome:
    scores, gold = baseline(facts.facts, facts.name), supported(facts)
    return Outcome(balanced_accuracy(gold.tolist(), (scores >= threshold).tolist()), auroc_if_both(scores, gold))


def judge_model(scorer: Scorer, facts: FactSet) -> Outcome:
    """Score each claim and its negation against the evidence, and compare with the set's labels."""
    start = time.perf_counter()
    claims = [claim_labels(fact.claim) for fact in facts.facts]
    logits = scorer.score([ScoreRequest(fact.premise, pair) for fact, pair in zip(facts.facts, claims, strict=True)])
    seconds = time.perf_counter() - start
    support, refute = (probabilities(scorer, task, row) for task, row in zip(TASKS, np.stack(logits).T, strict=True))
    labels = [fact.label if fact.label in (SUPPORTED, REFUTED) else NEITHER for fact in facts.facts]
    verdicts = [verdict(*pair) for pair in zip(support, refute, strict=True)]
    gold = supported(facts)
    return Outcome(
        balanced_accuracy(gold.tolist(), (support >= THRESHOLD).tolist()),
        auroc_if_both(support, gold),
        balanced_accuracy(labels, verdicts) if REFUTED in labels else None,
        seconds,
    )


def verdict(support: float, refute: float) -> str:
    """The likelier of supported and refuted if it reaches the threshold, else neither."""
    if max(support, refute) < THRESHOLD:
        return NEITHER
    return SUPPORTED if support >= refute else REFUTED


def supported(facts: FactSet) -> NDArray[np.bool_]:
    return np.array([fact.label == SUPPORTED for fact in facts.facts])


def with_mean(outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, float | None]]:
    """Rows of a contestant by set, and "mean": over the sets that have a value."""
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
        Console().print(table(title, sets, told, digits=1 if key == "seconds" else 3))


if __name__ == "__main__":
    main()
