"""The teacher of rankings and vectors: all-MiniLM-L6-v2, multilingual-e5-small and BM25.

Its score of a query and a passage is ``a * cosine by MiniLM + b * cosine by E5 + c * BM25 / best BM25``. The weights
give the known answers the highest likelihood among the nearest passages (a conditional logit). A logistic regression
over the same passages then turns the score into log-odds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression

from benchmarks.lib.baselines import BM25
from benchmarks.mini.encoders import Encoders
from gliclass_rerank.types import FloatArray

NEAREST = 30  # nearest passages by each part, for fitting the weights
FITTED = 300  # queries of each source for fitting
WIDTH = 384  # of the vectors that `mini` learns


@dataclass(frozen=True, slots=True)
class PoolQuery:
    """A query, its set, and the indices of its gold passages, empty without judgments."""

    text: str
    source: str
    gold: frozenset[int]


class Teacher:
    """Scores of queries over a fixed pool of passages."""

    def __init__(self, passages: Sequence[str], queries: Sequence[PoolQuery], encoders: Encoders) -> None:
        self._texts = [query.text for query in queries]
        self._bm25 = BM25(passages)
        minilm, e5 = zip(encoders.passages(passages), encoders.queries(self._texts), strict=True)
        # All vectors of E5 lie in a narrow cone, so that a cosine says little without the others of its query.
        self.passage_vectors, self.query_vectors = zip(minilm, centred(*e5), strict=True)
        lists = self._lists(queries)
        self.weights = conditional_logit(lists)
        scores = np.concatenate([parts @ self.weights for parts, _ in lists])[:, None]
        fitted = LogisticRegression(C=1e4).fit(scores, np.concatenate([gold for _, gold in lists]))
        self.slope, self.bias = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])

    def __str__(self) -> str:
        minilm, e5, words = self.weights
        score = f"{minilm:.1f} * MiniLM + {e5:.1f} * E5 + {words:.1f} * BM25 / best"
        return f"{self.slope:.2f} * ({score}) {self.bias:+.1f}"

    def logits(self, q: int) -> FloatArray:
        """Log-odds of every passage being an answer, float32, shape (passages,)."""
        logits: FloatArray = self._parts(q) @ (self.slope * self.weights) + np.float32(self.bias)
        return logits

    def vectors(self) -> tuple[FloatArray, FloatArray]:
        """Target vectors of passages and queries: both encoders side by side, reduced to `WIDTH`, length 1.

        The two parts are weighted as in the score, so that the cosine of two target vectors orders passages as the
        dense part of the teacher does. They are rotated towards MiniLM's vectors, from which `mini` was made.
        """
        scales = np.sqrt(self.weights[:2] / self.weights[:2].sum())
        joined = [
            np.concatenate([part * scale for part, scale in zip(side, scales, strict=True)], 1)
            for side in (self.passage_vectors, self.query_vectors)
        ]
        axes = TruncatedSVD(WIDTH, random_state=0).fit(np.concatenate(joined)).components_
        reduced = [side @ axes.T for side in joined]
        rotation, _ = orthogonal_procrustes(reduced[0], self.passage_vectors[0])
        reduced = [side @ rotation for side in reduced]
        passages, queries = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in reduced)
        return passages, queries

    def _parts(self, q: int) -> FloatArray:
        """Both cosines, and BM25 divided by its maximum, of every passage, float32, shape (passages, 3)."""
        words = self._bm25.scores(self._texts[q])
        pairs = zip(self.passage_vectors, self.query_vectors, strict=True)
        cosines = [of_passages @ of_queries[q] for of_passages, of_queries in pairs]
        return np.stack([*cosines, words / max(float(words.max()), 1e-6)], 1).astype(np.float32)

    def _lists(self, queries: Sequence[PoolQuery]) -> list[tuple[FloatArray, NDArray[np.bool_]]]:
        """Parts of the nearest passages of some queries with answers, and which of the passages are answers."""
        of_source: dict[str, list[int]] = {}
        for q, query in enumerate(queries):
            if query.gold:
                of_source.setdefault(query.source, []).append(q)
        lists = []
        for q in track([q for chosen in of_source.values() for q in chosen[:FITTED]], "teacher"):
            parts = self._parts(q)
            near = sorted({*np.argsort(-parts, axis=0)[:NEAREST].ravel().tolist(), *queries[q].gold})
            lists.append((parts[near], np.array([i in queries[q].gold for i in near])))
        return lists


def centred(*sides: FloatArray) -> tuple[FloatArray, ...]:
    """Vectors of several kinds of texts without their common mean, of length 1 again."""
    mean = np.concatenate(sides).mean(0)
    return tuple((side - mean) / np.linalg.norm(side - mean, axis=1, keepdims=True) for side in sides)


def conditional_logit(lists: Sequence[tuple[FloatArray, NDArray[np.bool_]]]) -> FloatArray:
    """Weights with the highest likelihood that a list's softmax gives its answers, float32, shape (parts,)."""

    def loss(weights: NDArray[np.float64]) -> float:
        scores = [parts @ weights for parts, _ in lists]
        pairs = zip(scores, lists, strict=True)
        return float(sum(logsumexp(row) - logsumexp(row[gold]) for row, (_, gold) in pairs))

    found: FloatArray = minimize(loss, np.full(lists[0][0].shape[1], 8.0)).x.astype(np.float32)
    return found
