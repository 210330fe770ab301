"""Answers to questions: probabilities of logits, calibrated by type and number of options, and a confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.calibration.calibrators import Calibrator, calibrated, sigmoid
from gliclass_rerank.tasks.decide.questions import Choice, Noul, Question, Score
from gliclass_rerank.tasks.decide.state import Json

Floats = NDArray[np.float64]
BUCKETS = ((2, "2"), (5, "3-5"), (10, "6-10"))
"""Largest number of options, and the name of the range; more are "11+"."""


@dataclass(frozen=True, slots=True)
class NoulAnswer:
    """The answer to a `Noul`.

    Attributes:
        probability: of yes, in [0, 1].
        readable: the model's vocabulary covers words of the state and of the question; otherwise the answer is
            meaningless.
    """

    probability: float
    readable: bool = True

    def as_dict(self) -> dict[str, object]:
        """The answer as JSON values, in the form of `/v1/systemone`: without ``readable``."""
        return {"type": "noul", "noul": self.probability}


@dataclass(frozen=True, slots=True)
class ChoiceAnswer:
    """The answer to a `Choice`.

    Attributes:
        choice: the most probable option, the first of equals.
        probabilities: of each option, in [0, 1], in the order of the options. They sum to 1.
        confidence: in [0, 1], see `choice_confidence`.
        readable: as of `NoulAnswer`.
    """

    choice: str
    probabilities: Mapping[str, float] = field(hash=False)
    confidence: float
    readable: bool = True

    def as_dict(self) -> dict[str, object]:
        """The answer as JSON values, in the form of `/v1/systemone`: without ``readable``."""
        probabilities = dict(self.probabilities)
        return {
            "type": "choice", "choice": self.choice, "probabilities": probabilities, "confidence": self.confidence
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class ScoreAnswer:
    """The answer to a `Score`.

    Attributes:
        score: the expected level, from 0 for the lowest to the number of levels - 1.
        probabilities: of each level, in [0, 1], from low to high. They sum to 1.
        confidence: in [0, 1], see `score_confidence`.
        legend: the levels, from low to high.
        readable: as of `NoulAnswer`.
    """

    score: float
    probabilities: tuple[float, ...]
    confidence: float
    legend: tuple[Json, ...] = field(hash=False)
    readable: bool = True

    def as_dict(self) -> dict[str, object]:
        """The answer as JSON values, in the form of `/v1/systemone`: levels "0", "1" ..., and without ``readable``."""
        legend = {str(level): told for level, told in enumerate(self.legend)}
        probabilities = {str(level): share for level, share in enumerate(self.probabilities)}
        return {
            "type": "score", "score": self.score, "legend": legend, "probabilities": probabilities,
            "confidence": self.confidence,
        }  # fmt: skip


Answer: TypeAlias = "NoulAnswer | ChoiceAnswer | ScoreAnswer"


def task_of(question: Question) -> str:
    """The task of a question's calibrator in calibration.json.

    "noul", or "choice-" or "score-" with the number of options: "2", "3-5", "6-10" or "11+".
    """
    if isinstance(question, Noul):
        return "noul"
    bucket = next((name for most, name in BUCKETS if len(question.labels) <= most), "11+")
    return f"{'choice' if isinstance(question, Choice) else 'score'}-{bucket}"


def answer_of(
    question: Question, logits: Floats, readable: bool = True, *, calibration: Mapping[str, Calibrator]
) -> Answer:
    """Answer a question.

    A noul's probability is the sigmoid of the calibrated difference of the logits of yes and no. Options and levels
    have the softmax of their calibrated logits. Without a calibrator for the task (`task_of`), logits are taken as
    they are.

    Args:
        question: what was asked.
        logits: raw, one per label of the question.
        readable: value of the answer's ``readable``.
        calibration: calibrators by task.
    """
    raw = np.asarray(logits, np.float64)
    calibrator = calibration.get(task_of(question))
    if isinstance(question, Noul):
        return NoulAnswer(float(sigmoid(calibrated(raw[0] - raw[1], calibrator))), readable)
    log_odds = calibrated(raw, calibrator)
    shares = np.exp(log_odds - log_odds.max())
    shares /= shares.sum()
    probabilities = shares.tolist()
    if isinstance(question, Choice):
        names = list(question.options)
        choice = names[int(raw.argmax())]  # logits still differ where probabilities are rounded to 1
        return ChoiceAnswer(
            choice, dict(zip(names, probabilities, strict=True)), choice_confidence(probabilities), readable
        )
    assert isinstance(question, Score)
    expected = float(np.dot(np.arange(len(shares)), shares))
    return ScoreAnswer(
        expected, tuple(probabilities), score_confidence(probabilities), tuple(question.levels), readable
    )


def choice_confidence(probabilities: Sequence[float]) -> float:
    """``(m - 1/n) / (1 - 1/n)`` for the largest m of n probabilities: 0 if all are equal, 1 if one is 1 or alone.

    The definition is TypeSafe's.
    """
    n = len(probabilities)
    return 1.0 if n == 1 else min(1.0, max(0.0, (max(probabilities) - 1 / n) / (1 - 1 / n)))


def score_confidence(probabilities: Sequence[float]) -> float:
    """1 less the mean distance from the most probable level, over that of equal probabilities from the middle.

    In levels, at least 0, and 1 for a single level: ``max(0, 1 - sum p_i |i - k| / D)``, where k is the most probable
    level and D the mean of ``|i - (n - 1) / 2|``. The definition is TypeSafe's.
    """
    n = len(probabilities)
    if n == 1:
        return 1.0
    levels = np.arange(n)
    shares = np.asarray(probabilities, np.float64)
    distance = float(np.dot(shares, np.abs(levels - int(shares.argmax()))))
    return min(1.0, max(0.0, 1 - distance / float(np.abs(levels - (n - 1) / 2).mean())))
