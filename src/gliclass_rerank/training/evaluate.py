"""Evaluate a model on records: ranking, classification and fact-check, each with its usual metrics.

Ties count against the model in rankings and among labels, see `gliclass_rerank.metrics.ranking`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.calibration.calibrators import calibrated, sigmoid
from gliclass_rerank.calibration.reliability import expected_calibration_error
from gliclass_rerank.errors import InputError
from gliclass_rerank.metrics.decisions import (
    ClassificationReport,
    auroc,
    balanced_accuracy,
    classification_report,
    confusion,
)
from gliclass_rerank.metrics.ranking import ndcg_at, order_of, reciprocal_rank_at
from gliclass_rerank.scoring import score_requests
from gliclass_rerank.tasks.fact_check.claims import Verdict, verdict_of
from gliclass_rerank.training.data.examples import fact_request, ranking_requests
from gliclass_rerank.training.data.records import FactRecord, LabelRecord, PoolRecord, RankingRecord, Record, TextRecord
from gliclass_rerank.types import FloatArray, ModelInfo, Scorer, ScoreRequest

CUTOFF = 10
CLASSES: tuple[str, ...] = get_args(Verdict)


@dataclass(frozen=True, slots=True)
class RankingReport:
    """Means over the queries, in [0, 1]. ``ece``: expected calibration error over the passages' probabilities."""

    queries: int
    ndcg: float
    mrr: float
    ece: float


@dataclass(frozen=True, slots=True)
class LabelReport:
    """Metrics of classification.

    ``top1``: of the texts with a true label, the share whose most probable label is true. ``ece``: expected calibration
    error over all (text, label) decisions. ``multi_label``: whether labels are predicted at probability >= 0.5, or else
    the most probable one of each text.
    """

    texts: int
    multi_label: bool
    top1: float
    ece: float
    classes: ClassificationReport


@dataclass(frozen=True, slots=True)
class FactMetrics:
    """Metrics of fact-checking.

    ``balanced_accuracy``: supported or not. ``three_way``: balanced accuracy over the verdicts that occur in the
    records. ``confusion``: counts, one row per gold class of `CLASSES`. ``auroc``, ``ece``: of support. ``auroc`` is
    None if all or none of the claims are supported. ``refutation_ece``: of refutation.
    """

    claims: int
    balanced_accuracy: float
    three_way: float
    auroc: float | None
    ece: float
    refutation_ece: float
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Results of an evaluation, None for kinds without records."""

    ranking: RankingReport | None = None
    labels: LabelReport | None = None
    fact: FactMetrics | None = None

    @property
    def score(self) -> float:
        """Mean of nDCG@10, top-1 accuracy and the AUROC of support, in [0, 1], for comparing models.

        These metrics need no threshold and hence no calibration. If all or none of the claims are supported, their
        balanced accuracy replaces the AUROC.
        """
        fact = self.fact
        parts = [
            self.ranking.ndcg if self.ranking else None,
            self.labels.top1 if self.labels else None,
            (fact.balanced_accuracy if fact.auroc is None else fact.auroc) if fact else None,
        ]
        return float(np.mean([part for part in parts if part is not None]))

    def summary(self) -> str:
        """Main metrics in one line."""
        parts = [f"score {self.score:.4f}"]
        if self.ranking:
            parts.append(f"nDCG@{CUTOFF} {self.ranking.ndcg:.4f}")
        if self.labels:
            parts.append(f"top-1 {self.labels.top1:.4f}, micro F1 {self.labels.classes.micro_f1:.4f}")
        if self.fact:
            parts.append(f"balanced accuracy {self.fact.balanced_accuracy:.4f}, {self.fact.three_way:.4f} three-way")
        return "; ".join(parts)

    def as_dict(self, *, each_class: bool = True) -> dict[str, object]:
        """Return plain values for JSON. ``each_class`` includes the scores of each label."""
        values: dict[str, object] = {"score": self.score}
        for name, part in (("ranking", self.ranking), ("labels", self.labels), ("fact", self.fact)):
            if part:
                values[name] = asdict(part)
        if self.labels and not each_class:
            shortened = asdict(replace(self.labels, classes=replace(self.labels.classes, classes=())))
            values["labels"] = shortened
        return values


def evaluate(scorer: Scorer, records: Sequence[Record]) -> Evaluation:
    """Score records and compare with their gold labels. Probabilities are calibrated if the model is.

    Raises:
        InputError: a record that the model cannot read, or one with nothing to measure.
        ModelError: the scorer returns logits of another shape.
    """
    refuse_texts(records)
    ranking = [record for record in records if isinstance(record, RankingRecord | PoolRecord)]
    labels = [record for record in records if isinstance(record, LabelRecord)]
    facts = [record for record in records if isinstance(record, FactRecord)]
    return Evaluation(
        ranking=_evaluate_ranking(scorer, ranking) if ranking else None,
        labels=_evaluate_labels(scorer, labels) if labels else None,
        fact=_evaluate_facts(scorer, facts) if facts else None,
    )


def refuse_texts(records: Sequence[Record]) -> None:
    """Raise `InputError` if a record has only a text, with which nothing can be measured."""
    if found := next((record for record in records if isinstance(record, TextRecord)), None):
        raise InputError(
            f"expected records with labels or answers to measure, got one with only the text {found.text[:40]!r}"
        )


def task_logits(scorer: Scorer, records: Sequence[Record]) -> dict[str, tuple[FloatArray, NDArray[np.bool_]]]:
    """Raw logits and gold values (bool) by task, for fitting calibrators. Both of shape (decisions,)."""
    refuse_texts(records)
    found: dict[str, tuple[FloatArray, NDArray[np.bool_]]] = {}
    ranking = [record for record in records if isinstance(record, RankingRecord | PoolRecord)]
    labels = [record for record in records if isinstance(record, LabelRecord)]
    facts = [record for record in records if isinstance(record, FactRecord)]
    if ranking:
        read = rankings(scorer, ranking)
        found["relevance"] = (
            np.concatenate([r.logits for r in read]),
            np.concatenate([r.relevant for r in read]),
        )
    if labels:
        rows = score_requests(scorer, [label_request(record, scorer.info) for record in labels])
        found["labels"] = np.concatenate(rows), np.concatenate([np.array(r.weights) >= 0.5 for r in labels])
    if facts:
        pairs = fact_logits(scorer, facts)
        for column, (task, verdict) in enumerate((("support", "supported"), ("refutation", "refuted"))):
            found[task] = pairs[:, column], np.array([record.label == verdict for record in facts])
    return found


def fact_logits(scorer: Scorer, records: Sequence[FactRecord]) -> FloatArray:
    """Raw logits of each claim and of its denial, shape (records, 2)."""
    pairs: FloatArray = np.stack(score_requests(scorer, [fact_request(record) for record in records]))
    return pairs


def probabilities(scorer: Scorer, task: str, logits: NDArray[np.float32]) -> FloatArray:
    """Calibrated probabilities of a task's logits, same shape, or their sigmoid if the model has no calibration."""
    return sigmoid(calibrated(logits, scorer.info.calibration.get(task))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class JudgedRanking:
    """A judged query: logits of its passages, float32, and their gold relevance, both of shape (passages,)."""

    logits: FloatArray
    relevant: NDArray[np.bool_]


def _evaluate_ranking(scorer: Scorer, records: Sequence[RankingRecord | PoolRecord]) -> RankingReport:
    ndcg, mrr = [], []
    found = rankings(scorer, records)
    for ranking in found:
        grades = ranking.relevant.astype(np.float64)
        ranked = grades[order_of(ranking.logits, grades)]
        ndcg.append(ndcg_at(CUTOFF, ranked.tolist(), grades.tolist()))
        mrr.append(reciprocal_rank_at(CUTOFF, ranked.tolist()))
    predicted = probabilities(scorer, "relevance", np.concatenate([ranking.logits for ranking in found]))
    ece = expected_calibration_error(predicted, np.concatenate([ranking.relevant for ranking in found]))
    return RankingReport(len(found), float(np.mean(ndcg)), float(np.mean(mrr)), ece)


def rankings(scorer: Scorer, records: Sequence[RankingRecord | PoolRecord]) -> list[JudgedRanking]:
    """One ranking per query with a relevant passage. The queries of a pool are read together, as in training."""
    pools = [_as_pool(record) for record in records]
    requests = [ranking_requests(list(p.queries), list(p.passages), scorer.info.direction) for p in pools]
    similarity = scorer.info.similarity.get("relevance", 0.0)
    asked = [replace(request, similarity=similarity) for group in requests for request in group]
    rows = iter(score_requests(scorer, asked))
    found = []
    for pool, group in zip(pools, requests, strict=True):
        logits = np.stack([next(rows) for _ in group])
        by_query = logits if scorer.info.direction == "passage-as-label" else logits.T
        for query, relevance in zip(by_query, pool.relevance, strict=True):
            relevant = np.array(relevance or (), np.float64) >= 0.5
            if relevant.any():
                found.append(JudgedRanking(np.ascontiguousarray(query), relevant))
    if not found:
        raise InputError("ranking records: expected a query with a relevant passage, there is none")
    return found


def _as_pool(record: RankingRecord | PoolRecord) -> PoolRecord:
    if isinstance(record, PoolRecord):
        return record
    relevance = (1.0,) * len(record.positives) + (0.0,) * len(record.negatives)
    return PoolRecord((record.query,), record.passages, (relevance,))


def label_request(record: LabelRecord, info: ModelInfo) -> ScoreRequest:
    """The request of a record, as tasks ask the model ``info``."""
    similarity = info.similarity.get("labels", 0.0)
    return ScoreRequest(
        record.text, record.labels, record.prompt, record.examples, long_text="truncate", similarity=similarity
    )


def _evaluate_labels(scorer: Scorer, records: Sequence[LabelRecord]) -> LabelReport:
    rows = score_requests(scorer, [label_request(record, scorer.info) for record in records])
    true = [{label for label, w in zip(r.labels, r.weights, strict=True) if w >= 0.5} for r in records]
    multi_label = any(len(labels) != 1 for labels in true)
    likeliest = [
        record.labels[order_of(row, np.array(record.weights) >= 0.5)[0]]
        for record, row in zip(records, rows, strict=True)
    ]
    chances = [probabilities(scorer, "labels", row) for row in rows]
    hits = [label in labels for label, labels in zip(likeliest, true, strict=True) if labels]
    given = [{label} for label in likeliest]
    if multi_label:
        given = [
            {label for label, chance in zip(record.labels, row, strict=True) if chance >= 0.5}
            for record, row in zip(records, chances, strict=True)
        ]
    gold = np.concatenate([np.array(record.weights) >= 0.5 for record in records])
    return LabelReport(
        texts=len(records),
        multi_label=multi_label,
        top1=float(np.mean(hits or [False])),
        ece=expected_calibration_error(np.concatenate(chances), gold),
        classes=classification_report(true, given, sorted({label for record in records for label in record.labels})),
    )


def _evaluate_facts(scorer: Scorer, records: Sequence[FactRecord]) -> FactMetrics:
    pairs = fact_logits(scorer, records)
    support = probabilities(scorer, "support", pairs[:, 0])
    refutation = probabilities(scorer, "refutation", pairs[:, 1])
    predicted = [verdict_of(*pair) for pair in zip(support.tolist(), refutation.tolist(), strict=True)]
    gold = [record.label for record in records]
    supported = np.array([label == "supported" for label in gold])
    counts = confusion(gold, predicted, CLASSES)
    return FactMetrics(
        claims=len(records),
        balanced_accuracy=balanced_accuracy(supported.tolist(), (support >= 0.5).tolist()),
        three_way=balanced_accuracy(gold, predicted),
        auroc=auroc(pairs[:, 0], supported) if supported.any() and not supported.all() else None,
        ece=expected_calibration_error(support, supported),
        refutation_ece=expected_calibration_error(refutation, np.array([label == "refuted" for label in gold])),
        confusion=tuple(tuple(row) for row in counts.tolist()),
    )
