"""Choose the weight of a first stage's scores: logits that one standard deviation of them is worth.

    python benchmarks/prior_weight.py [--model mini | FOLDER] [--write]

BM25 over Python's documentation, the demo's questions of the split "tune" only (those held out are for measuring).
The weight that reaches the best mean nDCG@10 belongs into the model folder's gliclass_rerank.json ("prior_weight"), and
--write puts it there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from machine import RESULTS, describe
from rich import box
from rich.console import Console
from rich.table import Table

from gliclass_rerank import ModelInfo, Scorer, ScoreRequest, load_scorer
from gliclass_rerank.demo.evaluate import CANDIDATES, CUTOFF, Comparison, Task, compare, prepare, rerank
from gliclass_rerank.demo.questions import Judged
from gliclass_rerank.progress import ProgressScorer
from gliclass_rerank.scoring.checkpoint import CARD_FILE
from gliclass_rerank.scoring.load import locate
from gliclass_rerank.types import FloatArray

WEIGHTS = [step / 4 for step in range(17)]  # 0 to 4


class RememberingScorer:
    """A scorer that scores each request once, so that every weight may be tried on the same logits."""

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
    parser.add_argument("--write", action="store_true", help="keep the best weight in the model's folder")
    options = parser.parse_args()
    scorer = RememberingScorer(ProgressScorer(load_scorer(options.model), Console(stderr=True), "scoring"))
    task = only_tune(prepare(options.candidates))
    tried = {weight: compare(task, rerank(task, scorer, weight)) for weight in WEIGHTS}
    best = max(tried, key=lambda weight: tried[weight].after.ndcg)
    show(tried, best)
    report = describe(scorer.info) | {"questions": len(task.judged.questions), "candidates": options.candidates}
    report |= {"bm25": tried[best].before.as_dict(), "best": best}
    report["weights"] = {str(weight): comparison.after.as_dict() for weight, comparison in tried.items()}
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"prior-weight-{report['date']}.json"
    file.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if options.write:
        card = locate(options.model)[0] / CARD_FILE
        known = json.loads(card.read_text("utf-8")) if card.is_file() else {}
        card.write_text(json.dumps(known | {"prior_weight": best}, indent=2) + "\n", "utf-8")


def only_tune(task: Task) -> Task:
    kept = [i for i, question in enumerate(task.judged.questions) if question.split == "tune"]
    questions = tuple(task.judged.questions[i] for i in kept)
    judged: Judged = replace(task.judged, questions=questions)
    return replace(task, judged=judged, found=tuple(task.found[i] for i in kept))


def show(tried: dict[float, Comparison], best: float) -> None:
    bm25 = tried[best].before
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("prior weight", f"nDCG@{CUTOFF}", f"MRR@{CUTOFF}"):
        table.add_column(column, justify="right")
    table.add_row("BM25 alone", f"{bm25.ndcg:.4f}", f"{bm25.mrr:.4f}")
    for weight, comparison in tried.items():
        row = f"{weight:g}", f"{comparison.after.ndcg:.4f}", f"{comparison.after.mrr:.4f}"
        table.add_row(*row, style="bold" if weight == best else "")
    Console().print(table)


if __name__ == "__main__":
    main()
