"""The check of a scorer's answer, in every task: a row for each request, a finite logit for each label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from fakes import OverlapScorer

from gliclass_rerank import Classifier, FactChecker, ModelError, NonFiniteError, Reranker, Route, Router, ScoreRequest
from gliclass_rerank.scoring import score_requests
from gliclass_rerank.training.data.records import FactRecord, LabelRecord, RankingRecord, Record
from gliclass_rerank.training.evaluate import evaluate, task_logits
from gliclass_rerank.types import FloatArray, Logits, Scorer

COUNT = r"^the scorer: expected logits for each of \d+ requests, got \d+"
SHAPE = r"^the scorer, request 0: expected shape \(\d+,\), got "

RECORDS: list[Record] = [
    RankingRecord("copy a file", ("copy a file",), ("sort a list",)),
    LabelRecord("copy a file", ("copy", "sort"), (1.0, 0.0)),
    FactRecord("copy a file", "copy a file", "supported"),
]

TASKS: dict[str, Callable[[Scorer], object]] = {
    "rank": lambda scorer: Reranker(scorer).rank("copy a file", ["copy", "a file", "sort"]),
    "rank, passages as labels": lambda scorer: Reranker(scorer).rank(
        ["copy a file", "sort"], ["copy", "a file", "sort"], direction="passage-as-label"
    ),
    "rank with criteria": lambda scorer: Reranker(scorer).rank("copy", ["copy", "sort"], criteria={"sort": 1.0}),
    "route": lambda scorer: Router([Route("copy"), Route("sort")], scorer).route_many(["copy a file", "sort it"]),
    "check": lambda scorer: FactChecker(scorer).check("Copy a file. Sort it.", ["copy a file", "sort it"]),
    "classify": lambda scorer: Classifier(scorer).classify(["copy a file", "sort it"], ["copy", "sort"]),
    "evaluate rankings": lambda scorer: evaluate(scorer, RECORDS[:1]),
    "evaluate labels": lambda scorer: evaluate(scorer, RECORDS[1:2]),
    "evaluate facts": lambda scorer: evaluate(scorer, RECORDS[2:]),
    "calibrate": lambda scorer: task_logits(scorer, RECORDS),
}


class Spoiling(OverlapScorer):
    """Does something to its answer before it gives it."""

    def __init__(self, spoil: Callable[[list[FloatArray]], Any], **options: Any) -> None:
        super().__init__(**options)
        self._spoil = spoil

    def score(self, requests: Sequence[ScoreRequest]) -> Any:
        return self._spoil(super().score(requests))


def with_first(change: Callable[[FloatArray], object]) -> Callable[[list[FloatArray]], list[object]]:
    return lambda rows: [change(rows[0]), *rows[1:]]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda rows: rows[:-1], ModelError, COUNT),
        (lambda rows: [*rows, rows[0]], ModelError, COUNT),
        (lambda rows: [], ModelError, COUNT),
        (lambda rows: None, ModelError, "^the scorer: expected a sequence of logits, got NoneType"),
        (with_first(lambda row: row[:-1]), ModelError, SHAPE + r"\(\d+,\)"),
        (with_first(lambda row: np.append(row, 0)), ModelError, SHAPE + r"\(\d+,\)"),
        (with_first(lambda row: row[:, None]), ModelError, SHAPE + r"\(\d+, 1\)"),
        (with_first(lambda row: row[0]), ModelError, SHAPE + r"\(\)"),
        (with_first(lambda row: ["a"] * len(row)), ModelError, "^the scorer, request 0: expected numbers, got <U1"),
        (with_first(lambda row: [[0], [0, 1]]), ModelError, "^the scorer, request 0: expected numbers, got a list"),
        (with_first(lambda row: row * np.nan), NonFiniteError, "^the scorer, request 0: logit 0 is nan"),
        (with_first(lambda row: np.append(row[:-1], np.inf)), NonFiniteError, r"request 0: logit \d+ is inf"),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_what_was_asked_for_is_refused(
    task: str, spoil: Any, error: type[Exception], message: str
) -> None:
    TASKS[task](OverlapScorer())
    with pytest.raises(error, match=message):
        TASKS[task](Spoiling(spoil))


def test_the_request_that_is_wrong_is_named() -> None:
    requests = [ScoreRequest("copy", ("copy", "sort"))] * 3
    with pytest.raises(ModelError, match=r"^the scorer, request 2: expected shape \(2,\), got \(1,\)"):
        score_requests(Spoiling(lambda rows: [*rows[:2], rows[2][:1]]), requests)
    with pytest.raises(NonFiniteError, match=r"^the scorer, request 1: logit 1 is -inf"):
        score_requests(Spoiling(lambda rows: [rows[0], np.array([0, -np.inf]), rows[2]]), requests)


def test_a_window_that_is_not_finite_is_refused_although_the_best_one_is() -> None:
    """The largest logit hides -inf in another window, which a mean over windows would meet."""
    rows = np.array([[1.0, -np.inf], [0.0, 2.0]], np.float32)
    spoil = with_first(lambda row: Logits.over_windows(rows, [(0, 1), (1, 4)]))
    with pytest.raises(NonFiniteError, match="request 0: logit 1 is -inf"):
        Classifier(Spoiling(spoil)).classify("copy", ["a", "b"], aggregate="mean")


def test_windows_that_are_not_of_these_labels_are_refused() -> None:
    def spoil(row: FloatArray) -> Logits:
        logits = Logits.over_windows(np.zeros((2, 2), np.float32), [(0, 1), (1, 4)])
        logits.per_window = np.zeros((1, 2), np.float32)
        return logits

    with pytest.raises(ModelError, match=r"request 0: expected shape \(2, 2\) over its windows, got \(1, 2\)"):
        Classifier(Spoiling(with_first(spoil))).classify("copy", ["a", "b"])


def test_what_is_right_comes_through_as_it_is() -> None:
    requests = [ScoreRequest("copy a file now", ("copy", "sort")), ScoreRequest("sort", ("copy",))]
    scorer = OverlapScorer(window=2)
    for row, expected in zip(score_requests(scorer, requests), scorer.score(requests), strict=True):
        assert isinstance(row, Logits)
        assert isinstance(expected, Logits)
        assert (row.tolist(), row.spans, row.truncated) == (expected.tolist(), expected.spans, expected.truncated)
        assert row.per_window.tolist() == expected.per_window.tolist()


@pytest.mark.parametrize("make", [list, tuple, iter, lambda rows: [row.tolist() for row in rows], np.stack])
def test_any_sequence_of_numbers_is_understood(make: Callable[[list[FloatArray]], Any]) -> None:
    requests = [ScoreRequest("copy a file", ("copy", "sort"))] * 2
    rows = score_requests(Spoiling(make), requests)
    assert [row.tolist() for row in rows] == [row.tolist() for row in OverlapScorer().score(requests)]


def test_nothing_to_score_is_nothing() -> None:
    assert score_requests(OverlapScorer(), []) == []
