"""Head: one score of a route from the logit of its label and the vectors of its examples.

A score is a weighted sum of five features that all routes share. The prior weights make a router profit from examples
before `fit`. They, and the constants here, were chosen on intent and topic sets of the training data (HWU64, SLURP,
DSTC11 insurance, Stack Overflow) with sentence vectors of all-MiniLM-L6-v2 and multilingual-e5-small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.tasks.routing.outcomes import NO_ROUTE, Bools, Floats, Ints
from gliclass_rerank.types import FloatArray

FEATURES = ("label", "nearest", "centroid", "examples", "regression")
PRIOR = np.array([1.0, 3.0, 6.0, 0.0, 0.0])
"""Weights before anything was learned, in log-odds. Larger ones of the cosines are better if all routes have ten
examples, and worse if some have none."""
TYPICAL = 0.3  # cosine at which an example speaks neither for its route nor against it
QUERIES_AT_ONCE = 512

Groups = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Texts with known routes.

    Attributes:
        texts: the same one may be there for several routes.
        vectors: float32, shape (texts, D), rows of length 1.
        owners: index of each text's route, or `NO_ROUTE`, shape (texts,).
    """

    texts: tuple[str, ...]
    vectors: FloatArray
    owners: Ints

    def only(self, kept: Bools) -> Pool:
        """The texts that ``kept``, shape (texts,), marks."""
        texts = tuple(text for text, is_kept in zip(self.texts, kept, strict=True) if is_kept)
        return Pool(texts, self.vectors[kept], self.owners[kept])


@dataclass(frozen=True, slots=True, eq=False)
class Regression:
    """A multinomial logistic regression from vectors to routes.

    Attributes:
        coefficients: float32, shape (classes, D).
        intercepts: float32, shape (classes,).
        owners: index of each class's route, or `NO_ROUTE`, shape (classes,).
    """

    coefficients: FloatArray
    intercepts: FloatArray
    owners: Ints

    def evidence(self, vectors: FloatArray, routes: int) -> Floats:
        """Log-odds of each route less those of chance, shape (queries, routes); 0 for routes without a class."""
        logits = (vectors @ self.coefficients.T + self.intercepts).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        log_shares = np.minimum(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), -1e-12)
        odds = log_shares - np.log(-np.expm1(log_shares)) + np.log(len(self.owners) - 1)
        evidence = np.zeros((len(vectors), routes))
        has_route = self.owners != NO_ROUTE
        evidence[:, self.owners[has_route]] = odds[:, has_route]
        return evidence


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Scores of routes.

    Attributes:
        vectors: of examples, those of a route together, float32, shape (examples, D).
        starts: where each route's examples begin, shape (routes with examples,).
        owners: index of these routes, shape (routes with examples,).
        centroids: their mean directions, float32, shape (routes with examples, D), rows of length 1.
        reliability: n / (n + 1) for n examples, shape (routes,). So a route without any has no evidence for or against.
        weights: of the features, shape (5,).
        regression: None where there are too few examples for one.
    """

    vectors: FloatArray
    starts: Ints
    owners: Ints
    centroids: FloatArray
    reliability: Floats
    weights: Floats
    regression: Regression | None = None

    @classmethod
    def of(cls, pool: Pool, routes: int, weights: Floats = PRIOR, regression: Regression | None = None) -> Head:
        """The head over the texts of a pool that have a route. ``routes``: their number."""
        order = np.argsort(pool.owners, kind="stable")
        order = order[pool.owners[order] != NO_ROUTE]
        vectors = pool.vectors[order]
        owners, starts = np.unique(pool.owners[order], return_index=True)
        sums = np.add.reduceat(vectors, starts, axis=0) if len(starts) else vectors
        centroids = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        counts = np.bincount(pool.owners[order], minlength=routes)
        return cls(vectors, starts, owners, centroids, counts / (counts + 1), weights, regression)

    def features(self, odds: Floats, vectors: FloatArray) -> Floats:
        """Features of queries, shape (queries, routes, 5).

        Args:
            odds: log-odds of the routes' labels, shape (queries, routes).
            vectors: of the queries, shape (queries, D).
        """
        features = np.zeros((*odds.shape, len(FEATURES)))
        features[..., 0] = odds
        if len(self.starts):
            trust = self.reliability[self.owners]
            nearest = np.maximum.reduceat(vectors @ self.vectors.T, self.starts, axis=1)
            features[:, self.owners, 1] = trust * (nearest - TYPICAL)
            features[:, self.owners, 2] = trust * (vectors @ self.centroids.T - TYPICAL)
            features[:, self.owners, 3] = trust
        if self.regression:
            features[..., 4] = self.regression.evidence(vectors, odds.shape[1])
        return features

    def scores(self, odds: Floats, vectors: FloatArray) -> Floats:
        """Scores of routes on the scale of log-odds, shape (queries, routes). Arguments as for `features`."""
        starts = range(0, len(odds), QUERIES_AT_ONCE)
        parts = [slice(start, start + QUERIES_AT_ONCE) for start in starts]
        found = [self.features(odds[part], vectors[part]) @ self.weights for part in parts]
        return np.concatenate([np.empty((0, odds.shape[1])), *found])


def pool_of(labelled: Sequence[tuple[str, FloatArray, int]]) -> Pool:
    """A pool of texts with vector and owner, each pair of text and owner once.

    Texts that the model could not read, whose vectors are zero, are left out.
    """
    distinct = {(text, owner): vector for text, vector, owner in labelled if vector.any()}
    width = len(labelled[0][1]) if labelled else 0
    return Pool(
        tuple(text for text, _ in distinct),
        np.array(list(distinct.values()), np.float32).reshape(len(distinct), width),
        np.array([owner for _, owner in distinct], np.intp),
    )
