"""Records to training examples: requests for the model, and what its logits should become.

One example holds one or several requests. Their logits, all labels of all requests in order, have targets in
[0, 1] for a binary loss, and may compete with each other in lists for a listwise loss.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.tasks.fact_check.claims import claim_labels
from gliclass_rerank.training.data.records import FactRecord, LabelRecord, PoolRecord, RankingRecord, Record
from gliclass_rerank.types import Direction, FloatArray, ScoreRequest

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """Requests and the targets of their logits.

    Attributes:
        requests: at least one.
        targets: probability that each label holds, float32, shape (all labels of all requests,); NaN is unknown.
        list_indices: logits that compete with each other, as indices into ``targets``, shape (lists, size); or None.
        list_targets: target of each list's softmax, float32, same shape, each row sums to 1; or None.
    """

    requests: tuple[ScoreRequest, ...]
    targets: FloatArray
    list_indices: Places | None = None
    list_targets: FloatArray | None = None

    @property
    def weight(self) -> int:
        """How much it counts in a step: every query, text and claim alike."""
        return 1 if self.list_indices is None else len(self.list_indices)


@dataclass(frozen=True, slots=True)
class ExampleBuilder:
    """Makes examples of records; everything random comes from the generator given with each.

    Attributes:
        direction: which of query and passage is the text.
        list_size: passages of a ranking example, one positive among them.
        max_labels: labels of a text at most; the true ones are kept, others drawn.
        distillation_weight: share of a teacher's softmax in the target of a list, in [0, 1], where a record has scores.
    """

    direction: Direction = "passage-as-text"
    list_size: int = 6
    max_labels: int = 32
    distillation_weight: float = 0.5

    def __call__(self, record: Record, rng: random.Random) -> TrainingExample:
        """Make the example of one record."""
        if isinstance(record, RankingRecord):
            return self._ranking(record, rng)
        if isinstance(record, PoolRecord):
            return self._pool(record, rng)
        if isinstance(record, FactRecord):
            request = fact_request(record)
            targets = [float(record.label == "supported"), float(record.label == "refuted")]
            return TrainingExample((request,), np.array(targets, np.float32))
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
        if len(picked) < 2:
            return TrainingExample(requests, gold)
        return TrainingExample(requests, gold, np.arange(len(gold))[None], self._list_targets(gold, scores)[None])

    def _pool(self, record: PoolRecord, rng: random.Random) -> TrainingExample:
        """All queries, in random order, over all passages; a query's passages are a list."""
        order = rng.sample(range(len(record.queries)), len(record.queries))
        unknown = [np.nan] * len(record.passages)
        judged = np.array([record.relevance[q] or unknown for q in order], np.float32)
        lists = np.arange(judged.size).reshape(judged.shape)
        if self.direction == "passage-as-text":  # then each request has one passage, and the queries as its labels
            lists = lists.reshape(judged.shape[::-1]).T
        targets = np.empty(judged.size, np.float32)
        targets[lists] = judged
        requests = ranking_requests([record.queries[q] for q in order], list(record.passages), self.direction)
        # A query without a teacher and without an answer among the passages has no list.
        known = [i for i, q in enumerate(order) if record.scores or any(record.relevance[q] or ())]
        if len(record.passages) < 2 or not known:
            return TrainingExample(requests, targets)
        shares = [
            self._list_targets(np.nan_to_num(judged[i]), list(record.scores[order[i]]) if record.scores else None)
            for i in known
        ]
        return TrainingExample(requests, targets, lists[known], np.stack(shares))

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
        # One true label among others competes with them; of several, or none, only a teacher knows the shares.
        if len(picked) < 2 or (scores is None and np.count_nonzero(targets) != 1):
            return TrainingExample((request,), targets)
        return TrainingExample(
            (request,), targets, np.arange(len(targets))[None], self._list_targets(targets, scores)[None]
        )

    def _list_targets(self, gold: FloatArray, scores: list[float] | None) -> FloatArray:
        teacher = softmax(np.array(scores, np.float32)) if scores else None
        if not gold.sum():
            assert teacher is not None
            return teacher
        own: FloatArray = gold / gold.sum()
        return own if teacher is None else (1 - self.distillation_weight) * own + self.distillation_weight * teacher


def ranking_requests(queries: list[str], passages: list[str], direction: Direction) -> tuple[ScoreRequest, ...]:
    """One request for each passage, the queries as its labels; or, where passages are the labels, for each query."""
    texts, labels = (queries, passages) if direction == "passage-as-label" else (passages, queries)
    return tuple(ScoreRequest(text, tuple(labels), long_text="truncate") for text in texts)


def fact_request(record: FactRecord) -> ScoreRequest:
    """The evidence as text; the claim, and the claim denied, as labels."""
    return ScoreRequest(record.premise, claim_labels(record.hypothesis), long_text="truncate")


def softmax(logits: FloatArray) -> FloatArray:
    """Shares of float32 ``logits``, same shape, sum 1."""
    raised = np.exp(logits - logits.max())
    shares: FloatArray = raised / raised.sum()
    return shares
