"""Metrics of decisions: classification reports, balanced accuracy, confusion, AUROC, as in scikit-learn.

Ranking metrics (nDCG, MRR) are in `ranking`, the calibration error in `gliclass_rerank.calibration`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gliclass_rerank.errors import InputError
from gliclass_rerank.validation import check_both_occur, scores_and_outcomes


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Scores of one label.

    Attributes:
        label: as given by the caller.
        precision: share of the examples predicted with the label that have it, in [0, 1]; 0 if it was never predicted.
        recall: share of the examples with the label that were predicted with it, in [0, 1]; 0 if no example has it.
        f1: harmonic mean of the two, in [0, 1]; 0 if both are 0.
        support: number of examples with the label.
    """

    label: Hashable
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class ClassificationReport:
    """Scores over all labels, in [0, 1] each.

    Attributes:
        macro_f1: mean of the labels' F1; a label that is neither true nor predicted anywhere counts as 0.
        micro_f1: F1 over all decisions about any label.
        weighted_f1: mean of the labels' F1, weighted by their support; 0 if no example has a label.
        accuracy: share of the examples whose labels are exactly right.
        classes: each label's own scores, in the order of the labels.
    """

    macro_f1: float
    micro_f1: float
    weighted_f1: float
    accuracy: float
    classes: tuple[ClassScores, ...]


def classification_report(
    true: Sequence[AbstractSet[Hashable]], predicted: Sequence[AbstractSet[Hashable]], labels: Sequence[Hashable]
) -> ClassificationReport:
    """Compare predicted labels with true ones. Equals scikit-learn's f1_score with ``labels`` and ``zero_division=0``.

    Args:
        true: labels of each example, names or indices: one for single-label, any number for multi-label tasks.
        predicted: predicted labels of each example, in the same order.
        labels: all possible labels, each once.

    Raises:
        InputError: no examples, other lengths, repeated labels, or one that is not in ``labels``.
    """
    _check_lengths(true, predicted)
    has, given = _indicator(true, labels, "true"), _indicator(predicted, labels, "predicted")
    hits, supports, gifts = (has & given).sum(axis=0), has.sum(axis=0), given.sum(axis=0)
    precision, recall = _ratio(hits, gifts), _ratio(hits, supports)
    f1 = _ratio(2 * hits, supports + gifts)
    classes = tuple(
        ClassScores(label, float(precision[i]), float(recall[i]), float(f1[i]), int(supports[i]))
        for i, label in enumerate(labels)
    )
    return ClassificationReport(
        macro_f1=float(f1.mean()),
        micro_f1=float(_ratio(2 * hits.sum(), supports.sum() + gifts.sum())),
        weighted_f1=float(_ratio((f1 * supports).sum(), supports.sum())),
        accuracy=float((has == given).all(axis=1).mean()),
        classes=classes,
    )


def balanced_accuracy(true: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    """Mean recall over the classes that occur in ``true``, in [0, 1] (Brodersen et al. 2010, without adjustment).

    Args:
        true: the class of each example.
        predicted: the predicted class of each example, in the same order.

    Raises:
        InputError: no examples, or other lengths.
    """
    _check_lengths(true, predicted)
    occurring = list(dict.fromkeys(true))
    counts = confusion(true, predicted, list(dict.fromkeys([*occurring, *predicted])))[: len(occurring)]
    return float(_ratio(counts.diagonal(), counts.sum(axis=1)).mean())


def confusion(
    true: Sequence[Hashable], predicted: Sequence[Hashable], classes: Sequence[Hashable]
) -> NDArray[np.int64]:
    """Count true against predicted classes: int64, shape (classes, classes), a row for each true class.

    Args:
        true: the class of each example.
        predicted: the predicted class of each example, in the same order.
        classes: the order of rows and columns, each once.

    Raises:
        InputError: no examples, other lengths, repeated classes, or one that is not in ``classes``.
    """
    _check_lengths(true, predicted)
    places = _places(classes)
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (_looked_up(true, places, "true"), _looked_up(predicted, places, "predicted")), 1)
    return counts


def auroc(scores: ArrayLike, outcomes: ArrayLike) -> float:
    """Probability that an example with a positive outcome scores above one with a negative outcome, in [0, 1].

    Ties count half: (R - P (P + 1) / 2) / (P N), where R is the sum of the midranks of the P positive examples, with N
    negative ones (Mann and Whitney 1947; Hanley and McNeil 1982).

    Args:
        scores: larger for more probable outcomes, on any scale, shape (examples,).
        outcomes: observed outcomes, booleans, shape (examples,); both must occur.

    Raises:
        InputError: other shapes, none, only one outcome, scores that are not finite, no booleans.
    """
    numbers, held = scores_and_outcomes(scores, outcomes, "scores")
    check_both_occur(held)
    _, places, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    midranks = np.cumsum(counts) - (counts - 1) / 2
    positive, negative = int(held.sum()), int((~held).sum())
    above = float(midranks[places][held].sum()) - positive * (positive + 1) / 2
    return above / (positive * negative)


def _check_lengths(true: Sequence[object], predicted: Sequence[object]) -> None:
    if not len(true) or len(true) != len(predicted):
        raise InputError(
            f"expected examples, each with a true and a predicted value, got {len(true)}, {len(predicted)}"
        )


def _places(labels: Sequence[Hashable]) -> dict[Hashable, int]:
    places = {label: place for place, label in enumerate(labels)}
    if not places or len(places) != len(labels):
        raise InputError(f"labels: expected at least one and each once, got {list(labels)!r:.80}")
    return places


def _looked_up(values: Iterable[Hashable], places: dict[Hashable, int], what: str) -> list[int]:
    try:
        return [places[value] for value in values]
    except KeyError as error:
        known = ", ".join(map(repr, places))
        raise InputError(f"{what}: expected labels of {known:.80}, got {error.args[0]!r:.60}") from error


def _indicator(examples: Sequence[AbstractSet[Hashable]], labels: Sequence[Hashable], what: str) -> NDArray[np.bool_]:
    """Indicator of the labels of each example: shape (examples, labels)."""
    places = _places(labels)
    indicator = np.zeros((len(examples), len(labels)), np.bool_)
    for row, example in zip(indicator, examples, strict=True):
        if not isinstance(example, AbstractSet):
            raise InputError(f"{what}: expected a set of labels for each example, got {example!r:.60}")
        row[_looked_up(example, places, what)] = True
    return indicator


def _ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """Part divided by whole, 0 for an empty whole, of the arguments' shape."""
    wholes = np.asarray(whole, np.float64)
    return np.divide(part, wholes, out=np.zeros_like(wholes), where=wholes > 0)
