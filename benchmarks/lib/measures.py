"""Metrics in addition to `gliclass_rerank.metrics.decisions`: best thresholds, intervals, significance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gliclass_rerank.metrics.decisions import ClassificationReport, auroc, classification_report

PERMUTATIONS = 10_000
CHUNK = 1000  # permutations in memory at once
RESAMPLES = 1_000
LEVEL = 0.95  # of the intervals


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


def interval(
    statistic: Callable[[Sequence[NDArray[np.intp]]], float], sizes: Sequence[int], *, seed: int = 7
) -> tuple[float, float]:
    """Bootstrap interval of a statistic, between the percentiles of `LEVEL`.

    Args:
        statistic: from indices of the drawn items of each group; NaN for a draw that has none, which is left out.
        sizes: number of items of each group. Each is drawn anew, with replacement.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    found = [statistic([rng.integers(0, size, size) for size in sizes]) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(found, [50 - 50 * LEVEL, 50 + 50 * LEVEL])
    return float(low), float(high)


def mean_interval(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Bootstrap interval of the mean of the groups' means."""
    arrays = [np.asarray(group, np.float64) for group in groups]
    return interval(
        lambda drawn: float(np.mean([array[chosen].mean() for array, chosen in zip(arrays, drawn, strict=True)])),
        [len(array) for array in arrays],
    )


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
