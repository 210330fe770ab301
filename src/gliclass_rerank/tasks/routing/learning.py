"""Learn a head: a logistic regression on vectors, the weights of the features, and features out of fold.

Needs scikit-learn, which brings scipy.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from gliclass_rerank.tasks.routing.head import FEATURES, PRIOR, Head, Pool, Regression
from gliclass_rerank.tasks.routing.outcomes import NO_ROUTE, Floats, Ints
from gliclass_rerank.types import FloatArray

EXAMPLES_FOR_REGRESSION = 5  # of a route, on average over the routes that have any
STRENGTH = 10.0  # scikit-learn's C
SPREAD = np.array([1.0, 6.0, 6.0, 3.0, 1.0])
"""Standard deviations of the weights around their prior ones: a few queries move them little."""
FOLDS = 5
LEAVE_ONE_OUT = 20  # most queries that are left out one by one


def folds_of(texts: Sequence[str], names: Sequence[str | None], at_most: int) -> Ints:
    """The fold of each query, shape (queries,): routes are spread evenly, and equal texts share a fold.

    It depends neither on the order of the queries nor on that of the routes.
    """
    drawn = sorted({(name or "", *_drawn(text)) for text, name in zip(texts, names, strict=True)})
    order = dict.fromkeys(text for *_, text in drawn)
    fold = {text: i % at_most for i, text in enumerate(order)}
    return np.array([fold[text] for text in texts], np.intp)


def held_out(texts: Sequence[str], gold: Ints, folds: Ints, fold: int) -> set[str]:
    """The texts of a fold, and one of each route that has queries but none in the fold.

    Otherwise the route of a query could be recognised by the example that it lacks.
    """
    held = {text for text, own in zip(texts, folds, strict=True) if own == fold}
    for route in np.unique(gold[gold != NO_ROUTE]):
        known = sorted({text for text, own in zip(texts, gold, strict=True) if own == route}, key=_drawn)
        if held.isdisjoint(known):
            held.add(known[fold % len(known)])
    return held


def _drawn(text: str) -> tuple[int, str]:
    return zlib.crc32(text.encode()), text


def can_regress(pool: Pool) -> bool:
    """Whether the texts suffice for a regression."""
    owners = pool.owners[pool.owners != NO_ROUTE]
    routes = len(np.unique(owners))
    return routes > 1 and len(owners) >= EXAMPLES_FOR_REGRESSION * routes


def regression_of(pool: Pool) -> Regression | None:
    """Fit a regression on a pool. Texts without a route are a class of their own. None if all are of one class."""
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(pool.owners)) < 2:
        return None
    model = LogisticRegression(C=STRENGTH, tol=1e-3, max_iter=300).fit(pool.vectors, pool.owners)
    coefficients, intercepts = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(model.classes_) == 2:  # scikit-learn has the log-odds of the second class alone
        coefficients, intercepts = (np.concatenate([-array, array]) / 2 for array in (coefficients, intercepts))
    owners = model.classes_.astype(np.intp)
    return Regression(coefficients.astype(np.float32), intercepts.astype(np.float32), owners)


def features_out_of_fold(
    pool: Pool, folds: Ints, texts: Sequence[str], gold: Ints, odds: Floats, vectors: FloatArray
) -> Floats:
    """Features of queries, shape (queries, routes, 5), by heads that know no text of their fold.

    Args:
        pool: routes' examples and the queries themselves.
        folds, gold: of the queries, shape (queries,).
        texts, odds, vectors: of the queries, see `Head.features`.
    """
    regress = can_regress(pool)
    features = np.empty((*odds.shape, len(FEATURES)))
    for fold in np.unique(folds):
        held, mine = held_out(texts, gold, folds, int(fold)), folds == fold
        rest = pool.only(np.array([text not in held for text in pool.texts], bool))
        head = Head.of(rest, odds.shape[1], regression=regression_of(rest) if regress else None)
        features[mine] = head.features(odds[mine], vectors[mine])
    return features


def learned_weights(features: Floats, gold: Ints) -> Floats:
    """Weights of the features, shape (5,), with the highest posterior probability.

    A query chooses among its routes by a softmax of their scores (conditional logit). If some queries belong to no
    route, "none" is a further choice, of score 0. All weights but that of "examples", an intercept, are at least 0.

    Args:
        features: shape (queries, routes, 5).
        gold: shape (queries,).
    """
    from scipy.optimize import minimize

    if (gold == NO_ROUTE).any():
        features = np.concatenate([features, np.zeros((len(features), 1, len(FEATURES)))], axis=1)
    chosen = features[np.arange(len(gold)), gold]  # NO_ROUTE is the last one

    def loss(weights: Floats) -> tuple[float, Floats]:
        scores = features @ weights
        scores -= scores.max(axis=1, keepdims=True)
        shares = np.exp(scores)
        totals = shares.sum(axis=1, keepdims=True)
        shares /= totals
        mine = scores[np.arange(len(gold)), gold]
        away = (weights - PRIOR) / SPREAD**2
        value = float((np.log(totals[:, 0]) - mine).sum() + away @ (weights - PRIOR) / 2)
        return value, np.einsum("qr,qrf->f", shares, features) - chosen.sum(axis=0) + away

    bounds = [(None, None) if name == "examples" else (0, None) for name in FEATURES]
    found: Floats = minimize(loss, PRIOR, jac=True, bounds=bounds, method="L-BFGS-B").x
    return found
