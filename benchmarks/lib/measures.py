"""Metrics in addition to `gliclass_rerank.metrics.decisions`: best thresholds and significance of differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from gliclass_rerank.metrics.decisions import ClassificationReport, auroc, classification_report

PERMUTATIONS = 10_000
CHUNK = 1000  # permutations in memory at once


def auroc_if_both(scores: ArrayLike, outcomes: ArrayLike) -> float | None:
    """`auroc`, in [0, 1], None if only one outcome occurs."""
    return auroc(scores, outcomes) if len(np.unique(outcomes)) == 2 else None


def report_on(gold: Sequence[int], predicted: Sequence[int]) -> ClassificationReport:
    """Report on single-label predictions. Macro F1 is over the gold and predicted labels, as in scikit-learn."""
    labels = sorted({*gold, *predicted})
    return classification_report([{label} for label in gold], [{label} for label in predicted], labels)


def best_threshold(scores: ArrayLike, positive: ArrayLike) -> float:
    """Score t whose rule "score >= t is positive" has the best balanced accuracy, the lowest in case of ties.

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
    """Two-sided p of the mean of paired differences, by random sign flips (Fisher's permutation test).

    Args:
        differences: one per query, shape (queries,).
        permutations: number of random sign flips, so that p is at least 1 / (permutations + 1).
        seed: of the sign flips.
    """
    values = np.asarray(differences, np.float64)
    rng = np.random.default_rng(seed)
    observed = abs(values.sum()) - 1e-12  # sums in another order may differ in their last digits
    extreme = 0
    for start in range(0, permutations, CHUNK):
        signs = 2 * rng.integers(0, 2, (min(CHUNK, permutations - start), len(values))) - 1
        extreme += int(np.count_nonzero(np.abs(signs @ values) >= observed))
    return (extreme + 1) / (permutations + 1)
