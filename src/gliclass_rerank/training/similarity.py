"""Fit a model's similarity: what the cosine of the vectors of text and label is worth in its logits, by task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.metrics.ranking import ndcg_at, order_of
from gliclass_rerank.scoring import score_requests
from gliclass_rerank.training.data.records import LabelRecord, PoolRecord, RankingRecord, Record
from gliclass_rerank.training.evaluate import CUTOFF, label_request, rankings
from gliclass_rerank.types import FloatArray, ModelInfo, Scorer, ScoreRequest

WEIGHTS = tuple(range(0, 33, 2))

Judged = list[tuple[FloatArray, NDArray[np.bool_]]]
"""Logits of the candidates of each query or text, and which of them are right, both of shape (candidates,)."""


class SimilarScorer:
    """A scorer whose model has another similarity.

    Args:
        scorer: of a model that embeds.
        similarity: weights by task, instead of the model's own.
    """

    def __init__(self, scorer: Scorer, similarity: Mapping[str, float]) -> None:
        self._scorer = scorer
        self._info = replace(scorer.info, similarity=dict(similarity))

    @property
    def info(self) -> ModelInfo:
        return self._info

    def score(self, requests: Sequence[ScoreRequest]) -> Sequence[FloatArray]:
        return self._scorer.score(requests)


def fit_similarity(scorer: Scorer, records: Sequence[Record]) -> dict[str, float]:
    """Weights of the similarity by task, for the tasks that the records have: "relevance" and "labels".

    The weight of a task is the largest of `WEIGHTS` that is not worse than the best by more than one standard error of
    the differences (the one-SE rule of Breiman et al. 1984), in nDCG@10 of rankings or top-1 accuracy of labels. The
    largest is taken since vectors do well on texts of any kind, and logits best on texts like those of the training.

    Args:
        scorer: of a model that embeds.
        records: of any kind; those without rankings or labels are left out.
    """
    ranking = [record for record in records if isinstance(record, RankingRecord | PoolRecord)]
    labelled = [r for r in records if isinstance(r, LabelRecord) and any(w >= 0.5 for w in r.weights)]
    fitted = {}
    if ranking:
        fitted["relevance"] = _fit("relevance", scorer, lambda one: _ranked(one, ranking), _ndcg)
    if labelled:
        fitted["labels"] = _fit("labels", scorer, lambda one: _classified(one, labelled), _top1)
    return fitted


def is_worse(values: NDArray[np.float64], best: NDArray[np.float64]) -> bool:
    """Whether a mean is below the best by more than one standard error of the differences, shape (queries,) each."""
    lost = best - values
    return bool(lost.mean() > lost.std(ddof=1) / np.sqrt(len(lost))) if len(lost) > 1 else bool(lost.mean() > 0)


def _fit(
    task: str,
    scorer: Scorer,
    judge: Callable[[Scorer], Judged],
    measure: Callable[[FloatArray, NDArray[np.bool_]], float],
) -> float:
    without, with_one = (judge(SimilarScorer(scorer, {task: weight})) for weight in (0.0, 1.0))
    pairs = [(plain, one - plain, right) for (plain, right), (one, _) in zip(without, with_one, strict=True)]
    tried = {w: np.array([measure(plain + w * cosine, right) for plain, cosine, right in pairs]) for w in WEIGHTS}
    best = max(tried.values(), key=np.mean)
    return float(max(weight for weight, values in tried.items() if not is_worse(values, best)))


def _ranked(scorer: Scorer, records: Sequence[RankingRecord | PoolRecord]) -> Judged:
    return [(ranking.logits, ranking.relevant) for ranking in rankings(scorer, records)]


def _classified(scorer: Scorer, records: Sequence[LabelRecord]) -> Judged:
    rows = score_requests(scorer, [label_request(record, scorer.info) for record in records])
    return [(np.asarray(row), np.array(r.weights) >= 0.5) for row, r in zip(rows, records, strict=True)]


def _ndcg(logits: FloatArray, right: NDArray[np.bool_]) -> float:
    grades = right.astype(np.float64)
    return ndcg_at(CUTOFF, grades[order_of(logits, grades)].tolist(), grades.tolist())


def _top1(logits: FloatArray, right: NDArray[np.bool_]) -> float:
    return float(right[order_of(logits, right)[0]])
