"""Records to training examples: requests for the model, and what its logits should become.

One example holds one or several requests. Their logits, all labels of all requests in order, have targets in
[0, 1] for a binary loss, and may compete with each other in one list for a listwise loss.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from gliclass_rerank.claims import claim_labels
from gliclass_rerank.training.records import FactRecord, LabelRecord, RankingRecord, Record
from gliclass_rerank.types import Direction, FloatArray, ScoreRequest


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """Requests and the targets of their logits.

    Attributes:
        requests: at least one.
        targets: probability that each label holds, float32, shape (all labels of all requests,).
        shares: what each logit should get of a softmax over all of them, float32, same shape, sum 1; or None.
    """

    requests: tuple[ScoreRequest, ...]
    targets: FloatArray
    shares: FloatArray | None


@dataclass(frozen=True, slots=True)
class ExampleMaker:
    """Makes examples of records; everything random comes from the generator given with each.

    Attributes:
        direction: which of query and passage is the text.
        list_size: passages of a ranking example, one positive among them.
        max_labels: labels of a text at most; the true ones are kept, others drawn.
        distill: share of a teacher's softmax in the target of a list, in [0, 1], where a record has scores.
        shuffle: labels in random order.
    """

    direction: Direction = "passage-as-text"
    list_size: int = 6
    max_labels: int = 32
    distill: float = 0.5
    shuffle: bool = True

    def __call__(self, record: Record, rng: random.Random) -> TrainingExample:
        """Make the example of one record."""
        if isinstance(record, RankingRecord):
            return self._ranking(record, rng)
        if isinstance(record, FactRecord):
            request = fact_request(record)
            targets = [float(record.label == "supported"), float(record.label == "refuted")]
            return TrainingExample((request,), np.array(targets, np.float32), None)
        return self._labels(record, rng)

    def _ranking(self, record: RankingRecord, rng: random.Random) -> TrainingExample:
        positive = rng.randrange(len(record.positives))
        others = range(len(record.positives), len(record.passages))
        picked = [positive, *rng.sample(others, min(self.list_size - 1, len(others)))]
        passages = [record.passages[i] for i in picked]
        gold = np.zeros(len(picked), np.float32)
        gold[0] = 1
        scores = [record.scores[i] for i in picked] if record.scores else None
        shares = self._shares(gold, scores) if len(picked) > 1 else None
        return TrainingExample(ranking_requests(record.query, passages, self.direction), gold, shares)

    def _labels(self, record: LabelRecord, rng: random.Random) -> TrainingExample:
        true = [i for i, weight in enumerate(record.weights) if weight > 0]
        false = [i for i, weight in enumerate(record.weights) if weight == 0]
        picked = true[: self.max_labels]
        picked += rng.sample(false, min(self.max_labels - len(picked), len(false)))
        (rng.shuffle if self.shuffle else list.sort)(picked)
        request = ScoreRequest(
            record.text, tuple(record.labels[i] for i in picked), record.prompt, record.examples, long_text="truncate"
        )
        targets = np.array([record.weights[i] for i in picked], np.float32)
        scores = [record.scores[i] for i in picked] if record.scores else None
        # One true label among others competes with them; of several, or none, only a teacher knows the shares.
        if len(picked) < 2 or (scores is None and np.count_nonzero(targets) != 1):
            return TrainingExample((request,), targets, None)
        return TrainingExample((request,), targets, self._shares(targets, scores))

    def _shares(self, gold: FloatArray, scores: list[float] | None) -> FloatArray:
        teacher = softmax(np.array(scores, np.float32)) if scores else None
        if not gold.sum():
            assert teacher is not None
            return teacher
        own: FloatArray = gold / gold.sum()
        return own if teacher is None else (1 - self.distill) * own + self.distill * teacher


def ranking_requests(query: str, passages: list[str], direction: Direction) -> tuple[ScoreRequest, ...]:
    """One request for each passage; or one for all of them where passages are the labels."""
    if direction == "passage-as-label":
        return (ScoreRequest(query, tuple(passages), long_text="truncate"),)
    return tuple(ScoreRequest(passage, (query,), long_text="truncate") for passage in passages)


def fact_request(record: FactRecord) -> ScoreRequest:
    """The evidence as text; the claim, and the claim denied, as labels."""
    return ScoreRequest(record.premise, claim_labels(record.hypothesis), long_text="truncate")


def softmax(logits: FloatArray) -> FloatArray:
    """Shares of float32 ``logits``, same shape, sum 1."""
    raised = np.exp(logits - logits.max())
    shares: FloatArray = raised / raised.sum()
    return shares
