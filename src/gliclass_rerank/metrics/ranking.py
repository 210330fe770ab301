"""Metrics of rankings, as defined by trec_eval and ir-measures.

Ties count against the model: of equal scores the lower grade comes first (`order_of`). So a model with one score for
everything gains nothing from the order of the items. The area under the ROC curve counts ties half, by its definition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def order_of(scores: ArrayLike, grades: ArrayLike) -> NDArray[np.intp]:
    """Order of the items: the highest score first, and of equal scores the lowest grade first.

    Args:
        scores: finite, shape (items,).
        grades: relevance grade of each, or whether it is right, shape (items,).
    """
    order: NDArray[np.intp] = np.lexsort((np.asarray(grades), -np.asarray(scores, np.float64)))
    return order


def ndcg_at(cutoff: int, ranked: Sequence[float], judged: Sequence[float]) -> float:
    """Normalised discounted cumulative gain, in [0, 1], as trec_eval's ndcg_cut: gains are linear in the grade.

    DCG = sum over ranks r of grade / log2(r + 1). nDCG divides it by the DCG of the best possible order (Järvelin and
    Kekäläinen 2002, with the discount of Burges et al. 2005).

    Args:
        cutoff: ranks that count, > 0.
        ranked: grade of each item of the ranking, best first; 0 for an unjudged item.
        judged: all grades of the query's judgements, in any order, found or not.

    Returns:
        0 if nothing is relevant.
    """
    ideal = _dcg(np.sort(np.asarray(judged, np.float64))[::-1][:cutoff])
    return _dcg(np.asarray(ranked, np.float64)[:cutoff]) / ideal if ideal > 0 else 0.0


def reciprocal_rank_at(cutoff: int, ranked: Sequence[float], *, relevant: float = 1) -> float:
    """One over the rank of the first item whose grade is at least ``relevant``, in [0, 1].

    0 if there is none among the first ``cutoff``. Its mean over queries is MRR (Voorhees 1999), RR in ir-measures.
    """
    hits = np.flatnonzero(np.asarray(ranked, np.float64)[:cutoff] >= relevant)
    return 1.0 / (1 + int(hits[0])) if len(hits) else 0.0


def _dcg(gains: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    ranks = np.arange(1, len(gains) + 1)
    return float((np.maximum(gains, 0) / np.log2(ranks + 1)).sum())
