"""Ranking records of `mini`: similar queries over the same passages, with the teacher's logits."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.mini.teacher import PoolQuery, Teacher
from gliclass_rerank.types import FloatArray

TOGETHER = {1: 14, 2: 10, 4: 8, 8: 6}  # queries of a record: passages of a record
SHARES = (0.3, 0.25, 0.25, 0.2)  # of records with each number of queries
NEAR = 12  # of a query's best passages, two are drawn
DEPTHS = ((0, 20), (0, 20), (0, 20), (20, 100))  # ranges of the teacher's ranking for the other passages, in turn
JUDGED_DEPTHS = ((0, 8),) * 4 + ((8, 24),) * 2 + ((24, 80),) * 2  # ranges for the negatives of an evaluation list
SAME = 0.95  # cosine from which two queries count as the same


class Pool:
    """Passages and queries of all sets, and the teacher's scores."""

    def __init__(self, passages: Sequence[str], queries: Sequence[PoolQuery], teacher: Teacher) -> None:
        self.passages, self.queries, self._teacher = passages, queries, teacher
        self._alike = teacher.query_vectors[0]

    def lists(self, chosen: Sequence[int], rng: random.Random) -> Iterator[dict[str, Any]]:
        """For each judged query of ``chosen``, one answer and eight negatives, with the teacher's logits."""
        for q in chosen:
            query = self.queries[q]
            if query.gold:
                logits = self._teacher.logits(q)
                gold = rng.choice(sorted(query.gold))
                picked = [gold, *drawn(logits, JUDGED_DEPTHS, query.gold, rng)]
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
                (count,) = rng.choices(list(TOGETHER), SHARES)
                members = [q, *self._near(q, waiting, count - 1)]
                waiting[members] = False
                yield self._record(members, TOGETHER[count], rng)

    def _near(self, q: int, waiting: NDArray[np.bool_], count: int) -> list[int]:
        cosine = np.where(waiting, self._alike @ self._alike[q], -1.0)
        return [int(i) for i in np.argsort(-cosine)[: count + 8] if i != q and -1 < cosine[i] < SAME][:count]

    def _record(self, members: Sequence[int], size: int, rng: random.Random) -> dict[str, Any]:
        """Answers and near passages of all members first, then passages further down the first member's ranking."""
        logits = [self._teacher.logits(q) for q in members]
        answers = [rng.choice(sorted(self.queries[q].gold)) for q in members if self.queries[q].gold]
        near = [i for row in logits for i in rng.sample(best(row, NEAR), 2)]
        picked = list(dict.fromkeys([*answers[: size // 2], *rng.sample(near, len(near))]))[: size - 2]
        known = self.queries[members[0]].gold | {*picked}
        picked += drawn(logits[0], (DEPTHS * size)[: size - len(picked)], known, rng)
        rng.shuffle(picked)
        return {
            "queries": [self.queries[q].text for q in members],
            "passages": [self.passages[i] for i in picked],
            "relevance": [
                [int(i in self.queries[q].gold) for i in picked] if self.queries[q].gold else None for q in members
            ],
            "scores": [[round(float(row[i]), 2) for i in picked] for row in logits],
        }


def best(logits: FloatArray, count: int) -> list[int]:
    """Indices of the ``count`` highest logits, in descending order."""
    found = np.argpartition(-logits, count)[:count]
    return [int(i) for i in found[np.argsort(-logits[found])]]


def drawn(
    logits: FloatArray, depths: Sequence[tuple[int, int]], without: frozenset[int], rng: random.Random
) -> list[int]:
    """Draw one passage from each range of the ranking by ``logits``, without duplicates or any in ``without``."""
    if not depths:
        return []
    order = best(logits, min(len(logits) - 1, max(end for _, end in depths) + len(without)))
    order = [i for i in order if i not in without]
    chosen: list[int] = []
    for start, end in depths:
        if left := [i for i in order[start:end] if i not in chosen]:
            chosen.append(rng.choice(left))
    return chosen
