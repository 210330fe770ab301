"""Measures of decisions: by hand, and against scikit-learn."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliclass_rerank import InputError
from gliclass_rerank.metrics.decisions import auroc, balanced_accuracy, classification_report, confusion

LABELS = ("a", "b", "c", "d")

label = st.sampled_from(LABELS)
single = st.lists(st.tuples(label, label), min_size=1, max_size=20)
multi = st.lists(st.tuples(st.frozensets(label), st.frozensets(label)), min_size=1, max_size=20)


def split(pairs: Any) -> tuple[list[Any], list[Any]]:
    true, predicted = zip(*pairs, strict=True)
    return list(true), list(predicted)


def indicator(examples: list[frozenset[str]]) -> Any:
    return np.array([[name in example for name in LABELS] for example in examples], int)


@given(multi)
def test_multi_label_agrees_with_scikit_learn(pairs: Any) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    true, predicted = split(pairs)
    report = classification_report(true, predicted, LABELS)
    rows = indicator(true), indicator(predicted)
    for average in ("macro", "micro", "weighted"):
        expected = sklearn_metrics.f1_score(*rows, average=average, zero_division=0)
        assert getattr(report, f"{average}_f1") == pytest.approx(expected)
    assert report.accuracy == pytest.approx(sklearn_metrics.accuracy_score(*rows))
    columns = sklearn_metrics.precision_recall_fscore_support(*rows, zero_division=0)
    for i, (scores, name) in enumerate(zip(report.classes, LABELS, strict=True)):
        assert scores.label == name
        found = scores.precision, scores.recall, scores.f1, scores.support
        assert found == pytest.approx(tuple(float(column[i]) for column in columns))


@given(single)
def test_single_label_agrees_with_scikit_learn(pairs: Any) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    true, predicted = split(pairs)
    report = classification_report([{name} for name in true], [{name} for name in predicted], LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for average in ("macro", "micro", "weighted"):
            expected = sklearn_metrics.f1_score(true, predicted, labels=LABELS, average=average, zero_division=0)
            assert getattr(report, f"{average}_f1") == pytest.approx(expected)
        expected = sklearn_metrics.balanced_accuracy_score(true, predicted)
        assert balanced_accuracy(true, predicted) == pytest.approx(expected)
        expected = sklearn_metrics.confusion_matrix(true, predicted, labels=LABELS)
    assert confusion(true, predicted, LABELS).tolist() == expected.tolist()
    assert report.accuracy == pytest.approx(sklearn_metrics.accuracy_score(true, predicted))


@given(st.lists(st.tuples(st.integers(-5, 5) | st.floats(-1e9, 1e9), st.booleans()), min_size=2, max_size=30))
def test_auroc_agrees_with_scikit_learn(pairs: Any) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    scores, outcomes = split([*pairs, (0, True), (1, False)])
    assert auroc(scores, outcomes) == pytest.approx(sklearn_metrics.roc_auc_score(outcomes, scores))


def test_a_report_by_hand() -> None:
    report = classification_report([{"a"}, {"a", "b"}, set()], [{"a"}, {"b", "c"}, set()], ["a", "b", "c", "d"])
    assert [(one.precision, one.recall, one.support) for one in report.classes] == [
        (1, 0.5, 2), (1, 1, 1), (0, 0, 0), (0, 0, 0),
    ]  # fmt: skip
    assert [one.f1 for one in report.classes] == pytest.approx([2 / 3, 1, 0, 0])
    assert report.macro_f1 == pytest.approx((2 / 3 + 1) / 4)
    assert report.micro_f1 == pytest.approx(4 / 6)
    assert report.weighted_f1 == pytest.approx((2 * 2 / 3 + 1) / 3)
    assert report.accuracy == pytest.approx(2 / 3)


def test_labels_may_be_indices() -> None:
    named = classification_report([{"a"}, {"b"}], [{"a"}, {"a"}], ["a", "b"])
    numbered = classification_report([{0}, {1}], [{0}, {0}], range(2))
    assert (named.macro_f1, named.accuracy) == (numbered.macro_f1, numbered.accuracy)


def test_nothing_to_find_and_nothing_found_is_zero() -> None:
    report = classification_report([set()], [set()], LABELS)
    assert (report.macro_f1, report.micro_f1, report.weighted_f1, report.accuracy) == (0, 0, 0, 1)


def test_the_others_by_hand() -> None:
    true, predicted = ["s", "s", "r", "s"], ["s", "n", "r", "s"]
    assert balanced_accuracy(true, predicted) == pytest.approx((2 / 3 + 1) / 2)
    assert confusion(true, predicted, ["s", "r", "n"]).tolist() == [[2, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert confusion(true, predicted, ["s", "r", "n"]).dtype == np.int64
    assert auroc([1.0, 2.0, 3.0], [False, True, True]) == 1
    assert auroc([1.0, 1.0], [False, True]) == 0.5
    assert auroc([3, 2, 2, 1], [False, True, False, True]) == pytest.approx(0.5 / 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: classification_report([], [], ["a"]), "got 0, 0"),
        (lambda: classification_report([{"a"}], [], ["a"]), "got 1, 0"),
        (lambda: classification_report([{"a"}], [{"b"}], ["a"]), "predicted: expected labels of 'a', got 'b'"),
        (lambda: classification_report([{"a"}], [{"a"}], ["a", "a"]), "each once"),
        (lambda: classification_report([{"a"}], [{"a"}], []), "at least one"),
        (lambda: classification_report(["a"], [{"a"}], ["a"]), "true: expected a set"),  # type: ignore[list-item]
        (lambda: balanced_accuracy([], []), "got 0, 0"),
        (lambda: confusion(["a"], ["b"], ["b"]), "true: expected labels of 'b', got 'a'"),
        (lambda: confusion(["a"], ["a", "a"], ["a"]), "got 1, 2"),
        (lambda: auroc([], []), "scores: expected at least one"),
        (lambda: auroc([1.0], [True]), "all of them hold"),
        (lambda: auroc([1.0, float("nan")], [True, False]), "scores: expected finite"),
        (lambda: auroc([1.0, 2.0], [1, 0]), "booleans"),
    ],
)
def test_what_cannot_be_measured(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
