"""Ranking records of `mini`: similar queries over passages retrieved by BM25 and dense retrieval.

The teacher's logit of a query and a passage is ``dense * cosine + lexical * BM25 / (best BM25 of the query)``. The two
weights are fitted on the queries with known answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.lib.baselines import BM25
from gliclass_rerank.types import FloatArray

NEAREST = 30  # nearest passages, by each of BM25 and cosine, for fitting the teacher's weights
TOGETHER = (1, 1, 1, 2, 3, 4, 6)  # numbers of queries per record, drawn at random
SHOWN = 5  # passages of a record for training
DEPTHS = ((0, 6), (0, 6), (6, 20), (20, 80), (0, 6))  # ranges of the teacher's ranking, one per drawn passage
JUDGED_DEPTHS = ((0, 8),) * 4 + ((8, 24),) * 2 + ((24, 80),) * 2  # ranges for the negatives of an evaluation list
SAME = 0.95  # cosine from which two queries count as the same
FITTED = 300  # queries of each source for fitting the teacher
GRID = [(dense, lexical) for dense in (10.0, 14.0, 18.0, 22.0, 26.0) for lexical in (0.0, 2.0, 4.0, 6.0, 8.0)]

Encode = Callable[[Sequence[str]], FloatArray]


@dataclass(frozen=True, slots=True)
class PoolQuery:
    """A query, its set, and the indices of its gold passages in the pool, empty without judgments."""

    text: str
    source: str
    gold: frozenset[int]


class Pool:
    """Passages and queries of all sets, and the teacher's scores.

    Args:
        encode: texts to vectors of length 1.
    """

    def __init__(self, passages: Sequence[str], queries: Sequence[PoolQuery], encode: Encode) -> None:
        self.passages, self.queries = passages, queries
        self._bm25 = BM25(passages)
        self._passage_vectors = encode(passages)
        self._query_vectors = encode([query.text for query in queries])
        self._weights = (1.0, 0.0)
        self._weights = self._fit()

    @property
    def teacher(self) -> str:
        """The teacher's formula with the fitted weights."""
        return f"{self._weights[0]:.0f} * cosine + {self._weights[1]:.0f} * BM25 / best BM25"

    def lists(self, chosen: Sequence[int], rng: random.Random) -> Iterator[dict[str, Any]]:
        """For each judged query of ``chosen``, one answer and eight negatives, with the teacher's logits."""
        for q in chosen:
            query, logits = self.queries[q], self._logits(q)
            if query.gold:
                gold = rng.choice(sorted(query.gold))
                picked = [gold, *self._drawn(logits, JUDGED_DEPTHS, query.gold, rng)]
                yield {
                    "query": query.text,
                    "positive": self.passages[gold],
                    "negatives": [self.passages[i] for i in picked[1:]],
                    "scores": [round(float(logits[i]), 2) for i in picked],
                }

    def pools(self, chosen: Sequence[int], rng: random.Random) -> Iterator[dict[str, Any]]:
        """Records of one or several queries over the same passages. Each query of ``chosen`` is in exactly one."""
        waiting = np.zeros(len(self.queries), np.bool_)
        waiting[list(chosen)] = True
        for q in track(rng.sample(chosen, len(chosen)), "ranking records"):
            if waiting[q]:
                members = [q, *self._near(q, waiting, rng.choice(TOGETHER) - 1, rng)]
                waiting[members] = False
                yield self._record(members, rng)

    def _near(self, q: int, waiting: NDArray[np.bool_], count: int, rng: random.Random) -> list[int]:
        cosine = np.where(waiting, self._query_vectors @ self._query_vectors[q], -1.0)
        near = [int(i) for i in np.argsort(-cosine)[: 2 * count + 4] if i != q and -1 < cosine[i] < SAME]
        return rng.sample(near, min(count, len(near)))

    def _record(self, members: Sequence[int], rng: random.Random) -> dict[str, Any]:
        answers = dict.fromkeys(rng.choice(sorted(self.queries[q].gold)) for q in members if self.queries[q].gold)
        picked = list(answers)[:2]
        logits = [self._logits(q) for q in members]
        picked += self._drawn(logits[0], DEPTHS[: SHOWN - len(picked)], self.queries[members[0]].gold | {*picked}, rng)
        rng.shuffle(picked)
        return {
            "queries": [self.queries[q].text for q in members],
            "passages": [self.passages[i] for i in picked],
            "relevance": [
                [int(i in self.queries[q].gold) for i in picked] if self.queries[q].gold else None for q in members
            ],
            "scores": [[round(float(row[i]), 2) for i in picked] for row in logits],
        }

    @staticmethod
    def _drawn(
        logits: FloatArray, depths: Sequence[tuple[int, int]], without: frozenset[int], rng: random.Random
    ) -> list[int]:
        """Draw one passage from each range of the ranking by ``logits``, without duplicates or any in ``without``."""
        order = [int(i) for i in np.argsort(-logits)[: max(end for _, end in depths) + len(without)]]
        order = [i for i in order if i not in without]
        drawn: list[int] = []
        for start, end in depths:
            if left := [i for i in order[start:end] if i not in drawn]:
                drawn.append(rng.choice(left))
        return drawn

    def _logits(self, q: int) -> FloatArray:
        cosine, words = self._parts(q)
        logits: FloatArray = self._weights[0] * cosine + self._weights[1] * words
        return logits

    def _parts(self, q: int) -> tuple[FloatArray, FloatArray]:
        """Cosine, and BM25 divided by its maximum, of every passage, float32, shape (passages,)."""
        words = self._bm25.scores(self.queries[q].text)
        return self._passage_vectors @ self._query_vectors[q], words / max(float(words.max()), 1e-6)

    def _fit(self) -> tuple[float, float]:
        """Fit the weights by a grid search for the highest likelihood of the answers among the nearest passages."""
        of_source: dict[str, list[int]] = {}
        for q, query in enumerate(self.queries):
            if query.gold:
                of_source.setdefault(query.source, []).append(q)
        lists = []
        for q in track([q for queries in of_source.values() for q in queries[:FITTED]], "teacher"):
            cosine, words = self._parts(q)
            near = sorted({*np.argsort(-cosine)[:NEAREST], *np.argsort(-words)[:NEAREST], *self.queries[q].gold})
            lists.append((cosine[near], words[near], np.array([i in self.queries[q].gold for i in near])))

        def likelihood(dense: float, lexical: float) -> float:
            total = 0.0
            for cosine, words, gold in lists:
                shares = np.exp(dense * cosine + lexical * words - dense - lexical)
                total += float(np.log(shares[gold].sum() / shares.sum()))
            return total

        return max(GRID, key=lambda pair: likelihood(*pair))
