"""Evaluation of a model on records: ties count against it, in rankings and among labels alike."""

from __future__ import annotations

from itertools import permutations

import pytest
from fakes import ConstantScorer, OverlapScorer

from gliclass_rerank.training.data.records import LabelRecord, PoolRecord, RankingRecord
from gliclass_rerank.training.evaluate import evaluate


@pytest.mark.parametrize("relevance", list(permutations([1.0, 0.0, 0.0])))
def test_a_constant_model_ranks_the_answer_last_wherever_it_stands(relevance: tuple[float, ...]) -> None:
    report = evaluate(ConstantScorer(0.0), [PoolRecord(("q",), ("a", "b", "c"), (relevance,))]).ranking
    assert report is not None
    assert [report.mrr, report.ndcg] == pytest.approx([1 / 3, 0.5])


@pytest.mark.parametrize("weights", list(permutations([1.0, 0.0, 0.0])))
def test_a_constant_model_gets_no_label_right_wherever_it_stands(weights: tuple[float, ...]) -> None:
    report = evaluate(ConstantScorer(0.0), [LabelRecord("t", ("a", "b", "c"), weights)]).labels
    assert report is not None
    assert (report.top1, report.classes.micro_f1, report.classes.accuracy) == (0, 0, 0)


def test_a_tie_of_right_labels_is_right_and_a_clear_answer_as_well() -> None:
    records = [LabelRecord("copy a file", ("copy", "file", "x y"), (1.0, 1.0, 0.0)), LabelRecord("t", ("t",), (1.0,))]
    for record in records:
        report = evaluate(OverlapScorer(), [record]).labels
        assert report is not None
        assert report.top1 == 1


def test_what_is_clear_is_ranked_by_score() -> None:
    record = RankingRecord("copy a file", ("copy a file",), ("sort a list", "x"))
    report = evaluate(OverlapScorer(), [record]).ranking
    assert report is not None
    assert (report.mrr, report.ndcg) == (1, 1)
