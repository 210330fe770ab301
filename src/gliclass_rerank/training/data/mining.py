"""Mine hard negatives: passages similar to a query, by BM25 or by embeddings, that do not answer it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from gliclass_rerank.errors import InputError, OptionError
from gliclass_rerank.training.data.records import RankingRecord

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Function from texts to vectors, float32, shape (texts, D). Dot products are similarities."""


def mine(
    records: Sequence[RankingRecord],
    passages: Sequence[str] = (),
    *,
    embed: Embed | None = None,
    negatives: int = 8,
    nearest: int = 50,
    margin: float = 0.0,
    seed: int = 0,
) -> list[RankingRecord]:
    """Add negatives from all passages to each record: half the nearest, half sampled from near ones.

    The nearest passages are often unmarked answers, hence the sampling and ``margin``. A passage that any record marks
    as an answer to a query is never its negative. Texts that differ only in case and white space count as one.

    Args:
        records: queries and their answers. Their negatives are kept unless a record of the same query marks them as
            answers. A teacher's scores are dropped.
        passages: additional passages to draw from.
        embed: turns texts into vectors (a sentence encoder's ``encode``, for instance). Without it BM25 is used.
        negatives: negatives per record, existing ones included.
        nearest: rank down to which negatives are drawn.
        margin: a negative's similarity must be below (1 - margin) times that of the best answer, in [0, 1). 0 applies
            no limit.
        seed: of the sampling.

    Raises:
        InputError: no records.
        OptionError: a number out of range.
    """
    if not records:
        raise InputError("expected at least one record to mine for, got none")
    if negatives < 1 or nearest < negatives or not 0 <= margin < 1:
        raise OptionError(
            f"expected negatives >= 1, nearest >= negatives and margin in [0, 1), got {negatives}, {nearest}, {margin}"
        )
    pool = _Pool([*(p for record in records for p in record.passages), *passages])
    answers: dict[str, set[int]] = defaultdict(set)
    for record in records:
        answers[_normalised(record.query)] |= pool.places(record.positives)
    similar = _by_vectors(pool.texts, embed) if embed else _by_words(pool.texts)
    rng = random.Random(seed)
    mined = []
    for record, similarity in zip(records, similar([record.query for record in records]), strict=True):
        known = answers[_normalised(record.query)]
        kept = tuple(p for p in record.negatives if not pool.places([p]) & known)
        best = max(similarity[i] for i in pool.places(record.positives))
        taken = known | pool.places(kept)
        near = [int(i) for i in np.argsort(-similarity)[: nearest + len(taken)] if i not in taken]
        near = [i for i in near if not margin or similarity[i] < best * (1 - margin)][:nearest]
        room = max(0, negatives - len(kept))
        hardest, rest = near[: room // 2], near[room // 2 :]
        drawn = rng.sample(rest, min(room - len(hardest), len(rest)))
        new = tuple(pool.texts[i] for i in [*hardest, *drawn])
        mined.append(RankingRecord(record.query, record.positives, kept + new))
    return mined


class _Pool:
    """Passages to draw from. Of those that differ only in case and white space, the first is kept."""

    def __init__(self, passages: Iterable[str]) -> None:
        first: dict[str, str] = {}
        for passage in passages:
            first.setdefault(_normalised(passage), passage)
        self.texts = list(first.values())
        self._places = {key: i for i, key in enumerate(first)}

    def places(self, passages: Iterable[str]) -> set[int]:
        """Indices of these passages in ``texts``."""
        return {self._places[_normalised(passage)] for passage in passages}


def _normalised(text: str) -> str:
    return " ".join(text.casefold().split())


Similar = Callable[[Sequence[str]], Sequence[NDArray[np.float32]]]


def _by_words(pool: Sequence[str]) -> Similar:
    import bm25s

    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(pool), stopwords="en", show_progress=False), show_progress=False)

    def scores(queries: Sequence[str]) -> list[NDArray[np.float32]]:
        split = bm25s.tokenize(list(queries), stopwords="en", return_ids=False, show_progress=False)
        none = np.zeros(len(pool), np.float32)
        known = [[word for word in words if word in index.vocab_dict] for words in split]
        return [index.get_scores(words) if words else none for words in known]

    return scores


def _by_vectors(pool: Sequence[str], embed: Embed) -> Similar:
    vectors = embed(pool)
    return lambda queries: list(embed(queries) @ vectors.T)
