"""Choose the first-stage weight of a model: logits per standard deviation of the first stage's scores.

    python -m benchmarks.quality.first_stage_weight [--model mini | FOLDER] [--write]

Uses BM25 over Python's documentation and the demo's questions of the split "tune" (held-out ones are for evaluation).
--write stores a weight in the model folder's gliclass_rerank.json (first_stage_weight): the largest whose mean nDCG@10
is within one standard error of the best, over the questions' differences (the one-SE rule of Breiman et al. 1984).
The largest is chosen since BM25 works alike on every collection, and a model best on those like its training data.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.lib.machine import describe
from benchmarks.lib.results import RESULTS, write
from gliclass_rerank import ModelInfo, Scorer, ScoreRequest, load_scorer
from gliclass_rerank.cli.output import figures, new_table, print_table
from gliclass_rerank.demo.evaluate import CANDIDATES, CUTOFF, Comparison, Task, compare, ndcg_of, prepare, rerank
from gliclass_rerank.demo.questions import Judged
from gliclass_rerank.models.checkpoint import write_option
from gliclass_rerank.scorers.load import locate
from gliclass_rerank.scorers.progress import ProgressScorer
from gliclass_rerank.training.similarity import is_worse
from gliclass_rerank.types import FloatArray

WEIGHTS = [step / 4 for step in range(17)]  # 0 to 4


class RememberingScorer:
    """Scorer with a cache of logits, so that every weight is tried on the same logits."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._known: dict[ScoreRequest, FloatArray] = {}

    @property
    def info(self) -> ModelInfo:
        return self._scorer.info

    def score(self, requests: Sequence[ScoreRequest]) -> list[FloatArray]:
        new = [request for request in dict.fromkeys(requests) if request not in self._known]
        self._known.update(zip(new, self._scorer.score(new), strict=True))
        return [self._known[request] for request in requests]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--candidates", type=int, default=CANDIDATES, help="passages reranked for each question")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--write", action="store_true", help="store the chosen weight in the model's folder")
    options = parser.parse_args()
    scorer = RememberingScorer(ProgressScorer(load_scorer(options.model), Console(stderr=True), "scoring"))
    task = only_tune(prepare(options.candidates))
    outcomes = {weight: rerank(task, scorer, weight) for weight in WEIGHTS}
    tried = {weight: compare(task, ranked) for weight, ranked in outcomes.items()}
    best = max(tried, key=lambda weight: tried[weight].after.ndcg)
    ndcgs = {w: np.array([ndcg_of(task, one, one.after) for one in ranked]) for w, ranked in outcomes.items()}
    chosen = max(weight for weight in WEIGHTS if not is_worse(ndcgs[weight], ndcgs[best]))
    show(tried, chosen)
    report = describe(scorer.info) | {"questions": len(task.judged.questions), "candidates": options.candidates}
    report |= {"bm25": tried[best].before.as_dict(), "best": best, "chosen": chosen}
    report["weights"] = {str(weight): comparison.after.as_dict() for weight, comparison in tried.items()}
    write(report, "first-stage-weight", options.out)
    if options.write:
        write_option(locate(options.model)[0], "first_stage_weight", chosen)


def only_tune(task: Task) -> Task:
    kept = [i for i, question in enumerate(task.judged.questions) if question.split == "tune"]
    questions = tuple(task.judged.questions[i] for i in kept)
    judged: Judged = replace(task.judged, questions=questions)
    return replace(task, judged=judged, found=tuple(task.found[i] for i in kept))


def show(tried: dict[float, Comparison], chosen: float) -> None:
    bm25 = tried[chosen].before
    table = new_table(*map(figures, ("first-stage weight", f"nDCG@{CUTOFF}", f"MRR@{CUTOFF}")))
    table.add_row("BM25 alone", f"{bm25.ndcg:.4f}", f"{bm25.mrr:.4f}")
    for weight, comparison in tried.items():
        row = f"{weight:g}", f"{comparison.after.ndcg:.4f}", f"{comparison.after.mrr:.4f}"
        table.add_row(*row, style="bold" if weight == chosen else "")
    print_table(table)


if __name__ == "__main__":
    main()
