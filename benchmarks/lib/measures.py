"""Measures beside those of `gliclass_rerank.metrics.decisions`: thresholds, and whether a difference is chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from gliclass_rerank.metrics.decisions import ClassificationReport, auroc, classification_report

PERMUTATIONS = 10_000
CHUNK = 1000  # permutations held in memory at a time


def auroc_if_both(scores: ArrayLike, outcomes: ArrayLike) -> float | None:
    """`auroc`, in [0, 1]; None where only one outcome occurs."""
    return auroc(scores, outcomes) if len(np.unique(outcomes)) == 2 else None


def report_on(gold: Sequence[int], predicted: Sequence[int]) -> ClassificationReport:
    """How well one label each was given; macro F1 is over the labels that occur or were given, as in scikit-learn."""
    labels = sorted({*gold, *predicted})
    return classification_report([{label} for label in gold], [{label} for label in predicted], labels)


def best_threshold(scores: ArrayLike, positive: ArrayLike) -> float:
    """The score t whose rule "score >= t is positive" has the best balanced accuracy; the lowest of equals.

    Args:
        scores: shape (items,).
        positive: bool, shape (items,), with items of both kinds.
    """
    numbers, held = np.asarray(scores, np.float64), np.asarray(positive, bool)
    thresholds = np.unique(numbers)
    found = (numbers[held] >= thresholds[:, None]).mean(axis=1)
    spared = (numbers[~held] < thresholds[:, None]).mean(axis=1)
    return float(thresholds[np.argmax(found + spared)])


def permutation_p(differences: ArrayLike, *, permutations: int = PERMUTATIONS, seed: int = 7) -> float:
    """Two-sided p of the mean of paired differences, by flipping their signs at random (Fisher's test).

    Args:
        differences: one a query, shape (queries,).
        permutations: flips that are drawn; p is at least 1 / (permutations + 1).
        seed: of the flips.
    """
    values = np.asarray(differences, np.float64)
    rng = np.random.default_rng(seed)
    observed = abs(values.sum()) - 1e-12  # sums in another order may differ in their last digits
    extreme = 0
    for start in range(0, permutations, CHUNK):
        signs = 2 * rng.integers(0, 2, (min(CHUNK, permutations - start), len(values))) - 1
        extreme += int(np.count_nonzero(np.abs(signs @ values) >= observed))
    return (extreme + 1) / (permutations + 1)
