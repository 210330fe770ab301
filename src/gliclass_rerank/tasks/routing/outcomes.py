"""Decisions with known outcomes: the thresholds that they teach, and how accurate they are.

The gold route of a query is its column in an array of scores, or `NO_ROUTE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.calibration.reliability import expected_calibration_error
from gliclass_rerank.metrics.decisions import ClassScores, auroc, classification_report

NO_ROUTE = -1
MULTI_THRESHOLD = 0.5  # of an unfitted router if several routes may apply
FEW = 10  # queries of a route, up to which its threshold is the general one

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]


# Thresholds


def learned_thresholds(logits: Floats, probabilities: Floats, gold: Ints) -> tuple[Floats, Floats]:
    """Thresholds of each route, in [0, 1], shape (routes,): for one route per query, and for several.

    The general threshold gives the most correct decisions, abstentions included. A route's own threshold moves from
    there towards the best F1 over the queries that the route is best for. How far depends on how many of its own
    queries are among them (`own_threshold`). If several routes may apply, a route's threshold moves from one half
    towards the best F1 over all queries.

    Args:
        logits, probabilities: shape (queries, routes), at least one query.
        gold: shape (queries,).
    """
    routes = logits.shape[1]
    is_gold = gold[:, None] == np.arange(routes)
    best = logits.argmax(axis=1)
    general = best_accuracy(probabilities[np.arange(len(best)), best], best == gold, gold == NO_ROUTE)
    own, multi = np.empty(routes), np.empty(routes)
    for route in range(routes):
        mine, support = best == route, int(is_gold[:, route].sum())
        own[route] = own_threshold(probabilities[mine, route], is_gold[mine, route], support, general)
        multi[route] = own_threshold(probabilities[:, route], is_gold[:, route], support, MULTI_THRESHOLD)
    return own, multi


def best_accuracy(scores: Floats, hits: Bools, nowhere: Bools) -> float:
    """The lowest threshold with the most correct decisions, in [0, 1].

    Args:
        scores: probability of the best route, shape (queries,).
        hits: the best route is gold, shape (queries,).
        nowhere: abstaining is gold, shape (queries,).
    """
    thresholds = candidates(scores)
    routed, _ = _from(scores, hits, thresholds)
    abstained = nowhere.sum() - _from(scores, nowhere, thresholds)[0]
    return float(thresholds[np.argmax(routed + abstained)])


def own_threshold(scores: Floats, hits: Bools, support: int, general: float) -> float:
    """A route's threshold: between the general one and that of the best F1, in [0, 1].

    With n hits it moves the share max(0, 1 - FEW / n) of the way. A handful of queries is too little evidence for a low
    threshold: the best F1 of a single hit has the threshold 0.

    Args:
        scores, hits, support: as for `best_f1`.
        general: the threshold of a route without queries, in [0, 1].
    """
    seen = int(hits.sum())
    if seen <= FEW:
        return general
    best = best_f1(scores, hits, support, near=general)
    assert best is not None
    return general + (1 - FEW / seen) * (best - general)


def best_f1(scores: Floats, hits: Bools, support: int, *, near: float = 0.0) -> float | None:
    """The threshold with the best F1, in [0, 1], or None without hits. Of equals, the nearest to ``near``.

    Args:
        scores: probabilities, shape (decisions,).
        hits: the route is gold, shape (decisions,).
        support: number of queries with this gold route, including any outside ``scores``.
        near: a threshold in [0, 1]; 0 for the lowest.
    """
    if not hits.any():
        return None
    thresholds = np.append(candidates(scores), near)
    true, taken = _from(scores, hits, thresholds)
    f1 = 2 * true / (taken + support)
    equals = thresholds[f1 == f1.max()]
    return float(equals[np.abs(equals - near).argmin()])


def candidates(scores: Floats) -> Floats:
    """Thresholds that separate ``scores``: 0, the midpoints between neighbours, and one between the last and 1."""
    values = np.unique(scores)
    return np.concatenate([[0.0], (values + np.append(values[1:], 1.0)) / 2])


def _from(scores: Floats, marked: Bools, thresholds: Floats) -> tuple[Ints, Ints]:
    """For each threshold, the number of marked scores that reach it, and of all scores that do."""
    order = np.argsort(scores)
    below = np.searchsorted(scores[order], thresholds, side="left")
    passed = np.concatenate([[0], np.cumsum(marked[order])])
    return passed[-1] - passed[below], len(scores) - below


# Accuracy


@dataclass(frozen=True, slots=True)
class RouterReport:
    """Accuracy of routing, one route per query. Rates are in [0, 1].

    Attributes:
        accuracy: share of the queries that got their gold route, abstention included.
        macro_f1: mean of the routes' F1.
        routes: precision, recall, F1 and support of each route, in the order of the routes.
        ece: expected calibration error over all pairs of a query and a route. With many routes most pairs are easy.
        best_ece: the same over the best route of each query alone.
        abstention_auroc: probability that a query with a route scores higher than one without (its best route's
            probability), ties count half; None unless there are both.
        folds: parts that the queries of `Router.fit` were divided into. Each part was decided by what was learned from
            the others; a single query by the router as it was without a fit. 0 for `Router.evaluate`.
    """

    accuracy: float
    macro_f1: float
    routes: tuple[ClassScores, ...]
    ece: float
    best_ece: float
    abstention_auroc: float | None
    folds: int = 0


def judge(
    names: Sequence[str], scores: Floats, probabilities: Floats, thresholds: Floats, gold: Ints, *, folds: int = 0
) -> RouterReport:
    """Compare the predicted routes of queries, one each, with their gold routes.

    Args:
        names: of the routes, each once.
        scores, probabilities: the latter in [0, 1], shape (queries, routes). Scores order the routes of a query.
        thresholds: in [0, 1], shape (routes,) or (queries, routes).
        gold: shape (queries,).
        folds: value of `RouterReport.folds`.
    """
    queries = np.arange(len(scores))
    best = scores.argmax(axis=1)
    reached = probabilities[queries, best]
    routed = reached >= np.broadcast_to(thresholds, scores.shape)[queries, best]
    given: list[set[object]] = [{names[i]} if taken else set() for i, taken in zip(best, routed, strict=True)]
    true: list[set[object]] = [{names[i]} if i != NO_ROUTE else set() for i in gold]
    report = classification_report(true, given, names)
    belongs = gold != NO_ROUTE
    return RouterReport(
        accuracy=report.accuracy,
        macro_f1=report.macro_f1,
        routes=report.classes,
        ece=expected_calibration_error(probabilities.ravel(), (gold[:, None] == np.arange(len(names))).ravel()),
        best_ece=expected_calibration_error(reached, best == gold),
        abstention_auroc=auroc(reached, belongs) if belongs.any() and not belongs.all() else None,
        folds=folds,
    )
