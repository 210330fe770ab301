"""Evaluate `mini` on held-back records of its training sets.

    python -m benchmarks.mini.judge --data build/mini/data [--model mini] [--reference build/mini/run/model]

Reads ``KIND.held.jsonl`` written by `data.py`: ranking, fact and labels. The metrics are those of
`gliclass-rerank evaluate`. The reference, the checkpoint before export, has no calibration of its own and uses the
model's, so that the difference is the effect of int8. The ranking teacher (BM25 plus sentence vectors) is evaluated by
its scores in the records.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.lib.report import header, table
from benchmarks.lib.results import RESULTS, write
from gliclass_rerank import ModelInfo, Scorer, ScoreRequest, load_scorer
from gliclass_rerank.cli.output import print_table
from gliclass_rerank.metrics.ranking import ndcg_at, order_of
from gliclass_rerank.scorers.progress import ProgressScorer
from gliclass_rerank.training.data.records import RankingRecord, Record, read_records
from gliclass_rerank.training.evaluate import CUTOFF, Evaluation, evaluate
from gliclass_rerank.types import FloatArray

KINDS = ("ranking", "fact", "labels")


class CalibratedAs:
    """A scorer with the calibration and the similarity of another."""

    def __init__(self, scorer: Scorer, other: Scorer) -> None:
        self._scorer = scorer
        self.info: ModelInfo = replace(
            scorer.info, calibration=other.info.calibration, similarity=other.info.similarity
        )

    def score(self, requests: Sequence[ScoreRequest]) -> Sequence[FloatArray]:
        return self._scorer.score(requests)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--reference", help="the checkpoint that the model was exported from")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    records = [record for kind in KINDS for record in read_records(options.data / f"{kind}.held.jsonl")]
    scorers: dict[str, Scorer] = {"int8": load_scorer(options.model)}
    if options.reference:
        before = load_scorer(options.reference, backend="torch")
        scorers["before export"] = CalibratedAs(before, scorers["int8"])
    shown = {name: ProgressScorer(scorer, Console(stderr=True), name) for name, scorer in scorers.items()}
    reports = {name: evaluate(scorer, records) for name, scorer in shown.items()}
    rows = {name: list(summary(report).values()) for name, report in reports.items()}
    teacher = teacher_ndcg(records)
    print_table(table("Records held back", list(summary(reports["int8"])), rows, digits=4))
    Console().print(f"the teacher's nDCG@{CUTOFF}: {teacher:.4f}")
    results = {name: report.as_dict(each_class=False) for name, report in reports.items()}
    write(header(scorers) | {"results": results, "teacher": {"ndcg": teacher}}, "mini-held", options.out)


def summary(report: Evaluation) -> dict[str, float | None]:
    """The metrics quoted in the model card."""
    ranking, fact, labels = report.ranking, report.fact, report.labels
    assert ranking is not None
    assert fact is not None
    assert labels is not None
    return {
        "nDCG@10": ranking.ndcg,
        "balanced accuracy": fact.balanced_accuracy,
        "AUROC": fact.auroc,
        "top-1": labels.top1,
        "ECE relevance": ranking.ece,
        "support": fact.ece,
        "refutation": fact.refutation_ece,
        "labels": labels.ece,
    }


def teacher_ndcg(records: Sequence[Record]) -> float:
    """Mean nDCG of the order by the teacher's scores, in [0, 1]."""
    values = []
    for record in records:
        if isinstance(record, RankingRecord):
            grades = (np.arange(len(record.passages)) < len(record.positives)).astype(np.float64)
            ranked = grades[order_of(record.scores, grades)]
            values.append(ndcg_at(CUTOFF, ranked.tolist(), grades.tolist()))
    return float(np.mean(values))


if __name__ == "__main__":
    main()
