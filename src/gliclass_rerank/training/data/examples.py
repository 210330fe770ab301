"""Convert records to training examples: requests for the model, and targets of its logits.

One example holds one or more requests. Their logits, all labels of all requests in order, have targets in [0, 1] for
a binary loss. They may also be grouped into lists for a listwise loss.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.calibration.calibrators import sigmoid
from gliclass_rerank.tasks.fact_check.claims import claim_labels
from gliclass_rerank.training.data.records import FactRecord, LabelRecord, PoolRecord, RankingRecord, Record, TextRecord
from gliclass_rerank.types import Direction, FloatArray, ScoreRequest

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """Requests and the targets of their logits.

    Attributes:
        requests: at least one. That of a `TextRecord` has no labels.
        targets: target probability of each label, float32, shape (all labels of all requests,), NaN if unknown.
        list_indices: the logits of each list, as indices into ``targets``, shape (lists, size), or None.
        list_targets: target of each list's softmax, float32, same shape, each row sums to 1, or None.
        logits: a teacher's log-odds, float32, shape as ``targets``, or None.
    """

    requests: tuple[ScoreRequest, ...]
    targets: FloatArray
    list_indices: Places | None = None
    list_targets: FloatArray | None = None
    logits: FloatArray | None = None

    @property
    def weight(self) -> int:
        """Weight in the loss of a step: the number of lists, or 1 without lists."""
        return 1 if self.list_indices is None else len(self.list_indices)


@dataclass(frozen=True, slots=True)
class ExampleBuilder:
    """Builder of training examples. All randomness comes from the generator passed with each record.

    Attributes:
        direction: whether the passage or the query is the text.
        list_size: passages of a ranking example, including one positive.
        max_labels: maximum labels of a text. True labels come first, the others are sampled.
        distillation_weight: weight of a teacher's softmax in a list's target, in [0, 1], if the record has scores.
        soft_targets: weight of a teacher's probabilities in the targets of rankings, in [0, 1]. Above 0, the scores of
            these records must be log-odds. They then also stand in for unknown targets.
    """

    direction: Direction = "passage-as-text"
    list_size: int = 6
    max_labels: int = 32
    distillation_weight: float = 0.5
    soft_targets: float = 0.0

    def __call__(self, record: Record, rng: random.Random) -> TrainingExample:
        """Build the example of one record."""
        if isinstance(record, RankingRecord):
            return self._ranking(record, rng)
        if isinstance(record, PoolRecord):
            return self._pool(record, rng)
        if isinstance(record, FactRecord):
            request = fact_request(record)
            targets = [float(record.label == "supported"), float(record.label == "refuted")]
            return TrainingExample((request,), np.array(targets, np.float32))
        if isinstance(record, TextRecord):
            request = ScoreRequest.of_checked(record.text, (), long_text="truncate")
            return TrainingExample((request,), np.empty(0, np.float32))
        return self._labels(record, rng)

    def _ranking(self, record: RankingRecord, rng: random.Random) -> TrainingExample:
        positive = rng.randrange(len(record.positives))
        others = range(len(record.positives), len(record.passages))
        picked = [positive, *rng.sample(others, min(self.list_size - 1, len(others)))]
        passages = [record.passages[i] for i in picked]
        gold = np.zeros(len(picked), np.float32)
        gold[0] = 1
        scores = [record.scores[i] for i in picked] if record.scores else None
        requests = ranking_requests([record.query], passages, self.direction)
        logits = np.array(scores, np.float32) if scores else None
        targets = self._targets(gold, logits)
        if len(picked) < 2:
            return TrainingExample(requests, targets, logits=logits)
        lists = np.arange(len(gold))[None]
        return TrainingExample(requests, targets, lists, self._list_targets(gold, scores)[None], logits)

    def _pool(self, record: PoolRecord, rng: random.Random) -> TrainingExample:
        """All queries, in random order, over all passages. Each query's passages form a list."""
        order = rng.sample(range(len(record.queries)), len(record.queries))
        unknown = [np.nan] * len(record.passages)
        judged = np.array([record.relevance[q] or unknown for q in order], np.float32)
        lists = np.arange(judged.size).reshape(judged.shape)
        if self.direction == "passage-as-text":  # each request then has one passage as text and the queries as labels
            lists = lists.reshape(judged.shape[::-1]).T
        taught = np.array([record.scores[q] for q in order], np.float32) if record.scores else None
        targets = np.empty(judged.size, np.float32)
        targets[lists] = self._targets(judged, taught)
        logits = None
        if taught is not None:
            logits = np.empty_like(targets)
            logits[lists] = taught
        requests = ranking_requests([record.queries[q] for q in order], list(record.passages), self.direction)
        # A query without teacher scores and without a relevant passage has no list.
        known = [i for i, q in enumerate(order) if record.scores or any(record.relevance[q] or ())]
        if len(record.passages) < 2 or not known:
            return TrainingExample(requests, targets, logits=logits)
        shares = [
            self._list_targets(np.nan_to_num(judged[i]), list(record.scores[order[i]]) if record.scores else None)
            for i in known
        ]
        return TrainingExample(requests, targets, lists[known], np.stack(shares), logits)

    def _labels(self, record: LabelRecord, rng: random.Random) -> TrainingExample:
        true = [i for i, weight in enumerate(record.weights) if weight > 0]
        false = [i for i, weight in enumerate(record.weights) if weight == 0]
        picked = true[: self.max_labels]
        picked += rng.sample(false, min(self.max_labels - len(picked), len(false)))
        rng.shuffle(picked)
        request = ScoreRequest(
            record.text, tuple(record.labels[i] for i in picked), record.prompt, record.examples, long_text="truncate"
        )
        targets = np.array([record.weights[i] for i in picked], np.float32)
        scores = [record.scores[i] for i in picked] if record.scores else None
        # A single true label among others defines a list target. With several or none, only a teacher does.
        if len(picked) < 2 or (scores is None and np.count_nonzero(targets) != 1):
            return TrainingExample((request,), targets)
        return TrainingExample(
            (request,), targets, np.arange(len(targets))[None], self._list_targets(targets, scores)[None]
        )

    def _targets(self, gold: FloatArray, logits: FloatArray | None) -> FloatArray:
        """Targets of single logits, of the shape of ``gold``, which is NaN where unknown."""
        if logits is None or not self.soft_targets:
            return gold
        taught = sigmoid(logits)
        mixed = (1 - self.soft_targets) * gold + self.soft_targets * taught
        return np.where(np.isnan(gold), taught, mixed).astype(np.float32)

    def _list_targets(self, gold: FloatArray, scores: list[float] | None) -> FloatArray:
        teacher = softmax(np.array(scores, np.float32)) if scores else None
        if not gold.sum():
            assert teacher is not None
            return teacher
        own: FloatArray = gold / gold.sum()
        return own if teacher is None else (1 - self.distillation_weight) * own + self.distillation_weight * teacher


def ranking_requests(queries: list[str], passages: list[str], direction: Direction) -> tuple[ScoreRequest, ...]:
    """Build one request per passage with the queries as labels, or per query if passages are the labels."""
    texts, labels = (queries, passages) if direction == "passage-as-label" else (passages, queries)
    return tuple(ScoreRequest(text, tuple(labels), long_text="truncate") for text in texts)


def fact_request(record: FactRecord) -> ScoreRequest:
    """Build a request with the evidence as text and the claim and its negation as labels."""
    return ScoreRequest(record.premise, claim_labels(record.hypothesis), long_text="truncate")


def softmax(logits: FloatArray) -> FloatArray:
    """Softmax of float32 ``logits``, same shape, sum 1."""
    raised = np.exp(logits - logits.max())
    shares: FloatArray = raised / raised.sum()
    return shares
